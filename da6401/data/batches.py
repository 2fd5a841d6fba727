"""Batches in a seeded order, gathered from memory and copied ahead of the arithmetic."""

# B batch, N images, C = 3 channels, H = W side

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from da6401.data.sources import ImageSet


@dataclass(frozen=True)
class Batch:
    """One step's pictures (uint8, on the device), labels, and their positions in the epoch."""

    images_BCHW: Tensor
    labels_B: Tensor
    rows_B: Tensor


def seeded(*parts: int) -> torch.Generator:
    """A CPU generator of its own for one purpose: seed, purpose, epoch. Nobody else's draws move it."""
    state = 0
    for part in parts:  # a small mixing function, so that neighbouring epochs and purposes share nothing
        state = (state * 6364136223846793005 + part + 1442695040888963407) % 2**64
        state ^= state >> 29
    return torch.Generator().manual_seed(state % 2**63)


def batch_rows(count: int, batch_size: int, *, training: bool) -> list[Tensor]:
    """The positions of each batch of an epoch; the last batch may be smaller.

    In training a last batch of one joins the batch before it: batch norm has no variance of one value.
    """
    rows = [torch.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if training and len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [torch.cat(rows[-2:])]
    return rows


def batches(
    images: ImageSet, *, batch_size: int, device: torch.device, shuffle: torch.Generator | None
) -> Iterator[Batch]:
    """All images once, in a random order for training, or as they stand where ``shuffle`` is None."""
    count = len(images.labels_N)
    order_N = torch.arange(count) if shuffle is None else torch.randperm(count, generator=shuffle)
    ahead: Batch | None = None
    for rows_B in batch_rows(count, batch_size, training=shuffle is not None):
        chosen_B = order_N[rows_B]
        # On CUDA the copy runs while the batch before it is computed: pinned memory, and one batch of lead.
        batch = Batch(_to(images.images_NCHW[chosen_B], device), _to(images.labels_N[chosen_B], device), rows_B)
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
