"""Unbalanced classes: losses and weights against the papers' formulas, and a sampler that is balanced and seeded."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from da6401.config.schema import TrainerConfig
from da6401.training import balance
from da6401.training.balance import (
    ClassLoss,
    balanced_rows,
    balanced_weights,
    effective_weights,
    imbalance_of,
    tell_imbalance,
)

LABELS = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)
LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2] * 4)


def loss(**trainer: Any) -> ClassLoss:
    return ClassLoss(TrainerConfig(**trainer), LABELS, 3, torch.device("cpu"))


def test_without_a_remedy_it_is_torchs_cross_entropy_bit_for_bit() -> None:
    assert torch.equal(loss()(LOGITS, TARGETS), F.cross_entropy(LOGITS, TARGETS))
    weighted = F.cross_entropy(LOGITS, TARGETS, balanced_weights(LABELS, 3), label_smoothing=0.1)
    assert torch.equal(loss(class_weights=True, label_smoothing=0.1)(LOGITS, TARGETS), weighted)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_number_weights(beta: float) -> None:
    weights = effective_weights(LABELS, 3, beta=beta).double().numpy()
    raw = np.array([(1 - beta) / (1 - beta**count) for count in (80, 15, 5)])
    np.testing.assert_allclose(weights / weights[0], raw / raw[0], rtol=1e-5)
    assert weights[LABELS.numpy()].mean() == pytest.approx(1)


def test_towards_one_the_effective_number_is_the_count() -> None:
    close = effective_weights(LABELS, 3, beta=0.9999999)
    assert torch.allclose(close, balanced_weights(LABELS, 3), rtol=1e-3)
    by_number = loss(class_weights=True, class_weights_by="effective", effective_beta=0.9)(LOGITS, TARGETS)
    assert torch.equal(by_number, F.cross_entropy(LOGITS, TARGETS, effective_weights(LABELS, 3, beta=0.9)))


def test_logit_adjustment_adds_the_log_shares() -> None:
    """The mean of -log softmax(f + tau log pi)_y: Menon et al., equation 10."""
    tau, shares = 0.7, np.array([0.8, 0.15, 0.05])
    shifted = LOGITS.double().numpy() + tau * np.log(shares)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    expected = -log_probabilities[np.arange(12), TARGETS.numpy()].mean()
    assert float(loss(logit_adjustment=tau)(LOGITS, TARGETS)) == pytest.approx(expected, rel=1e-5)


def test_focal_loss() -> None:
    """The mean of -(1 - p)^gamma log p: Lin et al., equation 4."""
    right = LOGITS.double().softmax(1)[torch.arange(12), TARGETS]
    expected = -((1 - right) ** 2 * right.log()).mean()
    assert float(loss(focal_gamma=2.0)(LOGITS, TARGETS)) == pytest.approx(float(expected), rel=1e-5)
    weights = balanced_weights(LABELS, 3).double()[TARGETS]
    weighted = -(weights * (1 - right) ** 2 * right.log()).sum() / weights.sum()
    assert float(loss(focal_gamma=2.0, class_weights=True)(LOGITS, TARGETS)) == pytest.approx(float(weighted), rel=1e-5)
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    torch.autograd.backward(loss(focal_gamma=0.5)(sure, torch.tensor([0])))
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_the_sampler_gives_each_class_as_often_and_each_image_as_often_within_it() -> None:
    rows = balanced_rows(LABELS, torch.Generator().manual_seed(1))
    assert len(rows) == 100
    assert sorted(torch.bincount(LABELS[rows]).tolist()) == [33, 33, 34]
    large, small = rows[LABELS[rows] == 0], rows[LABELS[rows] == 2]
    assert len(set(large.tolist())) == len(large)
    assert set(torch.bincount(small, minlength=100)[95:].tolist()) <= {6, 7}
    again = balanced_rows(LABELS, torch.Generator().manual_seed(1))
    other = balanced_rows(LABELS, torch.Generator().manual_seed(2))
    assert torch.equal(rows, again)
    assert not torch.equal(rows.sort().values, other.sort().values)


def test_the_sampler_leaves_out_a_class_without_images() -> None:
    rows = balanced_rows(torch.tensor([0, 0, 0, 2]), torch.Generator())
    assert torch.bincount(torch.tensor([0, 0, 0, 2])[rows], minlength=3).tolist() == [2, 0, 2]


def test_the_imbalance_is_measured_and_the_hint_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    balance._told.clear()
    found = imbalance_of(LABELS, ("a", "b", "c"))
    assert (found.smallest, found.fewest, found.largest, found.most, found.ratio) == ("c", 5, "a", 80, 16.0)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        tell_imbalance(found, TrainerConfig(), fingerprint="x")
    assert [line.startswith("hint: ") for line in caplog.messages] == [False, True, False]
    assert "5 images of its smallest class (c) and 80 of its largest (a): 16.0 to 1" in caplog.messages[0]
    caplog.clear()
    tell_imbalance(found, TrainerConfig(focal_gamma=2.0), fingerprint="y")
    tell_imbalance(imbalance_of(torch.tensor([0, 1, 1]), ("a", "b")), TrainerConfig(), fingerprint="z")
    assert not any("hint" in line for line in caplog.messages)
    caplog.clear()
    tell_imbalance(found, TrainerConfig(sampler="balanced", class_weights=True), fingerprint="y")
    assert "together they favour the rare ones" in caplog.messages[-1]
