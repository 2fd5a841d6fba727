"""Dropout by 16 random bits: nn.Dropout's distribution, its scale and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from da6401.models.dropout import Dropout


@pytest.mark.parametrize("p", [1e-4, 0.2, 0.5, 0.9, 0.99999])
def test_as_many_are_dropped_as_asked_for_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    count = 1_000_000
    y = Dropout(p)(torch.ones(1000, count // 1000))
    dropped = int((y == 0).sum())
    deviation = (count * p * (1 - p)) ** 0.5
    assert abs(dropped - count * p) < 5 * deviation + count * 2**-17
    assert y.unique().numel() == 2
    assert y.mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / count) ** 0.5)


def test_neighbours_fall_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(200, 4001)) > 0).float().flatten()
    for distance in (1, 2, 3, 4, 8, 4001):
        both = (kept[:-distance] * kept[distance:]).mean().item()
        assert both == pytest.approx(0.25, abs=0.003)


def test_dropped_features_have_no_gradient_and_kept_ones_their_scale() -> None:
    x = torch.rand(7, 13, requires_grad=True)  # not a multiple of the four that one number decides on
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x, y)
    assert x.grad[y > 0] == pytest.approx(1 / 0.6, rel=1e-4)


def test_the_seed_decides_and_evaluation_changes_nothing() -> None:
    layer, x = Dropout(0.3), torch.rand(5, 5)
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(layer(x))
    first, second, other = answers
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_type_and_the_layout_of_the_input_stay() -> None:
    x = torch.rand(2, 3, 4, 4).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = Dropout(0.5)(x)
    assert y.dtype is torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_on_other_devices_it_is_torchs_own() -> None:
    x = torch.ones(4, 4, device="meta")
    assert Dropout(0.5)(x).device.type == "meta"
    assert isinstance(Dropout(0.5), nn.Dropout)
