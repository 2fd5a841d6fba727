"""Checks of a sweep's settings against its objectives, before trial 0; each message has the line to type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from da6401.config.metrics import directions_of, names_of
from da6401.registry import METRICS


def objective_problems(sweep: Mapping[str, Any], sweeper: Mapping[str, Any]) -> list[str]:
    """The settings that contradict the objectives, each with the line to type; [] if there are none.

    Args:
        sweep: the keys of `sweep`, as composed; the schema refuses names that do not exist.
        sweeper: the keys of `hydra.sweeper`, also those of the official sweeper or of one without Optuna.
    """
    names, direction = names_of(sweep.get("objectives")), sweeper.get("direction")
    if not names or any(name not in METRICS for name in names):
        return []
    pruner, sampler = _chosen(sweeper, "pruner", "name"), _chosen(sweeper, "sampler", "_target_")
    confirm_top = sweep.get("confirm_top")
    problems = _direction_problems(names, direction)
    shown = names[0] if len(names) == 1 else f"[{','.join(names)}]"
    if pruner != "none" and len(names) > 1:
        problems.append(
            f"hydra/sweeper/pruner={pruner}: a pruner compares one number of each epoch, and "
            f"sweep.objectives={shown} has {len(names)}; type hydra/sweeper/pruner=none"
        )
    elif pruner != "none" and not METRICS[names[0]].by_epoch:
        problems.append(
            f"hydra/sweeper/pruner={pruner}: epochs do not change sweep.objectives={shown}, so that there is nothing "
            "to prune by; type hydra/sweeper/pruner=none"
        )
    if confirm_top and len(names) > 1:
        problems.append(
            f"sweep.confirm_top={confirm_top}: ranks trials by one number, and sweep.objectives={shown} has "
            f"{len(names)}; type sweep.confirm_top=0"
        )
    if sampler.endswith(".CmaEsSampler") and len(names) > 1:
        problems.append(
            f"hydra/sweeper/sampler=cmaes: optimises one number, and sweep.objectives={shown} has {len(names)}; "
            "type hydra/sweeper/sampler=nsgaii"
        )
    return problems


def fold_problems(sweep: Mapping[str, Any], fold: object) -> list[str]:
    """What contradicts sweep.folds.

    Args:
        fold: data.fold, as composed.
    """
    folds = sweep.get("folds")
    if not folds:
        return []
    problems = []
    if folds == 1:
        problems.append("sweep.folds=1: one part alone leaves nothing to train on; take 2 or more, or 0 for none")
    if fold:
        problems.append(f"data.fold={fold}: sweep.folds={folds} trains every fold; leave data.fold out")
    return problems


def race_problems(sweep: Mapping[str, Any], sweeper: Mapping[str, Any], searched: Collection[str]) -> list[str]:
    """What contradicts sweep.strategy=race.

    Args:
        sweeper: as of ``objective_problems``.
        searched: the keys that are searched.
    """
    if sweep.get("strategy") != "race":
        return []
    problems = []
    if not sweep.get("minutes"):
        problems.append("sweep.strategy=race: plans its trainings for sweep.minutes; give them, as in sweep.minutes=20")
    if folds := sweep.get("folds"):
        problems.append(
            f"sweep.folds={folds}: a race compares short trainings on one validation split; leave sweep.strategy=race "
            "out, or take sweep.folds=0"
        )
    if confirm_top := sweep.get("confirm_top"):
        problems.append(
            f"sweep.confirm_top={confirm_top}: a race trains its best candidates again, for longer, and hands over "
            "their mean; type sweep.confirm_top=0"
        )
    if len(names := names_of(sweep.get("objectives"))) > 1:
        problems.append(
            f"sweep.objectives=[{','.join(names)}]: a race has one objective; leave sweep.strategy=race out"
        )
    if (pruner := _chosen(sweeper, "pruner", "name")) != "none":
        problems.append(
            f"hydra/sweeper/pruner={pruner}: a race judges complete trainings alone; type hydra/sweeper/pruner=none"
        )
    if "trainer.epochs" in searched:
        problems.append("trainer.epochs: is searched, and a race gives each training its epochs; do not search it")
    return problems


def validated_problems(trainer: Mapping[str, Any]) -> list[str]:
    """What leaves a sweep without validation images to choose by."""
    if trainer.get("train_on") != "all":
        return []
    return [
        "trainer.train_on=all: a sweep chooses by validation images, which this trains on; leave it out, and give it "
        "when the winner is trained again"
    ]


def _chosen(sweeper: Mapping[str, Any], group: str, key: str) -> str:
    """The name of the pruner or sampler that is chosen; none without one."""
    node = sweeper.get(group)
    return str(node.get(key) if isinstance(node, Mapping) else node or "none")


def _direction_problems(names: Sequence[str], direction: object) -> list[str]:
    if direction is None:
        return []
    if not isinstance(direction, (str, list, tuple)):
        return []  # the schema refuses it
    given = [direction] if isinstance(direction, str) else [str(word) for word in direction]
    right = directions_of(names)
    if given == right:
        return []
    typed = f"hydra.sweeper.direction={direction if isinstance(direction, str) else '[' + ','.join(given) + ']'}"
    line = right[0] if len(right) == 1 else f"[{','.join(right)}]"
    remedy = f"leave it out, or type {_quoted(f'hydra.sweeper.direction={line}')}"
    unknown = [word for word in given if word not in ("maximize", "minimize")]
    if unknown:
        return [f"{typed}: must be maximize or minimize, one for each of sweep.objectives; {remedy}"]
    if len(given) != len(right):
        count = "1 direction" if len(given) == 1 else f"{len(given)} directions"
        return [f"{typed}: {count} for {len(right)} of sweep.objectives ({', '.join(names)}); {remedy}"]
    wrong = [
        f"{name} is {want.removesuffix('ize')}ised"
        for name, want, have in zip(names, right, given, strict=True)
        if want != have
    ]
    return [f"{typed}: {' and '.join(wrong)}; {remedy}"]


def _quoted(text: str) -> str:
    """For a shell, which would read brackets as a pattern of file names."""
    return f"'{text}'" if "[" in text else text
