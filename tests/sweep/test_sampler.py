"""What the default sampler makes of pruned trials, beside Optuna's own."""

from __future__ import annotations

from typing import Literal

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from da6401.sweep.sampler import PruningTPESampler

Direction = Literal["maximize", "minimize"]
SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}


def study_of(sampler: TPESampler, *, direction: Direction = "maximize") -> optuna.Study:
    """A few poor trials that ran to their end, many pruned ones: good near 0.9, bad near 0.5."""
    study = optuna.create_study(direction=direction, sampler=sampler)
    sign = 1 if direction == "maximize" else -1
    for number in range(6):
        study.add_trial(create_trial(params={"x": 0.02 * number}, distributions=SPACE, value=sign * 0.3))
    for number in range(24):
        x, value = (0.9, 0.6) if number % 2 else (0.5, 0.1)
        reported = {1: sign * value, 2: sign * (value - 0.05)}
        study.add_trial(create_trial(state=TrialState.PRUNED, params={"x": x + 0.002 * number}, distributions=SPACE,
                                     intermediate_values=reported))  # fmt: skip
    return study


def near_the_good(study: optuna.Study) -> int:
    """Of twenty suggestions."""
    return sum(study.ask(SPACE).params["x"] > 0.6 for _ in range(20))


@pytest.mark.parametrize("multivariate", [True, False])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_pruned_trials_are_worth_what_they_reached(multivariate: bool, direction: Direction) -> None:
    ours = study_of(PruningTPESampler(seed=0, multivariate=multivariate), direction=direction)
    optunas = study_of(TPESampler(seed=0, multivariate=multivariate), direction=direction)
    assert near_the_good(ours) >= 14
    assert near_the_good(optunas) <= 5
    assert sum(trial.state is TrialState.PRUNED for trial in ours.trials) == 24, "the study itself stays as it is"


def test_without_pruned_trials_it_suggests_what_optunas_does() -> None:
    suggestions = []
    for sampler in (PruningTPESampler(seed=3), TPESampler(seed=3)):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda trial: -((trial.suggest_float("x", 0, 1) - 0.3) ** 2), n_trials=20)
        suggestions.append([trial.params["x"] for trial in study.trials])
    assert suggestions[0] == suggestions[1]


def test_trials_that_reported_nothing_and_several_goals_are_left_to_optuna() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=PruningTPESampler(seed=0))
    for number in range(15):
        study.add_trial(create_trial(params={"x": number / 15}, distributions=SPACE, values=[1.0 * number] * 2))
    assert 0 <= study.ask(SPACE).params["x"] <= 1
    single = optuna.create_study(sampler=PruningTPESampler(seed=0, n_startup_trials=1))
    for number in range(15):
        single.add_trial(create_trial(state=TrialState.PRUNED, params={"x": number / 15}, distributions=SPACE))
    assert 0 <= single.ask(SPACE).params["x"] <= 1
