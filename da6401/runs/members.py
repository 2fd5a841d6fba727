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
    runs, flips, kept = content.get("runs"), content.get("flips"), content.get("checkpoints")
    names = runs if isinstance(runs, list) else []
    checkpoints = [BEST] * len(names) if kept is None else kept  # an older version knew no other
    is_right = (
        names and all(isinstance(name, str) for name in names) and flips in (True, False)
        and isinstance(checkpoints, list) and len(checkpoints) == len(names)
        and all(checkpoint in (BEST, AVERAGE) for checkpoint in checkpoints)
    )  # fmt: skip
    if not is_right:
        raise RunError(f"{folder / ENSEMBLE}: is damaged; run the sweep again")
    for name in names:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise RunError(f"{folder / ENSEMBLE}: names {name!r}, which is not beside the folder")
    return Members(tuple(names), tuple(checkpoints), bool(flips))
