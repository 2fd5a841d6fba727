"""Modules beside a plugin's file: hashed, kept in the run folder, and compared as the file itself is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from da6401.runs.atomic_files import write_json
from da6401.runs.run_folder import RECEIPT, read_json, read_result
from tests.sweep.sweeps import open_study
from tests.tiny_runs import SMALL_BACKBONE, typed

pytestmark = pytest.mark.integration

PLUGIN = """
from torch import nn

import own_parts
from own_package.layers import WIDTH
from da6401.plugins import model


@model("mine")
def mine(cfg, num_classes, image_size):
    first = nn.Linear(3 * image_size**2, WIDTH)
    return nn.Sequential(nn.Flatten(), first, own_parts.after(), nn.Linear(WIDTH, num_classes))
"""
FILES = {
    "own_parts.py": "from torch import nn\n\n\ndef after():\n    return nn.ReLU()\n",
    "own_package/__init__.py": "",
    "own_package/layers.py": "WIDTH = 4\n",
    "unused.py": "raise RuntimeError\n",
}
WORDS = (*SMALL_BACKBONE, "model=mine", "trainer.epochs=1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in, with the plugin in lab/."""
    for name, text in {"mine.py": PLUGIN, **FILES}.items():
        path = tmp_path / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def train(place: Path, *words: str) -> tuple[int, str, str]:
    return typed("train", "--plugin", "lab/mine.py", *WORDS, *words, cwd=place)


def test_they_are_recorded_kept_and_compared(place: Path) -> None:
    before = list(sys.path)
    code, _, err = train(place, "hydra.run.dir=run")
    assert code == 0, err
    assert sys.path == before
    assert not {"own_parts", "own_package", "own_package.layers"} & set(sys.modules)
    (recorded,) = read_json(place / "run" / RECEIPT)["plugins"]
    assert [each["file"] for each in recorded["modules"]] == [
        "own_package/__init__.py", "own_package/layers.py", "own_parts.py",
    ]  # fmt: skip
    for each in recorded["modules"]:
        assert (place / "run" / each["copy"]).read_text() == FILES[each["file"]]
        assert (place / "run" / each["copy"]).parent == place / "run" / "plugins"
    (place / "lab/own_package/layers.py").write_text("WIDTH = 5\n")
    verb = ("evaluate", "run", "--plugin", "lab/mine.py")
    code, _, err = typed(*verb, cwd=place)
    assert code == 2
    assert "was trained with another text of own_package/layers.py, which " in err
    assert "add --plugin-changed" in err
    (place / "lab/own_package/layers.py").write_text("WIDTH = 4  # the same\n")
    assert typed(*verb, "--plugin-changed", cwd=place)[0] == 0
    assert read_result(place / "run").test_accuracy is not None
    (place / "lab/own_package/layers.py").write_text("WIDTH = 4\n")
    assert typed("reproduce", "run", "--plugin", "lab/mine.py", cwd=place)[0] == 0


def test_a_run_of_before_they_were_recorded_goes_on(place: Path) -> None:
    assert train(place, "hydra.run.dir=run")[0] == 0
    receipt = read_json(place / "run" / RECEIPT)
    del receipt["plugins"][0]["modules"]
    write_json(place / "run" / RECEIPT, receipt)
    (place / "lab/own_parts.py").write_text(FILES["own_parts.py"] + "\n# later\n")
    assert typed("evaluate", "run", "--plugin", "lab/mine.py", cwd=place)[0] == 0


def test_a_study_and_its_workers_have_the_same_modules(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("-m", "optimizer.lr=1e-3,1e-2,1e-1", "study=s")
    code, _, err = train(place, *words, "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2")
    assert code == 0, err
    (place / "lab/own_parts.py").write_text(FILES["own_parts.py"].replace("ReLU", "GELU"))
    code, _, err = train(place, *words)
    assert code == 2
    assert "own_parts.py (sha256 " in err
    assert "all trials of a study run the same plugins" in err
    (place / "lab/own_parts.py").write_text(FILES["own_parts.py"])
    monkeypatch.chdir(place)
    study = open_study("s")
    recorded = study.user_attrs["plugins"]
    study.set_user_attr(
        "plugins", [{key: value for key, value in each.items() if key != "modules"} for each in recorded]
    )
    code, _, err = train(place, *words)
    assert code == 0, err
    assert [trial.state.name for trial in open_study("s").trials] == ["COMPLETE"] * 3


def test_an_error_in_a_module_is_told_by_its_line(place: Path) -> None:
    (place / "lab/own_parts.py").write_text("def after():\n    return 1 / 0\n")
    code, _, err = train(place, "hydra.run.dir=run")
    assert code == 2
    assert f"plugin {place / 'lab' / 'own_parts.py'}, line 2: raised ZeroDivisionError" in err
