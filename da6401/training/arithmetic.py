"""Where and how a network computes: device, precision and memory layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from da6401.config.schema import Precision

AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """The same for training, validation and the features of frozen stages: equal bits depend on it."""

    device: torch.device
    precision: Precision = "fp32"
    channels_last: bool = True

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """A context in which torch computes in this precision."""
        dtype = AUTOCAST[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def in_layout(self, x: Tensor) -> Tensor:
        """The same values in this memory layout; tokens and flat features have only one."""
        return x if x.ndim < 4 else x.contiguous(memory_format=self.memory_format)
