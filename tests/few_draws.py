"""Large networks with random weights in a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

FEW = 65_537  # numbers that are drawn; a prime, so that no two rows of a weight are alike


def draw_few(patch: pytest.MonkeyPatch) -> None:
    """A large tensor repeats its first random numbers: to draw all of them is most of what a network's making takes."""
    for name in ("uniform_", "normal_", "erfinv_"):
        patch.setattr(torch.Tensor, name, _few(getattr(torch.Tensor, name)))


def _few(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def drawn(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        if tensor.is_meta:  # torch would do its arithmetic in Python
            return tensor
        if tensor.numel() <= FEW or not tensor.is_contiguous():
            return draw(tensor, *given, **named)
        with torch.no_grad():
            flat = tensor.view(-1)
            few = draw(flat[:FEW], *given, **named)
            whole = flat.numel() // FEW * FEW
            flat[:whole].view(-1, FEW)[1:] = few
            flat[whole:] = few[: flat.numel() - whole]
        return tensor

    return drawn
