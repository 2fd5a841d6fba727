"""EfficientNet-Lite0: EfficientNet-B0 with ReLU6 and without squeeze-and-excitation, stem and head not scaled.

Source: github.com/tensorflow/tpu, models/official/efficientnet/lite. Modules have the names of the PyTorch port's
state dict (`_blocks.0._depthwise_conv.weight`), so its weights load as they are. The port's stochastic depth is
left out: it has no weights, and dropout and augmentation are there for more regularisation.
"""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# Repeats, kernel, stride of the first repeat, expansion, input and output channels of each of the seven block groups.
BLOCK_GROUPS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
FEATURES = 1280


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


class EfficientNetLite0(nn.Module):
    """The whole network, 4.7 M parameters at 1000 classes, for images of any size."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = _conv(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            MBConv(
                in_channels=in_channels if repeat == 0 else filters,
                filters=filters,
                kernel_size=kernel_size,
                stride=stride if repeat == 0 else 1,
                expansion=expansion,
            )
            for repeats, kernel_size, stride, expansion, in_channels, filters in BLOCK_GROUPS
            for repeat in range(repeats)
        )
        self._conv_head = _conv(BLOCK_GROUPS[-1][-1], FEATURES, 1)
        self._bn1 = _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, num_classes)

    def stages(self) -> tuple[nn.Sequential, ...]:
        """Stem, the seven groups of blocks, and the head convolution with the mean of each map: (B, 1280)."""
        groups, first = [], 0
        for repeats, *_ in BLOCK_GROUPS:
            groups.append(nn.Sequential(*self._blocks[first : first + repeats]))
            first += repeats
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
