"""Guided backpropagation and Grad-CAM against numbers by hand, against Captum, and on every kind of network."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam, NeuronGuidedBackprop
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d

from da6401.commands.explain.attribution import (
    Nonlinearities,
    grad_cam,
    input_gradients,
    last_maps,
    layer_output,
    other_nonlinearities,
    patch_sums,
    strongest_neurons,
)
from da6401.config.schema import Activation
from da6401.models.cnn import Cnn
from da6401.models.pretrained import build_backbone
from da6401.models.stages import StagedModel
from da6401.registry import BACKBONES
from tests.networks import cnn


class TwoLayers(nn.Module):
    """Four hidden neurons and one output, with numbers that one can follow by hand."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rectify = rectify
        self.hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [-1.0, 0.0]])
        self.output = torch.tensor([[1.0, -1.0, 1.0, 5.0]])

    def forward(self, x_B2: Tensor) -> Tensor:
        return self.rectify(self.rectify(x_B2 @ self.hidden.T) @ self.output.T)


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "nn.ReLU6": nn.ReLU6(),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu6": F.relu6,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
}


@pytest.mark.parametrize("kind", RECTIFIERS)
def test_guided_backpropagation_by_hand(kind: str) -> None:
    # x = (2, 1): hidden (2, 1, 1, -2) -> (2, 1, 1, 0), output 2 - 1 + 1 + 0 = 2. Back to hidden: (1, -1, 1, 5), and
    # the fourth neuron is off. Plain: 1 (1, 0) - 1 (0, 1) + 1 (1, -1) = (2, -2). Guided leaves the -1 out: (2, -1).
    model, x = TwoLayers(RECTIFIERS[kind]), torch.tensor([[2.0, 1.0]])
    first = torch.tensor([[0]])
    assert model(x).tolist() == [[2.0]]
    assert input_gradients(model, model, x, first, guided=False).tolist() == [[2.0, -2.0]]
    assert input_gradients(model, model, x, first, guided=True).tolist() == [[2.0, -1.0]]
    assert other_nonlinearities(model, x) == []


def test_a_rectifier_with_a_ceiling_passes_nothing_above_it() -> None:
    model, x = TwoLayers(nn.ReLU6()), torch.tensor([[8.0, 3.0]])  # hidden (8, 3, 5): the first is cut to 6
    assert input_gradients(model, model, x, torch.tensor([[0]]), guided=False).tolist() == [[0.0, 0.0]]  # 6 - 3 + 5 > 6
    model.output *= 0.5  # 3 - 1.5 + 2.5 = 4; back only 0.5 (1, -1) of the third is left
    assert input_gradients(model, model, x, torch.tensor([[0]]), guided=True).tolist() == [[0.5, -0.5]]


def relu_cnn(activation: Activation = "relu", *, seed: int = 0, residual: bool = False) -> Cnn:
    torch.manual_seed(seed)
    return cnn(activation=activation, residual=residual, filters=[4, 6, 8, 8, 8]).eval()


def live_index(model: Cnn, layer: nn.Module, images: Tensor) -> Tensor:
    """The strongest neuron of the first image, for every image."""
    index_B3, values_B = strongest_neurons(model, layer, images[:1])
    assert values_B[0] > 0
    return index_B3.expand(len(images), 3)


def pictures(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_the_same_as_captum_where_relu_is_a_module() -> None:
    model, images = relu_cnn(), pictures(2, 32)
    layer = model.get_submodule("stages.block5.activation")
    index_B3 = live_index(model, layer, images)
    one_neuron = tuple(index_B3[0].tolist())
    expected = NeuronGuidedBackprop(model, layer).attribute(images.clone().requires_grad_(), one_neuron)
    found = input_gradients(model, layer, images, index_B3, guided=True)
    largest = float(expected.abs().max())
    assert largest > 0
    assert torch.allclose(found, expected, rtol=1e-5, atol=largest * 1e-6)
    plain = input_gradients(model, layer, images, index_B3, guided=False)
    assert not torch.allclose(found, plain, rtol=0.1, atol=largest * 0.1)


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_googlenets_relu_is_a_function_and_counts_all_the_same() -> None:
    torch.manual_seed(0)
    model = build_backbone(
        BACKBONES["googlenet"], "googlenet", source="none", num_classes=3, image_size=32, dropout=0.0
    ).eval()
    images, layer = pictures(1, 32), model.get_submodule("stages.5b.0")
    index_B3, _ = strongest_neurons(model, layer, images)
    found = input_gradients(model, layer, images, index_B3, guided=True)
    plain = input_gradients(model, layer, images, index_B3, guided=False)
    blocks = [module for module in model.modules() if isinstance(module, BasicConv2d)]
    for block in blocks:  # the same network with modules, as Captum needs it
        block.rectifier = nn.ReLU()
        block.forward = MethodType(lambda self, x: self.rectifier(self.bn(self.conv(x))), block)
    expected = NeuronGuidedBackprop(model, layer).attribute(
        images.clone().requires_grad_(), tuple(index_B3[0].tolist())
    )
    assert len(blocks) == 57
    assert torch.allclose(found, expected, rtol=1e-4, atol=float(expected.abs().max()) * 1e-5)
    assert not torch.allclose(found, plain, rtol=0.1, atol=float(plain.abs().max()) * 0.1)


def test_other_weights_give_another_picture() -> None:
    images = pictures(4, 32)
    pictures_of = []
    for seed in (0, 0, 1):
        model = relu_cnn(seed=seed)
        layer = model.get_submodule("stages.block4.activation")
        index_B3 = live_index(model, layer, images)
        pictures_of.append(input_gradients(model, layer, images, index_B3, guided=True).flatten())
    first, again, other = pictures_of
    assert torch.equal(first, again)
    assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.3


EXPECTED: dict[str, tuple[str, str]] = {  # last maps; the nonlinearities that are no rectifiers
    "googlenet": ("5b.0", ""),
    "inception_v3": ("7c.0", ""),
    "resnet18": ("layer4.0.1", ""),
    "resnet50": ("layer4.0.2", ""),
    "vgg16": ("conv5.29", ""),
    "mobilenet_v3_large": ("conv_head.0.2", "hardsigmoid hardswish"),
    "efficientnet_v2_s": ("conv_head.0.2", "sigmoid silu"),
    "convnext_tiny": ("stage4.7.2", "gelu"),
    "vit_b_16": ("", "gelu"),
    "efficientnet_lite0": ("conv_head.1", ""),
    "efficientnet_lite1": ("conv_head.1", ""),
    "efficientnet_lite2": ("conv_head.1", ""),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone(name: str) -> None:
    torch.manual_seed(0)
    size = max(BACKBONES[name].min_size, 32)
    model = build_backbone(BACKBONES[name], name, source="none", num_classes=3, image_size=size, dropout=0.2).eval()
    images = pictures(1, size)
    layer, others = last_maps(model, images, least=1, before_ceiling=True), other_nonlinearities(model, images)
    assert ("" if layer is None else layer.name, " ".join(others)) == EXPECTED[name]
    if layer is None:
        return
    with torch.no_grad():
        plain = model(images)
        with Nonlinearities(guided=True):
            assert torch.equal(model(images), plain), "the way forward stays what it is"
        maps = layer_output(model, layer.module, images)
    assert maps.shape == (1, layer.channels, layer.height, layer.width)
    index_B3, values_B = strongest_neurons(model, layer.module, images)
    assert values_B[0] == maps.max()
    gradient = input_gradients(model, layer.module, images, index_B3, guided=not others)
    assert gradient.shape == images.shape
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    larger = last_maps(model, images, least=4, before_ceiling=False)
    assert larger is not None
    assert min(larger.height, larger.width) >= 4
    heat = grad_cam(model, larger.module, images, torch.tensor([1]))
    assert heat.shape == (1, size, size)
    assert heat.min() >= 0


def test_a_neuron_that_an_image_drives_to_the_ceiling_has_a_picture() -> None:
    torch.manual_seed(0)
    model = build_backbone(
        BACKBONES["efficientnet_lite0"], "efficientnet_lite0", source="none", num_classes=3, image_size=32, dropout=0.0
    ).eval()
    norm, images = model.get_submodule("stages.conv_head.1"), pictures(1, 32)
    assert isinstance(norm, nn.BatchNorm2d)
    norm.bias.data.fill_(50.0)
    above, below = (last_maps(model, images, least=1, before_ceiling=given) for given in (False, True))
    assert above is not None
    assert below is not None
    index_B3, values_B = strongest_neurons(model, below.module, images)
    assert values_B[0] > 6
    assert input_gradients(model, above.module, images, index_B3, guided=True).abs().max() == 0
    assert input_gradients(model, below.module, images, index_B3, guided=True).abs().max() > 0


@pytest.mark.parametrize("activation", get_args(Activation))
def test_only_relu_is_a_rectifier(activation: Activation) -> None:
    others = other_nonlinearities(relu_cnn(activation), pictures(1, 32))
    assert others == ([] if activation == "relu" else [activation])


@pytest.mark.parametrize(
    ("residual", "least", "name", "side"),
    [
        (False, 1, "block5.activation", 2),
        (True, 1, "block5.residual", 2),
        (False, 4, "block4.activation", 4),
        (False, 99, "block5.activation", 2),
    ],
)
def test_the_maps_of_the_cnn_are_those_before_the_pool(residual: bool, least: int, name: str, side: int) -> None:
    layer = last_maps(relu_cnn(residual=residual), pictures(1, 32), least=least, before_ceiling=True)
    assert layer is not None
    assert (layer.name, layer.height, layer.width) == (name, side, side)


def test_strongest_neurons_take_each_channel_once() -> None:
    maps = torch.zeros(3, 2, 2, 3)
    maps[0, 1, 0, 2], maps[1, 1, 1, 1], maps[1, 0, 1, 0], maps[2, 1, 0, 0] = 5, 9, 4, 7
    model = nn.Identity()
    index_B3, values_B = strongest_neurons(model, model, maps)
    assert index_B3.tolist() == [[1, 0, 2], [0, 1, 0], [1, 0, 0]]  # the third image finds both taken: they start anew
    assert values_B.tolist() == [5, 4, 7]


class Averages(nn.Module):
    """Two maps by a 1 x 1 convolution, their means, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1)
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.maps.bias = nn.Parameter(torch.tensor([0.0, 2.0]))
            self.head.weight.copy_(torch.tensor([[4.0, 8.0], [4.0, -4.0], [-4.0, 0.0]]))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.maps(x_BCHW).mean((2, 3)))
        return logits


def test_grad_cam_by_hand() -> None:
    # Maps A = x and B = 2 - x. A logit's gradient at each of the 4 places is a quarter of the class's weight, so the
    # classes show A + 2 B, A - B and -A, each without what is below 0.
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    model = Averages()
    heat = grad_cam(model, model.maps, image.repeat(3, 1, 1, 1), torch.tensor([0, 1, 2]))
    assert heat.tolist() == [[[3, 2], [1, 0]], [[0, 2], [4, 6]], [[0, 0], [0, 0]]]


def test_grad_cam_is_captums() -> None:
    model, images, classes = relu_cnn(), pictures(3, 32), torch.tensor([2, 0, 1])
    layer = model.get_submodule("stages.block4.activation")
    expected = LayerAttribution.interpolate(
        LayerGradCam(model, layer).attribute(images, target=classes, relu_attributions=True), (32, 32), "bilinear"
    )
    found = grad_cam(model, layer, images, classes)
    assert found.max() > 0
    assert torch.equal(found, expected.detach()[:, 0])


def test_patch_sums_by_hand() -> None:
    heat = torch.arange(8.0).view(1, 2, 4)
    assert patch_sums(heat, 2).tolist() == [[[10, 10, 18, 18]] * 2]


def test_frozen_stages_let_no_gradient_through_until_they_are_freed() -> None:
    model: StagedModel = relu_cnn()
    model.freeze(5)
    images, index_B3 = pictures(1, 32), torch.tensor([[0, 0, 0]])
    with pytest.raises(RuntimeError, match="does not require grad"):
        input_gradients(model, model.stages["block5"], images, index_B3, guided=True)
    model.freeze(0)
    assert input_gradients(model, model.stages["block5"], images, index_B3, guided=True).abs().max() > 0
