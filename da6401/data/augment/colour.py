"""torchvision's ColorJitter on a batch: the factors and the order of the changes are each image's own."""

# B batch, 3 channels, H = W side, P steps

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.random_table import FACTORS, ORDER
from da6401.registry import augmentation

GREY = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@augmentation("colour_jitter", "brightness", "contrast", "saturation", "hue", on_float=True, order=0)
def colour_jitter(images: Tensor, draws: Tensor, cfg: AugmentationConfig) -> Tensor:
    """Changes float images in 0..1 in place."""
    amounts = (cfg.brightness, cfg.contrast, cfg.saturation, cfg.hue)
    return jitter(images, *drawn_changes(draws[:, FACTORS], draws[:, ORDER], amounts))


def drawn_changes(draws_B4: Tensor, order_B4: Tensor, amounts: Sequence[float]) -> tuple[Tensor, Tensor]:
    """A random order of the changes, and random strengths.

    Args:
        draws_B4, order_B4: uniform in 0..1, on the CPU: for the strengths, and for the order.
        amounts: largest changes: factors in 1 - x .. 1 + x, the hue's shift in -x .. x turns; 0 leaves a change out.
    Returns:
        each image's change in each step, int64 (B, P), and its amount (B, P): factor minus 1, or the hue's shift.
    """
    used = [change for change in range(4) if amounts[change] > 0]
    change_BP = torch.tensor(used, dtype=torch.int64)[order_B4[:, used].argsort(1)]
    amount_B4 = (2 * draws_B4 - 1) * torch.tensor(amounts)
    return change_BP, amount_B4.gather(1, change_BP)


def jitter(images: Tensor, change_BP: Tensor, amount_BP: Tensor) -> Tensor:
    """Apply drawn_changes to float images in 0..1, in place.

    Every change but the hue's goes away from or towards a base by a factor: black, the mean grey, or the grey image.
    So one formula serves a batch in which each image has another change.
    """
    for change_B, amount_B in zip(change_BP.unbind(1), amount_BP.unbind(1), strict=True):
        contrast_B, saturation_B, hue_B = change_B == CONTRAST, change_B == SATURATION, change_B == HUE
        blend(images, torch.where(hue_B, 1.0, 1 + amount_B), to_mean_B=contrast_B, to_grey_B=saturation_B)
        if hue_B.any():
            rows = hue_B.nonzero().squeeze(1)
            shift = amount_B[rows].to(images.device, non_blocking=True)
            rows = rows.to(images.device, non_blocking=True)
            images[rows] = shift_hue(images[rows], shift)
    return images


def blend(images: Tensor, factor_B: Tensor, *, to_mean_B: Tensor, to_grey_B: Tensor) -> Tensor:
    """clamp(base + factor (x - base), 0, 1) in place; the base is the mean grey, the grey image, or black.

    The masks and the factors are on the CPU: a base that no image needs is skipped without waiting for the device.
    """
    device = images.device
    factor = factor_B.to(device, non_blocking=True)[:, None, None, None]
    to_mean, to_grey = bool(to_mean_B.any()), bool(to_grey_B.any())
    if not to_mean and not to_grey:
        return images.mul_(factor).clamp_(0, 1)
    base_B1HW = luma(images)
    if to_mean:
        # First each row, then the rows: one thread makes each sum, so it does not depend on the size of the batch.
        mean_B111 = base_B1HW.mean(3, keepdim=True).mean(2, keepdim=True)
        if not to_mean_B.all():
            where = to_mean_B.to(device, non_blocking=True)[:, None, None, None]
            base_B1HW = torch.where(where, mean_B111, base_B1HW)
        else:
            base_B1HW = mean_B111.expand_as(base_B1HW)
    neither_B = ~(to_mean_B | to_grey_B)
    if neither_B.any():
        base_B1HW = base_B1HW.masked_fill(neither_B.to(device, non_blocking=True)[:, None, None, None], 0.0)
    return torch.lerp(base_B1HW, images, factor, out=images).clamp_(0, 1)


def luma(images: Tensor) -> Tensor:
    """The grey image, (B, 1, H, W)."""
    grey = images[:, 0:1] * GREY[0]
    return grey.add_(images[:, 1:2], alpha=GREY[1]).add_(images[:, 2:3], alpha=GREY[2])


def shift_hue(images: Tensor, turns_B: Tensor) -> Tensor:
    """The hue shifted by a share of the colour circle; saturation and value stay."""
    value, largest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    scale = torch.where(chroma > 0, chroma, 1.0)
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    sector = torch.where(
        largest == 0,
        (green - blue) / scale,
        torch.where(largest == 1, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    hue = (sector + 6 * turns_B[:, None, None, None]) % 6
    # value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + hue) mod 6 with n = 5, 3, 1 for red, green, blue
    k = (torch.tensor([5.0, 3.0, 1.0]).to(images.device, non_blocking=True)[None, :, None, None] + hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
