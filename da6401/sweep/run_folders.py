"""The folders of a sweep: whose trials they hold, and room for the run of a trial.

A run that is in a trial's folder counts as the trial's only if it has the trial's configuration. Another one's, left by
a study whose database is gone, or by trials of a configuration that has changed since, is moved away, and nothing is
lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from da6401.config.compose import saved_config
from da6401.config.validate import tree_of
from da6401.errors import BusyError, ConfigError, RunError
from da6401.runs.atomic_files import explain_write_errors, write_text
from da6401.runs.run_folder import CONFIG, LOCK, RESULT, SUMMARY, read_json
from da6401.runs.run_lock import changed_keys, used
from da6401.runs.trial_folders import EARLIER, found_runs

log = logging.getLogger(__name__)

OWNER = ".study"  # in a sweep's folder: the name of the study whose trials it holds
SHOWN = 3  # differing keys that a message names


def hold_folder(folder: Path, study: str, *, write: bool) -> None:
    """Write down whose trials the folder holds.

    Args:
        write: False only looks whose they are.

    Raises:
        ConfigError: another study's, whose trials have the same folders.
    """
    before = _owner(folder)
    if before not in (None, study) and any(found_runs(folder)):
        raise ConfigError(
            [f"{folder}: holds the trials of the study {before}; give {study} a folder of its own (study={study}), or "
             f"go on with {before} (hydra.sweeper.study_name={before})"]
        )  # fmt: skip
    if write and (before != study or not (folder / OWNER).exists()):
        write_text(folder / OWNER, f"{study}\n")


def _owner(folder: Path) -> str | None:
    try:
        return (folder / OWNER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    try:
        return str(read_json(folder / SUMMARY)["study"])  # what an older version has left at its end
    except (RunError, KeyError):
        return None


def make_room(run: Path, config: Mapping[str, Any], *, sweep: Path) -> None:
    """See that a folder is new, or holds a run of this very configuration; another's is moved away, which is told.

    Args:
        config: what the run's config.yaml is to hold.
        sweep: the folder of the sweep.

    Raises:
        BusyError: another process runs in the folder.
    """
    if not used(run):
        return
    reason = _difference(run, config)
    if reason is None:
        return
    lock = FileLock(run / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"{run}: another process is running in this folder") from error
    try:
        place = _free(sweep / EARLIER / run.relative_to(sweep))
        with explain_write_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            run.rename(place)
    finally:
        lock.release()
    log.warning("%s held a run of another configuration (%s); it is kept as %s", run, reason, place)


def _difference(run: Path, config: Mapping[str, Any]) -> str | None:
    """In what a run's configuration differs; None where it is this one."""
    try:
        changed = changed_keys(run, config)
        if changed and (run / RESULT).exists():  # a finished run of an older version, which had fewer keys
            changed = changed_keys(run, config, saved=tree_of(saved_config(run / CONFIG)))
    except (RunError, ConfigError):
        return "its config.yaml is not there, or damaged"
    told = [f"{key}: was {old}, is {new}" for key, old, new in changed[:SHOWN]]
    return "; ".join([*told, *(["..."] if len(changed) > SHOWN else [])]) or None


def _free(place: Path) -> Path:
    number, found = 1, place
    while found.exists():
        number += 1
        found = place.with_name(f"{place.name}-{number}")
    return found
