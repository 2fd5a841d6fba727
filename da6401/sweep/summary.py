"""What a sweep leaves: a table, sweep.json, best.yaml, and the one command that retrains the winner."""

from __future__ import annotations

import json
import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from da6401.rundir import CONFIG, METRICS, write_json, write_text

log = logging.getLogger(__name__)


def terminal() -> Console:
    """Where results are printed; a pipe or a file has no width to fold long lines at."""
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=200)


def run_folder(folder: Path, trial: FrozenTrial) -> Path:
    """The folder of a trial's run."""
    return folder / f"trial-{trial.number}"


def write_summary(study: optuna.Study, folder: Path, *, seconds: float) -> None:
    """Write sweep.json and best.yaml, and print the table of trials, the winner and its command."""
    trials = study.trials
    best = best_trials(study)
    states = Counter(trial.state.name.lower() for trial in trials)
    command = f"da6401 reproduce {shlex.quote(str(run_folder(folder, best[0])))}" if best else None
    write_json(
        folder / "sweep.json",
        {
            "study": study.study_name,
            "n_trials": len(trials),
            "trials": {state.name.lower(): states.get(state.name.lower(), 0) for state in TrialState},
            "best": [
                {
                    "trial": trial.number,
                    "value": trial.values,
                    "run": str(run_folder(folder, trial)),
                    "params": trial.params,
                }
                for trial in best
            ],
            "epochs_run": sum(_epochs(run_folder(folder, trial)) for trial in trials),
            "seconds": seconds,
        },
    )
    console = terminal()
    console.print(trial_table(trials, best, title=f"study {study.study_name}"))
    if not best:
        console.print("no trial was completed; the reasons stand in the table and in each trial's train.log")
        return
    for model, trial in _best_by_model(trials, best[0], study.directions[0]).items():
        console.print(f"best {escape(model)}: {trial.values[0]:.4f} (trial {trial.number})")
    winner = best[0]
    config = run_folder(folder, winner) / CONFIG
    if config.exists():
        head = f"# study {study.study_name}, trial {winner.number}, value {winner.values}\n# {command}\n"
        write_text(folder / "best.yaml", head + config.read_text(encoding="utf-8"))
    console.print(f"winner: trial {winner.number}, {winner.values[0]:.4f}, " + escape(parameters(winner)))
    console.print(f"retrain it: [bold]{escape(command or '')}[/bold]")


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best completed trial, the Pareto set where there are several goals, or none."""
    if not any(trial.state is TrialState.COMPLETE for trial in study.trials):
        return []
    return study.best_trials if len(study.directions) > 1 else [study.best_trial]


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


def parameters(trial: FrozenTrial) -> str:
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
