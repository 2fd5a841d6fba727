"""Augmentation of whole batches on the device, with random parameters of its own for each image."""

# B batch, D random numbers, C = 3 channels, H = W side

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.colour import colour_jitter
from da6401.data.augment.geometry import crop_flip_rotate, mirrored, random_erasing
from da6401.data.augment.random_table import RandomTable
from da6401.data.augment.trivial_augment import trivial_augment_wide

CPU_CHUNK = 2**19  # values of a batch that the CPU changes together: what its cache holds

# Images (B, C, H, W), their rows (B, D) of the random table on the CPU, and the keys: the changed images. A step whose
# keys switch it off returns what it was given.
Step = Callable[[Tensor, Tensor, AugmentationConfig], Tensor]


def to_float(images: Tensor, draws: Tensor, cfg: AugmentationConfig) -> Tensor:
    """0..255 as 0..1."""
    return images / 255


STEPS: tuple[Step, ...] = (  # uint8 before to_float, as torchvision does it
    crop_flip_rotate,
    trivial_augment_wide,
    to_float,
    colour_jitter,
    random_erasing,
)


class Augmenter:
    """Changes batches of uint8 images into float ones in 0..1, each image by its row of the epoch's random table."""

    def __init__(self, cfg: AugmentationConfig, *, count: int, generator: torch.Generator) -> None:
        self.cfg = cfg
        self._table = RandomTable(count, generator)

    def __call__(self, images_BCHW: Tensor, rows_B: Tensor) -> Tensor:
        """Augment the images at positions ``rows_B`` of the epoch.

        Args:
            images_BCHW: uint8, on any device; left as it is.
        Returns:
            float32 in 0..1, the same shape and device.
        """
        draws = self._table.rows(rows_B)
        if images_BCHW.device.type != "cpu":
            return self._change(images_BCHW, draws)
        out = torch.empty(images_BCHW.shape)
        length = max(1, CPU_CHUNK // images_BCHW[0].numel())
        for start in range(0, len(out), length):
            part = slice(start, start + length)
            out[part] = self._change(images_BCHW[part], draws[part])
        return out

    def mirrored(self, rows_B: Tensor) -> Tensor:
        """Whether the images at positions ``rows_B`` of the epoch are flipped."""
        return mirrored(self._table.rows(rows_B), self.cfg)

    def _change(self, images: Tensor, draws: Tensor) -> Tensor:
        for step in STEPS:
            images = step(images, draws, self.cfg)
        return images
