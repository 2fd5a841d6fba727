"""A run folder as plain values, as far as the run went. Nothing here writes or trains."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from da6401.metrics.calibration import read_calibration
from da6401.runs.looks import Look, recorded_looks, with_unrecorded
from da6401.runs.predictions import Predictions, read_predictions
from da6401.runs.run_folder import (
    CALIBRATION,
    CONFIG,
    LOOKS,
    METRICS,
    RECEIPT,
    RESULT,
    TEST_CSV,
    VALIDATION_CSV,
    RunResult,
    read_json,
    read_metrics,
    read_result,
    read_yaml,
)
from da6401.runs.trial_folders import epochs_run, fold_folders

Content = TypeVar("Content")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run folder's content; what is not there yet is empty."""

    folder: Path
    config: dict[str, Any]  # nested; {} where the run has not begun
    result: RunResult | None  # None: unfinished
    epochs: list[dict[str, float]]
    receipt: dict[str, Any]
    predictions: dict[str, Predictions] = field(default_factory=dict)  # by split; {} where they were not asked for
    temperature: float = 1.0  # of calibration.json; 1 where there is none
    looks: Sequence[Look] = ()  # at the test split, the first first

    @property
    def status(self) -> str:
        return self.result.status if self.result else "unfinished"

    @functools.cached_property
    def folds(self) -> list[Path]:
        """The folders of a trial's folds; [] of a run that is one training."""
        return fold_folders(self.folder)

    @property
    def epochs_run(self) -> int:
        """The epochs that were trained, of all folds."""
        return epochs_run(self.folder) if self.folds else len(self.epochs)


def read_run(folder: Path, *, predictions: bool = False) -> RunRecord:
    """A run folder.

    Raises:
        RunError: a file that is there is damaged.
    """
    splits = {"test": TEST_CSV, "validation": VALIDATION_CSV} if predictions else {}
    result = read_cached(folder / RESULT, _result)
    calibration = read_cached(folder / CALIBRATION, read_calibration) if predictions else None
    answers = {split: read_cached(folder / name, read_predictions) for split, name in splits.items()}
    return RunRecord(
        folder=folder,
        config=read_cached(folder / CONFIG, read_yaml) or {},
        result=result,
        looks=with_unrecorded(read_cached(folder / LOOKS, recorded_looks) or [], result),
        epochs=read_cached(folder / METRICS, _epochs) or [],
        receipt=read_cached(folder / RECEIPT, read_json) or {},
        temperature=calibration.temperature if calibration else 1.0,
        predictions={split: found for split, found in answers.items() if found is not None},
    )


def read_cached(path: Path, read: Callable[[Path], Content]) -> Content | None:
    """A file's content, read again only where the file has changed; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return cast(Content, _read(read, path, found.st_mtime_ns, found.st_size))


@functools.lru_cache(maxsize=8192)  # a page that is made again and again reads what is new, not 500 configs
def _read(read: Callable[[Path], object], path: Path, changed: int, size: int) -> object:
    return read(path)


def _result(path: Path) -> RunResult:
    return read_result(path.parent)


def _epochs(path: Path) -> list[dict[str, float]]:
    return read_metrics(path.parent)
