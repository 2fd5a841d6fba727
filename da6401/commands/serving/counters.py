"""What /metrics says, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Counters:
    """Counted since the start. A registry of its own: a process may have several servers."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("da6401_requests", "answered requests", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "da6401_request_seconds", "from a request's headers to its answer's end", ["path"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.open = Gauge("da6401_open_requests", "requests that are not answered yet", registry=own)
        self.images = Counter("da6401_images", "files of answered requests", ["outcome"], registry=own)
        self.classes = Counter("da6401_predictions", "answers by class", ["class"], registry=own)
        self.waiting = Gauge("da6401_waiting_images", "files that are read, or wait for the model", registry=own)
        self.batch = Histogram(
            "da6401_batch_images", "pictures that the model took at once", buckets=IMAGES, registry=own
        )
        self.model = Histogram("da6401_model_seconds", "of one batch in the model", buckets=SECONDS, registry=own)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)

    def batch_done(self, images: int, seconds: float) -> None:
        """Count a batch of the model."""
        self.batch.observe(images)
        self.model.observe(seconds)
