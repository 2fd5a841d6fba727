"""The benchmark's rows as benchmarks/README.md and outputs/bench.json."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import torch

HERE = Path(__file__).parent
WORDS = {"at_least": "at least", "at_most": "at most"}


@dataclass(frozen=True)
class Row:
    """One comparison: a ratio for each round (none where it could not be measured), and what it should be."""

    text: str
    ratios: list[float]
    bound: float | None  # None: for information
    kind: Literal["at_least", "at_most"]
    note: str

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def ok(self) -> bool:
        if self.bound is None:
            return True
        return self.ratio >= self.bound if self.kind == "at_least" else self.ratio <= self.bound


def write(rows: list[Row], *, pictures: int, rounds: int, load: float) -> None:
    """Both files; ``load`` is the machine's load average before the benchmark began."""
    bounded = [row for row in rows if row.bound is not None]
    records = [
        {"row": row.text, "ratio": round(row.ratio, 4), "bound": row.bound, "kind": row.kind, "ok": row.ok}
        for row in bounded
    ]
    out = HERE.parent / "outputs" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")

    lines = ["| row | bound | ratio (lowest to highest) | | |", "|---|---|---|---|---|"]
    for row in rows:
        bound = "" if row.bound is None else f"{WORDS[row.kind]} {row.bound:g}"
        measured = f"{row.ratio:.3g} ({min(row.ratios):.3g} to {max(row.ratios):.3g})" if row.ratios else "-"
        verdict = "" if row.bound is None else "ok" if row.ok else "**missed**"
        lines.append(f"| {row.text} | {bound} | {measured} | {verdict} | {row.note} |")
    table = "\n".join(lines)
    head = (
        f"{date.today()}, {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), no GPU, "
        f"Python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}. {pictures} JPEGs of "
        f"800 x 600 px, quality 90; each ratio is the median of n={rounds} rounds, in which all take turns. "
        f"Load average before the start: {load:.1f} (above 0.3, other programs took part in the result)."
    )
    text = (HERE / "template.md").read_text(encoding="utf-8")
    (HERE / "README.md").write_text(text.replace("{head}", head).replace("{table}", table), encoding="utf-8")
    print(f"{head}\n\n{table}")
