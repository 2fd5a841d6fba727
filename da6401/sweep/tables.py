"""The tables that a sweep prints, and a trial's values in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from da6401.config.search_space import key_of
from da6401.study.objective import Objective
from da6401.study.roles import role_of
from da6401.study.told_apart import MARK, ToldApart
from da6401.sweep.confirm import Confirmed
from da6401.sweep.leases import REASON, REQUEUED
from da6401.sweep.model_folder import HandedOver


def trial_table(trials: Sequence[FrozenTrial], objective: Objective, told: ToldApart, *, title: str) -> Table:
    """One row a trial, best first: number, state, values, interval, seconds, its parameters, and why it failed or
    cannot win. What is the same in all trials stands below and not in the rows; 80 characters are enough."""
    winners = {each.trial.number for each in objective.best(trials)}
    same = _same_in_all(trials)
    states = {trial.state.name.lower() for trial in trials}
    said = [f"all {len(trials)} trials are {states.pop()}"] if len(states) == 1 and len(trials) > 1 else []
    said += [f"all have {' '.join(same.values())}"] if same else []
    title = f"{title}, best first" if len(trials) > 1 else title
    table = Table(
        title=escape(title), title_justify="left", caption=escape("; ".join(said)) or None, caption_justify="left",
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    columns = [("trial", "right"), *([("state", "left")] if states else [])]
    columns += [(name, "right") for name in objective.names]
    columns += [(told.heading, "right")] if told.heading else []
    for heading, justify in [*columns, ("seconds", "right")]:
        table.add_column(heading, justify=cast(JustifyMethod, justify), no_wrap=True)
    table.add_column("searched", overflow="fold")  # `parameters` is the name of an objective
    for trial in objective.ranked(trials):
        if trial.values and len(trial.values) == len(objective.metrics):
            values = [each.text(value) for each, value in zip(objective.metrics, trial.values, strict=True)]
        else:
            values = ["-"] * len(objective.metrics)
        if told.heading:
            values.append(told.cell(trial.number) or "-")
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else "-"
        attribute = REASON if trial.state is not TrialState.WAITING else REQUEUED
        reason = f"  ({trial.user_attrs[attribute]})" if attribute in trial.user_attrs else over_limits(trial)
        star = "*" if trial.number in winners else MARK if trial.number in told.same else " "
        state = [trial.state.name.lower()] if states else []
        own = " ".join(text for name, text in _written(trial.params).items() if name not in same)
        role = f"({given}) " if (given := role_of(trial)) else ""
        table.add_row(f"{star}{trial.number}", *state, *values, seconds, escape((role + own + reason).strip()))
    return table


def _same_in_all(trials: Sequence[FrozenTrial]) -> dict[str, str]:
    """The parameters, as they are printed, that no two of several trials have differently."""
    if len(trials) < 2:
        return {}
    rows = [_written(trial.params) for trial in trials]
    return {name: text for name, text in rows[0].items() if all(row.get(name) == text for row in rows)}


def over_limits(trial: FrozenTrial) -> str:
    """By how much a trial exceeds the hard limits, and so cannot win."""
    over = [f"{excess:,.0f} {name}" for name, excess in trial.constraints.items() if excess > 0]
    return f" ({' and '.join(over)} over the limit)" if over else ""


def options_table(handed: HandedOver) -> Table:
    """What was tried as the model to hand over, on the validation images."""
    table = Table(title="what could be handed over", title_justify="left", box=box.SIMPLE_HEAD)
    for heading, justify in (("model", "left"), ("val_accuracy", "right"), ("val_loss", "right")):
        table.add_column(heading, justify=cast(JustifyMethod, justify))
    for each in handed.tried:
        star = "*" if each["chosen"] else " "
        table.add_row(f"{star}{each['model']}", f"{each['val_accuracy']:.4f}", f"{each['val_loss']:.4f}")
    return table


def confirmed_table(confirmed: Sequence[Confirmed], objective: Objective) -> Table:
    """The retrained trials by their mean, beside their value in the sweep, which is too good as the best of many."""
    metric = objective.metrics[0]
    title = f"confirmed with fresh seeds: {metric.name}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("trial", "in the sweep", "mean", "deviation", "regression to the mean", "seeds"):
        table.add_column(heading, justify="right")
    for item in confirmed:
        gap = item.mean - item.value
        cells = [metric.text(value) for value in (item.value, item.mean, item.deviation)]
        table.add_row(str(item.trial), *cells, ("+" if gap >= 0 else "") + metric.text(gap), str(len(item.values)))
    return table


def parameters(trial: FrozenTrial | optuna.Trial) -> str:
    """A trial's searched values, by the last part of each key."""
    return " ".join(_written(trial.params).values())


def _written(params: Mapping[str, Any]) -> dict[str, str]:
    """Each of these values as ``key=value``, with the last part of the key."""
    keys = {name: key_of(name).rpartition(".")[2] for name in params}
    return {
        name: f"{keys[name]}={value:.3g}" if isinstance(value, float) else f"{keys[name]}={value}"
        for name, value in params.items()
    }
