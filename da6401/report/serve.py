"""``da6401 report --watch``: the page at this machine's loopback address, with new data when the folders change."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from da6401.errors import UserError
from da6401.redact import safe
from da6401.report.collect import signature
from da6401.report.contents import report_data
from da6401.report.page import PAGE, as_json, page
from da6401.runs.atomic_files import write_text

HOST = "127.0.0.1"
SECONDS = 1.0  # between two checks of the folders, however many browsers ask


class Source:
    """The newest data, read by the first request after a change. Without ``out`` nothing is written, so that several
    watchers of one folder do not disturb each other."""

    def __init__(self, folders: Sequence[Path], *, out: Path | None, storage: str | None) -> None:
        self.folders, self.out, self.storage = folders, out, storage
        self.lock = threading.Lock()
        self.signature = signature(folders, storage)
        self.checked = time.monotonic()
        self.data = report_data(folders, storage)
        self._write()

    def newest(self) -> dict[str, Any]:
        """The report's data, at most SECONDS old; the last readable one where a folder cannot be read now."""
        with self.lock:
            if time.monotonic() - self.checked > SECONDS:
                try:
                    now = signature(self.folders, self.storage)
                    if now != self.signature:
                        self.data = report_data(self.folders, self.storage)
                        self.signature = now
                        self._write()
                except UserError as error:
                    self.data = {**self.data, "made": f"Not refreshed: {safe(error)}"}
                self.checked = time.monotonic()
            return self.data

    def _write(self) -> None:
        if self.out is not None:
            with PAGE.writing():
                write_text(self.out, page(self.data, live=False))


def serve(folders: Sequence[Path], *, out: Path | None, storage: str | None, port: int) -> int:
    """Serve until Ctrl-C, which is its normal end.

    Raises:
        RunError: a folder that cannot be read, before anything is served. UserError: the port is taken.
    """
    source = Source(folders, out=out, storage=storage)
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(source))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port}: cannot be used ({error}); choose another, or 0 for a free one") from error
    server.daemon_threads = True
    with server:
        print(f"report: http://{HOST}:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("report: ended")
    return 0


def _handler(source: Source) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, ThreadingHTTPServer), "serve made it"
            port = self.server.server_port
            # A page of another site may reach loopback under a name of its own (DNS rebinding), but not under ours.
            if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
                self.send_error(403, "unknown host")
            elif self.path == "/":
                self._send(page(source.newest(), live=True), "text/html; charset=utf-8")
            elif self.path == "/data.json":
                self._send(as_json(source.newest()), "application/json")
            else:
                self.send_error(404)

        def _send(self, text: str, kind: str) -> None:
            content = text.encode("ascii" if kind == "application/json" else "utf-8")
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            known = self.headers.get("If-None-Match") == tag
            self.send_response(304 if known else 200)
            for name, value in (("Content-Type", kind), ("ETag", tag), ("Cache-Control", "no-cache"),
                                ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
                                ("Content-Length", "0" if known else str(len(content)))):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            if not known:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: each browser makes a request every two seconds."""

    return Handler
