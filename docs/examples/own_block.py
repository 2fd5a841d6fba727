"""A block of the CNN of one's own, and a sweep over its key.

Command: da6401 train --multirun --plugin docs/examples/own_block.py model=separable 'model.multiplier=choice(1,2)'
    model.filters=8 model.blocks=2 data=synthetic data.image_size=16 data.classes=3 trainer.epochs=1 study=own_block
"""

from dataclasses import dataclass

from torch import nn

from da6401.plugins import block, key


@dataclass
class Separable:
    """model=separable has all keys of model=cnn (filters, blocks, kernel_size, dropout, ...) and this one."""

    multiplier: int = key(1, "maps that each input map is filtered into", low=1, high=16)


@block("separable", Separable)
def separable(cfg, in_channels: int, filters: int, kernel_size: int) -> nn.Module:
    """Maps (B, in_channels, H, W) -> (B, filters, H // 2, W // 2): depthwise, then 1 x 1 (arXiv 1704.04861)."""
    between = in_channels * cfg.multiplier
    return nn.Sequential(
        nn.Conv2d(in_channels, between, kernel_size, padding=kernel_size // 2, groups=in_channels, bias=False),
        nn.Conv2d(between, filters, 1, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
