"""EfficientNet-Lite: EfficientNet with ReLU6 and without squeeze-and-excitation, stem and head not scaled.

Source: github.com/tensorflow/tpu, models/official/efficientnet/lite. Modules have the names of the PyTorch port's
state dict (`_blocks.0._depthwise_conv.weight`), so its weights load as they are. The port's stochastic depth is
left out: it has no weights, and dropout and augmentation are there for more regularisation.
"""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class BlockGroup(NamedTuple):
    """Blocks of one width of output."""

    repeats: int
    kernel_size: int
    stride: int  # of the first block; the others have 1
    expansion: int
    filters: int


# Of Lite0; the others have more blocks (depth) and wider ones (width).
BLOCK_GROUPS = (
    BlockGroup(1, 3, 1, 1, 16),
    BlockGroup(2, 3, 2, 6, 24),
    BlockGroup(2, 5, 2, 6, 40),
    BlockGroup(3, 3, 2, 6, 80),
    BlockGroup(3, 5, 1, 6, 112),
    BlockGroup(4, 5, 2, 6, 192),
    BlockGroup(1, 3, 1, 6, 320),
)
STEM = 32
FEATURES = 1280


def scaled_groups(width: float, depth: float) -> list[BlockGroup]:
    """The seven groups with filters times `width` (a multiple of 8) and repeats times `depth` (rounded up).

    The first and the last group keep their number of blocks, as in the source.
    """
    last = len(BLOCK_GROUPS) - 1
    return [
        group._replace(
            filters=_multiple_of_8(group.filters * width),
            repeats=group.repeats if position in (0, last) else math.ceil(group.repeats * depth),
        )
        for position, group in enumerate(BLOCK_GROUPS)
    ]


def _multiple_of_8(filters: float) -> int:
    """The nearest one, but never more than a tenth below."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters else nearest + 8


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's 'same': output ceil(side / stride), the odd pixel right and below.

    Which side gets it depends on the image's size, so no fixed padding can do this for a stride of 2.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        down, right = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0)
            for side, stride, kernel in zip(x_BCHW.shape[-2:], self.stride, self.kernel_size, strict=True)
        )
        padding = (right // 2, right - right // 2, down // 2, down - down // 2)
        return super().forward(F.pad(x_BCHW, padding))


class MBConv(nn.Module):
    """Inverted residual: expand (1 x 1), depthwise, project (1 x 1); a shortcut where the shape stays."""

    def __init__(self, *, in_channels: int, filters: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self._expand_conv = _conv(in_channels, hidden, 1) if expansion > 1 else None
        self._bn0 = _norm(hidden) if expansion > 1 else None
        self._depthwise_conv = _conv(hidden, hidden, kernel_size, stride=stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = _conv(hidden, filters, 1)
        self._bn2 = _norm(filters)
        self._relu6 = nn.ReLU6()
        self._shortcut = stride == 1 and in_channels == filters

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = x_BCHW
        if self._expand_conv is not None and self._bn0 is not None:
            y = self._relu6(self._bn0(self._expand_conv(y)))
        y = self._relu6(self._bn1(self._depthwise_conv(y)))
        projected: Tensor = self._bn2(self._project_conv(y))
        return projected + x_BCHW if self._shortcut else projected


class EfficientNetLite(nn.Module):
    """The whole network for images of any size; without scaling it is Lite0, 4.7 M parameters at 1000 classes.

    Args:
        num_classes: outputs of the last layer.
        width: factor of the blocks' filters; 1.1 for Lite2.
        depth: factor of the groups' numbers of blocks; 1.1 for Lite1, 1.2 for Lite2.
    """

    def __init__(self, *, num_classes: int, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self._groups = scaled_groups(width, depth)
        self._conv_stem = _conv(3, STEM, 3, stride=2)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList()
        channels = STEM
        for group in self._groups:
            for repeat in range(group.repeats):
                self._blocks.append(
                    MBConv(
                        in_channels=channels,
                        filters=group.filters,
                        kernel_size=group.kernel_size,
                        stride=group.stride if repeat == 0 else 1,
                        expansion=group.expansion,
                    )
                )
                channels = group.filters
        self._conv_head = _conv(channels, FEATURES, 1)
        self._bn1 = _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, num_classes)

    def stages(self) -> tuple[nn.Sequential, ...]:
        """Stem, the seven groups of blocks, and the head convolution with the mean of each map: (B, 1280)."""
        groups, first = [], 0
        for group in self._groups:
            groups.append(nn.Sequential(*self._blocks[first : first + group.repeats]))
            first += group.repeats
        stem = nn.Sequential(self._conv_stem, self._bn0, nn.ReLU6())
        head = nn.Sequential(self._conv_head, self._bn1, nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return (stem, *groups, head)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K) of normalised images."""
        x = x_BCHW
        for stage in self.stages():
            x = stage(x)
        logits_BK: Tensor = self._fc(x)
        return logits_BK


def _conv(in_channels: int, filters: int, kernel_size: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:  # here 'same' is symmetric whatever the size
        conv = nn.Conv2d(in_channels, filters, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    else:
        conv = SameConv2d(in_channels, filters, kernel_size, stride=stride, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
