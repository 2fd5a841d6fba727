"""Random erasing, with boxes drawn as torchvision draws them."""

# B batch, T tries, H = W side

from __future__ import annotations

import torch
from torch import Tensor

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.geometry import box_sizes, first_fit
from da6401.data.augment.random_table import ERASE, ERASE_PLACE, ERASE_SIZE
from da6401.registry import augmentation

ERASE_AREA = (0.02, 0.33)
ERASE_RATIO = 1 / 0.3
ERASED = 0.5  # grey: near every backbone's mean


@augmentation("random_erasing", "erase", on_float=True, order=1)
def random_erasing(images: Tensor, draws: Tensor, cfg: AugmentationConfig) -> Tensor:
    """A grey rectangle over part of some float images, in place."""
    if cfg.erase == 0:
        return images
    boxes_B4 = erase_boxes(draws[:, ERASE_SIZE], draws[:, ERASE_PLACE], side=images.shape[-1])
    boxes_B4[draws[:, ERASE] >= cfg.erase] = 0
    top, left, height, width = boxes_B4.to(images.device, non_blocking=True)[:, :, None].unbind(1)
    side = torch.arange(images.shape[-1], device=images.device)
    rows_BH, columns_BW = (side >= top) & (side < top + height), (side >= left) & (side < left + width)
    return images.masked_fill_((rows_BH[:, :, None] & columns_BW[:, None, :])[:, None], ERASED)


def erase_boxes(draws_BT: Tensor, places_B2: Tensor, *, side: int) -> Tensor:
    """RandomErasing's boxes at torchvision's default ranges; where no try fits, height and width are 0."""
    height, width = box_sizes(draws_BT, ERASE_AREA, ERASE_RATIO, side)
    return first_fit(height, width, (height < side) & (width < side), places_B2, side, otherwise=0)
