"""uvicorn with an end that loses no request."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from da6401.commands.serving.app import Service, make_app
from da6401.commands.serving.counters import Counters
from da6401.commands.serving.front import LOOPBACK, Connection, Front
from da6401.commands.serving.limits import Place

BACKLOG = 2048  # connections that wait to be accepted
KEEP_ALIVE = 20  # seconds that an idle connection stays open


class Server(uvicorn.Server):
    """Its signals are ``serve``'s, and it takes what waits at the socket before it closes it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: ``serve`` has handlers."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, which would reset the connections that it has not accepted yet: their clients believe
        that they are connected, and may have sent a request."""
        waiting = [connection for listener in sockets or () for connection in _accept_all(listener)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> Connection:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    with suppress(OSError):  # BlockingIOError: there is none
        while True:
            yield listener.accept()[0]


async def serve(service: Service, listener: socket.socket, place: Place) -> int:
    """Serve until SIGINT or SIGTERM; returns how many requests were answered.

    After SIGTERM (as a supervisor or Kubernetes sends it) connections are accepted for ``place.drain`` seconds more,
    /health says 503, and each answer closes its connection: who uses this server can go elsewhere, and no request is
    under way when the socket is closed. A second signal ends it at once.
    """
    front = Front(Counters(), own_hosts=LOOPBACK if place.host in LOOPBACK else ())
    front.app = make_app(service, front)
    config = uvicorn.Config(
        front, http=Connection, lifespan="on", log_config=None, log_level="error", access_log=False, ws="none",
        server_header=False, proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(2 * service.limits.seconds) + 1,
    )  # fmt: skip
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a warning a line of a form that is none
    server, loop = Server(config), asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    def on_signal(drain: float) -> None:
        server.force_exit = front.stopping
        front.stopping = True
        loop.call_later(drain if not server.force_exit else 0, end)

    loop.add_signal_handler(signal.SIGTERM, on_signal, place.drain)
    loop.add_signal_handler(signal.SIGINT, on_signal, 0.0)
    await server.serve(sockets=[listener])
    return front.answered
