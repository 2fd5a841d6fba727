"""How far probabilities are right, and the temperature that mends them: calibration.json of a run folder.

Guo et al. 2017, "On Calibration of Modern Neural Networks": the logits are divided by one number, which is fitted on
the validation split and changes no predicted class.
"""

# N images, K classes

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from da6401.errors import RunError
from da6401.runs.atomic_files import write_json
from da6401.runs.predictions import Predictions, read_predictions
from da6401.runs.run_folder import CALIBRATION, VALIDATION_CSV, read_json, wrong_fields

BINS = 10  # of the calibration error and the reliability diagram, equally wide
COLDEST, HOTTEST = 0.05, 20.0  # temperatures
STEPS = 60  # of the search, at most
TINY = float(np.finfo(np.float32).tiny)  # what a probability of 0 counts as

Probabilities = npt.NDArray[np.float64]  # (N, K)


@dataclass(frozen=True, kw_only=True)
class CalibrationOf:
    """The expected calibration error and the log loss of one split, as they are and with the temperature."""

    images: int
    ece_before: float  # 0..1
    ece_after: float
    log_loss_before: float  # nats
    log_loss_after: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """calibration.json."""

    temperature: float  # 1 leaves the probabilities as they are; above 1 they become less sure
    note: str  # why no temperature was fitted, "" where one was
    bins: int
    validation: CalibrationOf  # the temperature was fitted on these images
    test: CalibrationOf | None  # None until `da6401 evaluate`

    @property
    def sentence(self) -> str:
        """For people: what it does to the split that no temperature was fitted on, else to validation."""
        split, found = ("test", self.test) if self.test else ("validation", self.validation)
        if self.note:
            return f"calibration error on {split} {found.ece_before:.4f}; {self.note}"
        return (
            f"calibration error on {split} {found.ece_before:.4f}, {found.ece_after:.4f} at temperature "
            f"{self.temperature:.3f}, which was fitted on validation (predict --calibrated)"
        )


def calibration_error(predictions: Predictions) -> tuple[float, list[tuple[float, float, int]]]:
    """The expected calibration error (0..1), and confidence, accuracy and count of each bin that has images.

    The bins are equally wide over the highest probability.
    """
    sure_N = predictions.confidence.astype(np.float64)
    right_N = predictions.predicted == predictions.labels_N
    bin_N = np.minimum((sure_N * BINS).astype(int), BINS - 1)
    bins = [
        (float(sure_N[inside].mean()), float(right_N[inside].mean()), int(inside.sum()))
        for inside in (bin_N == index for index in range(BINS))
        if inside.any()
    ]
    return sum(abs(sure - right) * count for sure, right, count in bins) / len(sure_N), bins


def at_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """The same images with the probabilities that the logits, divided by the temperature, give."""
    tempered_NK = _tempered(_logits(predictions), 1 / temperature).astype(np.float32)
    return dataclasses.replace(predictions, probabilities_NK=tempered_NK)


def fit_temperature(predictions: Predictions) -> tuple[float, str]:
    """The temperature with the lowest log loss on these images; or 1, and why none can be fitted."""
    if bool((predictions.predicted == predictions.labels_N).all()):
        return 1.0, "every image is right, so no temperature can be fitted"
    logits_NK, labels_N = _logits(predictions), predictions.labels_N
    own_N = logits_NK[np.arange(len(labels_N)), labels_N]
    low, high = 1 / HOTTEST, 1 / COLDEST
    inverse = 1.0
    # The log loss is convex in the inverse temperature: Newton's steps, and halves of the bracket where they leave it.
    for _ in range(STEPS):
        probabilities_NK = _tempered(logits_NK, inverse)
        mean_N = (probabilities_NK * logits_NK).sum(1)
        slope = float((mean_N - own_N).mean())
        curvature = float(((probabilities_NK * logits_NK**2).sum(1) - mean_N**2).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) < 1e-9 * inverse:
            break
        inverse = following
    return 1 / inverse, ""


def calibrate(validation: Predictions) -> Calibration:
    """Fit the temperature on a model's answers on the validation split."""
    temperature, note = fit_temperature(validation)
    return Calibration(
        temperature=temperature, note=note, bins=BINS, validation=_of(validation, temperature), test=None
    )


def with_test(found: Calibration, test: Predictions) -> Calibration:
    """With what the temperature does to the test split."""
    return dataclasses.replace(found, test=_of(test, found.temperature))


def write_calibration(folder: Path, found: Calibration) -> None:
    """Write calibration.json."""
    write_json(folder / CALIBRATION, dataclasses.asdict(found))


def read_calibration(path: Path) -> Calibration:
    """A calibration.json.

    Raises:
        RunError: missing or damaged.
    """
    content = read_json(path)
    try:
        splits = {name: content[name] and CalibrationOf(**content[name]) for name in ("validation", "test")}
        found = Calibration(**{**content, **splits})
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{path}: is no calibration of this version ({error}); remove it, and it is fitted anew"
        ) from error
    wrong = [name for each in splits.values() if each for name in wrong_fields(CalibrationOf, dataclasses.asdict(each))]
    wrong += wrong_fields(Calibration, {each.name: getattr(found, each.name) for each in dataclasses.fields(found)})
    if wrong or not found.temperature > 0:
        raise RunError(f"{path}: holds no valid {', '.join(wrong) or 'temperature'}; remove it, and it is fitted anew")
    return found


def calibration_of(folder: Path) -> Calibration:
    """That of a run folder; a run of before it was kept is calibrated now, on its validation.csv.

    Raises:
        RunError: neither is there, or one is damaged.
    """
    if (folder / CALIBRATION).exists():
        return read_calibration(folder / CALIBRATION)
    return calibrate(read_predictions(folder / VALIDATION_CSV))


def _of(predictions: Predictions, temperature: float) -> CalibrationOf:
    after = at_temperature(predictions, temperature) if temperature != 1 else predictions
    return CalibrationOf(
        images=len(predictions.labels_N),
        ece_before=float(calibration_error(predictions)[0]), ece_after=float(calibration_error(after)[0]),
        log_loss_before=_log_loss(predictions), log_loss_after=_log_loss(after),
    )  # fmt: skip


def _log_loss(predictions: Predictions) -> float:
    labels_N = predictions.labels_N
    right_N = predictions.probabilities_NK[np.arange(len(labels_N)), labels_N].astype(np.float64)
    return float(-np.log(np.maximum(right_N, TINY)).mean())


def _logits(predictions: Predictions) -> Probabilities:
    """(N, K): up to a constant of each image, which softmax does not see."""
    logits_NK: Probabilities = np.log(np.maximum(predictions.probabilities_NK.astype(np.float64), TINY))
    return logits_NK


def _tempered(logits_NK: Probabilities, inverse: float) -> Probabilities:
    scaled_NK = logits_NK * inverse
    weights_NK = np.exp(scaled_NK - scaled_NK.max(1, keepdims=True))
    probabilities_NK: Probabilities = weights_NK / weights_NK.sum(1, keepdims=True)
    return probabilities_NK
