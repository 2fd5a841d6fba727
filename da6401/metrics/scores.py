"""The metrics of a split, each one function of labels and probabilities, equal to scikit-learn's.

A function with ``@metric("name", ...)`` is all that a metric is: ``trainer.metric``, ``sweep.objectives``, result.json
and the report know it from the registry. numpy is imported when one is computed: the configuration asks for the names
alone.
"""

# N images, K classes

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from da6401.errors import UndefinedMetricError, UserError
from da6401.registry import METRICS, SCORES, MetricEntry, metric

if TYPE_CHECKING:
    from da6401.registry import Labels, Probabilities
    from da6401.runs.predictions import Predictions

TOP = 5  # classes that top5 accepts
LEAST = sys.float_info.epsilon  # what a probability of 0 counts as in the log loss, as in scikit-learn's


@metric("accuracy", "accuracy", maximise=True, is_share=True)
def accuracy(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Share of the images whose most probable class is the true one; ties go to the lower class."""
    return float((probabilities_NK.argmax(1) == labels_N).mean())


METRICS.register("val_loss", MetricEntry("validation loss", maximise=False, form="{:.4f}", by_epoch=True))
METRICS.register("parameters", MetricEntry("parameters", maximise=False, form="{:,.0f}"))
METRICS.register("macs", MetricEntry("multiply-accumulates", maximise=False, form="{:,.0f}"))
METRICS.register("latency_ms", MetricEntry("latency ms", maximise=False, form="{:.3f}"))


@metric("balanced_accuracy", "balanced accuracy", maximise=True)
def balanced_accuracy(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Mean recall of the classes that the split has."""
    counts_KK = _counts(labels_N, probabilities_NK)
    images_K = counts_KK.sum(1)
    there = images_K > 0
    return float((counts_KK.diagonal()[there] / images_K[there]).mean())


@metric("macro_f1", "macro F1", maximise=True)
def macro_f1(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Mean F1 of the classes that the split has or that are predicted."""
    counts_KK = _counts(labels_N, probabilities_NK)
    both_K = counts_KK.sum(0) + counts_KK.sum(1)
    return float((2 * counts_KK.diagonal()[both_K > 0] / both_K[both_K > 0]).mean())


@metric("top5", "top-5 accuracy", maximise=True, is_share=True)
def top5(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Share of the images whose class is among the five most probable ones; of equal ones the higher class counts."""
    import numpy as np

    classes = probabilities_NK.shape[1]
    if classes <= TOP:
        raise UndefinedMetricError(f"{classes} classes are no more than {TOP}: every answer would be right")
    order_NK = np.argsort(probabilities_NK, axis=1, kind="stable")
    return float((order_NK[:, -TOP:] == labels_N[:, None]).any(1).mean())


@metric("log_loss", "log loss", maximise=False)
def log_loss(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Mean cross-entropy in nats; a probability counts as at least 2.2e-16."""
    return float(log_losses(labels_N, probabilities_NK).mean())


def log_losses(labels_N: Labels, probabilities_NK: Probabilities) -> Probabilities:
    """(N,): each image's part in the log loss."""
    import numpy as np

    right_N = np.clip(probabilities_NK[np.arange(len(labels_N)), labels_N].astype(np.float64), LEAST, 1 - LEAST)
    losses_N: Probabilities = -np.log(right_N)
    return losses_N


@metric("macro_auroc", "macro AUROC", maximise=True)
def macro_auroc(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Mean over the classes of the area under the ROC curve of one against the rest; of two classes it is one area."""
    import numpy as np

    classes = probabilities_NK.shape[1]
    images_K = np.bincount(labels_N, minlength=classes)
    if not images_K.all():
        raise UndefinedMetricError("a class has no image")
    areas = []
    for label in range(classes) if classes > 2 else (1,):
        is_class_N = labels_N == label
        _, place_N, count = np.unique(probabilities_NK[:, label], return_inverse=True, return_counts=True)
        rank_N = (np.cumsum(count) - (count - 1) / 2)[place_N]  # of equal values the mean
        inside = int(images_K[label])
        above = rank_N[is_class_N].sum() - inside * (inside + 1) / 2  # pairs in the right order
        areas.append(above / (inside * (len(labels_N) - inside)))
    return float(np.mean(areas))


@metric("mcc", "Matthews correlation", maximise=True)
def mcc(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Matthews' correlation coefficient for any number of classes; 0 where one side has a single class."""
    counts_KK = _counts(labels_N, probabilities_NK).astype(float)
    true_K, predicted_K, total = counts_KK.sum(1), counts_KK.sum(0), counts_KK.sum()
    both = counts_KK.trace() * total - true_K @ predicted_K
    spread = (total**2 - predicted_K @ predicted_K) * (total**2 - true_K @ true_K)
    return float(both / math.sqrt(spread)) if spread > 0 else 0.0


@metric("kappa", "Cohen's kappa", maximise=True)
def kappa(labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """Cohen's kappa: agreement beyond that of answers drawn with the same shares."""
    counts_KK = _counts(labels_N, probabilities_NK).astype(float)
    total = counts_KK.sum()
    by_chance = float(counts_KK.sum(1) @ counts_KK.sum(0)) / total
    if by_chance == total:
        raise UndefinedMetricError("all labels and all answers are one class")
    return float(1 - (total - counts_KK.trace()) / (total - by_chance))


def _counts(labels_N: Labels, probabilities_NK: Probabilities) -> Labels:
    """(K, K): images by true class (row) and predicted class (column)."""
    import numpy as np

    classes = probabilities_NK.shape[1]
    flat_N = labels_N * classes + probabilities_NK.argmax(1)
    return np.bincount(flat_N, minlength=classes * classes).reshape(classes, classes)


# ---- what is asked of them ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """The metrics of a split."""

    values: dict[str, float | None] = field(default_factory=dict)  # by name; None where undefined
    undefined: dict[str, str] = field(default_factory=dict)  # by name: why


def score(name: str, labels_N: Labels, probabilities_NK: Probabilities) -> float:
    """One metric.

    Raises:
        UndefinedMetricError: it has no value on these images; the message says why.
        UserError: there is no such metric.
    """
    function = SCORES[name].of
    assert function is not None, "SCORES holds those with a function"
    value = float(function(labels_N, probabilities_NK))
    if not math.isfinite(value):
        raise UndefinedMetricError(f"its value is {value}")
    return value


def scores_of(answers: Predictions) -> Scored:
    """Every metric of the registry."""
    scored, labels_N = Scored(), answers.labels_N
    for name in SCORES:
        try:
            scored.values[name] = score(name, labels_N, answers.probabilities_NK)
        except UndefinedMetricError as error:
            scored.values[name] = None
            scored.undefined[name] = f"{error}{absent_classes(labels_N, answers.class_names)}"
    return scored


def absent_classes(labels_N: Labels, class_names: Sequence[str]) -> str:
    """A sentence's end that names the classes without an image; "" where there is none."""
    there = set(labels_N.tolist())
    absent = [name for label, name in enumerate(class_names) if label not in there]
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    return f" (without images: {', '.join(absent[:3])}{more})" if absent else ""


def check_defined(names: Iterable[str], labels_N: Labels, class_names: Sequence[str], *, key: str) -> None:
    """Refuse metrics that these labels leave undefined, before anything is trained.

    Raises:
        UserError: with the class that is absent, and what to choose.
    """
    import numpy as np

    classes = len(class_names)
    answers = (np.full((len(labels_N), classes), 1 / classes), np.eye(classes)[labels_N])  # no answer, all answers
    for name in names:
        for probabilities_NK in answers:
            try:
                score(name, labels_N, probabilities_NK)
            except UndefinedMetricError as error:
                raise UserError(
                    f"{key}={name}: undefined on this validation split: {error}"
                    f"{absent_classes(labels_N, class_names)}; choose another metric, or another split "
                    "(data.val_fraction, data.split_seed)"
                ) from error
