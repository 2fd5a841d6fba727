"""What moves in which epoch: plans by tables, and the bits of what does not move."""

# B batch, C channels, H height, W width

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from da6401.config.freeze_rules import freezing_problems, views_of
from da6401.config.schema import AugmentationConfig, CnnConfig, OptimizerConfig, PretrainedConfig
from da6401.errors import ModelError
from da6401.models.build import build_model
from da6401.models.counts import count_layers, count_stages
from da6401.models.freezing import (
    FreezePlan,
    describe_schedule,
    epochs_at,
    final_freeze_plan,
    freeze_plan,
    rate_factors,
)
from da6401.models.stages import StagedModel, output_layer
from da6401.training.optim import build_optimizer

NONE = AugmentationConfig()


def resnet(**keys: Any) -> PretrainedConfig:
    """Five stages."""
    return PretrainedConfig(name="resnet18", weights="none", **keys)


def depths(cfg: PretrainedConfig, epochs: int = 9) -> list[int]:
    return [freeze_plan(cfg, epoch).depth for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [0] * 9),
        ({"freeze_depth": 3}, [3] * 9),
        ({"freeze_depth": 5}, [5] * 9),
        ({"freeze_depth": 2, "head_epochs": 3}, [5, 5, 5, 2, 2, 2, 2, 2, 2]),
        ({"freeze_depth": 1, "unfreeze_every": 1}, [4, 3, 2, 1, 1, 1, 1, 1, 1]),
        ({"freeze_depth": 0, "head_epochs": 1, "unfreeze_every": 2}, [5, 4, 4, 3, 3, 2, 2, 1, 1]),
        ({"freeze_depth": 1, "freeze_last": 2, "unfreeze_every": 3}, [2, 2, 2, 1, 1, 1, 1, 1, 1]),
        ({"freeze_depth": 3, "freeze_last": 2}, [5] * 9),
        ({"freeze_depth": 5, "head_epochs": 20, "unfreeze_every": 1}, [5] * 9),
    ],
)
def test_the_frozen_stages_of_each_epoch(keys: dict[str, int], expected: list[int]) -> None:
    cfg = resnet(**keys)
    assert depths(cfg) == expected
    assert final_freeze_plan(cfg) == freeze_plan(cfg, 1000)
    for depth in set(expected):
        assert [epoch - 1 for epoch in epochs_at(cfg, depth, epochs=9)] == [
            place for place, each in enumerate(expected) if each == depth
        ]
    assert expected == sorted(expected, reverse=True), "what has trained must not be frozen again"


def test_what_goes_with_a_plan() -> None:
    cfg = resnet(freeze_depth=1, freeze_last=2, train_only="norm", head_epochs=1)
    assert freeze_plan(cfg, 1) == FreezePlan(depth=5)
    assert freeze_plan(cfg, 2) == FreezePlan(depth=1, last=2, norms_only=True)
    assert freeze_plan(CnnConfig(), 7) == final_freeze_plan(CnnConfig()) == FreezePlan(depth=0)


def test_the_schedule_in_words() -> None:
    cfg = resnet(freeze_depth=3, head_epochs=2, unfreeze_every=1)
    assert describe_schedule(cfg, epochs=9) == [
        "training begins with the head from epoch 1, then layer4 from epoch 3, then layer3 from epoch 4"
    ]
    assert describe_schedule(resnet(freeze_depth=3), epochs=9) == describe_schedule(CnnConfig(), epochs=9) == []


def test_rates_decay_from_the_last_stage_to_the_first() -> None:
    assert rate_factors(resnet(backbone_lr_factor=0.5, stage_lr_decay=0.1), 3) == pytest.approx([0.005, 0.05, 0.5])
    assert rate_factors(resnet(backbone_lr_factor=0.5), 2) == [0.5, 0.5]
    assert rate_factors(CnnConfig(), 2) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("model", "augmentation", "words"),
    [
        (resnet(freeze_depth=3, freeze_last=3), NONE, r"model\.freeze_last=3: .*resnet18; use 0\.\.2"),
        (resnet(head_epochs=5), NONE, r"model\.head_epochs=5: trainer\.epochs=5 .*model\.freeze_depth=5"),
        (PretrainedConfig(name="vgg16", train_only="norm"), NONE, "vgg16 has no normalisation layers"),
        (resnet(feature_cache="on"), AugmentationConfig(mixup=0.2), r"mixup .*model\.feature_cache=auto"),
        (resnet(feature_cache="on"), AugmentationConfig(cutmix=0.2, flip=0.5), r"cutmix .*mix pixels"),
        (resnet(feature_cache="on"), AugmentationConfig(erase=0.2), r"feature_views=1 keeps the plain"),
    ],
)
def test_what_contradicts_itself_is_told(model: PretrainedConfig, augmentation: AugmentationConfig, words: str) -> None:
    (problem,) = freezing_problems(model, augmentation, epochs=5)
    assert re.search(words, problem), problem


@pytest.mark.parametrize(
    ("model", "augmentation", "views"),
    [
        (resnet(feature_views=4, feature_cache="on"), NONE, 1),
        (resnet(feature_cache="on"), AugmentationConfig(flip=0.5), 2),
        (resnet(feature_views=7, feature_cache="on"), AugmentationConfig(flip=1.0), 2),
        (resnet(feature_views=4, feature_cache="on"), AugmentationConfig(flip=0.5, rotate=5), 4),
        (resnet(freeze_depth=5, head_epochs=50), NONE, 1),
        (resnet(freeze_depth=3, freeze_last=2), AugmentationConfig(mixup=1), 1),
        (PretrainedConfig(name="vgg16", train_only="norm", freeze_depth=7), NONE, 1),
    ],
)
def test_what_is_meaningful_is_accepted(model: PretrainedConfig, augmentation: AugmentationConfig, views: int) -> None:
    assert freezing_problems(model, augmentation, epochs=5) == []
    assert views_of(model, augmentation) == views


# ---- bits -------------------------------------------------------------------------------------------------------


def small() -> StagedModel:
    """Four stages with batch norm, and a linear head."""
    torch.manual_seed(0)
    stages = {
        f"s{number}": nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        for number, channels in enumerate([3, 4, 4, 4])
    }
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), output_layer(4, 5))
    return StagedModel(stages=stages, head=head, mean=[0.5] * 3, std=[0.25] * 3)


def snapshot(model: StagedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Whatever has other bits, by part and kind: s1.norm, head, ..."""
    kinds = {"0": "conv", "1": "norm"}
    names = [name.split(".") for name in before if not torch.equal(before[name], after[name])]
    return {f"{parts[1]}.{kinds[parts[2]]}" if parts[0] == "stages" else parts[0] for parts in names}


def epoch(model: StagedModel, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    for seed in range(3):
        images_BCHW = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images_BCHW), torch.tensor([0, 1, 2, 3])))
        optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "rmsprop"])
def test_one_optimizer_serves_a_whole_schedule_and_moves_nothing_that_is_frozen(name: str) -> None:
    model = small()
    model.apply_freeze_plan(FreezePlan(depth=1))
    cfg = OptimizerConfig(name=name, lr=0.05, weight_decay=0.3, momentum=0.9)
    groups = model.parameter_groups()
    optimizer = build_optimizer(
        cfg, stages=[(group.values(), 0.5) for group in groups.stages], head=groups.head.values()
    )
    every = {f"s{number}.{kind}" for number in range(4) for kind in ("conv", "norm")}
    for plan, expected in (
        (FreezePlan(depth=4), {"head"}),
        (FreezePlan(depth=3), {"head", "s3.conv", "s3.norm"}),
        (FreezePlan(depth=1, last=1, norms_only=True), {"head", "s1.norm", "s2.norm"}),
        (FreezePlan(depth=2, last=1), {"head", "s2.conv", "s2.norm"}),
        (FreezePlan(depth=1), {"head", *every} - {"s0.conv", "s0.norm"}),
        (FreezePlan(depth=4), {"head"}),  # momentum and decay of before must not move anything either
    ):
        model.apply_freeze_plan(plan)
        before = snapshot(model)
        epoch(model, optimizer)
        assert moved(before, model.state_dict()) == expected, plan
        moving = {name for name in before if not torch.equal(before[name], model.state_dict()[name])}
        assert moving == set(model.trainable_state()), plan


def test_what_a_network_brings_frozen_stays_frozen_under_every_plan() -> None:
    brought = small()
    brought.stages["s0"].requires_grad_(False)
    brought.stages["s1"].get_parameter("1.bias").requires_grad_(False)  # its norm's scale trains
    brought.keep_frozen()
    model = copy.deepcopy(brought)
    frozen = {f"stages.{name}" for name in ("s0.0.weight", "s0.1.weight", "s0.1.bias", "s1.1.bias")}
    for depth, more in ((0, set()), (2, {"stages.s1.0.weight", "stages.s1.1.weight"}), (0, set())):
        model.apply_freeze_plan(FreezePlan(depth=depth))
        named = dict(model.named_parameters())
        assert {name for name, parameter in named.items() if not parameter.requires_grad} == frozen | more
        groups = model.parameter_groups()
        assert {name for group in [*groups.stages, groups.head] for name in group} == named.keys() - frozen - more
        assert named.keys() - model.trainable_state().keys() == frozen | more
        counted = sum(stage.trainable_parameters for stage in count_stages(count_layers(model, 8)))
        assert counted == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    before, bias = snapshot(model), model.stages["s1"].get_parameter("1.bias").clone()
    epoch(model, torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.05))
    parts = {f"s{number}.{kind}" for number in (1, 2, 3) for kind in ("conv", "norm")}
    assert moved(before, snapshot(model)) == {"head", *parts}, "the statistics of s0 keep still, too"
    assert torch.equal(bias, model.stages["s1"].get_parameter("1.bias"))


def test_gradients_flow_through_what_keeps_still() -> None:
    model = small()
    model.apply_freeze_plan(FreezePlan(depth=1, last=2))
    assert [stage.training for stage in model.train().stages.values()] == [False, True, False, False]
    torch.autograd.backward(model(torch.rand(4, 3, 8, 8)).sum())
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[1] for name in gradients if name.startswith("stages")} == {"s1"}


@pytest.mark.parametrize(
    "plan", [FreezePlan(depth=5), FreezePlan(depth=-1), FreezePlan(depth=3, last=2), FreezePlan(depth=0, last=-1)]
)
def test_a_plan_for_another_network_is_refused(plan: FreezePlan) -> None:
    with pytest.raises(ModelError, match=r"s0, s1, s2, s3; use 0\.\.4"):
        small().apply_freeze_plan(plan)


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_16", "efficientnet_lite0"])
def test_norms_are_found_in_every_kind_of_backbone(name: str) -> None:
    cfg = PretrainedConfig(name=name, weights="none", train_only="norm", freeze_depth=2)
    with torch.device("meta"):
        model = build_model(cfg, num_classes=3, image_size=32)
    layers = count_layers(model, 32)
    trained = [layer for layer in layers if layer.trainable]
    assert {layer.kind for layer in trained} == {
        "linear",
        "layer norm" if name != "efficientnet_lite0" else "batch norm",
    }
    assert [layer.stage for layer in trained if layer.kind == "linear"] == ["head"]
    stages = count_stages(layers)
    assert [stage.frozen for stage in stages][:3] == [True, True, False]
    assert sum(stage.trainable_parameters for stage in stages) == sum(
        parameter.numel() for parameter in model.parameters() if parameter.requires_grad
    )
    assert sum(stage.macs_share for stage in stages) == pytest.approx(1.0)
