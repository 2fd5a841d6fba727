"""The metrics equal scikit-learn's, and say where they have no value."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk

from da6401.config.metrics import chosen_metric
from da6401.errors import UndefinedMetricError, UserError
from da6401.metrics.scores import check_defined, score, scores_of
from da6401.registry import METRICS, SCORES
from da6401.runs.predictions import Predictions

NAMES = ["accuracy", "balanced_accuracy", "macro_f1", "top5", "log_loss", "macro_auroc", "mcc", "kappa"]


def answers(*, images: int, classes: int, seed: int, ties: bool = False) -> Predictions:
    """Unbalanced labels, and probabilities that are right more often than not; every class is there."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(classes))
    labels = np.concatenate([np.arange(classes), rng.choice(classes, images - classes, p=share)])
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[labels]
    logits = np.round(logits) if ties else logits
    odds = np.exp(logits)
    names = tuple(f"c{label}" for label in range(classes))
    probabilities = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    return Predictions(names, tuple(map(str, range(images))), labels, probabilities)


def reference(labels: np.ndarray, wide: np.ndarray) -> dict[str, Callable[[], float]]:
    """scikit-learn's own functions, on probabilities in float64."""
    classes, predicted = wide.shape[1], wide.argmax(1)
    every = list(range(classes))
    one = wide[:, 1] if classes == 2 else wide / wide.sum(1, keepdims=True)
    return {
        "accuracy": lambda: sk.accuracy_score(labels, predicted),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(labels, predicted),
        "macro_f1": lambda: sk.f1_score(labels, predicted, average="macro"),
        "top5": lambda: sk.top_k_accuracy_score(labels, wide, k=5, labels=every),
        "log_loss": lambda: sk.log_loss(labels, wide, labels=every),
        "macro_auroc": lambda: sk.roc_auc_score(labels, one, multi_class="ovr", average="macro"),
        "mcc": lambda: sk.matthews_corrcoef(labels, predicted),
        "kappa": lambda: sk.cohen_kappa_score(labels, predicted),
    }


@pytest.mark.parametrize(("classes", "images"), [(2, 40), (3, 61), (10, 378), (27, 500)])
@pytest.mark.parametrize("ties", [False, True])
def test_each_metric_equals_scikit_learns(classes: int, images: int, ties: bool) -> None:
    found = answers(images=images, classes=classes, seed=classes, ties=ties)
    scored = scores_of(found)
    assert list(scored.values) == NAMES == list(SCORES)
    theirs = reference(found.labels_N, found.probabilities_NK.astype(np.float64))
    for name in NAMES:
        if name == "top5" and classes <= 5:
            assert scored.values[name] is None
            assert "no more than 5" in scored.undefined[name]
            continue
        if name == "macro_auroc" and ties and classes > 2:
            continue  # scaling the rows to a sum of 1, which scikit-learn asks for, would break ties
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's on rows of float32, whose sum is 1 only nearly
            expected = theirs[name]()
        assert scored.values[name] == pytest.approx(expected, abs=1e-9), name


def test_ties_count_half_in_auroc() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.5, 0.5], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    expected = sk.roc_auc_score(labels, probabilities[:, 1])
    assert score("macro_auroc", labels, probabilities) == expected == 0.875


def test_a_class_without_images_is_told_by_name() -> None:
    found = answers(images=60, classes=4, seed=0)
    kept = found.labels_N != 2
    part = Predictions(found.class_names, found.names, found.labels_N[kept], found.probabilities_NK[kept])
    scored = scores_of(part)
    assert scored.values["macro_auroc"] is None
    assert scored.undefined["macro_auroc"] == "a class has no image (without images: c2)"
    present = sk.recall_score(part.labels_N, part.predicted, labels=[0, 1, 3], average="macro")
    assert scored.values["balanced_accuracy"] == pytest.approx(present, abs=1e-12)
    with pytest.raises(UserError, match=r"trainer.metric=macro_auroc: undefined .*without images: c2.*another metric"):
        check_defined(["macro_auroc"], part.labels_N, part.class_names, key="trainer.metric")
    check_defined(["macro_auroc", "kappa", "macro_f1"], found.labels_N, found.class_names, key="trainer.metric")


def test_one_class_alone_leaves_kappa_undefined() -> None:
    with pytest.raises(UndefinedMetricError, match="one class"):
        score("kappa", np.zeros(5, dtype=np.int64), np.tile([0.9, 0.1], (5, 1)))


def test_a_metric_is_one_function_and_its_direction() -> None:
    assert METRICS["val_log_loss"].maximise is False
    assert chosen_metric("log_loss").better(0.1, 0.2)
    assert METRICS["val_macro_f1"].words == "validation macro F1"
    assert chosen_metric("macro_f1").better(0.2, 0.1)
    with pytest.raises(UserError, match="did you mean macro_f1"):
        SCORES["macro_f"]
