"""Part A: a CNN from scratch, block by block."""

# B batch, C channels, H height, W width

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from da6401.config.cnn_shapes import convolutions_of, filters_of, kernels_of
from da6401.config.schema import Activation, CnnConfig, Pooling
from da6401.models.dropout import Dropout
from da6401.models.stages import StagedModel, output_layer
from da6401.registry import BLOCKS

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
}
POOLINGS: dict[Pooling, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}

# About the mean and deviation of photographs in 0..1. Fixed rather than measured, so that the configuration alone
# says what the network sees, and no data set's statistics have to be stored.
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)


class ConvBlock(nn.Module):
    """Convolution, (batch norm,) activation, 2 x 2 pool, dropout of whole maps: (B, C, H, W) -> (B, F, H//2, W//2).

    There may be more such convolutions before the pool (arXiv 1409.1556). The residual variant has one more, and a
    shortcut around all of them that joins before the last activation (arXiv 1512.03385); it starts as the shortcut
    alone. Convolutions have a bias under batch norm too, as the assignment counts.
    """

    def __init__(
        self, cfg: CnnConfig, *, in_channels: int, filters: int, kernel_size: int, convolutions: int = 1
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, filters, kernel_size, cfg.activation)
        self.norm = nn.BatchNorm2d(filters) if cfg.batch_norm else nn.Identity()
        self.activation = ACTIVATIONS[cfg.activation]()
        more = [_layer(cfg, filters, kernel_size) for _ in range(convolutions - 1)]
        self.more = nn.Sequential(*more) if more else None
        self.residual = _Residual(cfg, in_channels, filters, kernel_size) if cfg.residual else None
        self.pool = POOLINGS[cfg.pooling](kernel_size=2)
        self.dropout = nn.Dropout2d(cfg.block_dropout)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.activation(self.norm(self.conv(x_BCHW)))
        if self.more is not None:
            y = self.more(y)
        if self.residual is not None:
            y = self.residual(y, x_BCHW)
        pooled: Tensor = self.dropout(self.pool(y))
        return pooled


class _Residual(nn.Module):
    """The second convolution and the shortcut: (first convolution's output, block's input) -> their activated sum."""

    def __init__(self, cfg: CnnConfig, in_channels: int, filters: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = _conv(filters, filters, kernel_size, cfg.activation)
        self.norm = nn.BatchNorm2d(filters) if cfg.batch_norm else nn.Identity()
        self.shortcut = nn.Identity() if in_channels == filters else _conv(in_channels, filters, 1, cfg.activation)
        self.activation = ACTIVATIONS[cfg.activation]()
        # The branch adds nothing at first, so that more depth does not slow the start of training (arXiv 1706.02677).
        nn.init.zeros_(self.norm.weight if isinstance(self.norm, nn.BatchNorm2d) else self.conv.weight)

    def forward(self, y_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        joined: Tensor = self.activation(self.norm(self.conv(y_BFHW)) + self.shortcut(x_BCHW))
        return joined


class Cnn(StagedModel):
    """Stages block1..blockN; the head is flatten (or the mean of each map), a dense layer, and the output layer."""

    def __init__(self, cfg: CnnConfig, *, image_size: tuple[int, int], num_classes: int) -> None:
        """image_size is (height, width) in px."""
        filters = filters_of(cfg)
        blocks = {
            f"block{number}": BLOCKS[cfg.name](cfg, in_channels, width, kernel)
            if cfg.name in BLOCKS
            else ConvBlock(cfg, in_channels=in_channels, filters=width, kernel_size=kernel, convolutions=convolutions)
            for number, (in_channels, width, kernel, convolutions) in enumerate(
                zip([3, *filters[:-1]], filters, kernels_of(cfg), convolutions_of(cfg), strict=True), start=1
            )
        }
        height, width = (side >> len(filters) for side in image_size)
        assert min(height, width) >= 1, "shape_problems() refuses images that are too small for the pools"
        features = filters[-1] * (1 if cfg.global_pool else height * width)
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if cfg.global_pool else []
        layers.append(nn.Flatten())
        if cfg.dense_width:
            dense = nn.Linear(features, cfg.dense_width)
            _initialise(dense, cfg.activation)
            layers += [dense, ACTIVATIONS[cfg.activation]()]
        layers += [Dropout(cfg.dropout), output_layer(cfg.dense_width or features, num_classes)]
        super().__init__(stages=blocks, head=nn.Sequential(*layers), mean=MEAN, std=STD)


def _layer(cfg: CnnConfig, filters: int, kernel_size: int) -> nn.Sequential:
    norm = [nn.BatchNorm2d(filters)] if cfg.batch_norm else []
    return nn.Sequential(_conv(filters, filters, kernel_size, cfg.activation), *norm, ACTIVATIONS[cfg.activation]())


def _conv(in_channels: int, filters: int, kernel_size: int, activation: Activation) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, filters, kernel_size, padding=kernel_size // 2)
    _initialise(conv, activation)
    return conv


def _initialise(layer: nn.Conv2d | nn.Linear, activation: Activation) -> None:
    """He's initialisation (arXiv 1502.01852); elu, gelu, silu and mish are near enough to relu for its gain."""
    gain: Literal["relu", "leaky_relu", "tanh"] = activation if activation in ("leaky_relu", "tanh") else "relu"
    nn.init.kaiming_normal_(layer.weight, a=0.01, nonlinearity=gain)  # 0.01: nn.LeakyReLU's slope
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
