"""The page's sections on a race: the model that it handed over, and what the minutes went to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from da6401.report.blocks import Block, section, table, text
from da6401.report.sweep_record import SweepRecord

OPTION = ("model", "val_accuracy", "val_loss", "chosen")
LEDGER = ("trial", "phase", "candidate", "epochs", "planned_seconds", "seconds")


def race_sections(sweep: SweepRecord) -> list[dict[str, Any]]:
    """[] of a sweep that was no race; sweep.json is of unknown origin, and what does not fit is left out."""
    found = []
    model, ledger = sweep.summary.get("model"), sweep.summary.get("ledger")
    if isinstance(model, Mapping):
        runs = model.get("runs")
        names = ", ".join(map(str, runs)) if isinstance(runs, list) else ""
        note = text(f"It answers with {names}. All verbs take the folder model, beside the trials.")
        found.append(section("Handed over", _table("On the validation images", OPTION, model.get("options")), note))
    if isinstance(ledger, list):
        caption = "Seconds, as planned before each training and as spent"
        found.append(section("What the minutes went to", _table(caption, LEDGER, ledger)))
    return found


def _table(caption: str, columns: Sequence[str], entries: Any) -> Block:
    rows: Iterable[Any] = entries if isinstance(entries, list) else []
    values = [[_short(row.get(name)) for name in columns] for row in rows if isinstance(row, Mapping)]
    return table(caption, [name.replace("_", " ") for name in columns], values)


def _short(value: Any) -> Any:
    return round(value, 4 if abs(value) < 1 else 1) if isinstance(value, float) else value
