"""The command that makes a run again, as the summary of a sweep and the pages print it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TypeGuard

from da6401.errors import RunError
from da6401.runs.run_folder import PLUGIN_FILES, RECEIPT, read_json
from da6401.runs.trial_folders import fold_folders


def reproduce_command(folder: Path, *, absolute: bool = False) -> str:
    """`da6401 reproduce RUN`, with the plugin files that its receipt records.

    It works in the current folder; with ``absolute`` in any.
    """
    run = folder.absolute() if absolute else folder
    return shlex.join(["da6401", "reproduce", str(run), *plugin_words(folder, absolute=absolute)])


def retraining_command(sweep: Path, winner: Path, *, absolute: bool = False) -> str:
    """The command that trains a sweep's winner; one of several folds, by best.yaml, on the ordinary split."""
    folds = fold_folders(winner)
    if not folds:
        return reproduce_command(winner, absolute=absolute)
    own = (sweep.absolute() if absolute else sweep) / "best"
    words = ["da6401", "train", "--config-path", str(sweep.absolute()), "--config-name", "best"]
    return shlex.join([*words, f"hydra.run.dir={own}", *plugin_words(folds[0], absolute=absolute)])


def plugin_words(folder: Path, *, absolute: bool = False) -> list[str]:
    """`--plugin FILE` for each plugin file of a run; [] also where its receipt, maybe a stranger's, cannot be read.

    A file that is no longer where the run found it is named without its folder.
    """
    try:
        receipt = read_json(folder / RECEIPT)
    except RunError:
        return []
    entries, files = (receipt.get(key) for key in ("plugins", PLUGIN_FILES))
    names = [each.get("file") for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    paths = [Path(each) for each in files if _is_text(each)] if isinstance(files, list) else []
    words: list[str] = []
    for name in names:
        if _is_text(name):
            path = next((path for path in paths if path.name == name and _is_there(path, folder)), None)
            words += ["--plugin", name if path is None else _named(path, absolute=absolute)]
    return words


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isprintable()


def _is_there(path: Path, folder: Path) -> bool:
    """Whether it is a file of this machine, and not one that a stranger has sent with the run."""
    return path.is_absolute() and path.is_file() and not path.resolve().is_relative_to(folder.resolve())


def _named(path: Path, *, absolute: bool) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) and not absolute else path)
