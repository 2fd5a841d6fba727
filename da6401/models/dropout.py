"""Dropout of single features that takes little time on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """nn.Dropout, whose masks take a CPU a tenth of the time.

    torch draws a CPU's Bernoulli numbers one after the other: for a batch of features that takes longer than the linear
    layer that reads them, forward and backward. Here 16 random bits decide on each feature, so that the probability is
    a multiple of 2**-16. On other devices, and in torch.compile, it is nn.Dropout itself.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        count = input.numel()
        dropped = min(round(self.p * 2**16), 2**16 - 1)  # of the 2**16 numbers that 16 bits can be
        numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = numbers.view(torch.int16)[:count].view(input.shape) >= dropped - 2**15
        return input * (kept.to(input.dtype) * (2**16 / (2**16 - dropped)))
