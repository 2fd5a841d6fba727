"""What runs ended with, to be compared: all but the times that a clock gives."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from da6401.runs.run_folder import AVERAGE, BEST, LAST, read_metrics, read_result
from da6401.training.checkpoint import load_checkpoint
from da6401.training.signals import StopFlag
from tests.tiny_runs import fit_with

TIMINGS = {"seconds", "images_per_second"}


def epochs(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in read_metrics(folder)]


def outcome(folder: Path) -> tuple[Any, ...]:
    """All of a finished run that must not depend on how often it was stopped, or on what ran before it."""
    result = read_result(folder)
    states = [
        {name: tensor.numpy().tobytes() for name, tensor in (content.get(part) or {}).items()}
        for content in (
            load_checkpoint(folder / which) for which in (LAST, BEST, AVERAGE) if (folder / which).is_file()
        )
        for part in ("model", "average", "end_average")
    ]
    return (
        epochs(folder), states, result.status, result.best_epoch, result.val_accuracy, result.val_loss,
        result.epochs_run, result.weights_sha256, result.best_weights_sha256,
    )  # fmt: skip


class _StopAt(StopFlag):
    """A stop flag that a signal sets before the given batch, counted over the whole run."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left = batch

    def check(self) -> None:
        self.left -= 1
        self.signum = signal.SIGTERM if self.left < 0 else None
        super().check()


def stop_at(batch: int, patch: pytest.MonkeyPatch) -> None:
    """Runs are stopped by a signal before this batch."""
    patch.setattr("da6401.training.run.fit", fit_with(stop=_StopAt(batch)))


def page_data(page: Path) -> dict[str, Any]:
    """What a report's page is drawn from."""
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data
