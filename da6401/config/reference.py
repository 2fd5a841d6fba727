"""docs/configuration.md from the schema: `python -m da6401.config.reference > docs/configuration.md`."""

from __future__ import annotations

import dataclasses
from typing import Any

from da6401.config.options import config_nodes
from da6401.config.rule import default_of, hints_of
from da6401.config.schema import RunConfig
from da6401.config.sweeper_schema import PRUNERS, SweeperKeys
from da6401.config.validate import describe_type, variants_of

HEAD = """# Configuration keys

Every key of a run, with its default and what it may be. Set any of them on the command line (`optimizer.lr=0.01`) or in
a YAML file of your own (`--config-dir`). Options of a group only state what differs from these defaults.
Written from `da6401/config/schema.py` and `sweeper_schema.py` by `python -m da6401.config.reference`.
"""

OPTIONS = """## Options

The groups' files under `conf/` are options (`experiment=part_a`), and so is every name below, with all other keys of
its group at their defaults. `da6401 train --help` lists both.

"""
SEARCH = """## hydra.sweeper.params and hydra.sweeper.conditional: what a sweep searches.

On the command line as `key=...`, in YAML as `hydra.sweeper.params: {key: ...}`:

| written | means |
|---|---|
| `a,b` or `choice(a, b)` | these values, without an order |
| `range(2, 10, 2)`, `range(0.0, 0.5, 0.1)` | numbers from the first to before the second, in steps |
| `interval(0.1, 0.5)`, `int(interval(1, 8))` | all numbers, or all whole numbers, both ends included |
| `tag(log, interval(1e-4, 1e-1))` | the same on a logarithmic scale |
| `glob(*)` | for a config group: all its options |

Where every key has values or a range and no sampler is named, each combination is trained once, in order. Elsewhere
`hydra/sweeper/sampler` chooses: `auto` (the joint TPE), `tpe_joint tpe random gp qmc nsgaii nsgaiii cmaes`, and `grid`
(or `bruteforce`) for all combinations in order. None trains a configuration twice.

`hydra.sweeper.conditional` is a list of `{when: "optimizer=sgd", params: {optimizer.momentum: "choice(0.8, 0.9)"}}`:
keys that are searched only where a condition holds. `when` may combine several with commas, and `!=` works too. Values
are compared as values (`0` is `0.0`). A condition that can never hold is refused, unless the entry says
`optional: true`.
"""


def document() -> str:
    """The Markdown page: one table a group, for model and data one for each variant."""
    groups = variants_of(RunConfig)
    top = [item.name for item in dataclasses.fields(RunConfig) if item.name not in groups]
    parts = [HEAD, _table("The run", "", RunConfig, top)]
    for group, variants in groups.items():
        for variant in variants:
            title = f"{group}: {(variant.__doc__ or '').strip()}"
            nested = variants_of(variant)
            names = [member.name for member in dataclasses.fields(variant) if member.name not in nested]
            parts.append(_table(title, f"{group}.", variant, names))
            for inner, (keys,) in nested.items():
                prefix = f"{group}.{inner}."
                names = [member.name for member in dataclasses.fields(keys)]
                parts.append(_table(f"{prefix}*: {(keys.__doc__ or '').strip()}", prefix, keys, names))
    nodes = [
        ("hydra.sweeper", SweeperKeys),
        *((f"hydra/sweeper/pruner={name}", keys) for name, keys in PRUNERS.items()),
    ]
    for title, keys in nodes:
        names = [member.name for member in dataclasses.fields(keys)]
        prefix = "hydra.sweeper." if keys is SweeperKeys else "hydra.sweeper.pruner."
        parts.append(_table(f"{title}: {(keys.__doc__ or '').strip()}", prefix, keys, names))
    return "\n".join([*parts, _options(), SEARCH])


def _options() -> str:
    """The options that have no YAML file."""
    rows = ["| option | sets |", "|---|---|"]
    for path, node in config_nodes().items():
        group, _, name = path.rpartition("/")
        if group and not group.startswith("schema"):
            keys = ", ".join(f"`{group}.{key}={value}`" for key, value in node.items() if key != "defaults")
            rows.append(f"| `{group}={name}` | {keys} |")
    return OPTIONS + "\n".join(rows) + "\n"


def _table(title: str, prefix: str, cls: Any, names: list[str]) -> str:
    hints, fields = hints_of(cls), {item.name: item for item in dataclasses.fields(cls)}
    if not names:
        return f"## {title}\n"
    rows = ["| key | default | may be | what it is |", "|---|---|---|---|"]
    for name in names:
        rule, default = fields[name].metadata["rule"], default_of(fields[name])
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        shown = f"[{','.join(default)}]" if isinstance(default, list) else shown
        default_cell = f"`{shown}`" if shown else ""
        cells = (f"`{prefix}{name}`", default_cell, describe_type(hints[name], rule), rule.doc)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return f"## {title}\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(document(), end="")
