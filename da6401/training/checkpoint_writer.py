"""Writes best.pt and last.pt during a training: together, and so seldom that writing costs little of its time."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from da6401.errors import RunError
from da6401.runs.run_folder import AVERAGE, BEST, LAST, PREVIOUS, PREVIOUS_BEST
from da6401.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from da6401.training.state import TrainingState

PATIENCE = 20  # a write is due when so many times its own duration have passed since the last one
FIRST_GUESS = 0.02, 1.5e-8  # seconds of a write, and more for each byte, before one has been measured


class Checkpoints(Protocol):
    """What keeps a training's state."""

    @property
    def age(self) -> float: ...

    def save(self, *, best: Mapping[str, Tensor] | None = None, now: bool = False) -> None: ...

    def flush(self) -> None: ...

    def save_average(self, weights: Mapping[str, Tensor], probabilities_NK: Tensor) -> None: ...


class NoCheckpoints:
    """Of a process whose state another one keeps."""

    age = 0.0

    def save(self, *, best: Mapping[str, Tensor] | None = None, now: bool = False) -> None:
        pass

    def flush(self) -> None:
        pass

    def save_average(self, weights: Mapping[str, Tensor], probabilities_NK: Tensor) -> None:
        pass


class CheckpointWriter:
    """Writes the state of the last epoch and of the best one, or copies them to memory until a write is due.

    Call ``flush`` when the training ends, however it ends. A killed process loses what was only in memory: the run
    resumes from the files, which belong together, and reaches the same bits.

    Args:
        about: plain values stored beside the state.
        trainable: the names in the model's state dict of what training changes; all else needs no copy.
    """

    def __init__(
        self, out: Path, state: TrainingState, *, about: Mapping[str, Any], trainable: Collection[str]
    ) -> None:
        self.out = out
        self.state = state
        self.about = dict(about)
        validated = state.validated_model.state_dict()
        models = [state.model, state.validated_model, *([state.end_average.model] if state.end_average else [])]
        each = (item for model in models for item in model.state_dict().items())
        self._frozen = {tensor.data_ptr() for name, tensor in each if name not in trainable}
        fixed, a_byte = FIRST_GUESS
        self._cost = fixed + a_byte * sum(tensor.nbytes for tensor in validated.values())
        self._written = time.perf_counter()
        self._best: Checkpoint | None = None
        self._last: Checkpoint | None = None

    @property
    def age(self) -> float:
        """Seconds since the last write."""
        return time.perf_counter() - self._written

    def save(self, *, best: Mapping[str, Tensor] | None = None, now: bool = False) -> None:
        """Take the state as it is, and write it now or when it is due.

        Args:
            best: where this epoch is the best so far, what is kept besides its weights: "probabilities", (N, K), of the
                validation images, where they were not trained on.
        """
        self._last = self.state.checkpoint()
        if best is not None:
            weights, epoch = self.state.validated_model.state_dict(), self.state.history.epochs_run
            self._best = {"model": weights, "epoch": epoch, **best}
        if now or self.age >= PATIENCE * self._cost:
            self.flush()
        else:
            self._last = self._copy(self._last)
            self._best = self._best if best is None else self._copy(self._best)

    def flush(self) -> None:
        """Write what is in memory.

        Raises:
            WriteError: a file cannot be written; the old files are still there.
        """
        if self._last is None:
            return
        started = time.perf_counter()
        if self._best is not None:
            save_checkpoint(self.out / BEST, {**self.about, **self._best}, previous=self.out / PREVIOUS_BEST)
            self._best = None
        # A kill here leaves a best.pt that is newer than last.pt: settle_best then takes the one before.
        save_checkpoint(self.out / LAST, {**self.about, **self._last}, previous=self.out / PREVIOUS)
        self._last = None
        self._written = time.perf_counter()
        self._cost = self._written - started

    def save_average(self, weights: Mapping[str, Tensor], probabilities_NK: Tensor) -> None:
        """Write average.pt: the mean of the last epochs' weights, and what it answers on the validation images (N, K).

        Raises:
            WriteError: it cannot be written.
        """
        save_checkpoint(self.out / AVERAGE, {**self.about, "model": weights, "probabilities": probabilities_NK})

    def _copy(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.data_ptr() in self._frozen else value.detach().to("cpu", copy=True)
        if isinstance(value, Mapping):
            return {name: self._copy(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item) for item in value]
        return value


def settle_best(run: Path, epoch: int | None) -> None:
    """Make best.pt that of ``epoch``, the best epoch of the state that the run resumes from; None: there is none yet.

    Raises:
        RunError: it cannot be read.
    """
    if epoch is None:
        (run / BEST).unlink(missing_ok=True)
        return
    problems = []
    for name in (BEST, PREVIOUS_BEST):
        try:
            found = load_checkpoint(run / name).get("epoch")
        except RunError as error:
            problems.append(str(error))
            continue
        if found == epoch:
            if name == PREVIOUS_BEST:
                os.replace(run / name, run / BEST)
            return
        problems.append(f"{run / name} is of epoch {found}, the best is {epoch}")
    raise RunError(f"{run / BEST}: cannot be read ({problems[0]}); to start the run anew, remove {(run / BEST).parent}")
