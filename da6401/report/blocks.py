"""The blocks that a page is made of, as plain values; page_blocks.js has one function for each kind."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da6401.errors import RunError
from da6401.redact import safe
from da6401.runs.reproduce_command import reproduce_command, retraining_command
from da6401.runs.run_folder import SUMMARY, read_json
from da6401.runs.trial_folders import fold_folders, sweep_of

Block = dict[str, Any]


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to a file or a folder beside the page."""

    text: str
    href: str  # ./PATH, percent-encoded


def section(title: str, *blocks: Block | None) -> dict[str, Any]:
    return {"id": title.lower().replace(" ", "-"), "title": title, "blocks": [each for each in blocks if each]}


def text(sentence: str, tone: str = "note") -> Block:
    return {"kind": "text", "text": sentence, "tone": tone}


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Block:
    plain = [[cell(value) for value in row] for row in rows]
    return {"kind": "table", "caption": caption, "columns": list(columns), "rows": plain}


def facts(*items: tuple[str, Any, str]) -> Block:
    return {"kind": "facts", "items": [{"label": a, "value": cell(b), "note": c} for a, b, c in items]}


def cell(value: Any) -> Any:
    """A value as JSON has it: no infinity, no passwords."""
    if isinstance(value, Link):
        return {"text": safe(value.text), "href": value.href}
    if value is None or isinstance(value, (bool, int)):
        return str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return safe(json.dumps(value) if isinstance(value, (list, dict)) else value)


def command(folder: Path) -> Block:
    """What trains a run again; where it is a sweep's winner over folds, what trains its config as the sweep says it."""
    sweep = _won(folder) if fold_folders(folder) else None
    words = reproduce_command(folder) if sweep is None else retraining_command(sweep, folder, absolute=True)
    return {"kind": "command", "text": words}


def _won(folder: Path) -> Path | None:
    """The sweep that names this run as its winner."""
    sweep = sweep_of(folder)
    if sweep is None:
        return None
    try:
        winner = str(read_json(sweep / SUMMARY).get("winner"))  # as the sweep saw it: the folder may have moved since
    except RunError:
        return None
    parts = folder.resolve().relative_to(sweep).parts
    return sweep if Path(winner).parts[-len(parts) :] == parts else None
