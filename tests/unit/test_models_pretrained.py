"""Part B: each backbone's stages are its own forward, and its frozen stages do not move."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlock

from da6401.config.schema import PretrainedConfig
from da6401.errors import ModelError
from da6401.models import weights
from da6401.models.backbones import adapt_positions
from da6401.models.build import build_model
from da6401.models.pretrained import staged
from da6401.models.stages import StagedModel
from da6401.registry import BACKBONES
from tests.few_draws import draw_few

SIDES: dict[str, int] = {"vgg16": 32, "vit_b_16": 32, "inception_v3": 75}
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass(frozen=True)
class Pair:
    """torchvision's own model, and ours with its weights."""

    name: str
    original: Any
    model: StagedModel
    images: Tensor  # (B, C, H, W)


def original_network(name: str, image_size: int) -> Any:
    """The model as torchvision makes it for its ImageNet weights: auxiliary heads and transform_input included."""
    if name in ("googlenet", "inception_v3"):
        return getattr(models, name)(weights=None, aux_logits=True, transform_input=True, init_weights=True)
    return BACKBONES[name].make(image_size)


def enliven(network: nn.Module, side: int) -> None:
    """Give random weights a signal that reaches the logits: else equal outputs would prove little."""
    for module in network.modules():
        if isinstance(module, CNBlock):
            nn.init.ones_(module.layer_scale)  # ConvNeXt's starts at 1e-6: its blocks would do nothing
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one pass then sets the running statistics to this batch's
            module.train()
    with torch.no_grad():
        network(torch.randn(16, 3, side, side))
    network.eval()


def last_linear(network: nn.Module) -> nn.Linear:
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


@pytest.fixture(scope="module", params=BACKBONES)
def pair(request: pytest.FixtureRequest) -> Pair:
    name: str = request.param
    spec, side = BACKBONES[name], SIDES.get(name, 64)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        draw_few(patch)
        original = original_network(name, side).eval()
        enliven(original, side)
        nn.init.normal_(last_linear(original).weight)  # ViT's starts at zero
        network = spec.make(side)
    weights.load(network, original.state_dict(), replaced=spec.replaced, source="the original")
    model = staged(BACKBONES[name], network, num_classes=1000, dropout=0.5).eval()
    last_linear(model.head).load_state_dict(last_linear(original).state_dict())
    return Pair(name, original, model, torch.rand(2, 3, side, side))


def test_stage_by_stage_equals_the_backbones_own_forward(pair: Pair) -> None:
    model = pair.model
    assert model.stage_names == BACKBONES[pair.name].stages
    normalised = (pair.images - IMAGENET_MEAN) / IMAGENET_STD
    if pair.name.startswith("efficientnet_lite"):
        normalised = (pair.images - 0.498) / 0.502
    with torch.no_grad():
        expected_BK = pair.original(normalised)
        x = model.normalise(pair.images)
        for position in range(len(model.stage_names)):
            given = x.clone()
            result = model.run_stages(x, position, position + 1)
            assert torch.equal(x, given), f"{model.stage_names[position]} changes its input, which may be a cache"
            x = result
        logits_BK = model(pair.images)
        assert torch.equal(model.head(x), logits_BK)
    assert x.shape == (2, BACKBONES[pair.name].features)
    scale = expected_BK.std()
    assert (expected_BK[0] - expected_BK[1]).abs().max() > 1e-2 * scale, "the images make no difference: a vacuous test"
    torch.testing.assert_close(logits_BK, expected_BK, rtol=1e-4, atol=2e-4 * scale.item())


def test_frozen_stages_are_bit_identical_after_training(pair: Pair) -> None:
    model = pair.model
    depth = len(model.stage_names) // 2
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.freeze(depth)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(pair.images), torch.tensor([0, 1])))
        optimizer.step()
    model.eval()
    after = model.state_dict()
    moved = {name.split(".")[1] for name in kept if not torch.equal(kept[name], after[name])}
    assert moved == {*model.stage_names[depth:], "1"}  # head.1 is the linear layer
    model.load_state_dict(kept)  # other tests share this model
    model.freeze(0)


def test_the_names_of_all_original_tensors_are_known(pair: Pair) -> None:
    """Whatever the new head does not replace is loaded: nothing of the original is left out."""
    spec = BACKBONES[pair.name]
    size = sum(t.numel() for name, t in pair.original.state_dict().items() if not name.startswith(spec.replaced))
    ours = sum(tensor.numel() for tensor in pair.model.stages.state_dict().values())
    assert ours == size


@pytest.mark.parametrize("name", [name for name in BACKBONES if not name.startswith("efficientnet_lite")])
def test_normalisation_is_that_of_the_weights(name: str) -> None:
    """For GoogLeNet and Inception the weights' preprocessing is followed by transform_input, which comes to -1..1."""
    spec = BACKBONES[name]
    preset = models.get_weight(spec.imagenet).transforms()
    mean, std = spec.statistics
    if name in ("googlenet", "inception_v3"):
        x = torch.rand(3, 3, 8, 8)
        network = getattr(models, name)(weights=None, aux_logits=False, transform_input=True, init_weights=False)
        usual = (x - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1)
        ours = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(network._transform_input(usual), ours)
    else:
        assert (list(mean), list(std)) == (preset.mean, preset.std)
        assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name].min_size > 1])
def test_the_smallest_size_is_the_smallest_that_works(name: str) -> None:
    facts = BACKBONES[name]
    with torch.device("meta"):
        model = build_model(PretrainedConfig(name=name, weights="none"), num_classes=3, image_size=facts.min_size)
    model.eval()
    assert model(torch.empty(1, 3, facts.min_size, facts.min_size, device="meta")).shape == (1, 3)
    with pytest.raises(RuntimeError):
        model(torch.empty(1, 3, facts.min_size - 1, facts.min_size - 1, device="meta"))


def test_depth_zero_trains_all_and_the_last_depth_only_the_head() -> None:
    with torch.device("meta"):
        every = build_model(PretrainedConfig(name="resnet18", weights="none"), num_classes=3, image_size=32)
        cfg = PretrainedConfig(name="resnet18", weights="none", freeze_depth=5)
        head_only = build_model(cfg, num_classes=3, image_size=32)
    assert all(parameter.requires_grad for parameter in every.parameters())
    assert {name for name, p in head_only.named_parameters() if p.requires_grad} == {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize(("depth", "size"), [(13, 224), (0, 8)])
def test_what_does_not_fit_is_refused_before_anything_is_built(depth: int, size: int) -> None:
    with pytest.raises(ModelError, match=r"4e, 5a, 5b|at least 15 x 15"):
        build_model(PretrainedConfig(name="googlenet", freeze_depth=depth), num_classes=3, image_size=size)


def test_position_embeddings_follow_the_grid() -> None:
    """A ramp from left to right stays one on the finer grid; the class token's own embedding stays as it is."""
    ramp_THE = torch.linspace(0, 1, 3).view(1, 3, 1).expand(3, 3, 4)
    state = {"encoder.pos_embedding": torch.cat([torch.full((1, 1, 4), 9.0), ramp_THE.reshape(1, 9, 4)], dim=1)}
    resized = adapt_positions(state, source="a file", image_size=5 * 16)["encoder.pos_embedding"]
    assert resized.shape == (1, 26, 4)
    assert torch.equal(resized[:, 0], torch.full((1, 4), 9.0))
    rows = resized[0, 1:, 0].view(5, 5)
    torch.testing.assert_close(rows[0], rows[4])
    assert torch.all(rows[0].diff() > 0)
    assert (rows[0, 0].item(), rows[0, 4].item()) == pytest.approx((0, 1), abs=1e-6)
    same = adapt_positions(state, source="a file", image_size=3 * 16)["encoder.pos_embedding"]
    assert torch.equal(same, state["encoder.pos_embedding"])


def test_position_embeddings_that_are_no_grid_are_refused() -> None:
    with pytest.raises(ModelError, match=r"model\.weights=odd\.pth.*square"):
        adapt_positions({"encoder.pos_embedding": torch.zeros(1, 8, 4)}, source="odd.pth", image_size=32)
