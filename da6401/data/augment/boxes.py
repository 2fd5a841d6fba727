"""Random rectangles within a square picture, drawn as torchvision draws them, one a picture.

torchvision tries up to ten areas and aspects until a box fits; here all tries are made at once and the first that fits
is taken. All values are on the CPU: they are few, and who needs them elsewhere copies them.
"""

# B batch, T tries

from __future__ import annotations

import math

import torch
from torch import Tensor

TRIES = 10
ERASE_AREA = (0.02, 0.33)
ERASE_RATIO = 1 / 0.3


def crop_boxes(draws_BT: Tensor, places_B2: Tensor, *, least_scale: float, largest_ratio: float, side: int) -> Tensor:
    """RandomResizedCrop's boxes: top, left, height, width in px, int64 (B, 4); where no try fits, the whole picture.

    Args:
        draws_BT: (B, 2 * TRIES), uniform in 0..1; places_B2 likewise, for the box's place.
    """
    height, width = _sizes(draws_BT, (least_scale, 1.0), largest_ratio, side)
    fits = (height >= 1) & (height <= side) & (width >= 1) & (width <= side)
    return _first(height, width, fits, places_B2, side, otherwise=side)


def erase_boxes(draws_BT: Tensor, places_B2: Tensor, *, side: int) -> Tensor:
    """RandomErasing's boxes at torchvision's default ranges, as crop_boxes; where no try fits, height and width 0."""
    height, width = _sizes(draws_BT, ERASE_AREA, ERASE_RATIO, side)
    return _first(height, width, (height < side) & (width < side), places_B2, side, otherwise=0)


def _sizes(draws_BT: Tensor, areas: tuple[float, float], largest_ratio: float, side: int) -> tuple[Tensor, Tensor]:
    """Heights and widths (B, T): area uniform, logarithm of the aspect uniform."""
    area = (areas[0] + (areas[1] - areas[0]) * draws_BT[:, :TRIES].double()) * side**2
    aspect = torch.exp((2 * draws_BT[:, TRIES:].double() - 1) * math.log(largest_ratio))
    return (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()


def _first(height: Tensor, width: Tensor, fits: Tensor, places_B2: Tensor, side: int, *, otherwise: int) -> Tensor:
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1)
    size_B2 = torch.cat([height.gather(1, first), width.gather(1, first)], dim=1)
    size_B2[none] = otherwise
    place_B2 = (places_B2.double() * (side - size_B2 + 1)).floor().long()  # the draws are below 1
    return torch.cat([place_B2, size_B2], dim=1)
