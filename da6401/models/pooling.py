"""Adaptive average pooling with a deterministic gradient on CUDA."""

# B batch, C channels, H height, W width

from __future__ import annotations

import torch
from torch import Tensor, nn


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """nn.AdaptiveAvgPool2d, made of operations that have a deterministic gradient on every device.

    On CUDA torch's own sums its gradient in no fixed order, and `trainer.deterministic` refuses it. On a CPU it is
    deterministic and is used as it is, so that results there stay the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if input.device.type == "cpu" else pooled(input, self.output_size)


def pooled(x_BCHW: Tensor, size: int | tuple[int | None, ...] | None) -> Tensor:
    """The means of (height, width) windows with the borders of torch's adaptive pooling; None keeps a side."""
    height, width = size if isinstance(size, tuple) else (size, size)
    rows = _means_along(x_BCHW, -2, height or x_BCHW.shape[-2])
    return _means_along(rows, -1, width or x_BCHW.shape[-1])


def _means_along(x: Tensor, dim: int, count: int) -> Tensor:
    side = x.shape[dim]
    if side == count:
        return x
    borders = ((place * side // count, -(-(place + 1) * side // count)) for place in range(count))
    return torch.stack([x.narrow(dim, first, end - first).mean(dim) for first, end in borders], dim)
