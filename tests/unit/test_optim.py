"""Learning-rate schedules, parameter groups and weight averaging, by tables and small cases."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from da6401.config.metrics import chosen_metric
from da6401.config.schema import OptimizerConfig, ScheduleConfig
from da6401.training.balance import balanced_weights
from da6401.training.optim import EndAverage, MovingAverage, build_optimizer, set_learning_rate
from da6401.training.schedules import lr_factor
from da6401.training.state import History


def curve(cfg: ScheduleConfig, *, epochs: int = 4, steps: int = 10) -> list[float]:
    return [lr_factor(cfg, step, steps_per_epoch=steps, epochs=epochs) for step in range(steps * epochs)]


def test_constant_is_constant() -> None:
    assert curve(ScheduleConfig(name="constant")) == [1.0] * 40


def test_step_drops_every_step_epochs() -> None:
    rates = curve(ScheduleConfig(name="step", step_epochs=2, step_factor=0.5))
    assert rates == [1.0] * 20 + [0.5] * 20


def test_steps_are_counted_from_the_end_of_the_warm_up() -> None:
    rates = curve(ScheduleConfig(name="step", warmup=0.25, step_epochs=1, step_factor=0.5))
    assert rates == pytest.approx([0.1 * k for k in range(1, 11)] + [1.0] * 10 + [0.5] * 10 + [0.25] * 10)
    # A warm-up of one epoch and a half: each rate lasts a whole step_epochs after it.
    rates = curve(ScheduleConfig(name="step", warmup=0.375, step_epochs=2, step_factor=0.5))
    assert rates[14:] == [1.0] * 21 + [0.5] * 5


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "onecycle"])
def test_every_shape_heeds_the_warm_up(name: str) -> None:
    cfg = ScheduleConfig(name=name, warmup=0.5, step_epochs=1, step_factor=0.1)
    rates = curve(cfg)
    assert rates[:20] == sorted(rates[:20])
    assert rates[19] == rates[20] == max(rates) == 1.0


def test_warmup_rises_to_the_highest_rate_and_not_beyond() -> None:
    rates = curve(ScheduleConfig(name="cosine", warmup=0.25))
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert max(rates) == 1.0


@pytest.mark.parametrize("name", ["cosine", "onecycle"])
def test_a_fall_ends_near_the_final_factor(name: str) -> None:
    rates = curve(ScheduleConfig(name=name, warmup=0.2, final_factor=0.1), steps=100)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[:peak] == sorted(rates[:peak])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "rmsprop"])
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    cfg = OptimizerConfig(name=name, lr=0.01, weight_decay=0.01)
    optimizer = build_optimizer(cfg, stages=[], head=model.parameters())
    inputs, target = torch.randn(32, 4), torch.randn(32, 1)

    def loss() -> torch.Tensor:
        return nn.functional.mse_loss(model(inputs), target)

    before = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        optimizer.step()
    assert loss().item() < before


def test_groups_have_their_own_rates_and_norms_no_decay() -> None:
    backbone = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    head = nn.Linear(3, 2)
    backbone[0].weight.requires_grad_(False)
    cfg = OptimizerConfig(name="sgd", lr=0.5, weight_decay=0.1)
    optimizer = build_optimizer(cfg, stages=[(backbone.parameters(), 0.1)], head=head.parameters())
    set_learning_rate(optimizer, 0.5)
    seen = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert id(backbone[0].weight) not in seen
    assert seen[id(backbone[0].bias)] == (pytest.approx(0.025), 0.0)
    assert seen[id(backbone[1].weight)] == (pytest.approx(0.025), 0.0)
    assert seen[id(head.weight)] == (0.25, 0.1)
    assert seen[id(head.bias)] == (0.25, 0.0)


def test_the_average_follows_the_weights_and_starts_quickly() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, ["weight"], decay=0.9)
    nn.init.ones_(model.weight)
    average.update()
    assert float(average.model.state_dict()["weight"]) == pytest.approx(0.9)  # the first decay is (1 + 0) / (10 + 0)
    for _ in range(200):
        average.update()
    assert float(average.model.state_dict()["weight"]) == pytest.approx(1.0, abs=1e-6)
    assert model.weight.item() == 1.0


def test_a_weight_of_two_names_is_averaged_once() -> None:
    layer = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(layer, nn.Linear(2, 2, bias=False))
    model[1].weight = layer.weight
    model.register_buffer("none", torch.zeros(0))
    average = EndAverage(model, model.state_dict())
    for number, value in enumerate((1.0, 2.0, 6.0), start=1):
        nn.init.constant_(layer.weight, value)
        average.update(number)
    assert torch.equal(average.model.state_dict()["1.weight"], torch.full((2, 2), 3.0))


def test_balanced_weights_have_mean_one_over_the_images() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    weights = balanced_weights(labels, 2)
    assert weights[labels].mean().item() == pytest.approx(1.0)
    assert weights[1] / weights[0] == pytest.approx(3.0)


def test_the_better_epoch_has_the_higher_accuracy_then_the_lower_loss() -> None:
    history = History()
    epochs = [(0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.4, 0.1), (0.6, 9.0), (0.5, 0.1)]
    better = [
        history.add({"epoch": number, "val_accuracy": accuracy, "val_loss": loss}, chosen_metric("accuracy"))
        for number, (accuracy, loss) in enumerate(epochs, start=1)
    ]
    assert better == [True, True, False, False, True, False]
    assert (history.best_epoch, history.val_accuracy, history.val_loss) == (5, 0.6, 9.0)
    assert history.last_improved_epoch == 5
