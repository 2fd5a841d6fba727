"""Looks at the test split: each is a line in the looks.jsonl of the run that looked, and nowhere else.

Test accuracy is an honest estimate for a model that was chosen before anyone looked. So looks are counted for a run,
for its sweep and for the runs on the same data beside it, and a further look or search gets a warning.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from da6401.errors import RunError
from da6401.redact import json_text, safe
from da6401.runs.atomic_files import append_line
from da6401.runs.run_folder import (
    LARGEST,
    LOOKS,
    RECEIPT,
    RESULT,
    TEST_CSV,
    RunResult,
    data_fingerprint,
    read_result,
)
from da6401.runs.trial_folders import every_run, is_sweep, sweep_of

LISTED = 5  # runs that one sentence names
DAY = re.compile(r"\d{4}-\d\d-\d\d")  # outputs/runs/DAY/TIME: the runs of other days are beside it, too


@dataclass(frozen=True)
class Look:
    """One look at the test split for a run."""

    time: str  # UTC, "2026-01-31T12:00:00Z"; "" where it was not recorded
    verb: str  # evaluate, explain, predict; "" as above
    purpose: str

    @property
    def when(self) -> datetime | None:
        """The time; None where it is not known."""
        try:
            found = datetime.fromisoformat(self.time)
        except ValueError:
            return None
        return found if found.tzinfo else None


# Runs, each with its looks; those without one are left out.
Looked = Mapping[Path, Sequence[Look]]
EVALUATED_BEFORE = Look("", "evaluate", "evaluated before looks were recorded")
UNREADABLE = Look("", "", "a line that cannot be read")  # cut off by a crash, or edited: it still counts


def record_look(run: Path, *, verb: str, purpose: str) -> None:
    """Add a look to the run folder; call it before the answer is shown.

    Raises:
        RunError: the file is a symbolic link. WriteError: it cannot be written.
    """
    path = run / LOOKS
    if path.is_symlink():
        raise RunError(f"{path}: is a symbolic link, and could lead out of the run folder; remove it")
    line = json_text(asdict(Look(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", verb, purpose)))
    append_line(path, line)


def read_looks(run: Path) -> list[Look]:
    """The looks of a run, the oldest first; an evaluation by a version that did not record looks has no time.

    Raises:
        RunError: looks.jsonl or result.json is damaged.
    """
    recorded = recorded_looks(run / LOOKS) if os.path.lexists(run / LOOKS) else []
    return with_unrecorded(recorded, read_result(run) if (run / RESULT).exists() else None)


def recorded_looks(path: Path) -> list[Look]:
    """The lines of a looks.jsonl. Raises RunError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > LARGEST:
        raise RunError(f"{path}: is no list of looks (larger than {LARGEST:,} bytes)")
    return [_look(line) for line in content.splitlines() if line.strip()]


def with_unrecorded(recorded: Sequence[Look], result: RunResult | None) -> list[Look]:
    """The looks of a run, and an evaluation of which there is only the result."""
    evaluated = result is not None and result.test_accuracy is not None
    if evaluated and not any(look.verb == "evaluate" for look in recorded):
        return [EVALUATED_BEFORE, *recorded]
    return list(recorded)


def looked_in_sweep(sweep: Path) -> Looked:
    """The runs of a sweep that have looked: trials, their folds, confirmations, and the model that is handed over."""
    return _looked([*every_run(sweep)])


def looked_on_same_data(run: Path, sweep: Path | None) -> Looked:
    """The runs on the same data that have looked, among those beside this one; of a sweep's run those of other sweeps.

    The data is the same where the fingerprints in the receipts are.
    """
    place, fingerprint = run.resolve(), data_fingerprint(run)
    if fingerprint is None:
        return {}
    own = place if sweep is None else sweep.resolve()
    if sweep is not None:
        sweeps = [each for each in own.parent.glob("*/") if is_sweep(each)]
        found = _looked([run for each in sweeps for run in every_run(each)])
    elif DAY.fullmatch(place.parent.name):
        found = _looked([*place.parent.parent.glob("*/*/")])
    else:
        found = _looked([*place.parent.glob("*/")])
    return {
        folder: looks
        for folder, looks in found.items()
        if own not in (folder, *folder.parents) and data_fingerprint(folder) == fingerprint
    }


def choice_warnings(run: Path) -> list[str]:
    """Warnings for a look at this run: others that it may have been chosen from were looked at."""
    place, sweep = run.resolve(), sweep_of(run)
    warnings = []
    in_sweep = looked_in_sweep(sweep) if sweep is not None else {}
    if sweep is not None and any(folder != place for folder in in_sweep):
        warnings.append(selection_warning(in_sweep, f"sweep {sweep.name}", within=sweep))
    beside = looked_on_same_data(run, sweep)
    if beside:
        warnings.append(selection_warning(beside, "other runs on the same data"))
    return warnings


def search_warnings(sweep: Path, *, warm_start: str) -> list[str]:
    """Warnings for a sweep that searches after a look: at itself, at the study it starts from, at its data.

    Args:
        warm_start: the name of a study beside this one, or "".
    """
    place = sweep.resolve()
    other = place.parent / warm_start
    own = looked_in_sweep(place)
    groups: dict[str, Looked] = {}
    if warm_start:
        groups[f"sweep {other.name}, which this one starts from"] = looked_in_sweep(other)
    trained = next((run for run in every_run(place) if (run / RECEIPT).is_file()), None)
    if trained is not None:
        beside = looked_on_same_data(trained, place)
        others = {folder: looks for folder, looks in beside.items() if not warm_start or other not in folder.parents}
        groups["other sweeps on the same data"] = others
    sentences = [selection_warning(own, f"sweep {place.name}", within=place)] if own else []
    return [*sentences, *(selection_warning(looked, group) for group, looked in groups.items() if looked)]


def comparison_warnings(runs: Sequence[Path]) -> list[str]:
    """Warnings for a comparison of runs of which several on the same data were looked at."""
    same: dict[str | None, dict[Path, list[Look]]] = {}
    for folder, looks in _looked([run.resolve() for run in runs]).items():
        same.setdefault(data_fingerprint(folder), {})[folder] = looks
    return [selection_warning(looked, "these runs") for looked in same.values() if len(looked) > 1]


def selection_warning(looked: Looked, group: str, *, within: Path | None = None) -> str:
    """That test accuracy cannot choose among these runs any more; paths are relative to ``within``, if given."""
    count = sum(map(len, looked.values()))
    runs = sorted(looked, key=lambda folder: (len(folder.name), str(folder)))
    names = [str(folder.relative_to(within) if within else Path(*folder.parts[-2:])) for folder in runs]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return safe(
        f"The test split has been looked at {times(count)} for {group} ({', '.join(names[:LISTED])}{more}). "
        "For a model that is chosen after a look, test accuracy is no longer an honest estimate."
    )


def times(count: int) -> str:
    """How often, in words."""
    return "once" if count == 1 else f"{count} times"


def _looked(folders: Sequence[Path]) -> dict[Path, list[Look]]:
    found = {}
    for folder in sorted(set(folders)):
        if any(os.path.lexists(folder / name) for name in (LOOKS, TEST_CSV)):
            try:
                looks = read_looks(folder)
            except RunError:
                looks = [UNREADABLE]  # there was one; the error is reported where the folder itself is opened
            if looks:
                found[folder] = looks
    return found


def _look(line: bytes) -> Look:
    try:
        value = json.loads(line.decode("utf-8"))
        look = Look(**value)
    except (ValueError, TypeError, RecursionError):
        return UNREADABLE
    return look if all(isinstance(each, str) for each in vars(look).values()) else UNREADABLE
