"""Runs side by side in a terminal: what a receipt records that can change the metrics, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from da6401.redact import safe

# What of a receipt can change the metrics, the likeliest first, and what it is called.
RECORDED = {
    "data_fingerprint": "data fingerprint",
    "seed": "seed",
    "device": "device",
    "device_name": "device's name",
    "threads": "threads",
    "git_commit": "code: commit",
    "git_dirty": "code: dirty diff",
    "packages": "packages",
    "torch_build": "torch's build",
    "python": "python",
}
LONGEST = 60  # characters of a value in a table


def side_by_side(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", no_wrap: bool = False
) -> Table:
    """A table of any values; no_wrap cuts what does not fit in place of wrapping it."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    return table


def _cell(value: object) -> str:
    text = "-" if value is None else safe(value)
    if re.fullmatch(r"[0-9a-f]{40,}", text):  # a hash
        return text[:16]
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
