"""The folders of a sweep: which study owns them, and the folder of each trial's run.

A run in a trial's folder is the trial's only if it has the trial's configuration. Any other, left by a study whose
database is gone or by a configuration that has changed since, is moved to `earlier/`; nothing is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial

from da6401.errors import BusyError, ConfigError, RunError, UserError
from da6401.runs.atomic_files import explain_write_errors, write_text
from da6401.runs.run_folder import LOCK, SUMMARY, read_json
from da6401.runs.run_lock import changed_keys, new_beside
from da6401.runs.trial_folders import EARLIER, FOLDER, check_name, folder_name, found_runs, usual_name
from da6401.study.trial_store import TrialStore
from da6401.sweep.failures import RETRY_OF
from da6401.sweep.jobs import JobComposer
from da6401.sweep.leases import OWNER

log = logging.getLogger(__name__)

OWNER_FILE = ".study"  # in a sweep's folder: the name of the study whose trials it holds
SHOWN = 3  # differing keys that a message names


def check_owner(folder: Path, study: str, *, write: bool) -> None:
    """Record the study whose trials the folder holds.

    Args:
        write: False only checks.

    Raises:
        ConfigError: it holds another study's trials, whose folders have the same names.
    """
    before = _owner(folder)
    if before not in (None, study) and any(found_runs(folder)):
        raise ConfigError(
            [f"{folder}: holds the trials of the study {before}; give {study} a folder of its own (study={study}), or "
             f"go on with {before} (hydra.sweeper.study_name={before})"]
        )  # fmt: skip
    if write and (before != study or not (folder / OWNER_FILE).exists()):
        write_text(folder / OWNER_FILE, f"{study}\n")


def _owner(folder: Path) -> str | None:
    try:
        return (folder / OWNER_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    try:
        return str(read_json(folder / SUMMARY)["study"])  # older versions recorded it here, at the end
    except (RunError, KeyError):
        return None


def choose_folder(study: optuna.Study, composer: JobComposer, claimed: FrozenTrial, overrides: Sequence[str]) -> str:
    """The folder of a trial's run, relative to the sweep's: where it has begun, else hydra.sweep.subdir.

    A name other than ``trial-N`` is recorded in the trial.

    Raises:
        UserError: the name is not allowed, or is another trial's.
    """
    attributes = claimed.user_attrs
    if attributes.get(FOLDER) or (OWNER in attributes and FOLDER not in attributes):
        return folder_name(claimed)
    name = composer.folder(overrides, claimed.number)
    if RETRY_OF in attributes:
        earlier = study.get_trials(deepcopy=False)[: claimed.number]
        if name in {folder_name(each) for each in earlier}:
            name = f"{name}-retry-{claimed.number}"  # a name of parameters alone is the failed trial's, too
    if name != usual_name(claimed.number):
        check_name(name, claimed.number, ())
        store = TrialStore(study)
        store.set_user_attr(claimed.number, FOLDER, name)  # before the check: one of two workers sees both
        try:
            check_name(name, claimed.number, study.get_trials(deepcopy=False))
        except UserError:
            store.set_user_attr(claimed.number, FOLDER, None)
            raise
    return name


def move_other_run(run: Path, config: Mapping[str, Any], *, sweep: Path) -> None:
    """Move a run of another configuration out of a trial's folder, with a warning; a run of this one stays.

    Args:
        run: a folder in which a run has been.
        config: the content of the trial's config.yaml.
        sweep: the sweep's folder.

    Raises:
        BusyError: another process runs in the folder.
    """
    reason = _difference(run, config)
    if reason is None:
        return
    place = sweep / EARLIER / run.relative_to(sweep)
    place = new_beside(place) if place.exists() else place
    try:
        with FileLock(run / LOCK, blocking=False), explain_write_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            run.rename(place)
    except Timeout as error:
        raise BusyError(f"{run}: another process is running in this folder") from error
    log.warning("%s held a run of another configuration (%s); it is kept as %s", run, reason, place)


def _difference(run: Path, config: Mapping[str, Any]) -> str | None:
    """The keys in which a run's configuration differs from this one; None where they are the same."""
    try:
        changed = changed_keys(run, config)
    except (RunError, ConfigError):
        return "its config.yaml is not there, or damaged"
    lines = [f"{key}: was {old}, is {new}" for key, old, new in changed[:SHOWN]]
    return "; ".join([*lines, *(["..."] if len(changed) > SHOWN else [])]) or None
