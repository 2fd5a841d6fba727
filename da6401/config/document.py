"""docs/configuration.md from the schema: `python -m da6401.config.document > docs/configuration.md`."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from da6401.config.check import describe_type, variants_of
from da6401.config.schema import RunConfig

HEAD = """# Configuration keys

Every key of a run, with its default and what it may be. Set any of them on the command line (`optimizer.lr=0.01`) or in
a YAML file of your own (`--config-dir`). The groups' files under `conf/` only name departures from these defaults.
Written from `da6401/config/schema.py` by `python -m da6401.config.document`.
"""


def document() -> str:
    """The Markdown page: one table a group, for model and data one for each variant."""
    hints = get_type_hints(RunConfig)
    top = [item for item in dataclasses.fields(RunConfig) if not variants_of(hints[item.name])]
    parts = [HEAD, _table("The run", "", RunConfig, [item.name for item in top])]
    for item in dataclasses.fields(RunConfig):
        for variant in variants_of(hints[item.name]):
            title = f"{item.name}: {(variant.__doc__ or '').strip()}"
            names = [member.name for member in dataclasses.fields(variant)]
            parts.append(_table(title, f"{item.name}.", variant, names))
    return "\n".join(parts)


def _table(title: str, prefix: str, cls: Any, names: list[str]) -> str:
    hints, fields = get_type_hints(cls), {item.name: item for item in dataclasses.fields(cls)}
    rows = ["| key | default | may be | what it is |", "|---|---|---|---|"]
    for name in names:
        rule, default = fields[name].metadata["rule"], fields[name].default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        default_cell = f"`{shown}`" if shown else ""
        cells = (f"`{prefix}{name}`", default_cell, describe_type(hints[name], rule), rule.doc)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return f"## {title}\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(document(), end="")
