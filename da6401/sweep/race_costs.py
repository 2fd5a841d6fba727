"""What the trainings of a race's candidates take: measured, or told by multiply-accumulates."""

from __future__ import annotations

import functools
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial

from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.errors import RunError, UserError
from da6401.runs.run_folder import RECEIPT, read_json, read_metrics, read_result
from da6401.training.speed import Speed, macs_of, measure
from da6401.tune.race import Candidate

log = logging.getLogger(__name__)

START_SECONDS = 1.5  # to start and end a training, until one has shown it
TO_MEASURE = 10.0  # seconds: with less time left no other candidate is timed
LEAST_SHARE = 0.75  # of the time of as many multiply-accumulates of a smaller network: a larger one uses cores better
LEAST_EPOCH = 1e-3  # seconds
SCRATCH_EPOCHS = 6  # of a network trained from scratch: the least, and ...
MANY = 20  # times its configured epochs the most
MANY_PRETRAINED = 4  # of a pretrained network whose head alone trains, and ...
MANY_STAGES = 2  # ... of one whose stages train: it then knows the training images, and another network gains more


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a training of a candidate took."""

    candidate: int
    epochs: int
    seconds: float  # in all, without the features that no other training has to compute again
    epoch: float  # seconds of the loop

    @classmethod
    def of(cls, trial: FrozenTrial, run: Path, *, candidate: int, epochs: int) -> Spent:
        """That of a completed trial."""
        seconds = seconds_of(trial, run) - _feature_seconds(run)
        return cls(candidate=candidate, epochs=epochs, seconds=seconds, epoch=_epoch_seconds(run))


class Costs:
    """Of each candidate, by its number.

    Args:
        config: its configuration.
        given: how many are given; what the others take is told by that of the first.
        left: seconds that may be spent, now.
    """

    def __init__(self, config: Callable[[int], RunConfig], *, given: int, left: Callable[[], float]) -> None:
        self._config, self.given, self._left = config, given, left
        self.known: dict[int, Speed | None] = {}  # None of one that cannot be trained
        self._bounds: dict[int, Speed | None] = {}

    def measured(self, number: int) -> Speed | None:
        """What a candidate's training takes; None where it cannot be trained, which is logged."""
        if number not in self.known:
            self.known[number] = None
            if number and self._left() < TO_MEASURE:
                return None
            try:
                self.known[number] = measure(self._config(number))
            except UserError as error:
                if number == 0:
                    raise
                log.warning("candidate %d is left out: %s", number, error)
        return self.known[number]

    def candidate(self, spent: Sequence[Spent], number: int) -> Candidate:
        """From its own trainings, else from a few steps of it and what such estimates were worth so far."""
        start = max(0.0, min((one.seconds - one.epoch * one.epochs for one in spent), default=START_SECONDS))
        own = [one for one in spent if one.candidate == number]
        speed = None if own else self._speed(number)
        if not own and speed is None:
            return Candidate(math.inf, 1.0, 1, 1)
        bounds = _epochs_of(self._config(number))
        if speed is None:
            return Candidate(start, (own[-1].seconds - start) / own[-1].epochs, *bounds)
        drift = [
            one.seconds / known.epoch / one.epochs
            for one in spent
            if (known := self.known.get(one.candidate)) and known.features == 0
        ]
        factor = statistics.median(drift) if drift else 1.0
        return Candidate(start + factor * speed.features, factor * speed.epoch, *bounds)

    def _speed(self, number: int) -> Speed | None:
        """What a candidate's training takes, or at least takes where a measurement may be saved."""
        if number in self.known:
            return self.known[number]
        if number >= self.given:
            self.known[number] = self._like_the_first(number)
            return self.known[number]
        if number not in self._bounds:
            self._bounds[number] = self._at_least(number)
        return self._bounds[number] or self.measured(number)

    def _at_least(self, number: int) -> Speed | None:
        """What a pretrained candidate takes at least, by the first one's features: every training puts every image
        through the whole network once. None where the first one has no features."""
        first, size = self.measured(0), self._size(number, pretrained=True)
        if first is None or not first.features or size is None:
            return None
        return replace(first, features=LEAST_SHARE * first.features * size, epoch=LEAST_EPOCH)

    def _like_the_first(self, number: int) -> Speed | None:
        """What a drawn candidate's training takes; None of a pretrained one, whose trainings cost too differently."""
        first, size = self.measured(0), self._size(number, pretrained=False)
        return None if first is None or size is None else replace(first, epoch=first.epoch * size)

    def _size(self, number: int, *, pretrained: bool) -> float | None:
        """A candidate's multiply-accumulates as a multiple of the first one's; None where its values do not fit
        together, or its network is pretrained where that is not asked for, or the other way round."""
        try:
            cfg = self._config(number)
        except UserError:
            return None
        if isinstance(cfg.model, PretrainedConfig) is not pretrained:
            return None
        return macs_of(cfg) / self._first_macs

    @functools.cached_property
    def _first_macs(self) -> int:
        return macs_of(self._config(0))


def seconds_of(trial: FrozenTrial, run: Path) -> float:
    """What a trial took, in all the processes that trained it: Optuna's duration is that of the last one."""
    last = trial.duration.total_seconds() if trial.duration else 0.0
    try:
        return max(last, read_result(run).seconds)
    except RunError:
        return last


def _epochs_of(cfg: RunConfig) -> tuple[int, int, int]:
    """The least, the most and the fewest epochs of a candidate's trainings: see Candidate."""
    epochs = cfg.trainer.epochs
    if not isinstance(cfg.model, PretrainedConfig):
        return SCRATCH_EPOCHS, MANY * epochs, 1
    stages = cfg.model.trains_stages
    fewest = cfg.model.head_epochs + 1 if stages else 1
    return max(fewest, epochs // 2), (MANY_STAGES if stages else MANY_PRETRAINED) * epochs, fewest


def _feature_seconds(run: Path) -> float:
    """What a run took to compute features that no other has to compute again."""
    try:
        facts = read_json(run / RECEIPT).get("features", [])
        return sum(float(each["extraction_seconds"]) for each in facts if each.get("extracted_by_this_run"))
    except (RunError, TypeError, AttributeError, KeyError, ValueError):
        return 0.0


def _epoch_seconds(run: Path) -> float:
    try:
        return statistics.fmean(line["seconds"] for line in read_metrics(run))
    except (RunError, statistics.StatisticsError):
        return 0.0
