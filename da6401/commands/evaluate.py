"""`da6401 evaluate`: the answers of a run's best model on the test split."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from da6401.commands.data_of_run import data_of_run
from da6401.commands.unlike_validation import warnings_on_test
from da6401.config.metrics import chosen_metric, word
from da6401.config.schema import RunConfig
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_test_data, reads_files
from da6401.errors import DataError, RunError, UserError
from da6401.metrics.calibration import calibration_of, with_test, write_calibration
from da6401.metrics.intervals import interval_of, span, wilson
from da6401.metrics.own_metrics import measured_with
from da6401.metrics.scores import scores_of
from da6401.models.ensemble import Ensemble
from da6401.models.stages import StagedModel
from da6401.plugins.needed import plugins_of
from da6401.redact import listed, one_line, safe
from da6401.report.chosen_run import chosen_run
from da6401.runs.looks import choice_warnings, read_looks, record_look, times
from da6401.runs.predictions import Predictions, read_predictions, write_predictions
from da6401.runs.run_folder import (
    CALIBRATION,
    RECEIPT,
    RESULT,
    SUMMARY,
    TEST_CSV,
    VALIDATION_CSV,
    RunResult,
    data_fingerprint,
    read_json,
    read_result,
    write_result,
)
from da6401.runs.trial_folders import sweep_of
from da6401.training.arithmetic import Arithmetic
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.setup import load_images
from da6401.training.trained_model import load_model
from da6401.training.validation import Evaluation, evaluate

log = logging.getLogger(__name__)

Answers = TypeVar("Answers")


@restore_torch_settings()
def evaluate_run(folder: Path) -> int:
    """Evaluate the best checkpoint on the test split; a second time, print the recorded value."""
    result = read_result(folder)
    if result.test_accuracy is not None:
        looked = times(len(read_looks(folder)))
        print(
            f"test accuracy {result.test_accuracy:.4f}{_recorded_interval(folder, result)}  "
            f"loss {result.test_loss:.4f}  (recorded; evaluated once; test split looked at {looked})"
        )
        return 0
    model, cfg, class_names = load_model(folder)
    with measured_with(cfg.metrics), plugins_of(folder):
        return _evaluated(folder, result, model, cfg, class_names)


def _evaluated(
    folder: Path, result: RunResult, model: StagedModel | Ensemble, cfg: RunConfig, class_names: Sequence[str]
) -> int:
    device = choose_device(cfg.device)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)

    def answers(images: ImageSet) -> tuple[ImageSet, Evaluation]:
        return images, answers_of(model, images, cfg, device)

    images, answer = look_at_test(folder, cfg, class_names, answers, verb="evaluate", purpose="test accuracy and loss")
    probabilities_NK = answer.probabilities_NK.numpy()
    predictions = Predictions(tuple(class_names), images.names, images.labels_N.numpy(), probabilities_NK)
    write_predictions(folder / TEST_CSV, predictions)
    scored, count = scores_of(predictions), len(images.labels_N)
    undefined = result.undefined_metrics | {f"test_metrics.{name}": why for name, why in scored.undefined.items()}
    tested = dataclasses.replace(
        result, test_accuracy=answer.accuracy, test_loss=answer.loss, test_metrics=scored.values,
        undefined_metrics=undefined,
    )  # fmt: skip
    write_result(folder, tested)
    print(
        f"test accuracy {answer.accuracy:.4f} ({span(wilson(answer.accuracy, count))})  loss {answer.loss:.4f}  "
        f"on {count} images, recorded in {folder / RESULT} and {TEST_CSV}"
    )
    for line in (
        *_chosen(cfg, predictions),
        *_calibration(folder, predictions),
        *warnings_on_test(folder, cfg, predictions, images),
    ):
        print(safe(line))
    return 0


def _recorded_interval(folder: Path, result: RunResult) -> str:
    """The interval of the recorded test accuracy; "" where its answers are gone."""
    if result.test_accuracy is None or not (folder / TEST_CSV).exists():
        return ""
    return f" ({span(wilson(result.test_accuracy, len(read_predictions(folder / TEST_CSV).labels_N)))})"


def _chosen(cfg: RunConfig, predictions: Predictions) -> list[str]:
    """The metric that chose the model, where it is not accuracy, on the test split."""
    name = cfg.trainer.metric
    value = scores_of(predictions).values[name]
    if name == "accuracy" or value is None:
        return []
    interval = span(interval_of(name, predictions))
    return [f"test {word(chosen_metric(name).name).removeprefix('validation ')} {value:.4f} ({interval})"]


def _calibration(folder: Path, test: Predictions) -> list[str]:
    """Keep what the temperature does to the test split, and say it; a run of an older version may have none."""
    if not any((folder / name).exists() for name in (CALIBRATION, VALIDATION_CSV)):
        return []
    found = with_test(calibration_of(folder), test)
    write_calibration(folder, found)
    return [found.sentence]


def look_at_test(
    folder: Path,
    cfg: RunConfig,
    class_names: Sequence[str],
    answers: Callable[[ImageSet], Answers],
    *,
    verb: str,
    purpose: str,
) -> Answers:
    """``answers`` of the test split, which is reached in no other way; the look is recorded before they are shown.

    Raises:
        UserError: the run is not its sweep's confirmed winner, there is no test split, it has images that the run was
            validated on, or the look cannot be recorded.
    """
    _refuse_unconfirmed(folder, cfg)
    print_choice_warnings(folder)
    with data_of_run(folder, cfg.data):
        images = load_test_data(cfg.data, class_names)
    _refuse_validated(folder, images)
    _tell_changed_data(folder, cfg)
    found = answers(images)
    record_look(folder, verb=verb, purpose=purpose)
    return found


def _refuse_validated(folder: Path, test: ImageSet) -> None:
    """A test split that is drawn moves when images are added or removed, and a table can give other splits.

    Raises:
        DataError: the run was validated on some of these images.
    """
    try:
        validated = set(read_predictions(folder / VALIDATION_CSV).names)
    except RunError:  # a run of an older version, or one that trained on all, has none
        return
    found = [name for name in test.names if name in validated]
    if found:
        count = "1 image" if len(found) == 1 else f"{len(found)} images"
        raise DataError(
            f"{folder}: {count} of the test split ({listed(found, most=3)}) were in validation when this run was "
            f"trained ({VALIDATION_CSV}): the data or its splits have changed since, and its accuracy there would be "
            "no honest estimate. Put the data back as it was, or train again."
        )


def _tell_changed_data(folder: Path, cfg: RunConfig) -> None:
    """Say on standard error where train and validation are not those of the run's training, as its receipt has them."""
    before = data_fingerprint(folder)
    if before is None or not reads_files(cfg.data):
        return
    try:
        is_same = load_images(cfg).fingerprint == before
    except UserError as error:
        said = f"whether train and validation are still those of {folder} could not be checked: {one_line(error)}"
    else:
        if is_same:
            return
        said = f"train and validation have changed since {folder} was trained (data_fingerprint in its {RECEIPT})"
    warning = "If images moved between the splits, it was trained on some of test; put the data back, or train again."
    print(f"da6401: {safe(said)}. {warning}", file=sys.stderr)


def print_choice_warnings(folder: Path) -> None:
    """Say on standard error what a look at the test split of this run would be worth."""
    for sentence in choice_warnings(folder):
        print(f"da6401: {sentence}", file=sys.stderr)


def answers_of(model: StagedModel | Ensemble, images: ImageSet, cfg: RunConfig, device: torch.device) -> Evaluation:
    """A model's answers on a set of images, in the precision and the memory layout of its training.

    On the validation split they are those of the training, bit for bit on the same machine.
    """
    precision = cfg.trainer.precision
    if precision == "fp16" and device.type != "cuda":
        log.warning("trained in fp16, which needs CUDA; on %s the answers are computed in fp32", device)
        precision = "fp32"
    arithmetic = Arithmetic(device, precision, cfg.trainer.channels_last)
    # torch's types have no overload of Module.to with both.
    model = model.to(device, memory_format=arithmetic.memory_format)  # type: ignore[call-overload]
    return evaluate(model, images, arithmetic, batch_size=cfg.trainer.batch_size)


def _refuse_unconfirmed(folder: Path, cfg: RunConfig) -> None:
    """Where a sweep confirms its winner, only that run is evaluated on the test split: the best of many would be luck.

    Raises:
        UserError: the run is another of that sweep, or nothing is confirmed yet.
    """
    sweep = sweep_of(folder)
    if sweep is None or not cfg.sweep.confirm_top:
        return
    summary = read_json(sweep / SUMMARY) if (sweep / SUMMARY).is_file() else {}
    if not summary.get("confirmed"):
        raise UserError(f"{sweep.name} has not confirmed its winner yet (sweep.confirm_top): let the sweep end first")
    if Path(str(summary.get("winner"))).name != folder.resolve().name:
        winner, here = chosen_run(sweep).folder, Path.cwd()  # where it is now: the sweep may have moved
        short = winner.relative_to(here) if winner.is_relative_to(here) else winner
        command = shlex.join(["da6401", "evaluate", str(short)])
        raise UserError(f"only the confirmed winner of {sweep.name} is evaluated on test: {command}")
