"""Augmentation of whole batches on the device, with parameters of its own for each image.

All random numbers of an epoch are drawn at once, a row an image, so the pixels do not depend on the batch size, and
epoch e can be made again without the epochs before it.
"""

# B batch, N images of the epoch, C = 3 channels, H = W side

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import AugmentationConfig

CROP_TRIES = 10  # draws of area and aspect before the whole picture is taken, as in torchvision's RandomResizedCrop
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601 luma
ERASE_AREA = (0.02, 0.2)
COLUMNS = 2 * CROP_TRIES + 12


class Augmenter:
    """Draws an epoch's parameters, then changes batches of uint8 pictures into float ones in 0..1."""

    def __init__(self, cfg: AugmentationConfig, *, count: int, generator: torch.Generator) -> None:
        self.cfg = cfg
        self.draws_NP = torch.rand(count, COLUMNS, generator=generator)

    def __call__(self, images_BCHW: Tensor, rows_B: Tensor) -> Tensor:
        """Augment the batch whose pictures are at positions ``rows_B`` of the epoch.

        Args:
            images_BCHW: uint8, on any device.
        Returns:
            float32 in 0..1, the same shape, device and memory layout.
        """
        cfg = self.cfg
        draws = self.draws_NP[rows_B].to(images_BCHW.device, non_blocking=True)
        images = images_BCHW.float().div_(255)
        if cfg.crop_scale < 1 or cfg.crop_ratio > 1 or cfg.rotate > 0:
            images = self._resample(images, draws)
        elif cfg.flip > 0:
            images = torch.where((draws[:, 0] < cfg.flip)[:, None, None, None], images.flip(3), images)
        if cfg.brightness or cfg.contrast or cfg.saturation:
            images = self._colour(images, draws[:, 2:5])
        if cfg.erase > 0:
            images = self._erase(images, draws[:, 5:10])
        return images

    def _resample(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop, flip and rotation in one bilinear resampling: a 2 x 3 affine matrix for each picture."""
        cfg = self.cfg
        width_B, height_B = crop_sizes(draws[:, -2 * CROP_TRIES :], cfg.crop_scale, cfg.crop_ratio)
        centre_x = (2 * draws[:, 10] - 1) * (1 - width_B)
        centre_y = (2 * draws[:, 11] - 1) * (1 - height_B)
        mirror = torch.where(draws[:, 0] < cfg.flip, -1.0, 1.0)
        angle = (2 * draws[:, 1] - 1) * math.radians(cfg.rotate)
        cos, sin = angle.cos(), angle.sin()
        matrix_B23 = torch.stack(
            [
                torch.stack([width_B * cos * mirror, -width_B * sin, centre_x], dim=1),
                torch.stack([height_B * sin * mirror, height_B * cos, centre_y], dim=1),
            ],
            dim=1,
        )
        grid_BHW2 = F.affine_grid(matrix_B23, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid_BHW2, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _colour(self, images: Tensor, draws: Tensor) -> Tensor:
        """Brightness, contrast and saturation, each by a factor uniform in 1 - x .. 1 + x, in this order."""
        amounts = torch.tensor([self.cfg.brightness, self.cfg.contrast, self.cfg.saturation], device=images.device)
        factors_B3 = 1 + (2 * draws - 1) * amounts
        brightness, contrast, saturation = (factors_B3[:, i, None, None, None] for i in range(3))
        luma = torch.tensor(GREY_WEIGHTS, device=images.device)[None, :, None, None]
        images = (images * brightness).clamp_(0, 1)
        mean_B111 = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        images = torch.lerp(mean_B111, images, contrast).clamp_(0, 1)
        grey_B1HW = (images * luma).sum(1, keepdim=True)
        return torch.lerp(grey_B1HW, images, saturation).clamp_(0, 1)

    def _erase(self, images: Tensor, draws: Tensor) -> Tensor:
        """A grey rectangle over part of some pictures."""
        low, high = ERASE_AREA
        area = low + (high - low) * draws[:, 1]
        aspect = torch.exp((2 * draws[:, 2] - 1) * math.log(3.0))
        height, width = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        side = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]
        top, left = draws[:, 3] * (1 - height), draws[:, 4] * (1 - width)
        rows_BH = (side >= top[:, None]) & (side < (top + height)[:, None])
        columns_BW = (side >= left[:, None]) & (side < (left + width)[:, None])
        chosen = (draws[:, 0] < self.cfg.erase)[:, None, None]
        inside_BHW = rows_BH[:, :, None] & columns_BW[:, None, :] & chosen
        return images.masked_fill(inside_BHW[:, None], 0.5)


def crop_sizes(draws: Tensor, least_scale: float, largest_ratio: float) -> tuple[Tensor, Tensor]:
    """Width and height of random resized crops, as shares of the side.

    Area uniform in least_scale .. 1, log aspect uniform, redrawn while the crop does not fit, as torchvision does
    (``RandomResizedCrop.get_params``); where no try fits, the whole picture.

    Args:
        draws: (B, 2 * CROP_TRIES), uniform in 0..1.
    """
    area = least_scale + (1 - least_scale) * draws[:, :CROP_TRIES]
    aspect = torch.exp((2 * draws[:, CROP_TRIES:] - 1) * math.log(largest_ratio))
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits; 0 where none does
    whole = ~fits.any(1)
    return (
        width.gather(1, first).squeeze(1).masked_fill(whole, 1.0),
        height.gather(1, first).squeeze(1).masked_fill(whole, 1.0),
    )


def mix(images_BCHW: Tensor, cfg: AugmentationConfig, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899) of a batch with a permutation of itself.

    Returns:
        the mixed pictures, the permutation (B,) of the second labels, and the share of the first label.
    """
    alphas = [alpha for alpha in (cfg.mixup, cfg.cutmix) if alpha > 0]
    cut = cfg.cutmix > 0 and (len(alphas) == 1 or float(torch.rand((), generator=generator)) < 0.5)
    alpha = cfg.cutmix if cut else cfg.mixup
    share = _beta(alpha, generator)
    order = torch.randperm(len(images_BCHW), generator=generator)
    other = images_BCHW[order.to(images_BCHW.device)]
    if not cut:
        return torch.lerp(other, images_BCHW, share), order, share
    side = images_BCHW.shape[-1]
    length = round(side * math.sqrt(1 - share))
    top, left = (int(torch.randint(side - length + 1, (), generator=generator)) for _ in range(2))
    mixed = images_BCHW.clone()
    mixed[:, :, top : top + length, left : left + length] = other[:, :, top : top + length, left : left + length]
    return mixed, order, 1 - length * length / (side * side)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha), from two gamma draws (torch.distributions takes no generator)."""
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    total = float(gammas.sum())
    return float(gammas[0]) / total if total > 0 else 0.5
