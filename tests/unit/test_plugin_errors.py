"""A plugin that does not do what its kind must: one screen with file, line, rule and remedy, exit code 2."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from da6401.config.schema import RunConfig
from da6401.config.validate import config_from_tree, tree_of
from da6401.data.augment.augmenter import Augmenter
from da6401.data.sources import load_training_data
from da6401.errors import PluginError
from da6401.metrics.scores import score
from da6401.models.build import build_model
from da6401.plugins.loading import active
from da6401.plugins.registered import LOADED
from da6401.training.optim import build_optimizer
from da6401.training.schedules import lr_factor
from da6401.training.setup import set_up
from tests.tiny_runs import SMALL, SMALL_BACKBONE, typed

HEAD = "import torch\nfrom torch import nn\nfrom da6401.plugins import *\n\n"


def config(**groups: dict[str, Any]) -> RunConfig:
    tree = tree_of(RunConfig())
    for group, keys in groups.items():
        tree[group] = keys if group in ("model", "data") else {**tree[group], **keys}
    return config_from_tree(tree)


def make_model(**keys: Any) -> None:
    build_model(config(model={"name": "mine", **keys}).model, num_classes=3, image_size=16)


def train_model() -> None:
    cfg = config(model={"name": "mine"}, data={"source": "synthetic", "classes": 3, "image_size": 16})
    set_up(cfg, torch.device("cpu"), load_training_data(cfg.data))


def make_blocks() -> None:
    make_model(blocks=2)


def make_optimizer() -> None:
    layer = torch.nn.Linear(2, 2)
    build_optimizer(config(optimizer={"name": "mine"}).optimizer, stages=[], head=layer.parameters())


def read_rate() -> None:
    lr_factor(config(schedule={"name": "mine"}).schedule, 3, steps_per_epoch=4, epochs=2)


def read_score() -> None:
    score("mine", np.array([0, 1]), np.eye(2))


def augment() -> None:
    cfg = config(augmentation={"mine": {"on": True}}).augmentation
    generator = torch.Generator().manual_seed(0)
    Augmenter(cfg, count=2, generator=generator)(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2))


def read_data() -> None:
    load_training_data(config(data={"source": "mine"}).data)


CASES: dict[str, tuple[str, int, Callable[[], None], str, str]] = {
    "a model of another shape": (
        '@model("mine")\ndef mine(cfg, classes, size):\n    return nn.Sequential(nn.Flatten(), nn.Linear(768, 7))\n',
        5, make_model, r"answers images \(2, 3, 16, 16\) with \(2, 7\); it should be \(2, 3\)", "finite logits",
    ),
    "a model whose layers do not fit": (
        '@model("mine")\ndef mine(cfg, classes, size):\n'
        '    return nn.Sequential(nn.Flatten(), nn.Linear(7, classes))\n',
        5, make_model, r"cannot compute the answer to \(2, 3, 16, 16\): mat1 and mat2", "finite logits",
    ),
    "a model with NaN": (
        '@model("mine")\ndef mine(cfg, classes, size):\n    net = nn.Linear(768, classes)\n'
        "    nn.init.constant_(net.bias, float('nan'))\n    return nn.Sequential(nn.Flatten(), net)\n",
        5, make_model, "answers with values that are not finite", "finite logits",
    ),
    "a model that is none": (
        '@model("mine")\ndef mine(cfg, classes, size):\n    return None\n',
        5, make_model, "gave NoneType", "torch module",
    ),
    "a model that raises": (
        '@model("mine")\ndef mine(cfg, classes, size):\n    return 1 / 0\n',
        7, make_model, "raised ZeroDivisionError: division by zero", "torch module",
    ),
    "a model of no parameter": (
        '@model("mine")\ndef mine(cfg, classes, size):\n'
        '    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n',
        5, train_model, "has no parameter to train$", "torch module",
    ),
    "a model that is all frozen": (
        '@model("mine")\ndef mine(cfg, classes, size):\n'
        '    return nn.Sequential(nn.Flatten(), nn.Linear(768, classes)).requires_grad_(False)\n',
        5, train_model, r"has no parameter to train; all are frozen \(requires_grad=False\)", "torch module",
    ),
    "a model with a state that is no tensor": (
        'class Counts(nn.Linear):\n    def get_extra_state(self):\n        return {"calls": 1}\n\n\n'
        '@model("mine")\ndef mine(cfg, classes, size):\n    return nn.Sequential(nn.Flatten(), Counts(768, classes))\n',
        10, make_model, "has 1._extra_state in its state dict, which is no tensor", "torch module",
    ),
    "a block that does not halve": (
        '@block("mine")\ndef mine(cfg, before, filters, kernel):\n    return nn.Conv2d(before, filters, 1)\n',
        5, make_blocks, r"makes \(2, 32, 16, 16\) of \(2, 3, 16, 16\) as block 1; it should be \(2, 32, 8, 8\)",
        "H // 2",
    ),
    "a backbone that is none": (
        '@backbone("mine")\ndef mine(cfg):\n    return nn.Identity()\n',
        5, make_model, "gave Identity", "BackboneEntry",
    ),
    "an optimizer that is none": (
        '@optimizer("mine")\ndef mine(groups, cfg):\n    return groups\n', 5, make_optimizer, "gave list", "Optimizer",
    ),
    "an optimizer over half": (
        '@optimizer("mine")\ndef mine(groups, cfg):\n    return torch.optim.SGD(groups[:1], lr=1)\n',
        5, make_optimizer, "is over other parameters", "Optimizer",
    ),
    "a schedule with NaN": (
        '@schedule("mine")\ndef mine(cfg, progress):\n    return float("nan")\n',
        5, read_rate, "gave nan at step 3", "finite number, 0 or more",
    ),
    "a metric with NaN": (
        '@metric("mine", maximise=True)\ndef mine(labels, probabilities, cfg):\n    return float("nan")\n',
        5, read_score, "gave nan", "one finite number",
    ),
    "a metric of each image": (
        '@metric("mine", maximise=True)\ndef mine(labels, probabilities, cfg):\n    return probabilities\n',
        5, read_score, "gave ndarray", "one finite number",
    ),
    "an augmentation of another shape": (
        '@augmentation("mine")\ndef mine(images, generator, cfg):\n    return images[:, :1]\n',
        5, augment, r"gave images of shape \(2, 1, 8, 8\) for \(2, 3, 8, 8\)", "same shape",
    ),
    "an augmentation with NaN": (
        '@augmentation("mine")\ndef mine(images, generator, cfg):\n    return images / 0\n',
        5, augment, "values that are not finite", "finite",
    ),
    "data with floats": (
        '@data_source("mine")\ndef mine(cfg, split):\n'
        '    return torch.full((4, 3, 8, 8), 2.0), [0, 1, 0, 1], ["a", "b"]\n',
        5, read_data, "gave as image . of train values of float32, not uint8", "uint8",
    ),
    "data with labels of other classes": (
        '@data_source("mine")\ndef mine(cfg, split):\n'
        '    return torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 0, 2], ["a", "b"]\n',
        5, read_data, "gave labels 0 to 2 for 2 classes", "whole numbers from 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_kind_must_do(tmp_path: Path, case: str) -> None:
    text, line, use, problem, rule = CASES[case]
    file = tmp_path / "own.py"
    file.write_text(HEAD + text)
    with pytest.raises(PluginError) as caught, active([file]):
        use()
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"plugin {file}, line {line}: ")
    assert re.search(problem, first)
    assert [each.strip().partition(":")[0] for each in rest] == ["rule", "remedy"]
    assert rule in rest[0]
    assert not LOADED


LOADING: dict[str, tuple[str, int, str, str]] = {
    "raises": ("x = 1\nassert x == 2, 'no'\n", 6, "raised AssertionError: no", "without an exception"),
    "is no Python": ("def (:\n", 5, "is no Python: invalid syntax", "without an exception"),
    "registers nothing": ("x = 1\n", 1, "registers nothing", "decorators"),
    "takes a name of ours": (
        '@optimizer("sgd")\ndef mine(groups, cfg):\n    ...\n',
        5, "the name sgd is taken; choose another", "one of a kind",
    ),
    "takes a name of a YAML file": (
        '@augmentation("light")\ndef mine(images, generator, cfg):\n    ...\n',
        5, "the name light is taken", "of a kind",
    ),
    "takes its own name twice": (
        '@model("mine")\ndef one(cfg, classes, size):\n    ...\n\n@block("mine")\ndef two(*given):\n    ...\n',
        9, "the name mine is taken by .*own.py, line 5; choose another", "one of a kind",
    ),
    "has a name with a capital": ('@model("Mine")\ndef mine(*given):\n    ...\n', 5, "small letters", "small letters"),
    "has a name that is a number": (
        '@augmentation("inf")\ndef mine(*given):\n    ...\n', 5, "reads inf as a value that is no text", "of a kind",
    ),
    "has a name that is true": (
        '@model("true")\ndef mine(*given):\n    ...\n', 5, "reads true as a value that is no text", "of a kind",
    ),
    "has a key of no default": (
        'from dataclasses import dataclass\n@dataclass\nclass K:\n    width: int\n\n'
        '@model("mine", K)\ndef mine(*given):\n    ...\n',
        10, "the field width has no default", "with defaults",
    ),
    "has a key of another type": (
        'from dataclasses import dataclass\n@dataclass\nclass K:\n    width: dict = None\n\n'
        '@model("mine", K)\ndef mine(*given):\n    ...\n',
        10, "the field width is of type", "with defaults",
    ),
    "is a callback without a method": ('@callback("mine")\nclass Mine:\n    ...\n', 5, "none of the methods", "a kind"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOADING)
def test_what_a_file_must_do(tmp_path: Path, case: str) -> None:
    text, line, problem, rule = LOADING[case]
    file = tmp_path / "own.py"
    file.write_text(HEAD + text)
    with pytest.raises(PluginError) as caught, active([file]):
        pass
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"plugin {file}, line {line}: "), first
    assert re.search(problem, first)
    assert [each.strip().partition(":")[0] for each in rest] == ["rule", "remedy"]
    assert rule in rest[0]
    assert not LOADED, "what it had registered is taken back"


def test_the_command_line_shows_one_screen(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(HEAD + '@model("mine")\ndef mine(*given):\n    return [][0]\n')
    words = ("train", "--plugin", "own.py", *SMALL_BACKBONE, "model=mine", "hydra.run.dir=run")
    for given, said in (
        (words, f"plugin {tmp_path / 'own.py'}, line 7: raised IndexError: list index out of range"),
        ((*words, "--plugin", "./own.py"), "is given twice"),
        (("train", "--plugin", "none.py"), "none.py: cannot be read (No such file or directory)"),
        (("train", "--plugin"), "--plugin: needs a file"),
    ):
        code, _, err = typed(*given, cwd=tmp_path)
        assert code == 2
        assert said in err
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 12


@pytest.mark.parametrize(
    ("text", "word", "line"),
    [
        ('@model("mine")\ndef mine(*given):\n    sys.exit(0)\n', "model=mine", 7),
        ('@data_source("mine")\ndef mine(*given):\n    sys.exit()\n', "data=mine", 7),
        ('@backbone("mine")\ndef mine(cfg):\n    sys.exit()\n', "model=mine", 7),  # before the run begins
        (
            '@callback("mine")\nclass Mine:\n    def __init__(self, cfg, out): ...\n\n'
            "    def epoch_done(self, epoch, values):\n        sys.exit(0)\n",
            "callbacks=mine", 10,
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_a_plugin_that_exits_is_told_by_its_line(tmp_path: Path, text: str, word: str, line: int, mode: str) -> None:
    (tmp_path / "own.py").write_text(HEAD.replace("import torch\n", "import sys\n") + text)
    group = word.partition("=")[0]
    words = [each for each in SMALL if not each.startswith(group) or each == "data.image_size=16"]
    more = ["hydra.run.dir=run"] if mode == "run" else ["-m", "study=s", "seed=1,2"]
    code, out, err = typed("train", "--plugin", "own.py", *words, word, *more, cwd=tmp_path)
    said = f"plugin {tmp_path / 'own.py'}, line {line}: raised SystemExit"
    assert said in err
    assert code == (2 if mode == "run" or "backbone" in text else 1), "1: no trial was completed"
    assert "Traceback" not in out + err


def test_a_module_that_raises_in_training_is_told_by_its_line(tmp_path: Path) -> None:
    text = """
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(768, classes)

    def forward(self, x):
        if self.training:
            raise KeyError("only in training")
        return self.layer(x.flatten(1))


@model("mine")
def mine(cfg, classes, size):
    return Net(classes)
"""
    (tmp_path / "own.py").write_text(HEAD + text)
    code, _, err = typed(
        "train", "--plugin", "own.py", *SMALL_BACKBONE, "model=mine", "hydra.run.dir=run", cwd=tmp_path
    )
    assert code == 2
    assert f"plugin {tmp_path / 'own.py'}, line 13: raised KeyError: 'only in training'" in err
    assert "then: the same da6401 train with --plugin-changed hydra.run.dir=run goes on with the run" in err
    assert not (tmp_path / "run" / "result.json").exists(), "it is unfinished"
