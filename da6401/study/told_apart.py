"""Which trials of a sweep cannot be told from its winner: paired tests on the same validation images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from da6401.config.metrics import Metric
from da6401.errors import RunError, UndefinedMetricError
from da6401.metrics.intervals import FEWEST, RESAMPLES, Interval, interval_of
from da6401.metrics.paired import LEVEL, Difference, corrected, difference, on_same_images
from da6401.metrics.scores import log_loss
from da6401.registry import OF_VALIDATION, SCORES
from da6401.runs.predictions import Predictions, read_predictions
from da6401.runs.run_folder import VALIDATION_CSV, read_result
from da6401.study.gain import gain
from da6401.study.objective import Objective

MANY = 20  # comparisons, above which fewer resamples are drawn
MARK = "~"
ROUNDING = 1e-4  # of a loss: the table has four decimals


@dataclass(frozen=True)
class ToldApart:
    """What the validation answers of a sweep's trials say of its ranking."""

    intervals: Mapping[int, Interval] = field(default_factory=dict)  # 95%, by trial
    same: frozenset[int] = frozenset()  # trials that cannot be told from the winner
    tested: int = 0
    folds: Mapping[int, Sequence[float]] = field(default_factory=dict)  # the value of each fold, by trial
    p: Mapping[int, float] = field(default_factory=dict)  # of the test over folds, corrected, by trial
    said: str = ""  # of the test over folds
    gain: Difference | None = None  # of the winner over the default configuration
    left_out: tuple[int, ...] = ()  # trials whose answers do not give their val_loss

    @property
    def heading(self) -> str:
        """Of the column that says how sure each trial's value is; "" where nothing does."""
        if self.folds:
            return f"sd of {max(map(len, self.folds.values()))} folds"
        return "95% interval" if self.intervals else ""

    def cell(self, number: int) -> str | None:
        """What that column says of a trial; None where it says nothing."""
        if self.folds:
            values = self.folds.get(number, ())
            return f"{statistics.stdev(values):.4f}" if len(values) > 1 else None
        interval = self.intervals.get(number)
        return None if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"

    @property
    def sentence(self) -> str:
        """What the marks mean, and what was left out; "" where nothing was tested or left out."""
        said = [self.said] if self.said else []
        if self.tested and not said:
            said.append(
                f"{MARK} cannot be told from the winner on these validation images: {len(self.same)} of {self.tested} "
                f"other trials (paired tests, corrected for {self.tested}, p >= {LEVEL})"
            )
        if self.left_out:
            trials = f"trial{'' if len(self.left_out) == 1 else 's'} {', '.join(map(str, self.left_out))}"
            said.append(
                f"no interval and no test for {trials}, and no gain over the default: val_loss differs there from "
                "the log loss of validation.csv, in which a probability counts as at least 2.2e-16"
            )
        return "\n".join(said)


def told_apart(
    folders: Mapping[int, Path], winner: int | None, objective: Objective, *, default: int | None = None
) -> ToldApart:
    """Compare each completed trial with the winner.

    Of a validation loss, trials that it does not hold for are left out: the log loss takes a probability of almost 0
    for a larger one, the loss in training does not.

    Args:
        folders: the run folder of each completed trial.
        winner: its trial; None: there is none, as of several metrics.
        default: the trial of the default configuration, where there is one.
    """
    name = score_name(objective.alone)
    if name is None:
        return ToldApart()
    answers = {number: found for number, folder in folders.items() if (found := _answers(folder)) is not None}
    left_out = tuple(number for number, each in answers.items() if not _gives_value(folders[number], objective, each))
    answers = {number: each for number, each in answers.items() if number not in left_out}
    intervals = {number: span for number, each in answers.items() if (span := interval_of(name, each)) is not None}
    if winner is None or winner not in answers:
        return ToldApart(intervals, left_out=left_out)
    p_values = _p_values(name, answers, winner)
    raised = corrected(list(p_values.values()))
    same = frozenset(number for number, p in zip(p_values, raised, strict=True) if p >= LEVEL)
    try:
        gained = None if left_out else gain(name, answers, winner, default)
    except UndefinedMetricError:
        gained = None
    return ToldApart(intervals, same, len(p_values), gain=gained, left_out=left_out)


def score_name(metric: Metric | None) -> str | None:
    """The metric of answers that an objective is; None where it is another number, such as the parameters."""
    name = metric.name.removeprefix(OF_VALIDATION) if metric and metric.name.startswith(OF_VALIDATION) else ""
    name = "log_loss" if name == "loss" else name
    return name if name in set(SCORES) else None


def _gives_value(folder: Path, objective: Objective, answers: Predictions) -> bool:
    """Whether a trial's answers have the loss of its result; also where there is no result to ask."""
    if objective.names != (f"{OF_VALIDATION}loss",):
        return True
    try:
        value = read_result(folder).val_loss
    except RunError:  # of an older version, or removed
        return True
    found = log_loss(answers.labels_N, answers.probabilities_NK)
    return value is None or math.isclose(value, found, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _p_values(name: str, answers: Mapping[int, Predictions], winner: int) -> dict[int, float]:
    resamples = RESAMPLES if len(answers) <= MANY else FEWEST
    found = {}
    for number, each in answers.items():
        same = None if number == winner else on_same_images(answers[winner], each)
        if same is not None:
            try:
                found[number] = difference(name, answers[winner], same, resamples=resamples).p
            except UndefinedMetricError:
                continue
    return found


def _answers(folder: Path) -> Predictions | None:
    try:
        return read_predictions(folder / VALIDATION_CSV)
    except RunError:  # of an older version, or removed
        return None
