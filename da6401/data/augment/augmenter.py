"""Augmentation of whole batches on the device, with parameters of its own for each image.

The random numbers are a table with a row for each position of the epoch, made in blocks as they are needed: the pixels
do not depend on the batch size, and a run that goes on in mid-epoch makes the same ones.
"""

# B batch, N images of the epoch, C = 3 channels, H = W side

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from da6401.config.schema import AugmentationConfig
from da6401.data.augment.boxes import TRIES, crop_boxes, erase_boxes
from da6401.data.augment.colour import ColourPlan, colour_plan, jitter
from da6401.data.augment.trivial_augment import trivial_augment
from da6401.data.batches import seeded

BLOCK = 4096  # rows of the table of random numbers that are made together
CPU_CHUNK = 2**19  # values of a batch that the CPU changes together: what its cache holds
ERASED = 0.5  # grey: near every backbone's mean

# The table's columns
FLIP, ANGLE = 0, 1
FACTORS, ORDER = slice(2, 6), slice(6, 10)
ERASE, ERASE_PLACE, CROP_PLACE = 10, slice(11, 13), slice(13, 15)
TRIVIAL = slice(15, 18)
CROP, ERASE_SIZE = slice(18, 18 + 2 * TRIES), slice(18 + 2 * TRIES, 18 + 4 * TRIES)
COLUMNS = 18 + 4 * TRIES


@dataclass(frozen=True)
class Plan:
    """What is to be done to each picture of a batch; on the CPU, for there it is drawn."""

    mirrored_B: Tensor
    boxes_B4: Tensor  # of the crop: top, left, height, width in px
    angles_B: Tensor  # in radians
    trivial_B3: Tensor
    colour: ColourPlan
    erased_B4: Tensor  # as boxes_B4; height and width 0 where nothing is erased

    def __getitem__(self, part: slice) -> Plan:
        return Plan(
            self.mirrored_B[part], self.boxes_B4[part], self.angles_B[part], self.trivial_B3[part], self.colour[part],
            self.erased_B4[part],
        )  # fmt: skip


class Augmenter:
    """Changes batches of uint8 pictures into float ones in 0..1, each picture by its row of the epoch's table."""

    def __init__(self, cfg: AugmentationConfig, *, count: int, generator: torch.Generator) -> None:
        self.cfg = cfg
        self._count = count
        self._seed = int(torch.randint(2**62, (), generator=generator))
        self._kept: tuple[int, Tensor] | None = None  # the block of the table that was used last

    def __call__(self, images_BCHW: Tensor, rows_B: Tensor) -> Tensor:
        """Augment the batch whose pictures are at positions ``rows_B`` of the epoch.

        Args:
            images_BCHW: uint8, on any device; left as it is.
        Returns:
            float32 in 0..1, the same shape and device.
        """
        plan = self._plan(self._draws(rows_B), images_BCHW.shape[-1])
        if images_BCHW.device.type != "cpu":
            return self._change(images_BCHW, plan)
        out = torch.empty(images_BCHW.shape)
        step = max(1, CPU_CHUNK // images_BCHW[0].numel())
        for start in range(0, len(out), step):
            part = slice(start, start + step)
            out[part] = self._change(images_BCHW[part], plan[part])
        return out

    def mirrored(self, rows_B: Tensor) -> Tensor:
        """Whether the pictures at positions ``rows_B`` of the epoch are flipped."""
        return self._mirrored(self._draws(rows_B))

    def _mirrored(self, draws: Tensor) -> Tensor:
        return draws[:, FLIP] < self.cfg.flip

    def _draws(self, rows_B: Tensor) -> Tensor:
        """The rows of the table, (B, COLUMNS), uniform in 0..1, on the CPU."""
        draws = torch.empty(len(rows_B), COLUMNS)
        for block in sorted(set((rows_B // BLOCK).tolist())):
            if self._kept is None or self._kept[0] != block:
                rows = min(BLOCK, self._count - block * BLOCK)
                self._kept = block, torch.rand(rows, COLUMNS, generator=seeded(self._seed, block))
            inside = rows_B // BLOCK == block
            draws[inside] = self._kept[1][rows_B[inside] % BLOCK]
        return draws

    def _plan(self, draws: Tensor, side: int) -> Plan:
        cfg = self.cfg
        amounts = (cfg.brightness, cfg.contrast, cfg.saturation, cfg.hue)
        boxes_B4 = crop_boxes(
            draws[:, CROP], draws[:, CROP_PLACE], least_scale=cfg.crop_scale, largest_ratio=cfg.crop_ratio, side=side
        )
        erased_B4 = erase_boxes(draws[:, ERASE_SIZE], draws[:, ERASE_PLACE], side=side)
        erased_B4[draws[:, ERASE] >= cfg.erase] = 0
        return Plan(
            mirrored_B=self._mirrored(draws),
            boxes_B4=boxes_B4,
            angles_B=(2 * draws[:, ANGLE] - 1) * math.radians(cfg.rotate),
            trivial_B3=draws[:, TRIVIAL],
            colour=colour_plan(draws[:, FACTORS], draws[:, ORDER], amounts),
            erased_B4=erased_B4,
        )

    def _change(self, images: Tensor, plan: Plan) -> Tensor:
        """uint8 for crop, flip, rotation and TrivialAugment, as torchvision does; then float."""
        cfg = self.cfg
        if cfg.rotate > 0 or (images.device.type != "cpu" and (cfg.crop_scale < 1 or cfg.crop_ratio > 1)):
            images = resample(images, plan.boxes_B4, plan.angles_B, plan.mirrored_B)
        elif cfg.crop_scale < 1 or cfg.crop_ratio > 1:  # on the CPU one by one is faster than one big grid
            images = resize_boxes(images, plan.boxes_B4, plan.mirrored_B)
        elif cfg.flip > 0:
            mirrored = plan.mirrored_B.to(images.device, non_blocking=True)[:, None, None, None]
            images = torch.where(mirrored, images.flip(3), images)
        if cfg.trivial:
            images = trivial_augment(images.clone(), plan.trivial_B3)
        pixels = jitter(images / 255, plan.colour)
        if cfg.erase > 0:
            erase(pixels, plan.erased_B4)
        return pixels


def erase(pixels: Tensor, boxes_B4: Tensor) -> Tensor:
    """A grey rectangle over part of each picture, in place."""
    top, left, height, width = boxes_B4.to(pixels.device, non_blocking=True)[:, :, None].unbind(1)
    side = torch.arange(pixels.shape[-1], device=pixels.device)
    rows_BH, columns_BW = (side >= top) & (side < top + height), (side >= left) & (side < left + width)
    return pixels.masked_fill_((rows_BH[:, :, None] & columns_BW[:, None, :])[:, None], ERASED)


def resize_boxes(images: Tensor, boxes_B4: Tensor, mirrored_B: Tensor) -> Tensor:
    """Each picture's box, enlarged to the picture's size, and mirrored."""
    side = images.shape[-1]
    out = torch.empty_like(images)
    for row, ((top, left, height, width), mirrored) in enumerate(
        zip(boxes_B4.tolist(), mirrored_B.tolist(), strict=True)
    ):
        box = images[row : row + 1, :, top : top + height, left : left + width]
        full = F.interpolate(box, size=(side, side), mode="bilinear", align_corners=False)
        out[row] = (full.flip(3) if mirrored else full)[0]
    return out


def resample(images: Tensor, boxes_B4: Tensor, angles_B: Tensor, mirrored_B: Tensor) -> Tensor:
    """Crop, flip and rotation in one bilinear resampling: a 2 x 3 affine matrix for each picture."""
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
