"""All that a training has reached and needs to go on, bit for bit: what last.pt holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from da6401.errors import RunError
from da6401.training.optim import WeightAverage


@dataclass
class History:
    """What the finished epochs reached; it lives outside fit, so that a run that dies can still say it."""

    epochs_run: int = 0
    best_epoch: int | None = None
    val_accuracy: float | None = None  # of the best epoch, as is val_loss
    val_loss: float | None = None
    risen_epoch: int = 0  # the last with a higher validation accuracy than all before it
    seconds: float = 0.0  # until the last checkpoint, over all the times that the run was taken up
    parts: int = 1  # a batch is computed in so many parts: more than 1 after the device ran out of memory
    lines: list[dict[str, float]] = field(default_factory=list)  # metrics.jsonl

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go back to the moment of a checkpoint.

        Raises:
            RunError: the checkpoint is of another version.
        """
        values = content.get("history")
        names = {item.name for item in dataclasses.fields(self)}
        if not isinstance(values, dict) or set(values) != names or not _sound(values):
            raise RunError("the last checkpoint is of another version of da6401; start anew in another folder")
        for name, value in values.items():
            setattr(self, name, value)

    def add(self, line: dict[str, float]) -> bool:
        """Take in a finished epoch; whether it is the best: higher validation accuracy, at the same a lower loss."""
        epoch, accuracy, loss = int(line["epoch"]), line["val_accuracy"], line["val_loss"]
        self.lines.append(line)
        self.epochs_run = epoch
        if self.val_accuracy is None or self.val_loss is None or accuracy > self.val_accuracy:
            self.risen_epoch = epoch
        elif (accuracy, -loss) <= (self.val_accuracy, -self.val_loss):
            return False
        self.best_epoch, self.val_accuracy, self.val_loss = epoch, accuracy, loss
        return True


def _sound(values: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's history is made of numbers where History has numbers, and of lines of them."""
    lines = values["lines"]
    numbers = [value for name, value in values.items() if name != "lines" and value is not None]
    whole = [values[name] for name in ("epochs_run", "risen_epoch", "parts")]
    return (
        isinstance(lines, list)
        and all(isinstance(line, dict) for line in lines)
        and all(isinstance(value, (int, float)) for line in lines for value in line.values())
        and all(isinstance(value, (int, float)) for value in numbers)
        and all(isinstance(value, int) and value >= 0 for value in whole)
        and isinstance(values["seconds"], (int, float))
    )


@dataclass
class EpochSums:
    """The sums and counts of the epoch in hand; means are taken at its end."""

    batches: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0

    @property
    def mean_loss(self) -> float:
        """Over the images so far; there is at least one."""
        return self.loss / self.images

    @property
    def accuracy(self) -> float:
        """Share of the images so far whose first label was right."""
        return self.correct / self.images


@dataclass
class TrainingState:
    """The moving parts of a training, together."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    history: History
    device: torch.device
    mixing: torch.Generator  # mixup's draws go on through an epoch; all other draws of an epoch are made at its start
    sums: EpochSums = field(default_factory=EpochSums)

    def checkpoint(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_updates": 0 if self.average is None else self.average.updates,
            "history": dataclasses.asdict(self.history),
            "sums": dataclasses.asdict(self.sums),
            "mixing": self.mixing.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go back to the moment of a checkpoint; its history is restored by itself.

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
