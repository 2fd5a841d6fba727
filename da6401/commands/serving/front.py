"""What stands before the application: which hosts may ask, how many requests at once, and the end of the service."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from da6401.commands.serving.counters import Counters
from da6401.redact import json_text

PATHS = ("/", "/predict", "/health", "/metrics", "/openapi.json")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADER_SECONDS = 10.0  # for the first request of a connection to arrive
NEW_SECONDS = 1.0  # the same, of a connection that was made just before the server stops
MOST_OPEN = 256  # requests; each may hold a megabyte in memory, and the rest of its files on the disk


class Front:
    """Counts requests, refuses strangers, and says that a connection ends where the server is stopping.

    Args:
        own_hosts: the names that a request may use for this server, or () for any. A page of another site may reach
            loopback under a name of its own (DNS rebinding), and send a form to it, but not under ours.
    """

    def __init__(self, counters: Counters, *, own_hosts: tuple[str, ...]) -> None:
        self.app: ASGIApp | None = None
        self.counters, self.own_hosts = counters, own_hosts
        self.stopping = False
        self.open = self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "set before the server starts"
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                if self.stopping:
                    headers["connection"] = "close"
            await send(message)

        self._count_open(1)
        try:
            refusal = self._refusal(Headers(scope=scope), path)
            if refusal is None:
                await self.app(scope, receive, answer)
            else:
                await _refuse(answer, *refusal)
        finally:
            self._count_open(-1)
            self.answered += 1
            self.counters.requests.labels(path, str(status)).inc()
            self.counters.seconds.labels(path).observe(time.perf_counter() - began)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str] | None:
        if self.own_hosts:
            origin = headers.get("origin")
            if _name(f"//{headers.get('host', '')}") not in self.own_hosts:
                return 403, "this server is asked by another name than its own"
            if origin is not None and _name(origin) not in self.own_hosts:
                return 403, "a page of another site asks"
        if path == "/predict" and self.open > MOST_OPEN:
            return 503, "too many requests at once; try again"
        return None

    def _count_open(self, more: int) -> None:
        self.open += more
        self.counters.open.set(self.open)


class Connection(H11Protocol):
    """A connection whose malformed requests are answered as JSON, and that does not wait for ever for the first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.late = self.loop.call_later(HEADER_SECONDS, self._is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self.late.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: an idle connection is closed; one that has just been made may still bring its request."""
        if self._has_begun():
            super().shutdown()
        else:
            self.loop.call_later(NEW_SECONDS, self._is_late)

    def _is_late(self) -> None:
        if not self._has_begun() and not self.transport.is_closing():
            self.transport.close()

    def _has_begun(self) -> bool:
        cycle: object = self.cycle  # None until the headers of the first request are complete
        return cycle is not None

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP, or has more than 64 KiB of headers."""
        content = json_text({"error": f"{msg} (or its headers are too large)"}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is under way
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _name(address: str) -> str:
    """The host of a URL, without its port; "" where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


async def _refuse(send: Send, status: int, reason: str) -> None:
    content = json_text({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"retry-after", b"1")] * (status == 503)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
