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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.config.search_space import Point, SearchSpace
from da6401.data.sources import load_training_data
from da6401.errors import RunError, UserError
from da6401.redact import duration
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import VALIDATION_CSV, data_fingerprint
from da6401.runs.trial_folders import trial_folder
from da6401.study.clock import Clock
from da6401.study.objective import is_complete
from da6401.study.roles import CANDIDATE, DEFAULT, ENQUEUED, EPOCHS, GIVEN, PHASE, PLANNED, ROLE, SAMPLED
from da6401.study.trial_store import TrialStore
from da6401.sweep.jobs import Job, JobComposer
from da6401.sweep.leases import ATTEMPTS
from da6401.sweep.race_costs import START_SECONDS, Costs, Spent
from da6401.sweep.trial_timeout import landing_seconds
from da6401.tune.candidates import completed, with_drawn
from da6401.tune.race import Losses, Race, Step, Tried, image_losses, plan_words

log = logging.getLogger(__name__)

TOTAL = "race_seconds"  # user attribute of the study: from the first training to the hand-over
PLAN = "race_plan"  # and the trainings as they were planned at the start
LEAST = "race_least_seconds"  # and what the first candidate's least epochs take
ATTEMPTS_TO_FIT = 20  # to draw values that fit together
MOST_RESERVE = 0.1  # of sweep.minutes
PASSES = 2  # over the validation images, of each member of the mean: its answers, and those to mirror images


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
    _losses: dict[int, Losses | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = TrialStore(self.study)
        given = self.space.given_points()
        self.points = list(given)
        self.costs = Costs(self._config, given=len(given), left=lambda: self.clock.left - self.reserve)
        if not isinstance(self._config(0).model, PretrainedConfig):  # whose trainings cost too differently to guess
            self.points = with_drawn(given, self.space, self.seed)
        for trial in self.study.get_trials(deepcopy=False):  # an older version drew other ones
            if CANDIDATE in trial.user_attrs and (kept := trial.system_attrs.get(ENQUEUED)):
                number = int(trial.user_attrs[CANDIDATE])
                self.points[number : number + 1] = [dict(kept)]
        self.points = [self._whole(point) for point in self.points]
        self.families = self._families()

    def check_images(self) -> None:
        """Refuse to go on with other images than the study's last training saw: what the race knows would not compare.

        Raises:
            UserError: the images are others; or the training's configuration cannot be read any more.
        """
        done = [trial for trial in self.study.get_trials(deepcopy=False) if CANDIDATE in trial.user_attrs]
        last = next(filter(is_complete, reversed(done)), None)
        before = None if last is None else data_fingerprint(trial_folder(self.folder, last))
        if last is None or before is None:
            return
        data = self._config(int(last.user_attrs[CANDIDATE])).data
        if load_training_data(data).fingerprint != before:
            raise UserError(
                f"the images have changed since trial {last.number} of the study {self.study.study_name} was trained: "
                "put them back, or search on the new ones in a new study (study=...)"
            )

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
            self.costs.measured(number)
        step = self._next_step(tried, self._spent(trials), float(total))
        while step is not None and step.candidate not in self.costs.known:  # chosen by what it takes at least
            self.costs.measured(step.candidate)
            step = self._next_step(tried, self._spent(trials), float(total))
        return len(trials) if step is None else self._add(step)

    def _next_step(self, tried: Sequence[Tried], spent: Sequence[Spent], total: float) -> Step | None:
        candidate = functools.cache(functools.partial(self.costs.candidate, spent))
        return Race(self.families, candidate, total).next_step(tried, self.clock.left - self.reserve)

    def _begin(self) -> float:
        """Time the first candidate and say what the minutes will go to; returns the seconds for it."""
        self.costs.measured(0)  # reads and decodes the images: no training's time
        total = self.clock.left - self.reserve
        first = self.costs.candidate([], 0)
        race = Race(self.families, lambda number: first, total)
        steps = race.plan()
        self.study.set_user_attr(TOTAL, total)
        self.study.set_user_attr(PLAN, [dataclasses.asdict(step) for step in steps])
        self.study.set_user_attr(LEAST, race.least_seconds)
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
            ROLE: self._role(step.candidate),
        }  # fmt: skip
        new = self.store.create(
            create_trial(state=TrialState.WAITING, user_attrs=attributes, system_attrs={ENQUEUED: dict(point)})
        )
        return new.number + 1

    def _role(self, candidate: int) -> str:
        if candidate == 0:
            return SAMPLED if self.space.default is None else DEFAULT
        return GIVEN if candidate < self.costs.given else SAMPLED

    @property
    def least_seconds(self) -> float | None:
        """What the first candidate's least epochs and the hand-over take; None where no process has timed it yet."""
        least = self.study.user_attrs.get(LEAST)
        return None if least is None else self.reserve + float(least)

    @property
    def reserve(self) -> float:
        """Seconds that are kept for the hand-over and the summary."""
        landing = landing_seconds(self.clock)
        wanted = landing + START_SECONDS + sum(self._answers()[: self.members])
        return min(wanted, max(landing, MOST_RESERVE * self.clock.limit))

    def affordable_members(self) -> int:
        """How many networks can answer the validation images in the time left, besides the summary."""
        if not (answers := self._answers()):
            return 0
        left, affordable = self.clock.left - landing_seconds(self.clock), 0
        for seconds in answers[: self.members]:
            left -= seconds
            affordable += left >= 0
        return affordable

    def _answers(self) -> list[float]:
        """Seconds of each trained candidate as a member of the mean, the slowest first; of the first before any."""
        trained = {int(trial.user_attrs[CANDIDATE]) for trial in self.study.get_trials(deepcopy=False)
                   if CANDIDATE in trial.user_attrs}  # fmt: skip
        known = [speed for number in trained or {0} if (speed := self.costs.known.get(number))]
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

    def _whole(self, point: Point) -> Point:
        """The point, with values that fit together where the space does not have those of the defaults."""
        if self.space.is_whole(point):
            return point
        for attempt in range(ATTEMPTS_TO_FIT):
            drawn = completed(point, self.space, self.seed + attempt)
            with contextlib.suppress(UserError):
                self._config_of(drawn)
                return drawn
        return completed(point, self.space, self.seed)

    def _config(self, number: int) -> RunConfig:
        return self._config_of(self.points[number])

    def _config_of(self, point: Point) -> RunConfig:
        return self.composer.config_of(Job(tuple(self.space.overrides(point))))

    def _spent(self, trials: Sequence[FrozenTrial]) -> list[Spent]:
        """What the race's completed trainings took."""
        return [
            Spent.of(trial, trial_folder(self.folder, trial), candidate=int(trial.user_attrs[CANDIDATE]),
                     epochs=int(trial.user_attrs[EPOCHS]))
            for trial in trials
            if CANDIDATE in trial.user_attrs and is_complete(trial)
        ]  # fmt: skip


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
