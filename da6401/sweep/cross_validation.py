"""sweep.folds=K: a trial is K trainings, each with another part of train and validation together as validation.

The trainings lie in the trial's folder as ``fold-1`` ... ``fold-K``. The folder itself has what other readers of a
trial look for: the trial's config, which trains the ordinary split, the means over the folds as result.json and
metrics.jsonl, and the answers of all folds as validation.csv, each image by the network that did not see it.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from da6401.config.schema import RunConfig
from da6401.config.validate import tree_of
from da6401.errors import DivergedError, InterruptedRun, PrunedError, RunError
from da6401.runs.atomic_files import explain_write_errors, write_yaml
from da6401.runs.predictions import Predictions, read_predictions, write_predictions
from da6401.runs.run_folder import (
    CONFIG,
    RESULT,
    VALIDATION_CSV,
    RunResult,
    Status,
    read_metrics,
    read_result,
    write_metrics,
    write_result,
)
from da6401.runs.run_lock import changed_keys, refuse_links
from da6401.runs.trial_folders import fold_folder
from da6401.study.objective import Objective
from da6401.sweep.trial import TrialWatcher, latency_ms

log = logging.getLogger(__name__)

Values = tuple[float, ...]  # one for each of sweep.objectives
Train = Callable[[RunConfig, Path], RunResult]

ENDINGS: tuple[tuple[type[BaseException], Status], ...] = (
    (PrunedError, "pruned"),
    (DivergedError, "diverged"),
    (InterruptedRun, "interrupted"),
)


def cross_validate(cfg: RunConfig, out: Path, watcher: TrialWatcher | None, *, train: Train) -> Values | None:
    """Train each fold that is not finished yet, and return the means over the folds.

    After each fold the mean so far is reported to the study, whose pruner may end the trial.

    Args:
        train: trains one configuration in its folder, or resumes it there.

    Raises:
        PrunedError, DivergedError, InterruptedRun: result.json says so.
        RunError: a fold did not complete. Others as ``train``.
    """
    objective, count = Objective.of(cfg.sweep), cfg.sweep.folds
    refuse_links(out)
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_yaml(out / CONFIG, tree_of(cfg))
    runs: list[Path] = []
    values: list[Values] = []
    try:
        for number in range(1, count + 1):
            run = fold_folder(out, number)
            result = _train(cfg, f"{number}/{count}", run, train)
            found = objective.values(result, latency_ms=lambda run=run: latency_ms(run))  # type: ignore[misc]
            if found is None:
                return None
            runs.append(run)
            values.append(found)
            log.info("fold %d of %d: %s", number, count, objective.text(found))
            if watcher is not None:
                watcher.fold_done(number, mean_of(values))
    except BaseException as error:
        status = next((status for kind, status in ENDINGS if isinstance(error, kind)), None)
        if status is not None and runs:
            _write(out, runs, status=status, reason=str(error))
        raise
    _write(out, runs, status="completed", reason="")
    return mean_of(values)


def mean_of(values: Sequence[Values]) -> Values:
    """The mean over the folds, of each metric."""
    return tuple(map(statistics.fmean, zip(*values, strict=True)))


def _train(cfg: RunConfig, fold: str, run: Path, train: Train) -> RunResult:
    """The result of one fold, which is trained where it is not finished."""
    own = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, fold=fold))
    if (run / RESULT).exists() and not changed_keys(run, tree_of(own)):
        result = read_result(run)
        if result.status == "completed":
            return result
        if result.status != "interrupted":
            raise RunError(f"fold {fold} ended as {result.status}: {result.reason}")
    return train(own, run)


def _write(out: Path, runs: Sequence[Path], *, status: Status, reason: str) -> None:
    """The trial's own files, from those of its folds that are finished."""
    results = [read_result(run) for run in runs]
    lines = [read_metrics(run) for run in runs]
    with explain_write_errors(out):
        write_metrics(out, [_mean_line(of_epoch) for of_epoch in zip(*lines, strict=False)])
        if status == "completed":
            write_predictions(out / VALIDATION_CSV, pooled([read_predictions(run / VALIDATION_CSV) for run in runs]))
        write_result(out, _mean_result(results, status=status, reason=reason))


def _mean_line(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One epoch of all folds: means, but the seconds are those of all together."""
    first, *others = lines
    means = {
        name: statistics.fmean(line[name] for line in lines) for name in first if all(name in line for line in others)
    }
    return {**means, "epoch": first["epoch"], "seconds": sum(line["seconds"] for line in lines)}


def pooled(answers: Sequence[Predictions]) -> Predictions:
    """The answers of all folds, in the order of the images' names."""
    names = [name for each in answers for name in each.names]
    order_N = sorted(range(len(names)), key=names.__getitem__)
    labels_N = np.concatenate([each.labels_N for each in answers])[order_N]
    probabilities_NK = np.concatenate([each.probabilities_NK for each in answers])[order_N]
    return Predictions(answers[0].class_names, tuple(names[row] for row in order_N), labels_N, probabilities_NK)


def _mean_result(results: Sequence[RunResult], *, status: Status, reason: str) -> RunResult:
    """The means over the folds; the model's numbers are the first fold's, and the seconds those of all together."""
    first = results[0]
    metrics = {name: [each.val_metrics.get(name) for each in results] for name in first.val_metrics}
    undefined = {name: why for each in reversed(results) for name, why in each.undefined_metrics.items()}
    return dataclasses.replace(
        first, status=status, reason=reason,
        val_accuracy=_mean([each.val_accuracy for each in results]),
        val_loss=_mean([each.val_loss for each in results]),
        val_metrics={name: _mean(values) for name, values in metrics.items()}, undefined_metrics=undefined,
        best_epoch=None, epochs_run=max(each.epochs_run for each in results),
        seconds=sum(each.seconds for each in results), weights_sha256=None, best_weights_sha256=None,
        peak_memory_mb=max(each.peak_memory_mb for each in results),
        batch_parts=max(each.batch_parts for each in results),
    )  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a fold has no value."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
