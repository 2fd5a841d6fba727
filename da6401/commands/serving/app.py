"""The HTTP interface of a model: /predict, /health, /metrics and the page."""

# K classes

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from da6401 import __version__
from da6401.commands.predictor import Answer, Predictor
from da6401.commands.serving.batcher import Batcher
from da6401.commands.serving.counters import Counters
from da6401.commands.serving.front import Front
from da6401.commands.serving.limits import Batching, Limits
from da6401.commands.serving.uploads import MULTIPART, RefusedError, Upload, read_upload, uploads_of
from da6401.machine.cores import available_cores
from da6401.redact import json_text

MOST_WAITING = 512  # files that are read, or wait for the model; or twice what one request may bring
BODY = {  # for /openapi.json: the handler reads the request by itself
    "requestBody": {
        "required": True,
        "content": {
            MULTIPART: {"schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """A model and how it is served."""

    predictor: Predictor
    name: str  # of its run, shown
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)


class Answering:
    """From files to answers: read in threads, given to the model in batches."""

    def __init__(self, service: Service, counters: Counters) -> None:
        self.service, self.counters = service, counters
        self.batcher = Batcher(
            service.predictor.probabilities,
            size=service.batching.batch,
            wait=service.batching.wait_ms / 1000,
            done=counters.batch_done,
        )
        self.most = max(MOST_WAITING, 2 * service.limits.files)
        self.readers = ThreadPoolExecutor(available_cores(), thread_name_prefix="read")
        self.waiting = 0  # files

    async def answers(self, uploads: list[Upload], top: int | None) -> list[Answer | RefusedError]:
        """Of each file in its order. Raises RefusedError with 503 where too much waits already, or takes too long."""
        seconds = self.service.limits.seconds
        if self.waiting + len(uploads) > self.most:
            raise RefusedError(503, "too many files wait already; try again")
        tasks = [asyncio.ensure_future(self._answer(each, top)) for each in uploads]
        try:
            async with asyncio.timeout(seconds):
                return list(await asyncio.gather(*tasks))
        except TimeoutError:
            raise RefusedError(503, f"no answer within {seconds:g} s: the server is busy; try again") from None
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, upload: Upload, top: int | None) -> Answer | RefusedError:
        predictor, limits = self.service.predictor, self.service.limits
        self._wait(1)
        try:
            pixels = await asyncio.get_running_loop().run_in_executor(
                self.readers, lambda: read_upload(upload, limits, size=predictor.size, resize=predictor.resize)
            )
            probabilities_K = await self.batcher.ask(pixels)
        except RefusedError as problem:
            self.counters.images.labels("refused").inc()
            return problem
        finally:
            self._wait(-1)
        answer = predictor.answer(probabilities_K, top=top)
        self.counters.images.labels("answered").inc()
        self.counters.classes.labels(answer["class"]).inc()
        return answer

    def _wait(self, more: int) -> None:
        self.waiting += more
        self.counters.waiting.set(self.waiting)


def make_app(service: Service, front: Front) -> FastAPI:
    """The application; ``front`` is put before it, and knows whether the server is stopping."""
    answering = Answering(service, front.counters)
    predictor, limits = service.predictor, service.limits
    classes = len(predictor.class_names)
    page, policy = _page(service.name)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(answering.batcher.run())
        yield
        task.cancel()
        await asyncio.wait([task])
        answering.readers.shutdown(cancel_futures=True)

    # Its pages of documentation load scripts from elsewhere.
    app = FastAPI(title="da6401", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _no_such_page)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(Exception, _failed)

    @app.post("/predict", openapi_extra=BODY)
    async def predict(request: Request, top: Annotated[int | None, Query(ge=1)] = None) -> Response:
        """Class and probabilities of one or many files, as `da6401 predict --json` gives them."""
        async with uploads_of(request, limits) as uploads:
            if top is not None and top > classes:
                raise RefusedError(422, f"top: the model has {classes} classes")
            found = await answering.answers(list(uploads), top)
            names = [upload.name for upload in uploads]
        good = [{"image": name, **each} for name, each in zip(names, found, strict=True) if isinstance(each, dict)]
        bad = [(name, each) for name, each in zip(names, found, strict=True) if isinstance(each, RefusedError)]
        if not bad:
            return _json(200, {"predictions": good})
        what = "the file cannot" if len(found) == 1 else f"{len(bad)} of {len(found)} files cannot"
        reasons = [{"image": name, "error": each.reason} for name, each in bad]
        status = max(each.status for _, each in bad)
        return _json(status, {"error": f"{what} be read", "files": reasons, "predictions": good})

    @app.get("/health")
    async def health() -> Response:
        """200 where requests are answered; 503 where the server is about to stop."""
        content = {
            "status": "stopping" if front.stopping else "ok",
            "run": service.name,
            "model": predictor.cfg.model.name,
            "classes": predictor.class_names,
            "image_size": predictor.size,
            "limits": {"megabytes": limits.megabytes, "files": limits.files, "megapixels": limits.megapixels,
                       "seconds": limits.seconds},
            "version": __version__,
        }  # fmt: skip
        return _json(503 if front.stopping else 200, content)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(front.counters.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/")
    async def index() -> Response:
        """The page."""
        headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    return app


def _page(name: str) -> tuple[str, str]:
    """The page's HTML, and what it may load: its own script, and answers of this server."""
    text = resources.files("da6401.commands.serving").joinpath("page.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{known}'; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _json(status: int, content: object, **headers: str) -> Response:
    return Response(json_text(content), status, media_type="application/json", headers=headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError), "registered for it"
    headers = {"connection": "close"} if error.closes else {}
    if error.status == 503:
        headers["retry-after"] = "1"
    return _json(error.status, {"error": error.reason}, **headers)


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    return _json(
        error.status_code, {"error": f"{request.method} {request.url.path}: {error.detail}"}, **(error.headers or {})
    )


async def _bad_query(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for it"
    first: dict[str, Any] = error.errors()[0]
    return _json(422, {"error": f"{first['loc'][-1]}: {first['msg']}"})


async def _failed(_: Request, error: Exception) -> Response:
    """uvicorn writes the traceback: Starlette raises the error again."""
    return _json(500, {"error": "the server failed; its log says why"})
