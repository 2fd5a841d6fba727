"""Which parameters mattered: importance by two evaluators, rank correlation, and how far to trust either."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import spearmanr

from da6401.config.metrics import Metric, word
from da6401.report.charts import Chart, bars, shown_value
from da6401.report.sweep_record import SweepRecord, is_numeric

EVALUATORS: dict[str, Callable[[], BaseImportanceEvaluator]] = {
    "PED-ANOVA": PedAnovaImportanceEvaluator,
    "fANOVA": lambda: FanovaImportanceEvaluator(n_trees=32, seed=0),
}
FEW = 30  # completed trials: below, PED-ANOVA misranked a known function's parameters in 3 of 10 seeds


def importance(sweep: SweepRecord, metric: Metric) -> tuple[list[Chart], list[str]]:
    """The importance of parameters by PED-ANOVA and fANOVA, and what speaks against trusting it.

    A parameter that only some trials have (a conditional space) is weighed among the trials of each model.
    """
    done = [trial for trial in sweep.frozen if trial.state is TrialState.COMPLETE]
    groups: dict[str, list[FrozenTrial]] = {"all trials": done}
    for trial in done:
        if "model" in trial.params:
            groups.setdefault(f"model={trial.params['model']}", []).append(trial)
    charts, doubts = [], []
    for index, (name, trials) in enumerate(groups.items()):
        keys = [k for k in sweep.params if len({str(t.params.get(k)) for t in trials}) > 1]
        keys = [k for k in keys if all(k in t.params for t in trials)]
        if len(trials) < 4 or len(keys) < 2 or len({t.values[metric.index] for t in trials}) < 2:
            if index == 0:
                doubts.append(f"Importance needs 4 completed trials that differ, and 2 parameters; n = {len(trials)}.")
            continue
        points = tuple((t.values[metric.index], tuple(t.params[key] for key in keys)) for t in trials)
        spaces = tuple((key, _whole([t.distributions[key] for t in trials])) for key in keys)
        shares = {each: _shares(points, spaces, metric.maximise, each) for each in EVALUATORS}
        ranked = {each: sorted(keys, key=of.__getitem__, reverse=True) for each, of in shares.items()}
        first = {each: order[0] for each, order in ranked.items()}
        if len(set(first.values())) > 1:
            doubts.append(
                f"The two evaluators disagree for {name}: "
                + " and ".join(f"{each} puts {key} first" for each, key in first.items())
                + ". Trust neither without more trials."
            )
        elif ranked["PED-ANOVA"] != ranked["fANOVA"]:
            doubts.append(f"The two evaluators agree on the first parameter for {name}, not on the order of the rest.")
        if len(trials) < FEW:
            doubts.append(f"n = {len(trials)} completed trials ({name}) are few: from about {FEW} on it is steadier.")
        order = ranked["fANOVA"]
        charts.append(
            bars(
                "Importance" if index == 0 else f"Importance, {name}",
                f"Share of the variation of {word(metric.name)} that a parameter explains, by PED-ANOVA and fANOVA, "
                f"n = {len(trials)} completed trials ({name}).",
                order, {each: [of[key] for key in order] for each, of in shares.items()}, unit="share",
            )
        )  # fmt: skip
    return charts, doubts


def by_importance(sweep: SweepRecord, metric: Metric) -> list[str]:
    """The searched keys that differ among the completed trials, the most important one first where that is known."""
    keys = [key for key in sweep.params if len({str(trial.params.get(key)) for trial in sweep.complete}) > 1]
    charts, _ = importance(sweep, metric)
    order = [row[0] for row in charts[0]["rows"]] if charts else []
    return sorted(keys, key=lambda key: order.index(key) if key in order else len(order))


@functools.lru_cache(maxsize=32)  # while a sweep runs, most changes of the page are epochs and no new trial
def _shares(
    points: tuple[tuple[float, tuple[Any, ...]], ...],
    spaces: tuple[tuple[str, BaseDistribution], ...],
    maximise: bool,
    evaluator: str,
) -> dict[str, float]:
    """The importance of each parameter, from the objective and the parameters of each trial."""
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    names = [name for name, _ in spaces]
    for value, params in points:
        given = dict(zip(names, params, strict=True))
        study.add_trial(optuna.create_trial(params=given, distributions=dict(spaces), value=value))
    found = get_param_importances(study, evaluator=EVALUATORS[evaluator]())
    return {name: float(found[name]) for name in names}


def _whole(spaces: Sequence[BaseDistribution]) -> BaseDistribution:
    """One distribution that holds all of these: a study that was extended has searched several."""
    first = spaces[0]
    if all(each == first for each in spaces) or not all(type(each) is type(first) for each in spaces):
        return first
    if isinstance(first, CategoricalDistribution):
        return CategoricalDistribution(tuple(dict.fromkeys(c for each in spaces for c in each.choices)))  # type: ignore[attr-defined]
    whole: Any = copy.copy(first)
    whole.low, whole.high = min(e.low for e in spaces), max(e.high for e in spaces)  # type: ignore[attr-defined]
    return cast(BaseDistribution, whole)


def correlation(sweep: SweepRecord, metric: Metric) -> Chart | None:
    """Spearman's rank correlation of each parameter, or of each choice of it, with the objective; None: too few."""
    found: dict[str, tuple[float, int]] = {}
    for key in sweep.params:
        mine = [trial for trial in sweep.complete if key in trial.params]
        values = [trial.params[key] for trial in mine]
        reached = [trial.reached(metric) for trial in mine]
        columns = {key: values} if is_numeric(values) else _indicators(key, values)
        for name, column in columns.items():
            if len(mine) >= 3 and len(set(column)) > 1 and len(set(reached)) > 1:
                found[name] = (float(spearmanr(column, reached).statistic), len(mine))
    if not found:
        return None
    names = sorted(found, key=lambda name: -abs(found[name][0]))
    counts = sorted({n for _, n in found.values()})
    said = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    return bars(
        "Correlation",
        f"Spearman's rank correlation with {word(metric.name)}, {said} completed trials. KEY=VALUE counts as 1, any "
        "other value of this key as 0.",
        names, {"correlation": [found[name][0] for name in names]}, unit="rank correlation",
    )  # fmt: skip


def _indicators(key: str, values: Sequence[Any]) -> dict[str, list[bool]]:
    """Columns of a choice: one a value, and only one of two, since the other's correlation is its negative."""
    choices = sorted(dict.fromkeys(values), key=str)
    wanted = choices[1:] if len(choices) == 2 else choices
    return {f"{key}={shown_value(choice)}": [value == choice for value in values] for choice in wanted}
