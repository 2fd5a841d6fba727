"""What a report reads of sweep folders and studies, as plain values. Nothing here writes or trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from da6401.errors import RunError
from da6401.redact import safe
from da6401.report.explanations import ABOUT
from da6401.report.run_record import RunRecord, read_cached, read_run
from da6401.report.sweep_record import SweepRecord, TrialRecord
from da6401.runs.looks import looked_in_sweep
from da6401.runs.run_folder import (
    CALIBRATION,
    CONFIG,
    DATABASE,
    LOOKS,
    METRICS,
    RECEIPT,
    RESULT,
    SUMMARY,
    TEST_CSV,
    VALIDATION_CSV,
    differences,
    flat,
    read_json,
)
from da6401.runs.trial_folders import every_run, is_sweep, numbered_runs, trial_folder
from da6401.study.objective import ATTRIBUTE, Objective
from da6401.study.roles import role_of
from da6401.study.storage import read_only, sqlite_address

STATES = {"completed": "complete", "pruned": "pruned", "interrupted": "waiting"}  # of a result; the others failed


def reads_as_sweep(folder: Path, storage: str | None) -> bool:
    """Whether a folder is a sweep's; with the study elsewhere, one that is no run's is.

    Raises:
        RunError: it is no run's either.
    """
    if is_sweep(folder):
        return True
    if not any((folder / name).exists() for name in (CONFIG, METRICS, RESULT)):
        if storage is not None and folder.is_dir():
            return True
        what = "holds neither a run nor a sweep" if folder.is_dir() else "is no folder"
        raise RunError(f"{folder}: {what}; name a run folder (it has {CONFIG}) or one under outputs/sweeps")
    return False


def read_sweep(folder: Path, storage: str | None) -> SweepRecord:
    """A sweep folder with its study; without a study, what the trials' folders hold.

    Raises:
        RunError: the study cannot be opened, or sweep.json is damaged.
    """
    summary = read_cached(folder / SUMMARY, read_json) or {}
    name = str(summary.get("study", folder.absolute().name))
    problems: list[str] = []
    frozen: list[FrozenTrial] = []
    if storage is None and not (folder / DATABASE).exists():
        problems.append(f"There is no {DATABASE} here: what follows is read from the trials' folders alone. "
                        "If the study is in another database, name it with --storage.")  # fmt: skip
        trials, objective = _without_study(folder, problems)
    else:
        address = storage or sqlite_address(folder / DATABASE)
        frozen, directions, attributes = _study(address, name)
        runs = [_trial_run(trial_folder(folder, trial), problems) for trial in frozen]
        config = next((run.config for run in runs if run.config), {})
        objective = Objective.of_study(attributes, directions, config)
        # An older version reported the accuracy to the pruner, whatever the objective.
        by_epoch = objective.alone is not None and objective.alone.by_epoch
        reported = objective.names[0] if by_epoch and ATTRIBUTE in attributes else "val_accuracy"
        trials = [_trial(trial, run, reported=reported) for trial, run in zip(frozen, runs, strict=True)]
    logarithmic = frozenset(
        key for trial in frozen for key, each in trial.distributions.items() if getattr(each, "log", False)
    )
    return SweepRecord(
        folder=folder, name=name, trials=trials, objective=objective, logarithmic=logarithmic, summary=summary,
        frozen=frozen, problems=problems, looked=looked_in_sweep(folder),
    )  # fmt: skip


def signature(folders: Sequence[Path], storage: str | None) -> str:
    """A text that changes whenever the report of these folders would."""
    files = (DATABASE, SUMMARY, CONFIG, METRICS, RESULT, RECEIPT, TEST_CSV, VALIDATION_CSV, CALIBRATION, LOOKS, ABOUT)
    found = []
    places = [place for folder in folders for place in (folder, *every_run(folder))]
    for path in sorted(place / file for place in places for file in files):
        try:
            status = path.stat()
            found.append(f"{path} {status.st_mtime_ns} {status.st_size}")
        except OSError:  # it is not there yet, or no longer
            continue
    if storage is not None:
        for folder in folders:
            if reads_as_sweep(folder, storage):
                trials = read_sweep(folder, storage).frozen
                found += [f"{trial.number} {trial.state} {len(trial.intermediate_values)}" for trial in trials]
    return "\n".join(found)


def _study(address: str, name: str) -> tuple[list[FrozenTrial], list[str], dict[str, Any]]:
    """The trials, directions and user attributes of a study; the database is not written to.

    Raises:
        RunError: it cannot be opened, or has no such study.
    """
    try:
        with read_only(address) as storage:
            names = optuna.get_all_study_names(storage)
            # A folder that was moved before its sweep's end bears another name than its study.
            study = optuna.load_study(study_name=names[0] if len(names) == 1 else name, storage=storage)
            directions = [direction.name.lower() for direction in study.directions]
            return study.get_trials(deepcopy=False), directions, study.user_attrs
    except Exception as error:  # databases' own errors have no common base, and each means the same here
        reason = safe(str(error).partition("\n")[0]) or type(error).__name__
        raise RunError(
            f"{safe(address)}: the study {safe(name)} cannot be read ({reason}); "
            "check the file, or name the study's database with --storage"
        ) from error


def _trial(trial: FrozenTrial, run: RunRecord, *, reported: str) -> TrialRecord:
    """``reported``: the metric that its epochs reported to the study."""
    own = trial.user_attrs
    owner = str(own.get("owner", ""))
    if not run.epochs and trial.intermediate_values:  # the folder is on another machine
        epochs = [{"epoch": float(e), reported: v} for e, v in sorted(trial.intermediate_values.items())]
        run = dataclasses.replace(run, epochs=epochs)
    return TrialRecord(
        number=trial.number, state=trial.state.name.lower(), values=tuple(trial.values) if trial.values else None,
        params=dict(trial.params), run=run, reason=str(own.get("reason") or (run.result.reason if run.result else "")),
        slot=owner.partition("-")[0] if "-" in owner else "0", attempts=int(own.get("attempts", 1)),
        start=trial.datetime_start, end=trial.datetime_complete,
        constraints=trial.constraints,
        role=role_of(trial),
    )  # fmt: skip


def _trial_run(folder: Path, problems: list[str]) -> RunRecord:
    """The run folder of a trial; a damaged one becomes a problem of the report and is empty."""
    try:
        return read_run(folder)
    except RunError as error:
        problems.append(safe(error))
        return RunRecord(folder=folder, config={}, result=None, epochs=[], receipt={})


def _without_study(folder: Path, problems: list[str]) -> tuple[list[TrialRecord], Objective]:
    """The trials from their folders alone; their parameters are the keys in which their configs differ."""
    runs = {number: _trial_run(run, problems) for number, run in numbered_runs(folder).items()}
    differing = [row[0] for row in differences(*(run.config for run in runs.values() if run.config))]
    objective = Objective.of_config(next((run.config for run in runs.values() if run.config), {}))
    trials = []
    for number, run in runs.items():
        state = STATES.get(run.status, "fail") if run.result else "running"
        values = objective.values(run.result, latency_ms=lambda: None) if run.result else None
        own = flat(run.config)
        trials.append(
            TrialRecord(
                number=number, state=state, values=values if state == "complete" else None,
                params={key: own[key] for key in differing if key in own}, run=run,
                reason=run.result.reason if run.result else "", slot="", attempts=1, start=None, end=None,
                constraints=objective.excess(run.result) if run.result else {}, role="",
            )
        )  # fmt: skip
    return trials, objective
