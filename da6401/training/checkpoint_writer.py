"""best.pt and last.pt while a training goes on: together, and not more often than is worth its time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from da6401.errors import RunError
from da6401.runs.run_folder import BEST, LAST, PREVIOUS, PREVIOUS_BEST
from da6401.training.checkpoint import load_checkpoint, save_checkpoint

PATIENCE = 20  # a write waits until so many times its own duration have gone by since the last one
FIRST_GUESS = 0.02, 5e-9  # seconds of a write, and more for each byte, before one has been measured


class Keeper:
    """Keeps the state of the last epoch and of the best one: on the disk, or in memory until a write is due.

    Whoever trains calls ``flush`` when the training ends, however it ends. A process that is killed loses what waits:
    the run then goes on from the files, which belong together, and comes to the same bits.
    """

    def __init__(
        self, out: Path, about: Mapping[str, Any], *, model: Mapping[str, Tensor], still: Iterable[Tensor]
    ) -> None:
        """``still`` are the tensors that no step changes: they need no copy while they wait."""
        self.out = out
        self.about = dict(about)
        self._written = time.perf_counter()
        fixed, a_byte = FIRST_GUESS
        self._cost = fixed + a_byte * sum(tensor.nbytes for tensor in model.values())
        self._still = {tensor.data_ptr() for tensor in still}
        self._best: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] | None = None

    @property
    def age(self) -> float:
        """Seconds since the last write."""
        return time.perf_counter() - self._written

    def keep(self, last: Mapping[str, Any], *, best: Mapping[str, Any] | None = None, now: bool = False) -> None:
        """Take the state of this moment, and of the model where it is the best so far."""
        self._last = last
        self._best = best if best is not None else self._best
        if now or self.age >= PATIENCE * self._cost:
            self.flush()
        else:
            self._last = self._copied(last)
            self._best = self._copied(best) if best is not None else self._best

    def flush(self) -> None:
        """Write what waits.

        Raises:
            WriteError: the disk does not take it; the files before are still there.
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

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.data_ptr() in self._still else value.detach().to("cpu", copy=True)
        if isinstance(value, Mapping):
            return {name: self._copied(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._copied(item) for item in value]
        return value


def settle_best(run: Path, epoch: int | None) -> None:
    """Make best.pt that of ``epoch``, the best of the state that the run goes on from; None: there is none yet.

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
