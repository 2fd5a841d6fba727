"""A sweep's results: the printed tables, sweep.json, best.yaml, and the command that retrains the winner."""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape

from da6401.config.schema import SweepConfig
from da6401.config.search_space import key_of
from da6401.errors import RunError
from da6401.machine.terminal import table_console
from da6401.redact import duration
from da6401.runs.atomic_files import write_json, write_text
from da6401.runs.reproduce_command import plugin_words, retraining_command
from da6401.runs.run_folder import CONFIG, SUMMARY, data_fingerprint, read_yaml
from da6401.runs.trial_folders import MODEL, epochs_run, fold_folders, trial_folder
from da6401.study.gain import gain_words, longest
from da6401.study.objective import Candidate, Objective, is_complete
from da6401.study.roles import CANDIDATE, DEFAULT, EPOCHS, PHASE, PLANNED, role_of
from da6401.study.told_apart import told_apart
from da6401.study.told_apart_folds import folds_json, told_apart_over_folds
from da6401.sweep.confirm import Confirmed
from da6401.sweep.curve import write_curve
from da6401.sweep.leases import FINISHED
from da6401.sweep.model_folder import HandedOver
from da6401.sweep.race_costs import seconds_of
from da6401.sweep.race_trials import PLAN
from da6401.sweep.tables import confirmed_table, options_table, over_limits, parameters, trial_table

log = logging.getLogger(__name__)


def write_summary(
    study: optuna.Study, folder: Path, settings: SweepConfig, *, seconds: float, confirmed: Sequence[Confirmed],
    handed: HandedOver | None = None,
) -> None:  # fmt: skip
    """Write sweep.json, best.yaml and the curve, and print the table of trials, the winner and its command."""
    objective, trials = Objective.of(settings), study.trials
    best = objective.best(trials)
    states = Counter(trial.state.name.lower() for trial in trials)
    winner = confirmed[0].run if confirmed else trial_folder(folder, best[0].trial) if best else None
    winner = handed.runs[0] if handed else winner
    command = None if winner is None else retraining_command(folder, winner)
    completed = {trial.number: trial_folder(folder, trial) for trial in trials if is_complete(trial)}
    stands = best[0].trial.number if best else None
    default = _default(trials) if best and not best[0].is_repeated else None
    told = (
        told_apart_over_folds(objective.candidates(trials), completed, stands, objective)
        if settings.folds
        else told_apart(completed, stands, objective, default=None if default is None else default.number)
    )
    write_json(
        folder / SUMMARY,
        {
            "study": study.study_name,
            "n_trials": len(trials),
            "trials": {state.name.lower(): states.get(state.name.lower(), 0) for state in TrialState},
            "objective": {**objective.as_json(), "directions": objective.directions},
            "best": [_entry(each, folder) for each in best],
            "not_told_from_best": sorted(told.same),
            **({"folds": folds_json(told)} if settings.folds else {}),
            **({"gain": {"over": default.number, **asdict(told.gain)}} if told.gain and default else {}),
            "confirmed": [item.as_json() for item in confirmed],
            "winner": None if winner is None else str(winner),
            **({"model": handed.as_json(folder)} if handed else {}),
            **(
                {"plan": study.user_attrs.get(PLAN, []), "ledger": ledger(trials, folder, seconds)}
                if settings.strategy == "race"
                else {}
            ),
            "epochs_run": sum(epochs_run(trial_folder(folder, trial)) for trial in trials),
            "seconds": seconds,
        },
    )
    console = table_console()
    console.print(trial_table(trials, objective, told, title=f"study {study.study_name}"))
    if told.sentence:
        console.print(told.sentence)
    if confirmed:
        console.print(confirmed_table(confirmed, objective))
    for line in data_lines(trials, folder):
        console.print(escape(line))
    if winner is None:
        console.print("no trial was completed within the limits; the table and each train.log give the reasons")
        return
    for model, each in _best_by_model(trials, objective).items():
        console.print(f"best {escape(model)}: {objective.text(each.values)} ({_which(each)})")
    if (winner / CONFIG).exists():
        elsewhere = retraining_command(folder, winner, absolute=True)
        head = f"# study {study.study_name}: the winner, {winner.name}\n# {elsewhere}\n"
        write_text(folder / "best.yaml", head + (winner / CONFIG).read_text(encoding="utf-8"))
        if settings.plot_by:
            console.print(write_curve(folder, settings.plot_by))
    if handed is not None:
        _print_model(console, handed, folder)
    elif confirmed:
        first, (metric, *_) = confirmed[0], objective.metrics
        reached = f"{objective.text([first.mean])} +- {metric.text(first.deviation)}"
        console.print(f"winner, confirmed: trial {first.trial}, {reached}")
    else:
        parts = (_which(best[0]), objective.text(best[0].values), parameters(best[0].trial))
        console.print(escape(f"winner: {', '.join(filter(None, parts))}"))
    if told.gain is not None and default is not None:
        words = gain_words(told.gain, objective.metrics[0])
        console.print(f"against the default, trial {default.number}: {told.gain.value:+.4f} ({words})")
    console.print(f"retrain it: [bold]{escape(command or '')}[/bold]")
    if handed is not None:
        console.print(f"on train and validation: {escape(command or '')} trainer.train_on=all")


def _default(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The longest complete training of the default configuration."""
    complete = [trial for trial in trials if is_complete(trial)]
    first = next((trial for trial in complete if role_of(trial) == DEFAULT), None)
    return None if first is None else longest(first, complete)


def _print_model(console: Console, handed: HandedOver, folder: Path) -> None:
    """What a race hands over, and what it is better than."""
    if len(handed.tried) > 1:
        console.print(options_table(handed))
    names = ", ".join(run.name for run in handed.runs)
    console.print(escape(f"model: {handed.words} ({names}), val_accuracy {handed.val_accuracy:.4f}"))
    words = ["da6401", "evaluate", str(folder / MODEL), *plugin_words(handed.runs[0])]
    console.print(f"test it: [bold]{escape(shlex.join(words))}[/bold]")


def ledger(trials: Sequence[FrozenTrial], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """What a race planned and spent, in seconds: each training, and all else together.

    Args:
        folder: the sweep's.
        seconds: of all commands that worked on it.
    """
    rows: list[dict[str, Any]] = []
    for trial in trials:
        spent = seconds_of(trial, trial_folder(folder, trial)) if trial.duration else None
        rows.append(
            {
                "trial": trial.number,
                **{name: trial.user_attrs.get(name) for name in (PHASE, CANDIDATE, EPOCHS, PLANNED)},
                "seconds": spent,
            }
        )
    rest = seconds - sum(row["seconds"] or 0.0 for row in rows)
    return [*rows, {"phase": "start, unfinished trainings, hand-over", "seconds": rest}]


def data_lines(trials: Sequence[FrozenTrial], folder: Path) -> list[str]:
    """A line for each fingerprint in the receipts, with the trials that have it.

    [] where all trials saw the same images. Trials of the same data keys with different fingerprints get a warning.
    """
    found: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        run = trial_folder(folder, trial)
        fingerprint = data_fingerprint(next(iter(fold_folders(run)), run))
        if fingerprint is not None:  # it began; the table says why another did not
            found.setdefault(fingerprint, []).append(trial)
    wordings = [dict.fromkeys(_data_words(trial) for trial in mine) for mine in found.values()]
    if not any(words for each in wordings for words in each) and len(found) < 2:
        return []
    lines = [
        f"data {fingerprint[:12]}: trial {', '.join(str(trial.number) for trial in mine)}"
        + (f" ({words})" if (words := ", ".join(filter(None, each))) else "")
        for (fingerprint, mine), each in zip(found.items(), wordings, strict=True)
    ]
    if len(found) > 1 and _share_data_keys(found.values(), folder):
        lines.append(
            "The images changed between these trials: their values do not compare. Put the images back as the best "
            "trial saw them, or search on the new ones in a new study (study=...)."
        )
    return lines


def _share_data_keys(groups: Iterable[Sequence[FrozenTrial]], folder: Path) -> bool:
    """Whether trials of two groups were trained with the same keys of data."""
    keys = [{_data_keys(trial_folder(folder, each)) for each in mine} for mine in groups]
    return len(set[str]().union(*keys)) < sum(map(len, keys))


def _data_keys(run: Path) -> str:
    """The keys of data that a trial was trained with."""
    run = next(iter(fold_folders(run)), run)
    try:
        return repr(read_yaml(run / CONFIG).get("data"))
    except RunError:
        return ""


def _data_words(trial: FrozenTrial) -> str:
    keys = {key_of(name): value for name, value in trial.params.items()}
    return " ".join(f"{key}={value}" for key, value in keys.items() if key.partition(".")[0] == "data")


def progress_line(
    objective: Objective, trials: Sequence[FrozenTrial], number: int, total: int, *, started: float, hours: float
) -> str:
    """The message after each trial: how it ended, the sweep's progress, the best trial so far, the time left."""
    trial = trials[number]
    counts = Counter(item.state for item in trials)
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    if trial.state is TrialState.COMPLETE:
        outcome = objective.text(trial.values) + over_limits(trial)
    else:
        outcome = f"{trial.state.name.lower()} {trial.user_attrs.get('reason', '')}".strip()
    done = sum(counts[state] for state in FINISHED)
    begun = sum(item.state is not TrialState.WAITING for item in trials)  # another worker may have added some to a race
    parts = [f"{done}/{max(total, begun)} done"]
    for state, word in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed"), (TrialState.RUNNING, "running")):
        if counts[state]:
            parts.append(f"{counts[state]} {word}")
    if objective.alone is not None:
        parts += [f"best {objective.text(best.values)} ({_which(best)})" for best in objective.best(trials)]
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


def _entry(candidate: Candidate[FrozenTrial], folder: Path) -> dict[str, Any]:
    trial = candidate.trial
    value = trial.values[0] if len(trial.values) == 1 else trial.values
    entry = {"trial": trial.number, "value": value, "run": str(trial_folder(folder, trial))}
    if candidate.is_repeated:
        mean = candidate.values[0] if len(candidate.values) == 1 else list(candidate.values)
        entry |= {"mean": mean, "seeds": [each.number for each in candidate.trials]}
    return entry | {"params": trial.params}


def _which(candidate: Candidate[FrozenTrial]) -> str:
    """The trial that stands for a candidate; of several seeds it is the median one."""
    count = len(candidate.trials)
    if not candidate.is_repeated:
        return f"trial {candidate.trial.number}"
    return f"trial {candidate.trial.number}, the median of {count} {'seed' if count == 1 else 'seeds'}, by their mean"


def _best_by_model(trials: Sequence[FrozenTrial], objective: Objective) -> dict[str, Candidate[FrozenTrial]]:
    """Where the model was searched: the best trial of each, to compare Part A with Part B."""
    models = dict.fromkeys(str(trial.params["model"]) for trial in trials if "model" in trial.params)
    if objective.alone is None:
        return {}
    best = {model: objective.best(t for t in trials if str(t.params.get("model")) == model) for model in models}
    return {model: found[0] for model, found in best.items() if found}
