"""TrivialAugment Wide (arXiv 2103.10158) on a batch: one change of fourteen for each image, at a random strength.

The set, the 31 strengths and the details of each change are torchvision's (``TrivialAugmentWide``); torchvision itself
changes a whole batch alike. Images with the same change are changed together.
"""

# B images with the same change, 3 channels, H = W side

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.colour import blend
from da6401.data.augment.random_table import TRIVIAL
from da6401.registry import augmentation

STRENGTHS = 31

Change = Callable[[Tensor, Tensor], Tensor]  # uint8 images, strength of each in 0..1 or -1..1: uint8 images


@augmentation("trivial_augment_wide", "trivial_augment", order=1)
def trivial_augment_wide(images: Tensor, draws: Tensor, cfg: AugmentationConfig) -> Tensor:
    """uint8 images, left as they are; the changed ones."""
    return trivial_augment(images.clone(), draws[:, TRIVIAL]) if cfg.trivial_augment else images


def trivial_augment(images: Tensor, draws_B3: Tensor) -> Tensor:
    """One random change of each image.

    Args:
        images: uint8 (B, 3, H, W), changed in place.
        draws_B3: uniform in 0..1, on the CPU: for the change, the strength, and its sign.
    """
    change_B = (draws_B3[:, 0] * len(CHANGES)).long()
    strength_B = (draws_B3[:, 1] * STRENGTHS).long() / (STRENGTHS - 1)
    for number, (change, signed) in enumerate(CHANGES.values()):
        chosen = (change_B == number).nonzero().squeeze(1)
        if len(chosen) and change is not None:
            strength = strength_B[chosen]
            if signed:
                strength = torch.where(draws_B3[chosen, 2] < 0.5, -strength, strength)
            rows = chosen.to(images.device, non_blocking=True)
            images[rows] = change(images[rows], strength.to(images.device, non_blocking=True))
    return images


def _affine(images: Tensor, strength: Tensor, rows: Callable[[Tensor, int], list[list[Tensor | float]]]) -> Tensor:
    """Nearest neighbour, black outside.

    Args:
        rows: from the strengths and the side in px the 2 x 3 matrix that maps the result to the source, in -1..1
            coordinates.
    """
    matrix_B23 = torch.stack(
        [
            torch.stack([value + torch.zeros_like(strength) for value in row], dim=1)
            for row in rows(strength, images.shape[-1])
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix_B23, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(torch.uint8)


def _rotate(strength: Tensor, side: int) -> list[list[Tensor | float]]:
    angle = torch.deg2rad(135 * strength)
    return [[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0]]


def _blended(images: Tensor, strength: Tensor, *, to_mean: bool = False, to_grey: bool = False) -> Tensor:
    count = len(images)
    blended = blend(
        images.float().div_(255), 1 + 0.99 * strength,
        to_mean_B=torch.full((count,), to_mean), to_grey_B=torch.full((count,), to_grey),
    )  # fmt: skip
    return blended.mul_(255).add_(1e-3).to(torch.uint8)  # truncated, as torchvision does; the sum absorbs the rounding


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Towards or away from the image smoothed by 3 x 3 pixels; the outermost pixels stay."""
    if images.shape[-1] <= 2:
        return images
    own = images.float()
    kernel = torch.ones(3, 1, 3, 3, device=images.device) / 13
    kernel[:, :, 1, 1] = 5 / 13
    smooth = F.conv2d(own, kernel, groups=3).round_()
    inner = own[:, :, 1:-1, 1:-1]
    inner.add_(smooth.sub_(inner).mul_(-0.99 * strength[:, None, None, None]))
    return own.clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    bits = 8 - (6 * strength).round().to(torch.int32)
    mask = (256 - 2 ** (8 - bits)).to(torch.uint8)
    return images & mask[:, None, None, None]


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    threshold = 255 * (1 - strength)[:, None, None, None]
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    own = images.float()
    low, high = own.amin((2, 3), keepdim=True), own.amax((2, 3), keepdim=True)
    flat = high == low
    low, scale = torch.where(flat, 0.0, low), torch.where(flat, 1.0, (high - low) / 255)
    return own.sub_(low).div_(scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Pillow's histogram equalisation of each channel, in whole numbers."""
    flat = images.flatten(2).long()
    count = flat.shape[2]
    # Counted by sorting: adding in place has no fixed order on CUDA, so that trainer.deterministic refuses it.
    levels = torch.arange(256, device=images.device).expand(*flat.shape[:2], 256).contiguous()
    up_to = torch.searchsorted(flat.sort(2).values, levels, right=True)  # pixels at most as bright as each level
    brightest = (flat == flat.amax(2, keepdim=True)).sum(2, keepdim=True)
    step = (count - brightest) // 255
    table = ((up_to[..., :-1] + step // 2) // step.clamp(min=1)).clamp(0, 255)
    table = F.pad(table, (1, 0))
    return torch.where(step > 0, table.gather(2, flat), flat).to(torch.uint8).view_as(images)


CHANGES: dict[str, tuple[Change | None, bool]] = {  # and whether the strength has a sign
    "identity": (None, False),
    "shear_x": (partial(_affine, rows=lambda s, side: [[1.0, 0.99 * s, 0.99 * s], [0.0, 1.0, 0.0]]), True),
    "shear_y": (partial(_affine, rows=lambda s, side: [[1.0, 0.0, 0.0], [0.99 * s, 1.0, 0.99 * s]]), True),
    "translate_x": (
        partial(_affine, rows=lambda s, side: [[1.0, 0.0, (32 * s).trunc() * (-2 / side)], [0.0, 1.0, 0.0]]), True,
    ),
    "translate_y": (
        partial(_affine, rows=lambda s, side: [[1.0, 0.0, 0.0], [0.0, 1.0, (32 * s).trunc() * (-2 / side)]]), True,
    ),
    "rotate": (partial(_affine, rows=_rotate), True),
    "brightness": (_blended, True),
    "saturation": (partial(_blended, to_grey=True), True),
    "contrast": (partial(_blended, to_mean=True), True),
    "sharpness": (_sharpness, True),
    "posterize": (_posterize, False),
    "solarize": (_solarize, False),
    "autocontrast": (_autocontrast, False),
    "equalize": (_equalize, False),
}  # fmt: skip
