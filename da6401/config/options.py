"""The config groups that follow from the schema and the registry, as nodes that Hydra composes.

A name of the registry is an option without a YAML file; the files under ``conf/`` set more than that.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from da6401.config.own_keys import ADDED, CHOSEN, OWN, SWITCH
from da6401.config.schema import RunConfig
from da6401.config.validate import NEEDED, names_of, variants_of
from da6401.registry import OF_VALIDATION, OPTIMIZERS, SCHEDULES

Node = dict[str, Any]
OBJECTIVE = f"{OF_VALIDATION}${{trainer.metric}}"  # a sweep optimises what its runs choose their best epoch by


def config_nodes() -> dict[str, Node]:
    """Each node under its name in Hydra's search path: schema, schema/data/folder, optimizer/sgd."""
    tree, groups = dataclasses.asdict(RunConfig()), variants_of(RunConfig)
    nodes = {"schema": {name: value for name, value in tree.items() if name not in NEEDED}}
    nodes["schema"] |= {group: dataclasses.asdict(groups[group][0]()) for group in ADDED}
    nodes["schema"]["sweep"]["objectives"] = [OBJECTIVE]
    for group in NEEDED:
        key = CHOSEN[group]
        for variant in groups[group]:
            schema = f"schema/{group}/{variant.__name__.removesuffix('Config').lower()}"
            nodes[schema] = dataclasses.asdict(variant())
            for name in names_of(variant, group):
                nodes[f"{group}/{name}"] = {"defaults": [f"/{schema}@_here_", "_self_"], key: name}
    nodes |= {f"optimizer/{name}": {"name": name, **entry.defaults} for name, entry in OPTIMIZERS.entries.items()}
    nodes |= {f"schedule/{name}": {"name": name, **entry.defaults} for name, entry in SCHEDULES.entries.items()}
    for group in CHOSEN.keys() - set(NEEDED):
        nodes |= {f"{group}/{name}": nodes[f"{group}/{name}"] | _own(schema) for name, schema in OWN[group].items()}
    for group in ADDED:
        switched = {name for name, schema in OWN[group].items() if hasattr(schema, SWITCH)}
        nodes |= {f"{group}/{name}": {name: {SWITCH: True}} for name in switched}
    nodes["callbacks/none"] = {}
    return nodes


def _own(schema: type) -> Node:
    values: Node = dataclasses.asdict(schema())
    return values
