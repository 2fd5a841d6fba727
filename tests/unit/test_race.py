"""The race's decisions, with simulated trainings and clocks: no training, no study."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from da6401.config.domains import Choices, Interval
from da6401.config.schema import PretrainedConfig, RunConfig, TrainerConfig
from da6401.config.search_space import Parameter, Point, SearchSpace
from da6401.study.clock import Clock
from da6401.study.roles import CANDIDATE, DEFAULT, ENQUEUED, EPOCHS, GIVEN, SAMPLED, role_of
from da6401.sweep import race_costs, race_trials
from da6401.sweep.open_study import enqueue_first
from da6401.sweep.pruners import build_pruner
from da6401.sweep.race_costs import Spent
from da6401.sweep.race_trials import RaceTrials
from da6401.training.speed import Speed
from da6401.tune.candidates import anywhere, near
from da6401.tune.race import JUDGE_SHARE, LONG_SHARE, ROOM_FOR_ERROR, Candidate, Losses, Race, Step, Tried, is_lower

GOLDEN = Path(__file__).parents[1] / "golden"


def losses(mean: float, *, seed: int = 0) -> Losses:
    return np.abs(np.random.default_rng(seed).normal(mean, 0.05, 400))


def simulate(race: Race, quality: list[float], *, slow: float = 1.0) -> tuple[list[Step], float]:
    """All steps of a race whose candidates have these losses after long trainings, and the seconds spent."""
    tried: list[Tried] = []
    steps: list[Step] = []
    spent = 0.0
    while (step := race.next_step(tried, race.total - spent)) is not None:
        steps.append(step)
        spent += step.seconds * slow
        mean = quality[step.candidate] + 1 / step.epochs
        tried.append(Tried(step.candidate, step.epochs, losses(mean, seed=len(tried)) if spent <= race.total else None))
        assert len(steps) < 1000, "the race does not end"
    return steps, spent


def race_of(total: float, count: int = 4, *, fixed: float = 1.0, epoch: float = 1.0) -> Race:
    known = Candidate(fixed, epoch, least_epochs=6, most_epochs=400)
    return Race([""] * count, lambda number: known, total)


def test_most_of_the_time_goes_to_one_training_of_the_best() -> None:
    steps, spent = simulate(race_of(300), [0.5, 0.5, 0.2, 0.5])
    assert [step.phase for step in steps][:4] == ["judge", "judge", "judge", "long"]
    assert steps[3].candidate == 2
    assert steps[3].seconds > 0.6 * 300
    assert spent <= 300


def test_without_a_difference_the_first_candidate_stays_first() -> None:
    steps, _ = simulate(race_of(300), [0.5, 0.5, 0.5, 0.5])
    assert next(step.candidate for step in steps if step.phase == "long") == 0


def test_with_little_time_there_is_one_training() -> None:
    steps, spent = simulate(race_of(30), [0.5, 0.1, 0.1, 0.1])
    assert [(step.candidate, step.phase) for step in steps] == [(0, "judge"), (0, "long")]
    assert 20 < spent <= 30


def test_with_hardly_any_time_there_is_a_short_training_and_with_none_there_is_none() -> None:
    assert race_of(5).next_step([], 5) == Step(0, 4, "long", 5.0)
    assert race_of(1).next_step([], 1) is None


def test_much_time_judges_many_and_trains_several() -> None:
    steps, _ = simulate(race_of(20_000, 40), [0.5] * 40)
    judged = [step for step in steps if step.phase == "judge"]
    long = [step for step in steps if step.phase == "long"]
    assert len(judged) > 30
    assert len(long) > 10
    assert {step.epochs for step in long} == {400}
    assert {step.epochs for step in judged} == {134}, "a third, which ranks long trainings"
    assert steps.index(long[0]) < 5, "the best one so far is trained long early"
    assert sum(step.seconds for step in long) > LONG_SHARE * 20_000


def test_a_candidate_that_takes_longer_is_judged_by_as_many_epochs() -> None:
    known = [Candidate(1, 1.0, 6, 30), Candidate(1, 1.7, 6, 30), Candidate(1, 0.4, 6, 30)]
    steps, _ = simulate(Race([""] * 3, known.__getitem__, 1000), [0.5, 0.5, 0.5])
    assert {step.candidate: step.epochs for step in steps if step.phase == "judge"} == {0: 10, 1: 10, 2: 10}


def test_time_that_the_best_cannot_use_judges_the_larger_networks() -> None:
    """Part B in 20 minutes: heads and a small network have used the judges' share, and the large one is left."""
    known = [Candidate(30, 0.5, 10, 80), Candidate(50, 18, 2, 20), Candidate(150, 35, 2, 20), Candidate(300, 35, 2, 20)]
    race = Race(["head", "last", "last", "head"], known.__getitem__, 1180)
    tried = [Tried(0, 80, losses(0.6)), Tried(1, 2, losses(0.4)), Tried(0, 80, losses(0.6))]
    step = race.next_step(tried, 950)
    assert step == Step(2, 2, "judge", 220.0)
    better = [*tried, Tried(2, 2, losses(0.3))]
    after = race.next_step(better, 730)
    assert after is not None
    assert (after.candidate, after.phase) == (2, "long")
    assert race.next_step(tried, 500) == Step(1, 20, "long", 410.0), "else the best one's training would be cut"


def test_a_candidate_that_failed_is_left_alone() -> None:
    race = race_of(300)
    tried = [Tried(0, 20, None), Tried(1, 20, losses(0.5))]
    assert race.ranked(tried) == [1, 2, 3]


def test_what_is_unknown_stands_after_its_family() -> None:
    race = Race(["a", "a", "b", "b"], lambda number: Candidate(1, 1, 6, 400), 300)
    assert race.ranked([Tried(0, 20, losses(0.5)), Tried(2, 20, losses(0.2))]) == [2, 3, 0, 1]


def test_a_better_one_passes_only_by_a_standard_error() -> None:
    same = losses(0.5)
    assert not is_lower(same, same)
    assert is_lower(same - 0.01, same)
    noise = np.random.default_rng(1).normal(0, 1, 400)
    assert not is_lower(same + noise - noise.mean() - 0.01, same)


def test_the_less_judging_says_the_more_a_better_one_must_show() -> None:
    first = losses(0.5)
    noise = np.random.default_rng(1).normal(0, 0.2, 400)
    other = first + noise - noise.mean() - 0.6 * 0.2 / math.sqrt(400)  # lower by 0.6 standard errors
    for total, order in ((300, [0, 1]), (20_000, [1, 0])):
        race = race_of(total, 2)
        step = race.next_step([], total)
        assert step is not None
        assert race.ranked([Tried(0, step.epochs, first), Tried(1, step.epochs, other)]) == order


@settings(deadline=None, max_examples=200)
@given(
    total=st.floats(1, 86_400), fixed=st.floats(0, 60), epoch=st.floats(0.001, 600), count=st.integers(1, 12),
    slow=st.floats(0.7, 1.05),
)  # fmt: skip
def test_no_training_starts_that_does_not_fit(
    total: float, fixed: float, epoch: float, count: int, slow: float
) -> None:
    race = race_of(total, count, fixed=fixed, epoch=epoch)
    steps, spent = simulate(race, [0.5] * count, slow=slow)
    assert spent <= total * max(1, slow)
    judged = sum(step.seconds for step in steps if step.phase == "judge")
    spare = total - race.candidate(0).seconds(400) / ROOM_FOR_ERROR
    assert min(1, slow) * judged <= max(JUDGE_SHARE * total, spare) + 1e-6
    if math.floor((0.93 * total - fixed) / epoch) >= 1:
        assert steps, "there was time for a training"


def test_the_plan_is_what_happens_when_all_are_alike() -> None:
    race = race_of(300)
    steps, _ = simulate(race, [0.5] * 4)
    assert race.plan() == steps
    assert sum(step.seconds for step in race.plan()) <= 300


def test_a_race_says_when_it_has_too_little_time() -> None:
    race = race_of(20)
    enough = race_of(race.least_seconds)
    assert max(step.epochs for step in enough.plan()) >= enough.candidate(0).least_epochs
    less = race_of(race.least_seconds - 1)
    assert max(step.epochs for step in less.plan()) < enough.candidate(0).least_epochs


def test_where_features_take_the_time_the_first_training_has_many_epochs() -> None:
    head = Candidate(fixed=20.0, epoch=0.05, least_epochs=10, most_epochs=80)
    first = Race([""], lambda number: head, 300).next_step([], 300)
    assert first is not None
    assert first.epochs == 80
    assert first.seconds <= 0.12 * 300


def test_half_of_the_drawn_candidates_are_near_the_defaults_and_half_from_anywhere() -> None:
    parameters = tuple(
        Parameter(f"optimizer.{name}", f"optimizer.{name}", Interval(1e-4, 1.0, log=True)) for name in "abcdefgh"
    )
    space = SearchSpace(parameters, {}, {each.name: 0.01 for each in parameters})

    def drawn(draw: Callable[[SearchSpace, random.Random], Point]) -> npt.NDArray[np.float64]:
        """Distances from the defaults on the keys' scale, in shares of its length."""
        rng = random.Random(0)
        values = [float(str(value)) for _ in range(200) for value in draw(space, rng).values()]
        return np.abs(np.log(np.array(values) / 0.01)) / math.log(1e4)

    close, far = drawn(functools.partial(near, space.given_points()[0])), drawn(anywhere)
    assert (close == 0).mean() > 0.5
    assert close.mean() < 0.1
    assert (far == 0).mean() == 0
    assert abs(far.mean() - 0.25) < 0.02


class Composer:
    """Gives one configuration, whatever a candidate chooses."""

    def __init__(self, cfg: RunConfig) -> None:
        self.cfg = cfg

    def config_of(self, job: object) -> RunConfig:
        return self.cfg


def test_a_study_of_another_version_keeps_its_drawn_candidates(tmp_path: Path) -> None:
    parameters = tuple(Parameter(f"optimizer.{name}", f"optimizer.{name}", Interval(0.0, 1.0)) for name in "ab")
    space = SearchSpace(parameters, {}, {each.name: 0.5 for each in parameters})
    study, drawn = optuna.create_study(), {"optimizer.a": 0.125, "optimizer.b": 0.25}
    study.add_trial(
        create_trial(state=TrialState.WAITING, user_attrs={CANDIDATE: 3}, system_attrs={ENQUEUED: dict(drawn)})
    )
    untouched: Any = None
    composer: Any = Composer(RunConfig())
    race = RaceTrials(study, space, composer, tmp_path, untouched, seed=0, members=1)
    assert race.points[3] == drawn
    assert race.points[2] != drawn


def race_of_backbones(folder: Path, freeze_depth: int, *, left: float) -> RaceTrials:
    """A race with this time left, in which two candidates were trained that answer in 5 s and in 1 s."""
    model = PretrainedConfig(name="efficientnet_lite0", freeze_depth=freeze_depth)
    composer: Any = Composer(RunConfig(model=model, trainer=TrainerConfig(epochs=5)))
    study = optuna.create_study()
    for number in (0, 1):
        study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={CANDIDATE: number}))
    space = SearchSpace((Parameter("seed", "seed", Interval(0, 9)),), {}, {"seed": 0})
    clock = Clock(20, began=left - 1200, now=lambda: 0.0)
    race = RaceTrials(study, space, composer, folder, clock, seed=0, members=3)
    race.costs.known.update({0: Speed(0, 1, 5.0), 1: Speed(0, 1, 1.0), 2: Speed(0, 1, 99.0)})
    return race


@pytest.mark.parametrize(("freeze_depth", "most"), [(9, 20), (6, 10)])
def test_a_head_may_train_longer_than_stages(tmp_path: Path, freeze_depth: int, most: int) -> None:
    assert race_of_backbones(tmp_path, freeze_depth, left=1000).costs.candidate([], 0).most_epochs == most


def test_time_is_kept_for_the_answers_of_the_networks_that_were_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race_trials, "landing_seconds", lambda clock: 10.0)
    for left, affordable in ((1000, 2), (21, 1), (15, 0)):
        race = race_of_backbones(tmp_path, 6, left=left)
        assert race.affordable_members() == affordable, f"{left} s"
    assert race.reserve == 10 + race_costs.START_SECONDS + 2 * 5 + 2 * 1


@pytest.mark.parametrize(("minutes", "timed"), [(5, []), (60, [256])])
def test_what_cannot_fit_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: int, timed: list[int]
) -> None:
    """Timing a network on large images takes up to half a minute: a bound by multiply-accumulates comes first."""

    class Sizes(Composer):
        def config_of(self, job: Any) -> RunConfig:
            (side,) = re.findall(r"data.image_size=(\d+)", " ".join(job.overrides))
            return dataclasses.replace(self.cfg, data=dataclasses.replace(self.cfg.data, image_size=int(side)))

    seen: list[int] = []

    def measured(cfg: RunConfig) -> Speed:
        seen.append(cfg.data.image_size)
        return Speed(features=400.0, epoch=1.0, answers=1.0)

    monkeypatch.setattr(race_costs, "measure", measured)
    monkeypatch.setattr(race_trials, "landing_seconds", lambda clock: 5.0)
    model = PretrainedConfig(name="efficientnet_lite0", freeze_depth=9, weights="none")
    composer: Any = Sizes(RunConfig(model=model, trainer=TrainerConfig(epochs=20)))
    side = "data.image_size"
    space = SearchSpace((Parameter(side, side, Choices((64, 256))),), {}, {side: 64}, first=({side: 256},))
    study = optuna.create_study()
    study.set_user_attr(race_trials.TOTAL, 60.0 * minutes)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs={CANDIDATE: 0, EPOCHS: 80}))
    race = RaceTrials(study, space, composer, tmp_path, Clock(minutes, began=0, now=lambda: 0.0), seed=0, members=1)
    spent = Spent(candidate=0, epochs=80, seconds=10.0, epoch=0.1)
    monkeypatch.setattr(race, "_spent", lambda trials: [spent])
    race._losses[0], race.costs.known[0] = losses(0.5), Speed(features=30.0, epoch=0.1, answers=1.0)
    race.extend()
    assert seen == timed


def test_a_candidate_that_cannot_be_trained_is_passed_over() -> None:
    good, none = Candidate(1.0, 1.0, 6, 400), Candidate(math.inf, 1.0, 1, 1)
    assert none.epochs(1000) < 1
    race = Race([""] * 3, lambda number: none if number == 1 else good, 300)
    steps, spent = simulate(race, [0.5, 0.0, 0.4])
    assert {step.candidate for step in steps} == {0, 2}
    assert spent <= 300
    late = Race([""] * 3, lambda number: good if number == 0 else none, 300)
    assert late.next_step([Tried(0, 400, losses(0.5))], 9.0) is None


def test_no_training_is_shorter_than_it_can_be() -> None:
    head_first = Candidate(1.0, 1.0, 6, 400, fewest_epochs=5)
    assert Race([""], lambda number: head_first, 5).plan() == []
    assert all(step.epochs >= 5 for total in range(6, 60) for step in Race([""], lambda n: head_first, total).plan())
    model = PretrainedConfig(name="efficientnet_lite0", freeze_depth=7, head_epochs=3)
    assert race_costs._epochs_of(RunConfig(model=model, trainer=TrainerConfig(epochs=4))) == (4, 8, 4)
    assert race_costs._epochs_of(RunConfig(trainer=TrainerConfig(epochs=4)))[2] == 1


def space_of(low: float) -> SearchSpace:
    """Two keys that are 0.05, of which one is searched from ``low`` on."""
    parameters = (Parameter("optimizer.a", "optimizer.a", Interval(low, 1.0)),
                  Parameter("optimizer.b", "optimizer.b", Interval(0.0, 1.0)))  # fmt: skip
    return SearchSpace(parameters, {}, {"optimizer.a": 0.05, "optimizer.b": 0.05}, first=({"optimizer.b": 0.5},))


def test_what_is_half_drawn_is_not_called_the_default() -> None:
    for low, role in ((0.0, DEFAULT), (0.1, SAMPLED)):
        study = optuna.create_study()
        enqueue_first(study, space_of(low), [])
        assert [role_of(trial) for trial in study.trials] == [role, GIVEN]
    older = optuna.create_study()  # which has no attribute for it
    for given_point in ({"optimizer.b": 0.05}, {"optimizer.a": 0.05, "optimizer.b": 0.05}):
        older.add_trial(create_trial(
            value=1.0, params={"optimizer.a": 0.05, "optimizer.b": 0.05}, system_attrs={ENQUEUED: given_point},
            distributions={f"optimizer.{name}": FloatDistribution(0, 1) for name in "ab"},
        ))  # fmt: skip
    assert [role_of(trial) for trial in older.trials] == [SAMPLED, GIVEN]


def test_a_candidate_has_the_same_values_in_all_its_trainings(tmp_path: Path) -> None:
    composer, untouched = Composer(RunConfig()), None
    made: list[Any] = [
        RaceTrials(optuna.create_study(), space_of(0.1), composer, tmp_path, untouched, seed=0, members=1)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert made[0].points == made[1].points
    assert made[0].points[0].keys() == {"optimizer.a", "optimizer.b"}
    assert made[0].points[0]["optimizer.b"] == 0.05
    assert made[0].points[0]["optimizer.a"] >= 0.1
    assert [made[0]._role(number) for number in (0, 1, 2)] == [SAMPLED, GIVEN, SAMPLED]


def test_a_resumed_training_took_the_time_of_all_its_processes(tmp_path: Path) -> None:
    start = datetime(2026, 1, 1)
    trial = create_trial(value=0.5)
    trial.datetime_start, trial.datetime_complete = start, start + timedelta(seconds=2)
    assert race_costs.seconds_of(trial, tmp_path) == 2.0
    shutil.copytree(GOLDEN / "part_a_digits", tmp_path / "run")
    content = json.loads((tmp_path / "run/result.json").read_text())
    (tmp_path / "run/result.json").write_text(json.dumps({**content, "seconds": 20.0}))
    assert race_costs.seconds_of(trial, tmp_path / "run") == 20.0


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_in_the_epochs_of_the_warm_up_no_trial_is_pruned(warmup: int) -> None:
    pruner = build_pruner({"name": "median", "startup_trials": 1, "warmup_epochs": warmup}, steps=5)
    study = optuna.create_study(direction="maximize")
    epochs = range(1, 6)
    study.add_trial(create_trial(value=0.9, intermediate_values=dict.fromkeys(epochs, 0.9)))
    pruned = []
    for epoch in epochs:
        poor = create_trial(state=TrialState.RUNNING, intermediate_values=dict.fromkeys(range(1, epoch + 1), 0.1))
        pruned += [epoch] if pruner.prune(study, poor) else []
    assert pruned[0] == warmup + 1
