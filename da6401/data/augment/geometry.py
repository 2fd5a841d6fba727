"""Crop, flip and rotation, with boxes drawn as torchvision draws them.

torchvision tries up to ten areas and aspects until a box fits; here all tries are made at once, and the first that fits
is taken. Boxes are int64 (B, 4) on the CPU: top, left, height, width in px.
"""

# B batch, T tries, C = 3 channels, H = W side

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.random_table import (
    ANGLE,
    CROP,
    CROP_PLACE,
    FLIP,
    TRIES,
)
from da6401.registry import augmentation


@augmentation("crop_flip_rotate", "flip", "crop_scale", "crop_ratio", "rotate", order=0)
def crop_flip_rotate(images: Tensor, draws: Tensor, cfg: AugmentationConfig) -> Tensor:
    """uint8 images resampled at most once; a flip alone only moves pixels."""
    crops = cfg.crop_scale < 1 or cfg.crop_ratio > 1
    mirrored_B = mirrored(draws, cfg)
    if crops or cfg.rotate > 0:
        boxes_B4 = crop_boxes(
            draws[:, CROP], draws[:, CROP_PLACE], least_scale=cfg.crop_scale, largest_ratio=cfg.crop_ratio,
            side=images.shape[-1],
        )  # fmt: skip
        if cfg.rotate == 0 and images.device.type == "cpu":  # one by one is faster there than one large grid
            return resize_boxes(images, boxes_B4, mirrored_B)
        return resample(images, boxes_B4, (2 * draws[:, ANGLE] - 1) * math.radians(cfg.rotate), mirrored_B)
    if cfg.flip > 0:
        return torch.where(mirrored_B.to(images.device, non_blocking=True)[:, None, None, None], images.flip(3), images)
    return images


def mirrored(draws: Tensor, cfg: AugmentationConfig) -> Tensor:
    """(B,): which images are flipped."""
    return draws[:, FLIP] < cfg.flip


def crop_boxes(draws_BT: Tensor, places_B2: Tensor, *, least_scale: float, largest_ratio: float, side: int) -> Tensor:
    """RandomResizedCrop's boxes; where no try fits, the whole image.

    Args:
        draws_BT: (B, 2 * TRIES), uniform in 0..1, for the size; places_B2 likewise, for the place.
    """
    height, width = box_sizes(draws_BT, (least_scale, 1.0), largest_ratio, side)
    fits = (height >= 1) & (height <= side) & (width >= 1) & (width <= side)
    return first_fit(height, width, fits, places_B2, side, otherwise=side)


def box_sizes(draws_BT: Tensor, areas: tuple[float, float], largest_ratio: float, side: int) -> tuple[Tensor, Tensor]:
    """Heights and widths (B, T): area uniform, logarithm of the aspect uniform."""
    area = (areas[0] + (areas[1] - areas[0]) * draws_BT[:, :TRIES].double()) * side**2
    aspect = torch.exp((2 * draws_BT[:, TRIES:].double() - 1) * math.log(largest_ratio))
    return (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()


def first_fit(height: Tensor, width: Tensor, fits: Tensor, places_B2: Tensor, side: int, *, otherwise: int) -> Tensor:
    """Of each image the first size that fits, placed at random: boxes (B, 4); where none fits, of side `otherwise`."""
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1)
    size_B2 = torch.cat([height.gather(1, first), width.gather(1, first)], dim=1)
    size_B2[none] = otherwise
    place_B2 = (places_B2.double() * (side - size_B2 + 1)).floor().long()  # the draws are below 1
    return torch.cat([place_B2, size_B2], dim=1)


def resize_boxes(images: Tensor, boxes_B4: Tensor, mirrored_B: Tensor) -> Tensor:
    """Each image's box, enlarged to the image's size, and mirrored."""
    side = images.shape[-1]
    out = torch.empty_like(images)
    for row, ((top, left, height, width), flip) in enumerate(zip(boxes_B4.tolist(), mirrored_B.tolist(), strict=True)):
        box = images[row : row + 1, :, top : top + height, left : left + width]
        full = F.interpolate(box, size=(side, side), mode="bilinear", align_corners=False)
        out[row] = (full.flip(3) if flip else full)[0]
    return out


def resample(images: Tensor, boxes_B4: Tensor, angles_B: Tensor, mirrored_B: Tensor) -> Tensor:
    """Crop, flip and rotation in one bilinear resampling: a 2 x 3 affine matrix for each image; angles in radians."""
    side = images.shape[-1]
    top, left, height, width = (boxes_B4.float() / side).unbind(1)
    mirror = torch.where(mirrored_B, -1.0, 1.0)
    cos, sin = angles_B.cos(), angles_B.sin()
    matrix_B23 = torch.stack(
        [
            torch.stack([width * cos * mirror, -width * sin, 2 * left + width - 1], dim=1),
            torch.stack([height * sin * mirror, height * cos, 2 * top + height - 1], dim=1),
        ],
        dim=1,
    ).to(images.device, non_blocking=True)
    grid_BHW2 = F.affine_grid(matrix_B23, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid_BHW2, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)
