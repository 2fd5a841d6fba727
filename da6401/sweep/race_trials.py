"""A sweep with sweep.strategy=race: the study's next trial is the race's next training (tune/race.py).

A trial is one complete training. Its attributes say which candidate it trains and for how many epochs; its parameters
are the candidate's, as in any sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.config.search_space import SearchSpace
from da6401.errors import RunError, UserError
from da6401.redact import duration
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import RECEIPT, VALIDATION_CSV, read_json, read_metrics
from da6401.runs.trial_folders import trial_folder
from da6401.study.clock import Clock
from da6401.study.objective import is_complete
from da6401.study.roles import ENQUEUED
from da6401.study.trial_store import TrialStore
from da6401.sweep.jobs import Job, JobComposer
from da6401.sweep.leases import ATTEMPTS
from da6401.sweep.trial_timeout import landing_seconds
from da6401.training.speed import Speed, macs_of, measure
from da6401.tune.candidates import with_drawn
from da6401.tune.race import Candidate, Losses, Race, Step, Tried, image_losses, plan_words

log = logging.getLogger(__name__)

CANDIDATE, EPOCHS, PHASE, PLANNED = "candidate", "epochs", "phase", "planned_seconds"  # user attributes of a trial
TOTAL = "race_seconds"  # user attribute of the study: from the first training to the hand-over
PLAN = "race_plan"  # and the trainings as they were planned at the start
START_SECONDS = 1.5  # to start and end a training, until one has shown it
MOST_RESERVE = 0.1  # of sweep.minutes
PASSES = 2  # over the validation images, of each member of the mean: its answers, and those to mirror images
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


@dataclass
class RaceTrials:
    """Adds the race's trainings to a study, each when the one before it is known."""

    study: optuna.Study
    space: SearchSpace
    composer: JobComposer
    folder: Path
    clock: Clock
    seed: int
    members: int  # most networks in the model that is handed over
    _speeds: dict[int, Speed | None] = field(default_factory=dict)
    _bounds: dict[int, Speed | None] = field(default_factory=dict)
    _losses: dict[int, Losses | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = TrialStore(self.study)
        self.given = self.space.given_points()
        self.points = list(self.given)
        if not isinstance(self._config(0).model, PretrainedConfig):  # whose trainings cost too differently to guess
            self.points = with_drawn(self.given, self.space, self.seed)
        for trial in self.study.get_trials(deepcopy=False):  # an older version drew other ones
            if CANDIDATE in trial.user_attrs and (kept := trial.system_attrs.get(ENQUEUED)):
                number = int(trial.user_attrs[CANDIDATE])
                self.points[number : number + 1] = [dict(kept)]
        self.families = self._families()

    def extend(self) -> int:
        """Add the next training, unless one waits already, or none is worth it; returns the study's number of trials.

        Raises:
            UserError: the first candidate cannot be trained.
        """
        trials = self.study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.WAITING for trial in trials):
            return len(trials)
        if (total := self.study.user_attrs.get(TOTAL)) is None:
            total = self._begin()
        tried = [self._tried(trial) for trial in trials if CANDIDATE in trial.user_attrs]
        for number in {one.candidate for one in tried}:
            self._measured(number)
        step = self._next_step(tried, self._spent(trials), float(total))
        while step is not None and step.candidate not in self._speeds:  # chosen by what it takes at least
            self._measured(step.candidate)
            step = self._next_step(tried, self._spent(trials), float(total))
        return len(trials) if step is None else self._add(step)

    def _next_step(self, tried: Sequence[Tried], spent: Sequence[Spent], total: float) -> Step | None:
        candidate = functools.cache(functools.partial(self._candidate, spent))
        return Race(self.families, candidate, total).next_step(tried, self.clock.left - self.reserve)

    def _begin(self) -> float:
        """Time the first candidate and say what the minutes will go to; returns the seconds for it."""
        self._measured(0)  # reads and decodes the images: no training's time
        total = self.clock.left - self.reserve
        first = self._candidate([], 0)
        race = Race(self.families, lambda number: first, total)
        steps = race.plan()
        self.study.set_user_attr(TOTAL, total)
        self.study.set_user_attr(PLAN, [dataclasses.asdict(step) for step in steps])
        if self.clock.limit < math.inf:
            log.info("plan for %s: %s", duration(self.clock.limit), plan_words(steps, self.clock.spent, self.reserve))
        if total < race.least_seconds:
            needed = (self.clock.limit - total + race.least_seconds) / 60
            log.warning(
                "sweep.minutes=%g leaves too little time: the first candidate needs %d epochs of %.1f s, which takes "
                "sweep.minutes=%.1f", self.clock.limit / 60, first.least_epochs, first.epoch,
                math.ceil(10 * needed) / 10,
            )  # fmt: skip
        return total

    def _add(self, step: Step) -> int:
        point = self.points[step.candidate]
        attributes = {
            ATTEMPTS: 1, CANDIDATE: step.candidate, EPOCHS: step.epochs, PHASE: step.phase, PLANNED: step.seconds,
        }  # fmt: skip
        new = self.store.create(
            create_trial(state=TrialState.WAITING, user_attrs=attributes, system_attrs={ENQUEUED: dict(point)})
        )
        return new.number + 1

    @property
    def least_seconds(self) -> float | None:
        """What the first candidate's least epochs take; None where this process has not timed it."""
        if self._speeds.get(0) is None:
            return None
        first = self._candidate([], 0)
        return self.reserve + Race(self.families, lambda number: first, 0.0).least_seconds

    @property
    def reserve(self) -> float:
        """Seconds that are kept for the hand-over and the summary."""
        landing = landing_seconds(self.clock)
        wanted = landing + START_SECONDS + sum(self._answers()[: self.members])
        return min(wanted, max(landing, MOST_RESERVE * self.clock.limit))

    def affordable_members(self) -> int:
        """How many networks can answer the validation images in the time left, besides the summary."""
        if not (answers := self._answers()):
            return self.members if self.clock.left == math.inf else 0
        left, affordable = self.clock.left - landing_seconds(self.clock), 0
        for seconds in answers[: self.members]:
            left -= seconds
            affordable += left >= 0
        return affordable

    def _answers(self) -> list[float]:
        """Seconds of each trained candidate as a member of the mean, the slowest first; of the first before any."""
        trained = {int(trial.user_attrs[CANDIDATE]) for trial in self.study.get_trials(deepcopy=False)
                   if CANDIDATE in trial.user_attrs}  # fmt: skip
        known = [speed for number in trained or {0} if (speed := self._speeds.get(number))]
        return sorted((PASSES * speed.answers for speed in known), reverse=True)

    def _families(self) -> list[str]:
        """The network of each candidate: that of the first one with the same choice of model."""
        names: dict[str, str] = {}
        families = []
        for number, point in enumerate(self.points):
            choice = str(point.get("model", point.get("experiment", "")))
            if choice not in names:
                names[choice] = choice
                with contextlib.suppress(UserError):  # values that do not fit together
                    names[choice] = self._config(number).model.name
            families.append(names[choice])
        return families

    def _tried(self, trial: FrozenTrial) -> Tried:
        if trial.number not in self._losses and trial.state.is_finished():
            self._losses[trial.number] = losses_of(trial_folder(self.folder, trial)) if is_complete(trial) else None
        return Tried(int(trial.user_attrs[CANDIDATE]), int(trial.user_attrs[EPOCHS]), self._losses.get(trial.number))

    def _measured(self, number: int) -> Speed | None:
        """What a candidate's training takes; None where it cannot be trained, which is logged."""
        if number not in self._speeds:
            self._speeds[number] = None
            if number and self.clock.left - self.reserve < TO_MEASURE:
                return None
            try:
                self._speeds[number] = measure(self._config(number))
            except UserError as error:
                if number == 0:
                    raise
                log.warning("candidate %d is left out: %s", number, error)
        return self._speeds[number]

    def _speed(self, number: int) -> Speed | None:
        """What a candidate's training takes, or at least takes where a measurement may be saved."""
        if number in self._speeds:
            return self._speeds[number]
        if number >= len(self.given):
            return self._guessed(number)
        if number not in self._bounds:
            self._bounds[number] = self._at_least(number)
        return self._bounds[number] or self._measured(number)

    def _at_least(self, number: int) -> Speed | None:
        """What a pretrained candidate takes at least, by the multiply-accumulates and the first one's features.

        Every training puts every image through the whole network once. None where the first one has no features.
        """
        first, cfg = self._measured(0), None
        with contextlib.suppress(UserError):  # values that do not fit together
            cfg = self._config(number)
        if first is None or not first.features or cfg is None or not isinstance(cfg.model, PretrainedConfig):
            return None
        seconds = LEAST_SHARE * first.features * macs_of(cfg) / macs_of(self._config(0))
        return replace(first, features=seconds, epoch=LEAST_EPOCH)

    def _guessed(self, number: int) -> Speed | None:
        """What a sampled candidate's training takes: that of the defaults, by multiply-accumulates."""
        if number not in self._speeds:
            first, cfg = self._measured(0), None
            with contextlib.suppress(UserError):  # values that do not fit together
                cfg = self._config(number)
            known = first is not None and cfg is not None and not isinstance(cfg.model, PretrainedConfig)
            factor = macs_of(cfg) / macs_of(self._config(0)) if cfg is not None and known else 0.0
            self._speeds[number] = replace(first, epoch=first.epoch * factor) if first and factor else None
        return self._speeds[number]

    def _config(self, number: int) -> RunConfig:
        return self.composer.config_of(Job(tuple(self.space.overrides(self.points[number]))))

    def _spent(self, trials: Sequence[FrozenTrial]) -> list[Spent]:
        """What the race's completed trainings took."""
        done = [trial for trial in trials if CANDIDATE in trial.user_attrs and is_complete(trial)]
        runs = [trial_folder(self.folder, trial) for trial in done]
        return [
            Spent(
                candidate=int(trial.user_attrs[CANDIDATE]), epochs=int(trial.user_attrs[EPOCHS]),
                seconds=_seconds(trial) - _feature_seconds(run), epoch=_epoch_seconds(run),
            )
            for trial, run in zip(done, runs, strict=True)
        ]  # fmt: skip

    def _candidate(self, spent: Sequence[Spent], number: int) -> Candidate:
        """From its own trainings, else from a few steps of it and what such estimates were worth so far."""
        start = max(0.0, min((one.seconds - one.epoch * one.epochs for one in spent), default=START_SECONDS))
        own = [one for one in spent if one.candidate == number]
        speed = self._speed(number)
        if speed is None:
            return Candidate(math.inf, 1.0, 1, 1)
        cfg = self._config(number)
        if isinstance(cfg.model, PretrainedConfig):
            many = MANY_STAGES if cfg.model.trains_stages else MANY_PRETRAINED
            least, most = max(1, cfg.trainer.epochs // 2), many * cfg.trainer.epochs
        else:
            least, most = SCRATCH_EPOCHS, MANY * cfg.trainer.epochs
        if own:
            return Candidate(start, (own[-1].seconds - start) / own[-1].epochs, least, most)
        drift = [
            one.seconds / known.epoch / one.epochs
            for one in spent
            if (known := self._speeds.get(one.candidate)) and known.features == 0
        ]
        factor = statistics.median(drift) if drift else 1.0
        return Candidate(start + factor * speed.features, factor * speed.epoch, least, most)


def losses_of(run: Path) -> Losses | None:
    """The cross-entropy of each validation image, of a completed run."""
    try:
        answers = read_predictions(run / VALIDATION_CSV)
    except RunError:
        return None
    return image_losses(answers.labels_N, answers.probabilities_NK)


def epochs_of(trial: FrozenTrial) -> list[str]:
    """The override that gives a race's trial its epochs; none for a trial of another sweep."""
    return [f"trainer.epochs={trial.user_attrs[EPOCHS]}"] if EPOCHS in trial.user_attrs else []


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


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
