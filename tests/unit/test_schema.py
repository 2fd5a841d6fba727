"""The schema is the one home of keys, defaults and ranges: complete, consistent, and what others script against."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from da6401.config import schema
from da6401.config.rule import Rule
from da6401.config.schema import RunConfig
from da6401.config.search_path import SearchPath
from da6401.registry import BACKBONES, DATA_SOURCES, OPTIMIZERS, SCHEDULES

CONFIGS: dict[str, type[Any]] = {
    name: kind for name, kind in vars(schema).items() if name.endswith(("Config", "Keys")) and isinstance(kind, type)
}

# Scripts of others name these; a change of one is a change of the interface.
STABLE = {
    "RunConfig": {"seed", "device", "study"},
    "DigitsConfig": {"image_size", "val_fraction"},
    "FolderConfig": {"root", "image_size", "val_fraction", "bad_files"},
    "SyntheticConfig": {"image_size", "val_fraction"},
    "CnnConfig": {"filters", "dropout"},
    "PretrainedConfig": {"weights", "freeze_depth", "dropout"},
    "OptimizerConfig": {"lr", "weight_decay"},
    "TrainerConfig": {"epochs", "batch_size", "threads", "precision"},
}

# The user must give these: their default breaks their own rule on purpose.
FILES = ("FolderConfig", "TableConfig", "ShardsConfig", "HuggingFaceConfig", "TorchvisionConfig")
REQUIRED = {(name, "root") for name in FILES}


Key = tuple[type[Any], dataclasses.Field[Any]]


def all_keys() -> list[Key]:
    """Every key, with the class that it stands in; the groups of RunConfig are no keys."""
    fields = [(kind, field) for kind in CONFIGS.values() for field in dataclasses.fields(kind)]
    return [(kind, field) for kind, field in fields if field.default_factory is dataclasses.MISSING]


def name_of(value: Any) -> str:
    return str(value.__name__ if isinstance(value, type) else value.name)


KEYS = all_keys()


def test_the_list_of_keys_is_whole() -> None:
    assert len(KEYS) >= 60, f"only {len(KEYS)} keys found: does the schema still hold plain dataclasses?"


def test_the_stable_names_exist() -> None:
    names = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in CONFIGS.items()}
    missing = {kind: stable - names[kind] for kind, stable in STABLE.items() if stable - names[kind]}
    assert not missing, f"others script against these: {missing}"
    groups = {"model", "data", "augmentation", "optimizer", "schedule", "trainer", "tracking"}
    assert groups <= names["RunConfig"]


@pytest.mark.parametrize(("kind", "field"), KEYS, ids=name_of)
def test_every_key_is_explained_and_its_default_keeps_its_rule(kind: type, field: dataclasses.Field[Any]) -> None:
    rule, hint = field.metadata.get("rule"), get_type_hints(kind)[field.name]
    assert isinstance(rule, Rule), "make the field with key(): without a rule nobody checks its value"
    assert rule.doc.strip(), "say what the key does"
    assert not rule.doc.endswith("."), "a phrase, as its neighbours"
    assert bool(rule.pattern) == bool(rule.shape), "a pattern is told to the user in words"
    if hint is not bool and {int, float} & {hint, *get_args(hint)}:
        assert (rule.low is None) != (rule.above is None), "a number has one lower bound"
        assert (rule.high is None) != (rule.below is None), "a number has one upper bound"
    default: Any = field.default
    assert rule.names is None or default in rule.names
    if get_origin(hint) is Literal:
        assert default in get_args(hint)
        return
    plain = [part for part in (hint, *get_args(hint)) if part in (bool, int, float, str)]
    assert type(default) in plain, f"the default {default!r} is not what {hint} says"
    if rule.pattern:
        kept = re.fullmatch(rule.pattern, default) is not None
        assert kept != ((kind.__name__, field.name) in REQUIRED)
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        assert rule.low is None or default >= rule.low
        assert rule.above is None or default > rule.above
        assert rule.high is None or default <= rule.high
        assert rule.below is None or default < rule.below


def test_the_defaults_build_a_run_and_are_not_shared() -> None:
    run = RunConfig()
    assert dataclasses.asdict(run) == dataclasses.asdict(RunConfig())
    assert (run.model.name, run.data.source, run.tracking.backend) == ("cnn", "digits", "local")
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.seed = 1  # type: ignore[misc]


def test_part_b_offers_the_backbones_that_were_asked_for() -> None:
    asked = "googlenet resnet18 resnet50 inception_v3 vgg16 mobilenet_v3_large efficientnet_v2_s convnext_tiny vit_b_16"
    assert {*asked.split(), *(f"efficientnet_lite{version}" for version in range(3))} <= set(BACKBONES)


def test_every_name_is_an_option_of_its_group() -> None:
    options = SearchPath().options()
    assert {"cnn", *BACKBONES} <= set(options["model"])
    assert {*OPTIMIZERS} <= set(options["optimizer"])
    assert {*SCHEDULES} == set(options["schedule"])
    assert {*DATA_SOURCES} <= set(options["data"])


def test_the_schema_loads_neither_torch_nor_hydra() -> None:
    code = (
        "import sys, da6401.config.schema; print(sorted({'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
