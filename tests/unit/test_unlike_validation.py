"""What `evaluate` says where test is not what validation led to expect."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, fisher_exact, norm

from da6401.commands.unlike_validation import warnings_on_test
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_training_data
from da6401.metrics.intervals import interval_of, resampled, wilson
from da6401.metrics.scores import score
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import VALIDATION_CSV
from tests.answers import answers
from tests.tiny_runs import SMALL, compose

LABELS = [0, 1, 2, 0] * 25  # 100 images
CONFIG = compose(*SMALL, "data.images_per_class=200")


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Those of validation."""
    return load_training_data(CONFIG.data).validation


def said(
    place: Path, validation: Predictions, test: Predictions, images: ImageSet, metric: str = "accuracy"
) -> list[str]:
    write_predictions(place / VALIDATION_CSV, validation)
    cfg = dataclasses.replace(CONFIG, trainer=dataclasses.replace(CONFIG.trainer, metric=metric))
    return warnings_on_test(place, cfg, test, images)


def test_nothing_is_said_within_the_interval(tmp_path: Path, images: ImageSet) -> None:
    low, high = wilson(0.90, 100)
    for wrong in range(101):
        test = answers(LABELS, wrong=range(wrong), prefix="test")
        is_outside = not low <= 1 - wrong / 100 <= high
        if wrong in (4, 5, 10, 17, 18) or wrong % 25 == 0:
            assert bool(said(tmp_path, answers(LABELS, wrong=range(10)), test, images)) == is_outside, wrong


def test_a_run_without_validation_answers_says_nothing(tmp_path: Path, images: ImageSet) -> None:
    assert warnings_on_test(tmp_path, CONFIG, answers(LABELS, wrong=range(90)), images) == []


def test_worse_and_better_by_hand(tmp_path: Path, images: ImageSet) -> None:
    good, bad = answers(LABELS, wrong=range(5)), answers(LABELS, wrong=range(40), prefix="test")
    worse = said(tmp_path, good, bad, images)
    low, high = wilson(0.95, 100)
    assert worse[0] == (
        f"test accuracy 0.6000 lies outside validation's 95% interval, {low:.4f} to {high:.4f} (n = 100): "
        "it is worse than validation led to expect."
    )
    better = said(tmp_path, bad, good, images)
    assert better[0].startswith("test accuracy 0.9500 lies outside validation's 95% interval")
    assert better[0].endswith("it is better than validation led to expect.")


def test_the_chosen_metric_is_asked_too_and_a_higher_loss_is_worse(tmp_path: Path, images: ImageSet) -> None:
    validation, test = answers(LABELS, wrong=range(5), sure=0.9), answers(LABELS, wrong=range(5), sure=0.5)
    assert said(tmp_path, validation, test, images) == []  # the accuracies are equal
    line, *_ = said(tmp_path, validation, test, images, metric="log_loss")
    interval = interval_of("log_loss", validation)
    assert interval is not None
    assert f"{interval[0]:.4f} to {interval[1]:.4f}" in line
    assert line.startswith("test log loss ")
    assert line.endswith("it is worse than validation led to expect.")
    both = said(tmp_path, validation, answers(LABELS, wrong=range(40)), images, metric="macro_f1")
    assert [line.partition(" lies")[0].rpartition(" ")[0] for line in both[:2]] == ["test accuracy", "test macro F1"]


def test_other_shares_of_the_classes_are_named(tmp_path: Path, images: ImageSet) -> None:
    other = [0] * 20 + [1] * 20 + [2] * 60
    lines = said(tmp_path, answers(LABELS), answers(other, wrong=range(30)), images)
    p = chi2_contingency([[50, 25, 25], [20, 20, 60]]).pvalue
    assert lines[1] == (
        f"The classes have other shares in test (p = {p:.1g}): c is 25.0% of validation and 60.0% of test. "
        "trainer.metric=balanced_accuracy does not depend on shares."
    )
    assert not any("No cause" in line for line in lines)


def test_a_class_that_neither_split_has_is_no_obstacle(tmp_path: Path, images: ImageSet) -> None:
    two = [0, 1] * 50
    assert not any("shares" in line and "have other" in line
                   for line in said(tmp_path, answers(two), answers(two, wrong=range(30)), images))  # fmt: skip
    assert said(tmp_path, answers([0] * 100), answers([0] * 100, wrong=range(30)), images)[1].startswith("No cause")


@pytest.mark.parametrize(
    ("shift", "named", "not_named"),
    [
        ((40, 40, 40), {"brightness"}, set()),
        ((60, 0, 0), {"brightness", "redness"}, {"blueness"}),
        ((0, 0, 60), {"brightness", "blueness"}, {"redness"}),
    ],
)
def test_brighter_and_tinted_images_are_named(
    tmp_path: Path, images: ImageSet, shift: tuple[int, int, int], named: set[str], not_named: set[str]
) -> None:
    pixels_NCHW = images.images_NCHW[torch.arange(len(images.labels_N))].float()
    moved_NCHW = (pixels_NCHW + torch.tensor(shift).view(1, 3, 1, 1)).clamp(max=255)
    moved = dataclasses.replace(images, images_NCHW=moved_NCHW.byte())
    lines = {line.split()[2]: line for line in _of_pixels(tmp_path, moved)}  # "The images' redness is ..."
    assert named <= set(lines)
    assert not not_named & set(lines)
    means = (float(each.div(255).mean()) for each in (pixels_NCHW, moved_NCHW))
    assert "mean {:.3f} on validation, {:.3f} on test.".format(*means) in lines["brightness"]
    if "redness" in named:
        red = (float((each[:, 0] - each[:, 1]).div(255).mean()) for each in (pixels_NCHW, moved_NCHW))
        assert "mean {:.3f} on validation, {:.3f} on test.".format(*red) in lines["redness"]


def _of_pixels(place: Path, images: ImageSet) -> list[str]:
    lines = said(place, answers(LABELS), answers(LABELS, wrong=range(40)), images)
    return [line for line in lines if line.startswith("The images' ")]


def test_the_same_pixels_have_no_cause(tmp_path: Path, images: ImageSet) -> None:
    lines = said(tmp_path, answers(LABELS), answers(LABELS, wrong=range(40)), images)
    assert lines[1] == (
        "No cause was found in the shares of the classes and the brightness, contrast and colours of the images."
    )
    assert lines[2].endswith("Look for them: da6401 data check --near, and split by data.group_by.")


def test_flatter_images_are_named_by_their_contrast(tmp_path: Path, images: ImageSet) -> None:
    pixels_NCHW = images.images_NCHW[torch.arange(len(images.labels_N))].float()
    mean_N = pixels_NCHW.mean((1, 2, 3), keepdim=True)
    flat = dataclasses.replace(images, images_NCHW=(mean_N + (pixels_NCHW - mean_N) * 0.3).round().byte())
    (line,) = (line for line in _of_pixels(tmp_path, flat) if "contrast" in line)
    before, after = line.partition("mean ")[2].removesuffix(" on test.").split(" on validation, ")
    assert float(after) == pytest.approx(float(before) * 0.3, abs=0.01)


def test_where_the_images_are_gone_it_is_said(tmp_path: Path, images: ImageSet) -> None:
    write_predictions(tmp_path / VALIDATION_CSV, answers(LABELS))
    gone = compose("data=folder", f"data.root={tmp_path / 'gone'}")
    lines = warnings_on_test(tmp_path, gone, answers(LABELS, wrong=range(40)), images)
    assert lines[1].startswith("The pixels of validation could not be compared: ")
    assert f"da6401 data check {tmp_path / 'gone'} --near" in lines[-1]


def test_outside_by_chance_shows_no_difference(tmp_path: Path, images: ImageSet) -> None:
    """2 and 8 errors of 200: Fisher's exact test shows no difference, and no cause is looked for."""
    validation = answers(LABELS * 2, wrong=range(2))
    test = answers(LABELS * 2, wrong=range(8), prefix="test")
    low, high = wilson(0.99, 200)
    p = fisher_exact([[198, 2], [192, 8]]).pvalue
    assert not low <= 0.96 <= high
    assert said(tmp_path, validation, test, images) == [
        f"test accuracy 0.9600 lies outside validation's 95% interval, {low:.4f} to {high:.4f} (n = 200), but chance "
        f"moves test, too (n = 200): no difference is shown (p = {p:.2g})."
    ]


def test_a_metric_without_a_share_is_outside_by_chance_too(tmp_path: Path, images: ImageSet) -> None:
    """1 and 4 errors of 200: the bootstrap's interval ends near 1, so that test lies outside it."""
    validation, test = answers(LABELS * 2, wrong=range(1)), answers(LABELS * 2, wrong=range(4), prefix="test")
    (line,) = said(tmp_path, validation, test, images, metric="macro_f1")  # the accuracy is inside
    values = [score("macro_f1", each.labels_N, each.probabilities_NK) for each in (validation, test)]
    deviation = math.hypot(*(float(np.std(resampled("macro_f1", each), ddof=1)) for each in (validation, test)))
    p = 2 * norm.sf((values[0] - values[1]) / deviation)
    assert 0.05 < p < 0.5
    assert line.startswith(f"test macro F1 {values[1]:.4f} lies outside validation's 95% interval, ")
    assert line.endswith(f"but chance moves test, too (n = 200): no difference is shown (p = {p:.2g}).")


def test_how_often_chance_alone_is_outside_and_how_often_a_difference_is_shown(
    tmp_path: Path, images: ImageSet
) -> None:
    """As large as validation, test lies outside in one of six evaluations; in few of them a difference is shown."""
    rng = np.random.default_rng(0)
    outside = shown = 0
    for _ in range(120):
        wrong, test_wrong = (set(np.flatnonzero(rng.random(100) > 0.8).tolist()) for _ in range(2))
        lines = said(tmp_path, answers(LABELS, wrong=wrong), answers(LABELS, wrong=test_wrong), images)
        outside += bool(lines)
        shown += len(lines) > 1
    assert 0.08 < outside / 120 < 0.28
    assert shown / 120 < 0.08
