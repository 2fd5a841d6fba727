"""Where a trial's run is: the names of trials' folders.

Hydra names them by `hydra.sweep.subdir`, which is ``trial-N`` unless the user says otherwise. Any other name is stored
with the trial, so that a study knows the folder of each of its trials, whatever a later command says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from da6401.errors import RunError, UserError
from da6401.runs.run_folder import DATABASE, SUMMARY, holds_run, read_metrics

FOLDER = "folder"  # user attribute of a trial: its run's folder, relative to the sweep's
CONFIRMATIONS = "confirm"  # in a sweep's folder: the runs that train its best trials again
EARLIER = "earlier"  # in a sweep's folder: runs that had a trial's place and another configuration
MODEL = "model"  # in the folder of a sweep with sweep.strategy=race: what it hands over
RESERVED = (
    CONFIRMATIONS,
    EARLIER,
    MODEL,
    "explain",
    "wandb",
)  # and what begins with a dot: folders of the sweep itself
DEEPEST = 4  # folders from a sweep's down to a trial's run
LONGEST = 255  # bytes of a folder's name on the usual file systems
USUAL = re.compile(r"trial-(\d+)")
NAMED = 1 << 62  # where a number is wanted of a folder whose name has none
PER_TRIAL = re.compile(r"hydra[.:]job\.(num|id)\b|override_dirname")  # of a template: what no two trials share


class Trial(Protocol):
    """Optuna's FrozenTrial, or its Trial."""

    @property
    def number(self) -> int: ...
    @property
    def user_attrs(self) -> Mapping[str, Any]: ...


def usual_name(number: int) -> str:
    """The name of a trial's folder where the user has not chosen another."""
    return f"trial-{number}"


def folder_name(trial: Trial) -> str:
    """The folder of a trial's run, relative to the sweep's; a study of an older version does not name it."""
    return str(trial.user_attrs.get(FOLDER) or usual_name(trial.number))


def trial_folder(sweep: Path, trial: Trial) -> Path:
    """The folder of a trial's run, which need not exist."""
    return sweep / folder_name(trial)


def template_problems(template: str) -> list[str]:
    """What is wrong with a `hydra.sweep.subdir`, as far as it can be seen before a trial has its values."""
    if PER_TRIAL.search(template):
        return []
    return [
        f"hydra.sweep.subdir={template}: gives every trial the same folder; put the trial's number into it, "
        "as in trial-${hydra.job.num}"
    ]


def check_name(name: str, number: int, others: Iterable[Trial]) -> None:
    """Whether a trial may have a folder of this name.

    Args:
        name: what hydra.sweep.subdir comes to.
        others: the study's trials.

    Raises:
        UserError: it leaves the sweep's folder, is the sweep's own, too long, or another trial's.
    """
    where = f"hydra.sweep.subdir: trial {number} would be in {name!r}"
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise UserError(f"{where}, which is not a folder within the sweep's")
    if len(parts) > DEEPEST:
        raise UserError(f"{where}, which is more than {DEEPEST} folders deep")
    if parts[0] in RESERVED or parts[0].startswith("."):
        raise UserError(f"{where}, and {parts[0]} is the sweep's own; choose another name")
    longest = max(len(part.encode()) for part in parts)
    if longest > LONGEST:
        raise UserError(
            f"hydra.sweep.subdir: the folder of trial {number} would have a name of {longest} bytes, more than "
            f"{LONGEST}; leave keys out by hydra.job.config.override_dirname.exclude_keys"
        )
    for other in others:
        if other.number != number and Path(folder_name(other)) == Path(name):
            raise UserError(
                f"{where}, which is the folder of trial {other.number}; put ${{hydra.job.num}} into hydra.sweep.subdir"
            )


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's: it holds a study, the summary of one, or trials under their usual names."""
    named = any((folder / name).is_file() for name in (SUMMARY, DATABASE))
    return named or any(USUAL.fullmatch(each.name) for each in folder.glob("trial-*/"))


def found_runs(sweep: Path) -> Iterator[Path]:
    """The folders of a sweep's trials as they lie there, for whoever has no study to ask; confirmations are none."""
    yield from _runs(sweep, DEEPEST - 1)


def numbered_runs(sweep: Path) -> dict[int, Path]:
    """Those folders by their trials' numbers; what the user has named is numbered on in the order of the names."""
    runs = sorted(found_runs(sweep), key=lambda run: order(run, sweep))
    numbers = [order(run, sweep)[0] for run in runs]
    free = 1 + max((number for number in numbers if number < NAMED), default=-1)
    others = itertools.count(free)
    return {number if number < NAMED else next(others): run for number, run in zip(numbers, runs, strict=True)}


def order(run: Path, sweep: Path) -> tuple[int, str]:
    """A key to sort such folders by: ``trial-2`` before ``trial-10``, those that the user has named after them."""
    name = run.relative_to(sweep).as_posix()
    match = USUAL.fullmatch(name)
    return (int(match[1]), "") if match else (NAMED, name)


def fold_folder(run: Path, number: int) -> Path:
    """The folder of a trial's fold, from 1, in the trial's own (sweep.folds)."""
    return run / f"fold-{number}"


def fold_folders(run: Path) -> list[Path]:
    """Those that are there, in their order; none of a trial that is one training."""
    numbers = itertools.takewhile(lambda number: fold_folder(run, number).is_dir(), itertools.count(1))
    return [fold_folder(run, number) for number in numbers]


def epochs_run(run: Path) -> int:
    """The epochs that a trial has trained; of several folds, whose own metrics are the mean, those of all."""
    folds = fold_folders(run)
    if folds:
        return sum(map(epochs_run, folds))
    try:
        return len(read_metrics(run))
    except RunError:
        return 0


def every_run(sweep: Path) -> Iterator[Path]:
    """The folders of a sweep's trials, their folds, its confirmations, and of the model that a race hands over."""
    for run in (*found_runs(sweep), *confirmations(sweep)):
        yield run
        yield from fold_folders(run)
    if holds_run(sweep / MODEL):
        yield sweep / MODEL


def confirmation(number: int, seed: int) -> str:
    """The folder of the run that trains a trial again with a seed, relative to the sweep's."""
    return f"{CONFIRMATIONS}/{usual_name(number)}-seed-{seed}"


def confirmations(sweep: Path) -> list[Path]:
    """The folders of the runs that train a sweep's best trials again."""
    return sorted((sweep / CONFIRMATIONS).glob("*/"))


def sweep_of(run: Path) -> Path | None:
    """The folder of the sweep that a run is a trial or a confirmation of; None for a run by itself."""
    above = list(run.resolve().parents)[:DEEPEST]
    return next((each for each in above if any((each / name).is_file() for name in (SUMMARY, DATABASE))), None)


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # it is not there, or may not be read
        return
    for path in inner:
        if path.name in RESERVED or path.name.startswith("."):
            continue
        if USUAL.fullmatch(path.name) or holds_run(path):
            yield path
        elif depth:
            yield from _runs(path, depth - 1)
