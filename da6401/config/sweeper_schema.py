"""The keys of hydra.sweeper and of its pruners: types, defaults, ranges. Checked like the keys of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from da6401.config.rule import hints_of, key
from da6401.config.validate import fit, refusal
from da6401.errors import nearest_name


@dataclass(frozen=True, kw_only=True)
class SweeperKeys:
    """The official sweeper's keys, `pruner` and `conditional`; our own keys of a sweep are in `sweep`."""

    direction: str | list[str] | None = key(
        None, "maximize or minimize, or a list, one for each of sweep.objectives; null follows from them",
        shape="maximize or minimize",  # objective_rules.py refuses others, with the line to type
    )  # fmt: skip
    storage: str | None = key(
        None, "a database's address (docs/scale.md); null is an sqlite file in the sweep's folder"
    )
    study_name: str | None = key(None, "null takes the name of the sweep's folder, which is `study`", pattern="(?s:.+)",
                                 shape="a name")  # fmt: skip
    n_trials: int | None = key(
        None, "the study's total number of trials, over all runs of the command; null: all of a grid, otherwise 20",
        low=1, high=10_000_000,
    )  # fmt: skip
    n_jobs: int = key(1, "worker processes; 1 is this process", low=1, high=1024)
    max_failure_rate: float = key(
        1.0, "failed trials as a share of n_trials, above which the sweep stops", low=0, high=1
    )
    custom_search_space: str | None = key(None, "a function of your own that suggests more, as module.name")


@dataclass(frozen=True, kw_only=True)
class NonePruner:
    """Every trial runs to its end."""


@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """Stops a trial that is below the median of the others at the same epoch."""

    startup_trials: int = key(5, "trials that end before any is pruned", low=0, high=100_000)
    warmup_epochs: int = key(0, "epochs in which no trial is pruned", low=0, high=100_000)


@dataclass(frozen=True, kw_only=True)
class PercentilePruner:
    """Stops a trial that is not among the best share of the others at the same epoch."""

    percentile: float = key(25.0, "that share", unit="%", low=0, high=100)
    startup_trials: int = key(5, "trials that end before any is pruned", low=0, high=100_000)
    warmup_epochs: int = key(0, "epochs in which no trial is pruned", low=0, high=100_000)


@dataclass(frozen=True, kw_only=True)
class HalvingPruner:
    """Keeps the best of every `reduction_factor` trials at each rung."""

    min_epochs: int = key(1, "epochs before the first rung", low=1, high=100_000)
    reduction_factor: int = key(3, "one of so many trials continues", low=2, high=1000)


@dataclass(frozen=True, kw_only=True)
class PatientPruner:
    """Stops a trial that does not improve, when the median pruner would stop it too."""

    startup_trials: int = key(5, "trials that end before any is pruned", low=0, high=100_000)
    patience: int = key(1, "epochs without improvement that are allowed", low=0, high=100_000)


PRUNERS: dict[str, type] = {
    "none": NonePruner, "median": MedianPruner, "percentile": PercentilePruner, "successive_halving": HalvingPruner,
    "hyperband": HalvingPruner, "patient": PatientPruner,
}  # fmt: skip
OPEN = ("_target_", "sampler", "pruner", "params", "conditional", "first")  # checked elsewhere


def sweeper_problems(node: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of hydra.sweeper, except searched keys and samplers."""
    problems = _problems("hydra.sweeper", SweeperKeys, node, others=OPEN)
    pruner = node.get("pruner")
    if isinstance(pruner, Mapping):
        name = str(pruner.get("name"))
        if name in PRUNERS:
            problems += _problems("hydra.sweeper.pruner", PRUNERS[name], pruner, others=("name",))
        else:
            problems.append(f"hydra.sweeper.pruner.name={name}: choose one as hydra/sweeper/pruner={'|'.join(PRUNERS)}")
    return problems


def _problems(prefix: str, keys: type, node: Mapping[str, Any], *, others: Sequence[str]) -> list[str]:
    fields = {item.name: item for item in dataclasses.fields(keys)}
    hints = hints_of(keys)
    found = []
    for name, value in node.items():
        if name not in (*fields, *others):
            nearest = nearest_name(str(name), [*fields, *others])
            found.append(f"{prefix}.{name}: no such key" + (f"; did you mean {prefix}.{nearest}?" if nearest else ""))
        elif name in fields and not (value is None and type(None) in get_args(hints[name])):
            rule = fields[name].metadata["rule"]
            if fit(hints[name], rule, value) is None:
                found.append(refusal(hints[name], rule, value, f"{prefix}.{name}"))
    return found
