"""The run or sweep that a word names: its folder, a study's name, or `latest`; and all that a folder holds."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

from da6401.errors import RunError, did_you_mean
from da6401.redact import listed, safe
from da6401.runs.run_folder import CONFIG, DATABASE, METRICS, SUMMARY, holds_run
from da6401.runs.trial_folders import RESERVED, found_runs, is_sweep

LATEST = "latest"
OUTPUTS = Path("outputs")  # where the command line puts runs and sweeps
BY_NAME = (OUTPUTS / "sweeps", OUTPUTS / "runs", OUTPUTS)  # where a name is looked for
DEPTH = 4  # folders from outputs down to a run or a sweep
LISTED = 5  # newest ones that a message names


def folder_of(word: Path | str) -> Path:
    """The folder of the run or the sweep that a word names.

    A path to it; a study's name, as in ``study=NAME``; a folder's name below outputs/sweeps or outputs/runs, such as
    ``NAME/trial-3``; or ``latest``, the run or sweep below outputs/ that was trained last.

    Raises:
        RunError: nothing has this name, several have it, or it is a folder that holds several.
    """
    if str(word) == LATEST and not is_one(Path(word)):
        inside = held_in(OUTPUTS)
        if not inside:
            raise RunError(f"{LATEST}: there is no run and no sweep below {OUTPUTS} yet: da6401 train makes one")
        return inside[0]
    named = Path(word)
    found = [named] if is_one(named) else []
    if not named.is_absolute() and ".." not in named.parts and named.parts:
        found += [root / named for root in BY_NAME if is_one(root / named)]
        if len(named.parts) == 1 and not found:
            found += [sweep for sweep in held_in(OUTPUTS) if _study(sweep) == str(word)]
    different = list({path.resolve(): path for path in found[::-1]}.values())[::-1]
    if len(different) == 1:
        return different[0]
    if different:
        paths = [f"./{path}" if path == named else str(path) for path in different]
        raise RunError(f"{safe(word)}: names {len(paths)} folders, {listed(paths)}; write the path of the one you mean")
    raise RunError(_not_one(named))


def held_in(folder: Path) -> list[Path]:
    """The runs and sweeps below a folder, the one that was trained last first; a sweep stands for its trials."""
    return sorted(_below(folder, DEPTH), key=lambda path: (-trained_at(path), str(path)))


def trained_at(folder: Path) -> float:
    """When a run or a sweep last came on, in seconds since 1970; evaluating or explaining it does not count."""
    if holds_run(folder):
        return max(map(_changed, (folder / METRICS, folder / CONFIG)))
    own = max(map(_changed, (folder / DATABASE, folder / SUMMARY)))
    return own or max(map(trained_at, found_runs(folder)), default=0.0)


def is_one(folder: Path) -> bool:
    """Whether a folder is a run's or a sweep's."""
    return is_folder_there(folder) and (holds_run(folder) or is_sweep(folder))


def is_folder_there(path: Path) -> bool:
    """Whether a folder is there; a path that is too long for the file system is not, such as a long name of a study."""
    try:
        return path.is_dir()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:  # it is not there, or may not be read
        return
    for path in inner:
        if is_one(path):
            yield path
        elif depth > 1 and path.name not in RESERVED and not path.name.startswith("."):
            yield from _below(path, depth - 1)


def _study(sweep: Path) -> str | None:
    """The name that sweep.json gives to the study of a sweep; None where it cannot be read."""
    try:
        name = json.loads((sweep / SUMMARY).read_bytes())["study"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _not_one(named: Path) -> str:
    inside = held_in(named) if is_folder_there(named) else []
    if inside:
        newest = listed(inside, most=LISTED)
        return (
            f"{safe(named)}: holds {len(inside)} runs and sweeps ({newest}); name one of them, or `{LATEST}`. "
            f"da6401 report {safe(named)} lists them all"
        )
    if is_folder_there(named):
        return f"{safe(named)}: holds neither a run nor a sweep; name a run folder (it has {CONFIG}) or a sweep's"
    known = [path.name for path in held_in(OUTPUTS)]
    return (
        f"{safe(named)}: is neither a folder nor a study's name{did_you_mean(named.name, [*known, LATEST])}; "
        f"name a run folder, a sweep's, a study of {OUTPUTS}/sweeps, or `{LATEST}`"
    )
