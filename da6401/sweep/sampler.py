"""TPE that learns from pruned trials what they have shown."""

from __future__ import annotations

import copy
from collections.abc import Container
from typing import Any, cast

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class PruningTPESampler(TPESampler):
    """Optuna's TPESampler, for which a pruned trial is worth the best value that it reported.

    Optuna ranks every completed trial before every pruned one. Where most are pruned, the tenth that TPE takes for good
    is half of those that completed, the first and poor ones among them. What a pruned trial has reached is what it
    would have reached at least, so it takes its place among the completed by that.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(cast(Study, _Valued(study)), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(cast(Study, _Valued(study)), trial, param_name, param_distribution)


class _Valued:
    """A study whose pruned trials are completed ones with the best value that each reported."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache)
        if len(self._study.directions) > 1:  # their trials report nothing
            return trials
        best = max if self._study.direction is StudyDirection.MAXIMIZE else min
        return [
            _completed(trial, best(trial.intermediate_values.values()))
            if trial.state is TrialState.PRUNED and trial.intermediate_values
            else trial
            for trial in trials
        ]


def _completed(trial: FrozenTrial, value: float) -> FrozenTrial:
    trial = copy.copy(trial)  # what is given may be the study's own
    trial.state, trial.value = TrialState.COMPLETE, value
    return trial
