"""The loss of a step, read without waiting for a device that computes asynchronously."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from da6401.errors import DivergedError

LATE = 4  # steps that an asynchronous device may be behind: it never idles, and a divergence is noticed soon


class Reading:
    """The losses and the correct answers of a step's parts, which a device may still be computing.

    On the CPU they are there at once. A CUDA device copies them into pinned memory in its turn, and only ``values``
    waits for that, some steps later.

    Args:
        values_2P: float64, which holds the float32 losses and the counts exactly: the losses of the parts, which sum
            to the batch's mean loss, and their correct answers.
        where: the step, for a message.
    """

    def __init__(self, values_2P: Tensor, *, images: int, where: str) -> None:
        self.images = images
        self.late = values_2P.device.type != "cpu"
        self._where = where
        self._values_2P = values_2P
        self._copied: torch.cuda.Event | None = None
        if self.late:
            self._values_2P, self._copied = copy_to_host(self._values_2P)

    def values(self) -> tuple[float, int]:
        """The batch's mean loss, and how many of its first labels are predicted.

        Raises:
            DivergedError: a loss is not finite.
        """
        if self._copied is not None:
            self._copied.synchronize()
        losses, correct = self._values_2P.tolist()
        total = 0.0
        for value in losses:
            if not math.isfinite(value):
                raise DivergedError(f"the loss is {value} in {self._where}: try a lower optimizer.lr")
            total += value
        return total, int(sum(correct))


def copy_to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A CUDA tensor in pinned memory, and what says that it is there."""
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    pinned.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types
    copied.record(torch.cuda.current_stream(values.device))
    return pinned, copied
