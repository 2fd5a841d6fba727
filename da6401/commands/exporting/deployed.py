"""The network that is exported, and how far the answers of a file may be from its own."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from da6401.models.ensemble import Ensemble
from da6401.models.stages import StagedModel

# Largest difference to PyTorch, relative to the largest logit where that is above 1. The rounding of float32 comes to
# 1e-7 in a small network and to 1e-4 in fifty badly conditioned layers; an operator that is exported wrongly, to 1e-1.
TOLERANCE = 1e-3
BATCHES = (1, 3)  # sizes at which the files are compared

Answer = Callable[[Tensor], Sequence[Tensor]]  # images (B, C, H, W) -> logits and probabilities, each (B, K)


class Deployed(nn.Module):
    """Images (B, C, H, W), RGB in 0..1 -> logits and probabilities, each (B, K)."""

    def __init__(self, model: StagedModel | Ensemble) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits_BK = self.model(images)
        return logits_BK, logits_BK.softmax(1)


def largest_difference(deployed: Deployed, answer: Answer, image_size: int) -> float:
    """The largest difference of logits and probabilities on random images, as TOLERANCE counts it."""
    generator = torch.Generator().manual_seed(0)
    worst = []
    for size in BATCHES:
        images_BCHW = torch.rand(size, 3, image_size, image_size, generator=generator)
        with torch.inference_mode():
            expected = deployed(images_BCHW)
            scale = max(1.0, float(expected[0].abs().max()))
            for ours, theirs in zip(expected, answer(images_BCHW), strict=True):
                worst.append((ours - theirs).abs().max() / scale)
    return float(torch.stack(worst).max())  # torch's max keeps a NaN


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Within the block the exporters print no warnings: they are about the exporters themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
