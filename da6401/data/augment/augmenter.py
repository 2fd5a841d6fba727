"""Augmentation of whole batches on the device, with random parameters of its own for each image."""

# B batch, D random numbers, C = 3 channels, H = W side

from __future__ import annotations

import torch
from torch import Tensor

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.geometry import mirrored
from da6401.data.augment.own_steps import is_on, own_step
from da6401.data.augment.random_table import RandomTable
from da6401.registry import AUGMENTATIONS

CPU_CHUNK = 2**19  # values of a batch that the CPU changes together: what its cache holds
DEFAULTS = AugmentationConfig()  # which change nothing


class Augmenter:
    """Changes batches of uint8 images into float ones in 0..1, each image by its row of the epoch's random table."""

    def __init__(self, cfg: AugmentationConfig, *, count: int, generator: torch.Generator) -> None:
        self.cfg = cfg
        self._table = RandomTable(count, generator)
        used = [
            entry
            for entry in sorted(AUGMENTATIONS.entries.values(), key=lambda entry: entry.order)
            if any(getattr(cfg, key) != getattr(DEFAULTS, key) for key in entry.keys) or is_on(cfg, entry.own)
        ]
        self._on_uint8 = [entry.step for entry in used if not entry.on_float]
        self._on_float = [own_step(entry) if entry.own else entry.step for entry in used if entry.on_float]

    def __call__(self, images_BCHW: Tensor, rows_B: Tensor) -> Tensor:
        """Augment the images at positions ``rows_B`` of the epoch.

        Args:
            images_BCHW: uint8, on any device; left as it is.
        Returns:
            float32 in 0..1, the same shape and device.
        """
        draws = self._table.rows(rows_B)
        for step in self._on_uint8:  # of the whole batch: drawing its boxes takes as long as drawing one
            images_BCHW = step(images_BCHW, draws, self.cfg)
        if images_BCHW.device.type != "cpu":
            return self._as_float(images_BCHW, draws)
        out = torch.empty(images_BCHW.shape)
        length = max(1, CPU_CHUNK // images_BCHW[0].numel())
        for start in range(0, len(out), length):
            part = slice(start, start + length)
            out[part] = self._as_float(images_BCHW[part], draws[part])
        return out

    def mirrored(self, rows_B: Tensor) -> Tensor:
        """Whether the images at positions ``rows_B`` of the epoch are flipped."""
        return mirrored(self._table.rows(rows_B), self.cfg)

    def _as_float(self, images: Tensor, draws: Tensor) -> Tensor:
        images = images / 255
        for step in self._on_float:
            images = step(images, draws, self.cfg)
        return images
