"""`da6401 serve`: a run's best model at an address of this machine, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from pathlib import Path

import numpy as np

from da6401.commands.predictor import Predictor
from da6401.commands.serving.limits import Batching, Limits, Place, check_ranges
from da6401.data.images import quiet_pillow
from da6401.errors import UserError
from da6401.redact import safe
from da6401.training.device import restore_torch_settings

PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


@restore_torch_settings()
def serve_run(
    folder: Path, place: Place, limits: Limits, batching: Batching, *, tta: bool = False, calibrated: bool = False
) -> int:
    """Serve until Ctrl-C or SIGTERM, which is its normal end; every request that was accepted is answered before.

    Raises:
        UserError: a package is missing, an option out of its range, the run damaged, or the port taken.
    """
    missing = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}, not installed here: pip install 'da6401[serve]'")
    check_ranges(place, limits, batching)
    with listen(place) as listener, quiet_pillow():  # around all threads
        predictor = Predictor.load(folder, tta=tta, calibrated=calibrated)
        predictor.probabilities([np.zeros((3, predictor.size, predictor.size), np.uint8)])  # the first takes longest

        from da6401.commands.serving.app import Service  # needs the extra
        from da6401.commands.serving.server import serve

        service = Service(predictor=predictor, name=safe(folder.name), limits=limits, batching=batching)
        shown = f"[{place.host}]" if ":" in place.host else place.host
        print(
            f"serve: http://{shown}:{listener.getsockname()[1]}/  {safe(folder)}; "
            "POST /predict, GET /health, GET /metrics  (Ctrl-C ends it)",
            flush=True,
        )
        answered = asyncio.run(serve(service, listener, place))
    print(f"serve: ended, {answered} requests answered")
    return 0


def listen(place: Place) -> socket.socket:
    """The socket, bound before the model is loaded: a port that is taken is said at once."""
    problem = f"--host {place.host} --port {place.port}: cannot be used"
    try:
        # The protocol is named: only then asyncio sets TCP_NODELAY, without which an answer's end comes 40 ms later.
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose server has just ended
            listener.bind(address)
            listener.listen()
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, UnicodeError) as error:
        raise UserError(f"{problem} ({error}); choose another, or --port 0 for a free one") from error
