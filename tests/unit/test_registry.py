"""What can be chosen by name is registered in one place: a file of one's own adds a name, and everything knows it."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore

from da6401 import registry
from da6401.config.schema import AugmentationConfig, OptimizerConfig, ScheduleConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.errors import UserError
from da6401.models.build import build_model
from da6401.registry import (
    AUGMENTATIONS,
    BACKBONES,
    DATA_SOURCES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    BackboneEntry,
    Registry,
)
from da6401.runs.run_folder import read_yaml
from da6401.training.optim import build_optimizer
from da6401.training.schedules import lr_factor
from da6401.training.trained_model import load_model
from tests.sweep.sweeps import open_study
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose, typed

OF_PLUGINS = ("NETWORKS", "BLOCKS", "CALLBACKS")  # which are empty without one
ALL: dict[str, Registry[Any]] = {
    name: each for name, each in vars(registry).items() if isinstance(each, Registry) and name not in OF_PLUGINS
}
# Keys of `augmentation` that are no step: what mixes images of a batch after the steps, and when they end.
NO_STEP = {"mixup", "cutmix", "plain_end"}

OWN_OPTIMIZER = """
from torch.optim import SGD

from da6401.registry import optimizer

made = []


class Signs(SGD):
    steps = 0

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.sign_()
        self.steps += 1
        return super().step(closure)


@optimizer("signs", lr=0.003)
def signs(groups, cfg):
    made.append(Signs(groups, lr=cfg.lr, momentum=cfg.momentum))
    return made[-1]
"""
OWN_BACKBONE = """
from torch import nn

from da6401.registry import BACKBONES, BackboneEntry


class TwoStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


BACKBONES.register(
    "two_stages",
    BackboneEntry(
        stages=("stem", "body"),
        make=lambda image_size: TwoStages(),
        cut=lambda net: [net.stem, net.body],
        features=6,
        min_size=8,
    ),
)
"""


@pytest.fixture(autouse=True)
def _names_of_a_test_are_its_own() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = {name: dict(each.entries) for name, each in ALL.items()}
    compose()  # Hydra has our options, and no test's
    repo = ConfigStore.instance().repo
    options = {group: dict(nodes) for group, nodes in repo.items() if isinstance(nodes, dict)}
    yield
    for name, each in ALL.items():
        each.entries.clear()
        each.entries.update(before[name])
    repo.update(options)
    compose.cache_clear()


def imported(folder: Path, name: str, text: str) -> ModuleType:
    """A file of somebody's own, imported."""
    (folder / f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown_everywhere(name: str, group: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--help, the completion and the message about a name that is nearly it have the name."""
    code, out, _ = typed("train", "--help", cwd=folder)
    assert code == 0
    (listed,) = (line for line in out.splitlines() if line.startswith(f"{group}: "))
    assert name in listed.partition(": ")[2].split(", ")
    monkeypatch.setenv("COMP_LINE", f"da6401 train {group}={name[:-2]}")
    code, out, _ = typed("train", "-sc", "query=bash", cwd=folder)
    assert (code, out.split()) == (0, [f"{group}={name}"])
    for wrong in (f"{group}={name}x", f"{group}.name={name}x"):
        code, _, err = typed("train", wrong, cwd=folder)
        assert code == 2
        (line,) = (line for line in err.splitlines() if wrong.partition("=")[0] in line)
        assert f"did you mean {name}?" in line
        assert f", {name}" in line.partition("; did you mean")[0], "it is in the list, too"


def test_an_optimizer_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = imported(tmp_path, "own_optimizer", OWN_OPTIMIZER)
    code, _, err = typed("train", *SMALL, "optimizer=signs", "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    saved = read_yaml(tmp_path / "run" / "config.yaml")["optimizer"]
    assert saved == {**dataclasses.asdict(OptimizerConfig()), "name": "signs", "lr": 0.003}
    (made,) = own.made
    assert made.steps == 2 * 4, "2 epochs of 29 images, 8 a step"
    shown_everywhere("signs", "optimizer", tmp_path, monkeypatch)


def test_a_backbone_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(tmp_path, "own_backbone", OWN_BACKBONE)
    states = {}
    for depth in (1, 2):
        words = [*SMALL_BACKBONE, "model=two_stages", "model.weights=none", f"model.freeze_depth={depth}"]
        code, _, err = typed("train", *words, f"hydra.run.dir=run-{depth}", cwd=tmp_path)
        assert code == 0, err
        states[depth] = load_model(tmp_path / f"run-{depth}")[0].state_dict()
    differing = {name.split(".")[1] for name in states[1] if not torch.equal(states[1][name], states[2][name])}
    assert differing == {"body", "1"}, "the stem is frozen in both, the body in one; 1 is the head's linear layer"
    code, _, err = typed("train", *words, "model.freeze_depth=3", "data.image_size=4", cwd=tmp_path)
    assert code == 2
    assert "two_stages has 2 stages (stem, body); use 0..2" in err
    assert "two_stages needs images of at least 8 x 8" in err
    code, _, err = typed("train", *SMALL_BACKBONE, "model=two_stages", cwd=tmp_path)
    assert code == 2
    assert "model.weights=imagenet: two_stages has no ImageNet weights" in err
    shown_everywhere("two_stages", "model", tmp_path, monkeypatch)


def test_a_sweep_over_names_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(tmp_path, "own_optimizer", OWN_OPTIMIZER)
    imported(tmp_path, "own_backbone", OWN_BACKBONE)
    words = (*SMALL_BACKBONE, "trainer.epochs=1", "study=own", "model.weights=none", "model.freeze_depth=1")
    code, _, err = typed("train", "-m", *words, "model=two_stages,resnet18", "optimizer=signs,sgd", cwd=tmp_path)
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    trials = open_study("own").trials
    names = {(trial.params["model"], trial.params["optimizer"]) for trial in trials}
    assert names == {(model, optimizer) for model in ("two_stages", "resnet18") for optimizer in ("signs", "sgd")}
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    for number, trial in enumerate(trials):
        saved = read_yaml(Path("outputs/sweeps/own") / f"trial-{number}" / "config.yaml")
        assert (saved["model"]["name"], saved["optimizer"]["name"]) == (
            trial.params["model"],
            trial.params["optimizer"],
        )


def test_a_name_is_taken_once() -> None:
    with pytest.raises(UserError, match=r"optimizer\.name=sgd: this name is registered already"):
        registry.optimizer("sgd")(OPTIMIZERS["adam"].make)
    assert OPTIMIZERS["sgd"].defaults == {"lr": 0.05, "weight_decay": 5e-4}


@pytest.mark.parametrize("each", ALL.values(), ids=ALL)
def test_an_unknown_name_is_a_message_with_all_names_and_the_nearest(each: Registry[Any]) -> None:
    first = next(iter(each))
    with pytest.raises(UserError) as caught:
        each[f"{first}x"]
    assert str(caught.value) == f"{each.key}={first}x: must be one of {', '.join(each)}; did you mean {first}?"


def test_the_builders_refuse_what_is_not_registered() -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="did you mean adamw"):
        build_optimizer(OptimizerConfig(name="adamww"), stages=[], head=layer.parameters())
    with pytest.raises(UserError, match="did you mean cosine"):
        lr_factor(ScheduleConfig(name="cosin"), 5, steps_per_epoch=5, epochs=2)


def test_the_registries_are_those_that_the_documentation_names() -> None:
    assert {name: len(each) >= 2 for name, each in ALL.items()} == dict.fromkeys(
        ("BACKBONES", "LIBRARIES", "DATA_SOURCES", "AUGMENTATIONS", "OPTIMIZERS", "SCHEDULES", "METRICS"), True
    )
    assert list(METRICS)[:2] == ["val_accuracy", "val_loss"]
    assert [entry.schema().source for entry in DATA_SOURCES.entries.values()] == list(DATA_SOURCES)
    assert all(entry.rise(1.0) == pytest.approx(1.0) for entry in SCHEDULES.entries.values())


def test_what_the_configuration_asks_loads_neither_torch_nor_hydra() -> None:
    code = (
        "import sys; from da6401.registry import *; "
        "from da6401.registry import BACKBONES, DATA_SOURCES, METRICS, OPTIMIZERS, SCHEDULES; "
        "count = sum(map(len, (BACKBONES, DATA_SOURCES, METRICS, OPTIMIZERS, SCHEDULES))); "
        "print(count, sorted({'torch', 'torchvision', 'numpy', 'hydra', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, loaded = done.stdout.strip().partition(" ")
    assert int(count) >= 25
    assert loaded == "[]"


def test_every_key_of_augmentation_has_one_step() -> None:
    keys = [key for entry in AUGMENTATIONS.entries.values() for key in entry.keys]
    assert sorted([*keys, *NO_STEP]) == sorted(field.name for field in dataclasses.fields(AugmentationConfig))


def test_an_augmentation_of_ones_own_comes_after_ours_and_only_where_its_key_is_set() -> None:
    @registry.augmentation("darken", "flip", on_float=True)
    def darken(images: torch.Tensor, draws: torch.Tensor, cfg: AugmentationConfig) -> torch.Tensor:
        return images / 2

    images, rows = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8), torch.arange(5)

    def changed(**keys: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return Augmenter(AugmentationConfig(**keys), count=5, generator=generator)(images, rows)

    assert torch.equal(changed(), images / 255)
    assert torch.equal(changed(flip=1.0), images.flip(3) / 255 / 2)
    erased = changed(flip=1.0, erase=1.0) != changed(flip=1.0)
    assert set(changed(flip=1.0, erase=1.0)[erased].tolist()) == {0.25}, "erased before it"


def test_a_backbone_whose_cut_is_not_its_list_of_stages_is_a_programmers_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = dataclasses.replace(BACKBONES["resnet18"], stages=("stem", "rest"))
    assert isinstance(wrong, BackboneEntry)
    monkeypatch.setitem(BACKBONES.entries, "resnet18", wrong)
    with pytest.raises(ValueError, match="zip"), torch.device("meta"):
        build_model(compose("model=resnet18", "model.weights=none").model, num_classes=2, image_size=32)
