"""VGG and ViT in their own form but narrow: a hundred million numbers would prove no more of where they are cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from torch import nn
from torchvision import models

from da6401.registry import BACKBONES

WIDTH = 48  # numbers a token, or of VGG's two hidden layers


def narrow_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them in the place of the wide ones."""
    made: dict[str, Callable[[int], nn.Module]] = {"vgg16": _vgg16, "vit_b_16": _vit_b_16}
    for name, make in made.items():
        monkeypatch.setitem(BACKBONES.entries, name, dataclasses.replace(BACKBONES[name], make=make, features=WIDTH))


class _Narrow(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        inputs, outputs = (WIDTH if size == 4096 else size for size in (inputs, outputs))
        super().__init__(inputs, outputs)


def _vgg16(_: int) -> nn.Module:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn, "Linear", _Narrow)
        net: nn.Module = models.vgg16(weights=None)
    return net


def _vit_b_16(image_size: int) -> nn.Module:
    net: nn.Module = models.VisionTransformer(
        image_size, patch_size=16, num_layers=12, num_heads=4, hidden_dim=WIDTH, mlp_dim=2 * WIDTH
    )
    return net
