"""What the model that a sweep hands over is made of: the runs beside its folder, as ensemble.json names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from da6401.errors import RunError
from da6401.runs.run_folder import AVERAGE, BEST, ENSEMBLE, read_json


@dataclass(frozen=True)
class Members:
    """ensemble.json: the runs beside the folder whose mean is its model, and whether mirror images count, too."""

    runs: tuple[str, ...]  # names of folders
    checkpoints: tuple[str, ...]  # of each run: its best epoch's, or the mean of its last ones'
    flips: bool


def read_members(folder: Path) -> Members | None:
    """The members of a folder's model; None of a run, which is its own.

    Raises:
        RunError: the file is damaged, or names folders elsewhere.
    """
    if not (folder / ENSEMBLE).exists():
        return None
    content = read_json(folder / ENSEMBLE)
    runs, flips = content.get("runs"), content.get("flips")
    if not (isinstance(runs, list) and runs and all(isinstance(name, str) for name in runs) and flips in (True, False)):
        raise RunError(f"{folder / ENSEMBLE}: is damaged; run the sweep again")
    checkpoints = content.get("checkpoints", [BEST] * len(runs))  # an older version knew no other
    known = isinstance(checkpoints, list) and all(name in (BEST, AVERAGE) for name in checkpoints)
    if not known or len(checkpoints) != len(runs):
        raise RunError(f"{folder / ENSEMBLE}: is damaged; run the sweep again")
    for name in runs:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise RunError(f"{folder / ENSEMBLE}: names {name!r}, which is not beside the folder")
    return Members(tuple(runs), tuple(checkpoints), bool(flips))
