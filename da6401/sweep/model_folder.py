"""The folder `model` of a race: what it holds, and how it is replaced without a moment in which it is half written."""

# N validation images, K classes

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from da6401.config.schema import RunConfig
from da6401.data.sources import load_training_data
from da6401.errors import RunError
from da6401.metrics.calibration import calibrate, write_calibration
from da6401.metrics.scores import accuracy, scores_of
from da6401.runs.atomic_files import explain_write_errors, write_json
from da6401.runs.members import read_members
from da6401.runs.predictions import Predictions, read_predictions, write_predictions
from da6401.runs.run_folder import (
    AVERAGE,
    BEST,
    CALIBRATION,
    CONFIG,
    ENSEMBLE,
    LOOKS,
    METRICS,
    RECEIPT,
    RESULT,
    VALIDATION_CSV,
    RunResult,
    read_result,
    write_result,
)
from da6401.runs.run_lock import new_beside
from da6401.runs.trial_folders import EARLIER, MODEL
from da6401.tune.race import image_losses

log = logging.getLogger(__name__)

ALIKE = 1e-5  # of a probability, which validation.csv rounds
OWN = (ENSEMBLE, CONFIG, RECEIPT, METRICS, RESULT, VALIDATION_CSV, CALIBRATION, LOOKS)  # what each model has anyway

Probabilities = npt.NDArray[np.float64]  # (N, K)


@dataclass(frozen=True)
class Trained:
    """A training whose best weights can be handed over, finished or not."""

    run: Path
    result: RunResult
    epoch: dict[str, float]  # the line of metrics.jsonl of its best epoch


@dataclass(frozen=True)
class Weights:
    """A training's weights: those of its best epoch, or the mean of those of its last ones."""

    run: Path
    checkpoint: str = BEST


@dataclass(frozen=True)
class Option:
    """A model that could be handed over."""

    members: tuple[Weights, ...]
    flips: bool
    probabilities_NK: Probabilities

    @property
    def words(self) -> str:
        """For people."""
        return model_words(self.members, flips=self.flips)


@dataclass(frozen=True)
class HandedOver:
    """What `model` is, for sweep.json and the page."""

    members: tuple[Weights, ...]
    flips: bool
    val_accuracy: float
    alone: float  # the best network's, of its best epoch
    tried: tuple[dict[str, Any], ...] = ()  # each option with its numbers; () where the time was over before

    @property
    def runs(self) -> tuple[Path, ...]:
        """The trainings."""
        return tuple(each.run for each in self.members)

    @property
    def words(self) -> str:
        """For people."""
        return model_words(self.members, flips=self.flips)

    def as_json(self, folder: Path) -> dict[str, Any]:
        """Folders are relative to the sweep's."""
        return {
            **members_json(self.members, folder), "flips": self.flips, "val_accuracy": self.val_accuracy,
            "best_network_alone": self.alone, "options": list(self.tried),
        }  # fmt: skip


def model_words(members: Sequence[Weights], *, flips: bool) -> str:
    """What a model of these networks is, for people."""
    count, averaged = len(members), sum(each.checkpoint == AVERAGE for each in members)
    words = ["the best network" if count == 1 else f"the mean of {count} networks"]
    if averaged:
        words.append("averaged weights" if averaged == count else f"averaged weights in {averaged} of them")
    if flips:
        words.append("images and mirror images")
    return ", ".join(words)


def members_json(members: Sequence[Weights], folder: Path) -> dict[str, list[str]]:
    """Their runs, relative to a sweep's folder, and the checkpoint of each."""
    return {
        "runs": [str(each.run.relative_to(folder)) for each in members],
        "checkpoints": [each.checkpoint for each in members],
    }


def current_model(folder: Path, best: Trained) -> HandedOver | None:
    """What `model` is, where its first network is this training's, as it is now; else None."""
    try:
        members, result = read_members(folder / MODEL), read_result(folder / MODEL)
    except RunError:
        return None
    if members is None:
        return None
    found = tuple(Weights(folder / run, name) for run, name in zip(members.runs, members.checkpoints, strict=True))
    is_same = (result.best_epoch, result.epochs_run) == (best.result.best_epoch, best.result.epochs_run)
    if not is_same or found[0].run != best.run or not all((each.run / each.checkpoint).is_file() for each in found):
        return None
    return HandedOver(found, members.flips, result.val_accuracy or 0.0, best.epoch["val_accuracy"])


def is_current(folder: Path, option: Option, best: Trained) -> bool:
    """Whether `model` is this option already, with the same answers: what was made of it is then still true."""
    current = current_model(folder, best)
    if current is None or (current.members, current.flips) != (option.members, option.flips):
        return False
    try:
        kept_NK = read_predictions(folder / MODEL / VALIDATION_CSV).probabilities_NK
    except RunError:
        return False
    return kept_NK.shape == option.probabilities_NK.shape and np.allclose(kept_NK, option.probabilities_NK, atol=ALIKE)


def write_model(
    folder: Path, option: Option, members: Sequence[Trained], cfg: RunConfig, class_names: Sequence[str], *,
    seconds: float,
) -> None:  # fmt: skip
    """Replace `model`. What was made of the one before, such as its test result or an export, is kept with it in
    `earlier`; its looks at the test split count for this one, too.

    Args:
        cfg: of the first member, as are the class names.
    """
    first = members[0]
    validation = load_training_data(cfg.data).validation
    labels_N = validation.labels_N.numpy()
    views = 2 if option.flips else 1
    probabilities_NK = option.probabilities_NK.astype(np.float32)
    answers = Predictions(tuple(class_names), validation.names, labels_N, probabilities_NK)
    scored = scores_of(answers)
    result = RunResult(
        status="completed", val_accuracy=accuracy(labels_N, option.probabilities_NK),
        val_loss=float(image_losses(labels_N, option.probabilities_NK).mean()), best_epoch=first.result.best_epoch,
        epochs_run=first.result.epochs_run, test_accuracy=None, test_loss=None,
        parameters=sum(each.result.parameters for each in members),
        macs=views * sum(each.result.macs for each in members), seconds=seconds, reason="",
        trainable_parameters=sum(each.result.trainable_parameters for each in members),
        val_metrics=scored.values,
        undefined_metrics={f"val_metrics.{name}": why for name, why in scored.undefined.items()},
    )  # fmt: skip
    new = folder / f".{MODEL}.{os.getpid()}.{threading.get_ident()}"  # also the watchdog's thread may write one
    with explain_write_errors(folder / MODEL):
        new.mkdir(parents=True)
        try:
            write_json(new / ENSEMBLE, {**members_json(option.members, folder), "flips": option.flips})
            for name in (CONFIG, RECEIPT, METRICS):
                shutil.copyfile(first.run / name, new / name)
            write_predictions(new / VALIDATION_CSV, answers)
            write_calibration(new, calibrate(answers))
            write_result(new, result)
            _replace(folder / MODEL, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _replace(place: Path, new: Path) -> None:
    """Let a folder be another one that is complete."""
    with FileLock(place.with_name(f".{place.name}.lock")):
        old = place.with_name(f"{new.name}.old")
        if place.is_dir():
            if (place / LOOKS).is_file():
                shutil.copy2(place / LOOKS, new / LOOKS, follow_symlinks=False)
            if made := sorted(each.name for each in place.iterdir() if each.name not in OWN):
                old = place.parent / EARLIER / place.name
                old = new_beside(old) if old.exists() else old
                old.parent.mkdir(exist_ok=True)
                log.warning("%s is another model now; the one before, with %s, is kept as %s",
                            place, ", ".join(made), old)  # fmt: skip
            os.replace(place, old)
        os.replace(new, place)
    if old.parent == place.parent:
        shutil.rmtree(old, ignore_errors=True)
