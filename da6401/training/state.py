"""The whole state of a training, from which it resumes bit for bit: what last.pt holds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from da6401.config.metrics import Metric
from da6401.errors import RunError
from da6401.runs.run_folder import wrong_fields
from da6401.training.optim import EndAverage, MovingAverage

RENAMED = {"risen_epoch": "last_improved_epoch"}  # in checkpoints of older versions


@dataclass
class History:
    """What the finished epochs reached; it lives outside fit, so that a run that fails can still report it."""

    epochs_run: int = 0
    best_epoch: int | None = None
    val_accuracy: float | None = None  # of the best epoch, as is val_loss
    val_loss: float | None = None
    last_improved_epoch: int = 0  # the last that was better by trainer.metric than all before it
    seconds: float = 0.0  # until the last checkpoint, in all processes that trained the run
    parts: int = 1  # a batch is computed in so many parts: more than 1 after the device ran out of memory
    lines: list[dict[str, float]] = field(default_factory=list)  # metrics.jsonl

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint.

        Raises:
            RunError: the checkpoint is of another version.
        """
        values = content.get("history")
        if isinstance(values, dict):
            values = {RENAMED.get(name, name): value for name, value in values.items()}
        names = {item.name for item in dataclasses.fields(self)}
        if not isinstance(values, dict) or set(values) != names or wrong_fields(History, values):
            raise RunError("the last checkpoint is of another version of da6401; start anew in another folder")
        for name, value in values.items():
            setattr(self, name, value)

    def add(self, line: dict[str, float], metric: Metric) -> bool:
        """Add a finished epoch; whether it is the best: better by the metric, at the same value by a lower loss.

        Where nothing was validated, the last epoch is kept.
        """
        epoch, best = int(line["epoch"]), self._best_line()
        self.lines.append(line)
        self.epochs_run = epoch
        if "val_loss" not in line:
            self.best_epoch = self.last_improved_epoch = epoch
            return True
        if best is None or metric.better(line[metric.name], best[metric.name]):
            self.last_improved_epoch = epoch
        elif line[metric.name] != best[metric.name] or line["val_loss"] >= best["val_loss"]:
            return False
        self.best_epoch, self.val_accuracy, self.val_loss = epoch, line["val_accuracy"], line["val_loss"]
        return True

    def _best_line(self) -> dict[str, float] | None:
        """The numbers of the best epoch so far."""
        return next((line for line in self.lines if line["epoch"] == self.best_epoch), None)


@dataclass
class EpochSums:
    """The sums and counts of an epoch so far; means are taken at its end."""

    batches: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0

    def add(self, *, images: int, loss: float, correct: int) -> None:
        """Add a batch; ``loss`` is the mean over its images."""
        self.batches += 1
        self.images += images
        self.loss += loss * images
        self.correct += correct

    @property
    def mean_loss(self) -> float:
        """Over the images so far; there is at least one."""
        return self.loss / self.images

    @property
    def accuracy(self) -> float:
        """Share of the images so far whose first label was predicted."""
        return self.correct / self.images


@dataclass
class TrainingState:
    """All that training changes, together."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: MovingAverage | None
    end_average: EndAverage | None
    history: History
    device: torch.device
    mixing: torch.Generator  # drawn from batch by batch; all other draws of an epoch are made at its start
    sums: EpochSums = field(default_factory=EpochSums)

    def __post_init__(self) -> None:
        self._started = time.perf_counter() - self.history.seconds

    @property
    def validated_model(self) -> nn.Module:
        """The model that is validated and kept as the best: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def checkpoint(self) -> dict[str, Any]:
        """Tensors and plain values only; brings the history's seconds up to date."""
        self.history.seconds = time.perf_counter() - self._started
        end_average = self.end_average if self.end_average is not None and self.end_average.epochs else None
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_updates": 0 if self.average is None else self.average.updates,
            "end_average": None if end_average is None else end_average.model.state_dict(),
            "end_average_epochs": 0 if end_average is None else end_average.epochs,
            "history": dataclasses.asdict(self.history),
            "sums": dataclasses.asdict(self.sums),
            "mixing": self.mixing.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint; its history is restored by itself.

        Raises:
            RunError: the checkpoint is of another model or optimizer.
        """
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            if self.average is not None:
                self.average.model.load_state_dict(content["average"])
                self.average.updates = content["average_updates"]
            if self.end_average is not None and content.get("end_average") is not None:  # an older version has none
                self.end_average.model.load_state_dict(content["end_average"])
                self.end_average.epochs = content["end_average_epochs"]
            self.sums = EpochSums(**content["sums"])
            self.mixing.set_state(content["mixing"])
            torch.set_rng_state(content["rng"])
            if content["cuda_rng"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(content["cuda_rng"], self.device)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise RunError(
                f"the last checkpoint does not fit this run ({reason}); start anew in another folder"
            ) from error
