"""Every test of sweeps runs in a folder of its own, whose outputs/ are its sweeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from torch import nn

from da6401.registry import BACKBONES
from tests.tiny_runs import SMALL_BACKBONE


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["da6401"])


def _tiny_resnet(image_size: int) -> nn.Module:
    """Five stages like resnet18's, a thousandth of the size."""
    stem = {"conv1": nn.Conv2d(3, 4, 3), "bn1": nn.BatchNorm2d(4), "relu": nn.ReLU(), "maxpool": nn.MaxPool2d(2)}
    net = nn.Module()
    for name, layer in (stem | {f"layer{number}": nn.Conv2d(4, 4, 1) for number in range(1, 5)}).items():
        net.add_module(name, layer)
    return net


@pytest.fixture
def tiny_resnet18(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words for a tiny one on tiny data."""
    tiny = dataclasses.replace(BACKBONES["resnet18"], make=_tiny_resnet, features=4)
    monkeypatch.setitem(BACKBONES.entries, "resnet18", tiny)
    return (*SMALL_BACKBONE, "trainer.epochs=1", "model.weights=none", "data.image_size=32")
