"""What a server may be asked for: the limits of one request, and the ranges of its options."""

from __future__ import annotations

from dataclasses import dataclass

from da6401.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may cost."""

    megabytes: float = 32  # of its body
    files: int = 64
    megapixels: float = 50  # of each picture
    seconds: float = 30  # to send it; and as long again to wait for the answer

    @property
    def body_bytes(self) -> int:
        """Of a whole request."""
        return int(self.megabytes * 1e6)


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How pictures of concurrent requests are given to the model together."""

    batch: int = 16  # pictures that the model takes at once, at most
    wait_ms: float = 2  # that a picture waits for others where the model is idle


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a server listens, and how it leaves."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    drain: float = 1.0  # seconds after SIGTERM in which connections are still accepted, and /health says "stopping"


RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "drain": (0, 3600),
    "megabytes": (0.001, 1024),
    "files": (1, 1000),
    "megapixels": (0.001, 89),  # Pillow's own limit
    "seconds": (0.1, 3600),
    "batch": (1, 1024),
    "wait_ms": (0, 1000),
}


def check_ranges(*options: Place | Limits | Batching) -> None:
    """Raises UserError that names every option outside its range."""
    problems = []
    for each in options:
        for name, value in vars(each).items():
            if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:  # NaN too
                low, high = RANGES[name]
                problems.append(f"--{name.replace('_', '-')} {value:g}: must be from {low:g} to {high:g}")
    if problems:
        raise UserError("serve: " + "; ".join(problems))
