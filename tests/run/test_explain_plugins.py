"""`da6401 explain` on networks of plugins, which may have neither convolutions nor a linear layer at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from da6401.commands.explain.attribution import output_layer
from tests.tiny_runs import SMALL, SMALL_BACKBONE, typed

ALWAYS = ["predictions.png", "confusion.png"]
MAPS = ["guided.png", "gradcam.png"]
HEAD = "from torch import nn\n\nfrom da6401.plugins import block, model\n\n\n"
MLP = '@model("mine")\ndef mine(cfg, classes, side):\n    return nn.Sequential(nn.Flatten(), nn.Linear(768, classes))\n'
CONVOLUTIONS = """@model("mine")
def mine(cfg, classes, side):
    last = nn.Conv2d(8, classes, 1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
MODULE = """class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last = nn.Linear(6, classes)  # registered before what it is called after
        self.first = nn.Conv2d(3, 6, 4, 4)

    def forward(self, images):
        return self.last(self.first(images).relu().mean((2, 3)))


@model("mine")
def mine(cfg, classes, side):
    return Net(classes)
"""
DEPTHWISE = """@block("mine")
def mine(cfg, before, filters, kernel):
    deep = nn.Conv2d(before, before, 3, padding=1, groups=before)
    return nn.Sequential(deep, nn.Conv2d(before, filters, 1), nn.ReLU(), nn.MaxPool2d(2))
"""
FILTERS = ["filters.png", "feature_maps.png"]


@pytest.mark.parametrize(
    ("text", "pictures"),
    [
        (MLP, [*ALWAYS, "guided.png", "embedding.png"]),
        (CONVOLUTIONS, [*ALWAYS, *FILTERS, *MAPS]),
        (MODULE, [*ALWAYS, *FILTERS, "guided.png", "embedding.png"]),
        (DEPTHWISE, [*ALWAYS, "feature_maps.png", *MAPS, "embedding.png"]),
    ],
    ids=["dense layers", "no linear layer", "one module", "a depthwise block"],
)
def test_the_pictures_that_a_network_allows(text: str, pictures: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD + text, encoding="utf-8")
    plugin = ("--plugin", "mine.py")
    small = SMALL if text is DEPTHWISE else SMALL_BACKBONE
    code, _, err = typed("train", *plugin, *small, "model=mine", "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    code, _, err = typed("explain", "run", *plugin, cwd=tmp_path)
    assert code == 0, err
    entries = json.loads((tmp_path / "run" / "explain" / "about.json").read_text(encoding="utf-8"))
    assert [entry["file"] for entry in entries] == pictures
    if "gradcam.png" not in pictures:
        (shown,) = [entry["caption"] for entry in entries if entry["file"] == "guided.png"]
        assert shown.startswith("No stage of the network gives maps")
        assert "transformer" not in shown


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        twice: Tensor = self.layer(self.layer(x))
        return twice


def test_the_output_layer_is_the_one_that_gives_the_logits() -> None:
    x = torch.rand(1, 4)
    last = nn.Linear(4, 3)
    assert output_layer(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), last), x) is last
    assert output_layer(nn.Sequential(last, nn.Softmax(dim=1)), x) is None, "its outputs are not the logits"
    assert output_layer(Twice(), x) is None, "it has two inputs for an image"
    assert output_layer(nn.Sequential(nn.Flatten(), nn.Softmax(dim=1)), x) is None
