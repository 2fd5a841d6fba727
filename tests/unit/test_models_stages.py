"""The form that every network has: stages, head, freezing."""

# B batch, C channels, H height, W width

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from da6401.models import stages
from da6401.models.stages import StagedModel, output_layer


def small(*, mean: float = 0.5) -> StagedModel:
    """Three stages with batch norm and dropout, and a linear head."""
    torch.manual_seed(0)
    stages = {
        f"s{number}": nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )
        for number, channels in enumerate([3, 4, 4])
    }
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), output_layer(4, 5))
    return StagedModel(stages=stages, head=head, mean=[mean] * 3, std=[0.25] * 3)


def images(seed: int = 1) -> Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_forward_is_normalise_then_stages_then_head() -> None:
    model = small().eval()
    x = images()
    by_hand = (x - 0.5) / 0.25
    for position in range(3):
        by_hand = model.run_stages(by_hand, position, position + 1)
    assert torch.equal(model(x), model.head(by_hand))
    assert torch.equal(model(x), model.head(model.run_stages(model.run_stages(model.normalise(x), 0, 2), 2, 3)))


def test_train_leaves_frozen_stages_in_eval() -> None:
    model = small()
    model.freeze(2)
    for mode in (True, False, True):
        assert model.train(mode) is model
        assert [stage.training for stage in model.stages.values()] == [False, False, mode]
        assert model.head.training is mode
    assert not any(module.training for module in model.stages["s0"].modules())


def test_freeze_takes_effect_at_once_and_can_be_taken_back() -> None:
    model = small().train()
    model.freeze(3)
    assert not any(stage.training for stage in model.stages.values())
    assert not any(parameter.requires_grad for parameter in model.stages.parameters())
    model.freeze(1)
    assert [stage.training for stage in model.stages.values()] == [False, True, True]
    assert all(parameter.requires_grad for parameter in model.stages["s1"].parameters())


def test_no_graph_is_kept_for_frozen_stages() -> None:
    model = small().train()
    model.freeze(2)
    x = model.normalise(images())
    assert not model.run_stages(x, 0, 2).requires_grad
    assert model.run_stages(x, 0, 3).requires_grad
    assert model.run_stages(model.run_stages(x, 0, 2), 2, 3).requires_grad


def test_parameter_groups_hold_each_trained_parameter_once() -> None:
    model = small()
    model.freeze(2)
    groups = model.parameter_groups()
    assert [{name.split(".")[1] for name in stage} for stage in groups.stages] == [set(), set(), {"s2"}]
    assert set(groups.head) == {"head.2.weight", "head.2.bias"}
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert sorted(trained) == sorted(id(p) for group in (*groups.stages, groups.head) for p in group.values())
    model.freeze(3)
    assert model.parameter_groups().stages == [{}, {}, {}]


def test_a_checkpoint_carries_its_normalisation() -> None:
    trained, fresh = small(mean=0.3).eval(), small(mean=0.5).eval()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(images()), trained(images()))


def test_bytes_are_not_taken_for_floats() -> None:
    with pytest.raises(AssertionError, match=r"floats in 0\.\.1"):
        small()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_a_cpu_computes_a_large_batch_in_pieces_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def double(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return 2 * x

    x = torch.rand(7, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(stages, "PIECE", 3 * x[0].numel())
    y = stages.in_pieces(double, x)
    assert sizes == [3, 3, 1]
    assert torch.equal(y, 2 * x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(stages, "PIECE", 1)  # less than one image has
    assert torch.equal(stages.in_pieces(double, x), 2 * x)


def test_only_what_learns_nothing_from_its_batch_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = StagedModel(
        stages={"one": nn.Conv2d(3, 4, 3), "two": nn.BatchNorm2d(4)},
        head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), mean=[0.0] * 3, std=[1.0] * 3,
    )  # fmt: skip
    x = torch.rand(6, 3, 8, 8)
    sizes: dict[str, list[int]] = {"one": [], "two": []}
    for name, seen in sizes.items():
        model.stages[name].register_forward_hook(lambda _, inputs, y, seen=seen: seen.append(len(y)))
    monkeypatch.setattr(stages, "PIECE", 2 * x[0].numel())
    model.freeze(1)
    model(x)  # batch norm needs the whole batch
    assert sizes == {"one": [2, 2, 2], "two": [6]}
    model.eval()
    with torch.inference_mode():
        model(x)
    assert sizes == {"one": [2] * 6, "two": [6, 2, 2, 2]}
    model(x).sum().backward()  # a gradient may be looked for in the whole
    assert sizes["two"][-1] == 6
