"""metrics/calibration.py: the fitted temperature against a search, what it leaves alone, and the file that keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from da6401.errors import RunError
from da6401.metrics.calibration import (
    at_temperature,
    calibrate,
    calibration_error,
    calibration_of,
    fit_temperature,
    read_calibration,
    with_test,
    write_calibration,
)
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import CALIBRATION, VALIDATION_CSV


def answers(
    *, temperature: float, images: int = 600, classes: int = 5, seed: int = 0
) -> tuple[Predictions, np.ndarray]:
    """Labels drawn from the softmax of logits, and the answers of a model whose logits are so many times as large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (images, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, 1)])
    shown = softmax(logits * temperature, 1).astype(np.float32)
    names = tuple("abcdefgh"[:classes])
    return Predictions(names, tuple(map(str, range(images))), labels, shown), logits * temperature


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_is_the_one_of_the_lowest_log_loss(true: float) -> None:
    found, logits = answers(temperature=true)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, 1)[np.arange(len(logits)), found.labels_N].mean())

    expected = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    fitted, note = fit_temperature(found)
    assert note == ""
    assert fitted == pytest.approx(expected, rel=1e-4)
    assert fitted == pytest.approx(true, rel=0.2)  # what the answers were made with


def test_it_changes_no_class_and_lowers_error_and_loss_of_a_model_that_is_too_sure() -> None:
    found, _ = answers(temperature=4)
    fresh, _ = answers(temperature=4, seed=1)
    calibration = with_test(calibrate(found), fresh)
    assert calibration.test is not None
    for split in (calibration.validation, calibration.test):
        assert split.ece_after < split.ece_before / 3
        assert split.log_loss_after < split.log_loss_before
    after = at_temperature(fresh, calibration.temperature)
    assert np.array_equal(after.predicted, fresh.predicted)
    assert calibration.test.ece_after == calibration_error(after)[0]
    assert "fitted on validation" in calibration.sentence


def test_where_every_image_is_right_nothing_is_fitted() -> None:
    sure = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    calibration = calibrate(Predictions(("a", "b"), ("1", "2"), np.array([0, 1]), sure))
    assert calibration.temperature == 1
    assert calibration.validation.ece_after == calibration.validation.ece_before == pytest.approx(0.15)
    assert "every image is right" in calibration.sentence


def test_worse_than_chance_and_probabilities_of_zero_have_a_temperature_too() -> None:
    wrong = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    temperature, _ = fit_temperature(Predictions(("a", "b", "c"), ("1", "2", "3"), np.array([1, 2, 0]), wrong))
    assert 1 < temperature <= 20.001


def test_the_file_comes_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    found, _ = answers(temperature=2)
    kept = with_test(calibrate(found), found)
    write_calibration(tmp_path, kept)
    assert read_calibration(tmp_path / CALIBRATION) == kept == calibration_of(tmp_path)
    whole = json.loads((tmp_path / CALIBRATION).read_text())
    for damage in ({"temperature": 0.0}, {"temperature": "2"}, {"validation": None}, {"validation": {"images": 1}},
                   {"test": {**whole["test"], "images": 1.5}}, {"more": 1}):  # fmt: skip
        (tmp_path / CALIBRATION).write_text(json.dumps({**whole, **damage}))
        with pytest.raises(RunError, match=r"calibration\.json"):
            read_calibration(tmp_path / CALIBRATION)


def test_a_folder_of_before_is_calibrated_on_its_answers(tmp_path: Path) -> None:
    found, _ = answers(temperature=2)
    write_predictions(tmp_path / VALIDATION_CSV, found)
    assert calibration_of(tmp_path) == calibrate(found)
    assert not (tmp_path / CALIBRATION).exists()
