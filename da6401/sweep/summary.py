"""What a sweep leaves: a table, sweep.json, best.yaml, and the one command that retrains the winner."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from da6401.rundir import CONFIG, METRICS, SUMMARY, write_json, write_text
from da6401.shown import duration
from da6401.sweep.confirm import Confirmed
from da6401.sweep.curve import write_curve

log = logging.getLogger(__name__)


def terminal() -> Console:
    """Where results are printed; a pipe or a file has no width to fold long lines at."""
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=200)


def run_folder(folder: Path, number: int) -> Path:
    """The folder of a trial's run."""
    return folder / f"trial-{number}"


def write_summary(
    study: optuna.Study, folder: Path, *, seconds: float, confirmed: Sequence[Confirmed], curve: str
) -> None:
    """Write sweep.json, best.yaml and the curve, and print the table of trials, the winner and its command."""
    trials = study.trials
    best = best_trials(study, trials)
    states = Counter(trial.state.name.lower() for trial in trials)
    winner = confirmed[0].run if confirmed else run_folder(folder, best[0].number) if best else None
    command = None if winner is None else f"da6401 reproduce {shlex.quote(str(winner))}"
    write_json(
        folder / SUMMARY,
        {
            "study": study.study_name,
            "n_trials": len(trials),
            "trials": {state.name.lower(): states.get(state.name.lower(), 0) for state in TrialState},
            "best": [_entry(trial, folder) for trial in best],
            "confirmed": [item.as_json() for item in confirmed],
            "winner": None if winner is None else str(winner),
            "epochs_run": sum(_epochs(run_folder(folder, trial.number)) for trial in trials),
            "seconds": seconds,
        },
    )
    console = terminal()
    console.print(trial_table(trials, best, title=f"study {study.study_name}"))
    if confirmed:
        console.print(confirmed_table(confirmed))
    if winner is None:
        console.print("no trial was completed within the limits; the reasons stand in the table and in each train.log")
        return
    if len(study.directions) == 1:
        for model, trial in _best_by_model(trials, best[0], study.directions[0]).items():
            console.print(f"best {escape(model)}: {trial.values[0]:.4f} (trial {trial.number})")
    if (winner / CONFIG).exists():
        head = f"# study {study.study_name}: the winner, {winner.name}\n# {command}\n"
        write_text(folder / "best.yaml", head + (winner / CONFIG).read_text(encoding="utf-8"))
        if curve:
            console.print(write_curve(folder, curve))
    if confirmed:
        console.print(
            f"winner, confirmed: trial {confirmed[0].trial}, {confirmed[0].mean:.4f} +- {confirmed[0].deviation:.4f}"
        )
    else:
        values = " ".join(f"{value:.4f}" for value in best[0].values)
        console.print(f"winner: trial {best[0].number}, {values}, " + escape(parameters(best[0])))
    console.print(f"retrain it: [bold]{escape(command or '')}[/bold]")


def confirmed_table(confirmed: Sequence[Confirmed]) -> Table:
    """The retrained trials by their mean; what the sweep saw of each was a maximum of many, and lucky."""
    table = Table(title="confirmed with fresh seeds", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("trial", "in the sweep", "mean", "deviation", "regression to the mean", "seeds"):
        table.add_column(heading, justify="right")
    for item in confirmed:
        cells = (f"{item.value:.4f}", f"{item.mean:.4f}", f"{item.deviation:.4f}", f"{item.mean - item.value:+.4f}")
        table.add_row(str(item.trial), *cells, str(len(item.values)))
    return table


def progress_line(
    study: optuna.Study, trials: Sequence[FrozenTrial], number: int, total: int, *, started: float, hours: float
) -> str:
    """One line after each trial: how it ended, how far the sweep is, the best so far, the time left."""
    trial = trials[number]
    counts = Counter(item.state for item in trials)
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    if trial.state is TrialState.COMPLETE:
        outcome = " ".join(f"{value:.4f}" for value in trial.values)
    else:
        outcome = f"{trial.state.name.lower()} {trial.user_attrs.get('reason', '')}".strip()
    done = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED] + counts[TrialState.FAIL]
    parts = [f"{done}/{total} done"]
    for state, word in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed"), (TrialState.RUNNING, "running")):
        if counts[state]:
            parts.append(f"{counts[state]} {word}")
    if len(study.directions) == 1:
        parts += [f"best {best.values[0]:.4f} (trial {best.number})" for best in best_trials(study, trials)]
    began = time.time() - _since(started)
    mine = [t for t in trials if t.datetime_complete is not None and t.datetime_complete.timestamp() > began]
    if mine and done < total:
        expected, allowed = _since(started) / len(mine) * (total - done), 3600 * hours - _since(started)
        if hours and allowed < expected:
            parts.append(f"at most {duration(max(0.0, allowed))} left (sweep.max_hours)")
        else:
            parts.append(f"about {duration(expected)} left")
    return f"trial {number}: {outcome}  {seconds:.1f} s  {parameters(trial)}\n  {', '.join(parts)}"


def _since(started: float) -> float:
    return time.perf_counter() - started


def _entry(trial: FrozenTrial, folder: Path) -> dict[str, Any]:
    run = str(run_folder(folder, trial.number))
    value = trial.values[0] if len(trial.values) == 1 else trial.values
    return {"trial": trial.number, "value": value, "run": run, "params": trial.params}


def best_trials(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best completed trial that keeps the hard limits, the Pareto set where there are several goals, or none."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(study.directions) > 1:
        return study.best_trials if any(map(_allowed, complete)) else []
    sign = 1 if study.directions[0] is optuna.study.StudyDirection.MAXIMIZE else -1
    best_first = sorted(complete, key=lambda trial: (-sign * trial.values[0], trial.number))
    return next(([trial] for trial in best_first if _allowed(trial)), [])


def _allowed(trial: FrozenTrial) -> bool:
    return max(trial.constraints.values(), default=0.0) <= 0


def trial_table(trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], *, title: str) -> Table:
    """One row a trial: number, state, value, seconds, and its parameters or the reason of its failure."""
    winners = {trial.number for trial in best}
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for heading, justify in (("trial", "right"), ("state", "left"), ("value", "right"), ("seconds", "right")):
        table.add_column(heading, justify=cast(JustifyMethod, justify), no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for trial in trials:
        value = " ".join(f"{value:.4f}" for value in trial.values) if trial.values else "-"
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else "-"
        reason = f"  ({trial.user_attrs['reason']})" if "reason" in trial.user_attrs else ""
        star = "*" if trial.number in winners else " "
        name = f"{star}{trial.number}"
        table.add_row(name, trial.state.name.lower(), value, seconds, escape(parameters(trial) + reason))
    return table


def _best_by_model(
    trials: Sequence[FrozenTrial], best: FrozenTrial, direction: optuna.study.StudyDirection
) -> dict[str, FrozenTrial]:
    """Where the sweep searched over the model: the best trial of each, so that Part A and Part B stand side by side."""
    if "model" not in best.params:
        return {}
    sign = 1 if direction is optuna.study.StudyDirection.MAXIMIZE else -1
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    ranked = sorted(done, key=lambda trial: sign * trial.values[0])
    return {str(trial.params["model"]): trial for trial in ranked}


def parameters(trial: FrozenTrial | optuna.Trial) -> str:
    """A trial's searched values, keys without their group: they are told apart by their last part."""
    return " ".join(
        f"{name.rpartition('.')[2]}={value:.3g}" if isinstance(value, float) else f"{name.rpartition('.')[2]}={value}"
        for name, value in trial.params.items()
    )


def _epochs(run: Path) -> int:
    try:
        return sum(1 for line in (run / METRICS).read_text(encoding="utf-8").splitlines() if json.loads(line))
    except (OSError, ValueError):
        return 0
