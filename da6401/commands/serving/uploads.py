"""The files of a request, read within limits: bytes, files, pixels and time."""

# S side of the square that the model takes, in px

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from da6401.commands.serving.limits import Limits
from da6401.config.schema import Resize
from da6401.data.images import BadImageError, inspect_image, read_image

MULTIPART = "multipart/form-data"
RAW = ("image/", "application/octet-stream")  # one file as the whole body, as `curl --data-binary` sends it
RAW_NAME = "upload"  # such a file has no name
# A progressive JPEG of a camera has about ten scans, and each costs a pass over all its pixels, also an empty one of
# twelve bytes: a small file could keep a core busy for hours.
MAX_SCANS = 200
SCAN = b"\xff\xda"  # within a scan's data a byte of 255 is never followed by this one


class RefusedError(Exception):
    """A request that is answered with a status of 4xx or 503, and why."""

    def __init__(self, status: int, reason: str, *, closes: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.closes = closes  # the rest of the request was not read: the connection can take no other


@dataclass(frozen=True)
class Upload:
    """A file of a request: its name as sent, and its content."""

    name: str
    file: IO[bytes]


class Body:
    """A request's body, counted as it comes."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self.receive, self.limits = request.receive, limits
        self.declared = int(length) if (length := request.headers.get("content-length", "")).isdecimal() else None
        self.waits = request.headers.get("expect", "").lower() == "100-continue"  # until it is asked for the body
        self.bytes = 0
        self.complete = False

    async def message(self) -> Message:
        """As ASGI's ``receive``. Raises RefusedError where it grows too large."""
        message = await self.receive()
        self._count(message)
        if self.bytes > self.limits.body_bytes:
            raise self.too_large()
        return message

    def _count(self, message: Message) -> None:
        self.bytes += len(message.get("body", b""))
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def too_large(self) -> RefusedError:
        return RefusedError(413, f"the request is larger than {self.limits.megabytes:g} MB")

    async def drop_rest(self) -> None:
        """Read on after a refusal, to a limit: most clients send everything before they read an answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.seconds):
                while not self.complete and not self.waits and self.bytes < 4 * self.limits.body_bytes:
                    self._count(await self.receive())


@asynccontextmanager
async def uploads_of(request: Request, limits: Limits) -> AsyncIterator[Sequence[Upload]]:
    """The files of a request; they are closed at the end of the block.

    Raises:
        RefusedError: not sent as this server reads it, too large, too many, or too slow.
    """
    body = Body(request, limits)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    counted = Request(request.scope, body.message)
    try:
        async with asyncio.timeout(limits.seconds):
            if body.declared is not None and body.declared > limits.body_bytes:
                raise body.too_large()
            if kind == MULTIPART:
                uploads = await _of_form(counted, limits)
            elif kind.startswith(RAW):
                uploads = [Upload(RAW_NAME, io.BytesIO(await counted.body()))]
            else:
                raise RefusedError(415, f"send the files as {MULTIPART}, or one file as the body, as image/jpeg")
    except TimeoutError:
        raise RefusedError(408, f"the request did not arrive within {limits.seconds:g} s", closes=True) from None
    except ClientDisconnect:
        raise RefusedError(400, "the client left before the request was complete", closes=True) from None
    except RefusedError as error:
        await body.drop_rest()
        error.closes = not body.complete
        raise
    try:
        yield uploads
    finally:
        for upload in uploads:
            upload.file.close()


async def _of_form(request: Request, limits: Limits) -> list[Upload]:
    try:
        form = await request.form(max_files=limits.files, max_fields=limits.files)
    except HTTPException as error:
        status = 413 if "Too many files" in str(error.detail) else 400
        raise RefusedError(status, f"the form cannot be read: {error.detail}") from error
    except (ValueError, LookupError) as error:  # a charset that is none, a header that is no text
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    values = [value for _, value in form.multi_items()]
    found = [Upload(value.filename or RAW_NAME, value.file) for value in values if isinstance(value, UploadFile)]
    if not found:
        raise RefusedError(400, "no file in the request: send one or several, such as curl -F file=@photo.jpg")
    return found


def read_upload(upload: Upload, limits: Limits, *, size: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """A file's picture as the model takes it, (3, S, S): as read_image gives it.

    Raises:
        RefusedError: 413 where it has too many pixels, 422 where it cannot be read.
    """
    content = upload.file.read()
    try:
        header = inspect_image(io.BytesIO(content), decode=False)
        if header.width * header.height > limits.megapixels * 1e6:
            raise RefusedError(413, f"{header.width} x {header.height} px: more than {limits.megapixels:g} megapixels")
        if header.format == "JPEG" and content.count(SCAN) > MAX_SCANS:
            raise RefusedError(413, f"a JPEG of more than {MAX_SCANS} scans")
        return read_image(content, size=size, resize=resize)
    except BadImageError as problem:
        raise RefusedError(422, problem.reason) from problem
