"""A composed tree becomes a typed configuration, or one message with every problem."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from da6401.config.options import config_nodes
from da6401.config.schema import CnnConfig, FolderConfig, PretrainedConfig, RunConfig
from da6401.config.validate import (
    config_from_tree,
    documented_keys,
    tree_of,
    value_problems,
)
from da6401.errors import ConfigError, nearest_name
from da6401.runs.run_folder import flat


def tree(**changes: Any) -> dict[str, Any]:
    """The default configuration's tree with dotted keys changed (double underscores for dots)."""
    plain = tree_of(RunConfig())
    for name, value in changes.items():
        *path, leaf = name.split("__")
        node = plain
        for part in path:
            node = node[part]
        node[leaf] = value
    return plain


def problems_of(plain: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config_from_tree(plain)
    return caught.value.problems


def test_the_default_tree_comes_back_unchanged() -> None:
    assert config_from_tree(tree_of(RunConfig())) == RunConfig()


def test_missing_keys_take_the_schemas_defaults() -> None:
    assert config_from_tree({"model": {"name": "cnn"}, "seed": 3}) == dataclasses.replace(RunConfig(), seed=3)


def test_variants_are_chosen_by_their_discriminator() -> None:
    config = config_from_tree(
        {"model": {"name": "resnet18", "weights": "none"}, "data": {"source": "folder", "root": "x"}}
    )
    assert config.model == PretrainedConfig(name="resnet18", weights="none")
    assert config.data == FolderConfig(root="x")


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"seed": -1}, "seed", "whole number in [0,"),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"seed": True}, "seed", "whole number"),
        ({"trainer__epochs": 0}, "trainer.epochs", "[1, 100000]"),
        ({"trainer__epochs": "three"}, "trainer.epochs", "whole number"),
        ({"data__val_fraction": 1.0}, "data.val_fraction", "(0, 1)"),
        ({"optimizer__lr": 0}, "optimizer.lr", "(0, 100]"),
        ({"optimizer__lr": float("nan")}, "optimizer.lr", "a number"),
        ({"optimizer__name": "adamm"}, "optimizer.name", "did you mean adam"),
        ({"trainer__channels_last": 1}, "trainer.channels_last", "true or false"),
        ({"device": "gpu"}, "device", "cuda"),
        ({"study": "../x"}, "study", "letters"),
        ({"model__filters": []}, "model.filters", "list"),
        ({"model__filters": [32, 0]}, "model.filters", "list"),
        ({"model__name": "resnet"}, "model.name", "did you mean resnet50"),
        ({"model": None}, "model", "must be one of"),
        ({"trainer": 3}, "trainer", "a group of keys"),
        ({"schedule__warmup": 1.0}, "schedule.warmup", "[0, 1)"),
    ],
)
def test_a_value_out_of_its_rule_is_named_with_the_rule(changes: dict[str, Any], key: str, words: str) -> None:
    (problem,) = problems_of(tree(**changes))
    assert problem.startswith(key)
    assert words in problem


def test_all_problems_are_told_at_once() -> None:
    plain = tree(seed=-1, trainer__epochs=0, model__dropout=1.0, model__blocks=9)
    plain["trainer"]["epoch"] = 3
    plain["optimiser"] = {"lr": 1}
    found = problems_of(plain)
    starts = ("seed", "trainer.epochs", "model.dropout", "model.blocks=9", "trainer.epoch:", "optimiser")
    assert [s for s in starts if not any(problem.startswith(s) for problem in found)] == []
    assert len(found) == len(starts)


def test_a_key_of_the_other_part_says_where_it_belongs() -> None:
    plain = tree()
    plain["model"]["freeze_depth"] = 2
    (problem,) = problems_of(plain)
    assert "belongs to model=" in problem
    assert "googlenet" in problem


def test_choosing_a_variant_by_its_name_alone_is_one_problem() -> None:
    (problem,) = problems_of(tree(model__name="resnet18"))
    assert problem.endswith("choose it as model=resnet18")


def test_a_saved_config_without_a_newer_key_takes_its_default() -> None:
    saved = tree(data={"source": "folder", "root": "x", "image_size": 64, "val_fraction": 0.2, "split_seed": 0})
    assert config_from_tree(saved).data == FolderConfig(root="x", image_size=64)


def test_a_freeze_depth_out_of_range_names_the_stages() -> None:
    (problem,) = problems_of({"model": {"name": "googlenet", "freeze_depth": 13}})
    assert "0..12" in problem
    assert "3a" in problem


def test_numbers_are_taken_in_their_declared_type() -> None:
    config = config_from_tree(tree(optimizer__lr=1, trainer__epochs=3.0, model__filters=[8, 16]))
    assert isinstance(config.optimizer.lr, float)
    assert isinstance(config.trainer.epochs, int)
    assert config.model == CnnConfig(filters=[8, 16])


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("model.droput", "model.dropout"), ("trainer.epoch", "trainer.epochs"), ("lr", "optimizer.lr"), ("qqq", None)],
)
def test_nearest_name(typed: str, nearest: str | None) -> None:
    assert nearest_name(typed, [name for name, _, _ in documented_keys()]) == nearest


def test_one_value_can_be_judged_alone() -> None:
    assert value_problems("optimizer.lr", 0.1) == []
    assert value_problems("model.filters", [32, 64]) == []
    assert value_problems("model.dropout", 1.0) != []
    assert "did you mean optimizer.lr" in value_problems("optimiser.lr", 0.1)[0]


def test_the_nodes_for_hydra_hold_every_key() -> None:
    keys = {name for name, _, _ in documented_keys()}
    from_nodes = set(flat(config_nodes()["schema"]))
    for path, node in config_nodes().items():
        if path.startswith("schema/"):
            from_nodes |= {f"{path.split('/')[1]}.{name}" for name in flat(node)}
    assert from_nodes == keys
