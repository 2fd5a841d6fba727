"""Whether the test split is what validation led to expect, and, where it is not, what differs between the two."""

# N images, C = 3 channels, K classes

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from da6401.config.metrics import chosen_metric, word
from da6401.config.schema import RunConfig
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_training_data, reads_files
from da6401.errors import RunError, UserError
from da6401.metrics.intervals import interval_of, resampled
from da6401.metrics.paired import LEVEL as SHOWN_BELOW
from da6401.metrics.scores import scores_of
from da6401.registry import SCORES
from da6401.runs.predictions import Predictions, read_predictions
from da6401.runs.run_folder import VALIDATION_CSV

LEVEL = 0.01  # of each check
SAMPLE = 2000  # images of each split whose pixels are compared
STATISTICS = ("brightness", "contrast", "redness", "blueness")


def warnings_on_test(folder: Path, cfg: RunConfig, test: Predictions, images: ImageSet) -> list[str]:
    """What a reader of the test metrics should know: sentences; [] where test lies within validation's intervals.

    Causes are looked for where a difference is shown: test has chance of its own, and lies outside more often than in
    one of twenty evaluations (as large as validation, in one of six).

    Args:
        images: those of the test split, in the order of ``test``.
    """
    try:
        validation = read_predictions(folder / VALIDATION_CSV)
    except RunError:  # a run of an older version has none
        return []
    said = [each for name in dict.fromkeys(["accuracy", cfg.trainer.metric])
            if (each := _outside(name, validation, test))]  # fmt: skip
    outside = [line for line, _ in said]
    if not any(is_shown for _, is_shown in said):
        return outside
    found = [_classes(validation, test), *_pixels(cfg, images)]
    causes = [line for line in found if line]
    checked = "the shares of the classes and the brightness, contrast and colours of the images"
    lines = [*outside, *causes] if causes else [*outside, f"No cause was found in {checked}."]
    return [*lines, _to_run(cfg)]


def _outside(name: str, validation: Predictions, test: Predictions) -> tuple[str, bool] | None:
    """Where a metric on test lies outside its interval on validation: a sentence, and whether a difference is shown."""
    expected, value = (scores_of(each).values[name] for each in (validation, test))
    interval = interval_of(name, validation)
    if expected is None or value is None or interval is None or interval[0] <= value <= interval[1]:
        return None
    metric = chosen_metric(name)
    words, low, high = word(metric.name).removeprefix("validation "), *map(metric.text, interval)
    p = _p_of_chance(name, (expected, value), (validation, test))
    if p < SHOWN_BELOW:
        worse = "better" if metric.better(value, interval[0]) else "worse"  # outside, it is so for both ends
        verdict = f": it is {worse} than validation led to expect."
    else:
        verdict = f", but chance moves test, too (n = {len(test.labels_N)}): no difference is shown (p = {p:.2g})."
    where = f"lies outside validation's 95% interval, {low} to {high} (n = {len(validation.labels_N)})"
    return f"test {words} {metric.text(value)} {where}{verdict}", p < SHOWN_BELOW


def _p_of_chance(name: str, values: tuple[float, float], splits: tuple[Predictions, Predictions]) -> float:
    """The two-sided p-value of a metric's difference between two splits, which have no image in common.

    Fisher's exact test of a share of images; of others a normal distribution with the bootstrap's deviations.
    """
    from scipy.stats import fisher_exact

    if SCORES[name].is_share:
        sizes = [len(each.labels_N) for each in splits]
        right = [round(value * size) for value, size in zip(values, sizes, strict=True)]
        table = [[count, size - count] for count, size in zip(right, sizes, strict=True)]
        return float(fisher_exact(table).pvalue)
    spread = math.hypot(*(float(np.nanstd(resampled(name, each), ddof=1)) for each in splits))
    return math.erfc(abs(values[0] - values[1]) / spread / math.sqrt(2)) if spread > 0 else 0.0


def _classes(validation: Predictions, test: Predictions) -> str:
    """A sentence where the classes have other shares in test (chi-squared test of homogeneity)."""
    from scipy.stats import chi2_contingency

    counts = np.array([np.bincount(each.labels_N, minlength=len(each.class_names)) for each in (validation, test)])
    there = counts.sum(0) > 0
    if there.sum() < 2:
        return ""
    p = float(chi2_contingency(counts[:, there]).pvalue)
    if p >= LEVEL:
        return ""
    shares = counts / counts.sum(1, keepdims=True)
    label = int(np.abs(shares[1] - shares[0]).argmax())
    return (
        f"The classes have other shares in test (p = {p:.1g}): {test.class_names[label]} is {shares[0, label]:.1%} of "
        f"validation and {shares[1, label]:.1%} of test. trainer.metric=balanced_accuracy does not depend on shares."
    )


def _pixels(cfg: RunConfig, test: ImageSet) -> list[str]:
    """Sentences on what of the images has another distribution in test (Kolmogorov-Smirnov, corrected for four)."""
    from scipy.stats import ks_2samp

    try:
        validation = load_training_data(cfg.data).validation
    except UserError as error:
        return [f"The pixels of validation could not be compared: {error}"]
    theirs, ours = (_statistics(each) for each in (validation, test))
    lines = []
    for column, name in enumerate(STATISTICS):
        p = float(ks_2samp(theirs[:, column], ours[:, column]).pvalue) * len(STATISTICS)
        if p < LEVEL:
            lines.append(
                f"The images' {name} is distributed otherwise in test (p = {p:.1g}): mean "
                f"{theirs[:, column].mean():.3f} on validation, {ours[:, column].mean():.3f} on test."
            )
    return lines


def _statistics(images: ImageSet) -> npt.NDArray[np.float64]:
    """(N, 4): each image's mean, deviation, and red and blue against green, of pixels in 0..1."""
    count = len(images.labels_N)
    rows_N = torch.linspace(0, count - 1, min(count, SAMPLE)).round().long()
    found = []
    for start in range(0, len(rows_N), 64):
        part = rows_N[start : start + 64]
        x = images.images_NCHW[part].float().div_(255)
        mean_BC = x.mean((2, 3))
        grey = x.mean(1)
        red, blue = mean_BC[:, 0] - mean_BC[:, 1], mean_BC[:, 2] - mean_BC[:, 1]
        found.append(torch.stack([mean_BC.mean(1), grey.flatten(1).std(1), red, blue], 1))
    statistics: npt.NDArray[np.float64] = torch.cat(found).double().numpy()
    return statistics


def _to_run(cfg: RunConfig) -> str:
    """What else may be the cause, and the commands that look for it."""
    where = f" {cfg.data.root}" if reads_files(cfg.data) else ""
    return (
        "Other causes: near-duplicates or one group (a patient, a plant, a burst) in both train and validation, which "
        f"make validation too easy. Look for them: da6401 data check{where} --near, and split by data.group_by."
    )
