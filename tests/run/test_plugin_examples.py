"""The examples of docs/plugins.md: each command as it stands in its file, and what is there after it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from da6401.runs.run_folder import BEST, read_json, read_result, read_yaml
from da6401.training.checkpoint import load_checkpoint, model_state
from tests.sweep.sweeps import open_study
from tests.tiny_runs import typed

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COMMAND = re.compile(r"^Command: (?P<words>.*?)\n(?:\n|\"\"\")", re.MULTILINE | re.DOTALL)


def of_model(run: Path) -> None:
    assert read_yaml(run / "config.yaml")["model"] == {"name": "mlp", "width": 32, "depth": 1}
    assert read_result(run).parameters == (3 * 64 + 1) * 32 + 33 * 10


def of_block(sweep: Path) -> None:
    parameters = {
        trial.params["model.multiplier"]: read_result(sweep / f"trial-{trial.number}").parameters
        for trial in open_study("own_block").trials
    }
    assert set(parameters) == {1, 2}
    assert parameters[2] - parameters[1] == 9 * (3 + 8) + 3 * 8 + 8 * 16, "depthwise and 1 x 1 weights"


def of_data(run: Path) -> None:
    assert read_json(run / "receipt.json")["class_names"] == ["horizontal", "vertical"]
    code, out, err = typed(
        "evaluate", str(run), "--plugin", "docs/examples/own_data.py", cwd=Path.cwd()
    )  # fmt: skip
    assert code == 0, err
    assert "on 60 images" in out
    words = ("data=stripes", "data.images=60", "data.image_size=16", "model.filters=4", "model.blocks=2")
    for fold in ("1/3", "2/3"):
        more = (*words, "trainer.epochs=1", f"data.fold={fold}", f"hydra.run.dir=fold-{fold[0]}")
        code, _, err = typed("train", "--plugin", "docs/examples/own_data.py", *more, cwd=Path.cwd())
        assert code == 0, err
    first, second = (
        {line.partition(",")[0] for line in Path(f"fold-{k}", "validation.csv").read_text().splitlines()}
        for k in (1, 2)
    )
    assert len(first) == len(second) == 21, "a third of 60, and the head of the table"
    assert len(first & second) == 1


def of_augmentation(run: Path) -> None:
    saved = read_yaml(run / "config.yaml")["augmentation"]
    assert saved["noise"] == {"on": True, "sigma": 0.1}
    assert saved["flip"] == 0.5, "of light, which is on, too"


def of_metric(run: Path) -> None:
    result = read_result(run)
    value, accuracy = result.val_metrics["cost"], result.val_accuracy
    assert value is not None
    assert accuracy is not None
    assert 1 - accuracy <= value <= 10 * (1 - accuracy)


def of_backbone(run: Path) -> None:
    stages = {stage["name"]: stage["trainable_parameters"] for stage in read_json(run / "receipt.json")["stages"]}
    assert stages["stem"] == 0
    assert stages["body"] == 8 * 16 * 9 + 2 * 16
    state = model_state(load_checkpoint(run / BEST))
    assert torch.equal(state["stages.stem.1.running_mean"], torch.zeros(8)), "a frozen norm stays in eval mode"


def of_callback(sweep: Path) -> None:
    for number in (0, 1):
        lines = (sweep / f"trial-{number}" / "journal.md").read_text().splitlines()
        assert [line.partition(":")[0] for line in lines[:2]] == ["- epoch 1", "- epoch 2"]
        assert lines[2].startswith("completed after 2 epochs, best epoch ")
        assert len(lines) == 3


CHECKS: dict[str, Callable[[Path], None]] = {
    "own_model": of_model, "own_block": of_block, "own_data": of_data, "own_augmentation": of_augmentation,
    "own_metric": of_metric, "own_backbone": of_backbone, "own_callback": of_callback,
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_the_command_of_an_example(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLES, "docs/examples", ignore=shutil.ignore_patterns("__pycache__"))
    found = COMMAND.search((EXAMPLES / f"{name}.py").read_text())
    assert found is not None, "its docstring has a line that begins with Command:"
    program, *words = shlex.split(found["words"])
    assert program == "da6401"
    code, _, err = typed(*words, "trainer.progress=false", "trainer.threads=1", cwd=tmp_path)
    assert code == 0, err
    CHECKS[name](Path("outputs/sweeps" if "--multirun" in words else "outputs", name))


SWEEP = (
    "train", "-m", "--plugin", "own_backbone.py", "model=twostage", "model.weights=none", "data=synthetic",
    "data.image_size=16", "data.classes=3", "data.images_per_class=12", "trainer.epochs=1", "trainer.batch_size=8",
    "trainer.threads=1", "model.width=4",
)  # fmt: skip
DEEPER = (
    ("    width: int", '    more: int = key(1, "stages after the first", low=1, high=4)\n    width: int'),
    ('stages=("stem", "body"),', 'stages=("stem", *(f"body{each}" for each in range(cfg.more))),'),
    ("network(_stage(cfg.width, 2 * cfg.width), nn.Adaptive", "*(nn.Identity() for _ in range(cfg.more - 1)),\n"
     "            network(_stage(cfg.width, 2 * cfg.width), nn.Adaptive"),
    ("cut=lambda net: [net[0], net[1]],", "cut=lambda net: list(net),"),
)  # fmt: skip


def test_the_number_of_stages_of_a_backbone_is_known_to_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "own_backbone.py").read_text()
    for before, after in DEEPER:
        assert before in text
        text = text.replace(before, after)
    Path("own_backbone.py").write_text(text)
    words = ("sweep=part_b", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4", "sweep.confirm_top=0")
    for more in (1, 3):
        code, _, err = typed(*SWEEP, *words, f"model.more={more}", f"study=more{more}", cwd=tmp_path)
        assert code == 0, err
        trials = open_study(f"more{more}").trials
        assert {trial.state.name for trial in trials} == {"COMPLETE"}
        spaces = {str(trial.distributions["model.freeze_depth"]) for trial in trials}
        assert spaces == {f"IntDistribution(high={more + 1}, log=False, low=0, step=1)"}
        assert all(0 <= trial.params["model.freeze_depth"] <= more + 1 for trial in trials)
    code, _, err = typed(*SWEEP, "model.more=2", "model.freeze_depth='${stages:twostage,1}'", "optimizer.lr=1e-3,1e-2",
                         "study=head", cwd=tmp_path)  # fmt: skip
    assert code == 0, err
    saved = read_yaml(Path("outputs/sweeps/head/trial-0/config.yaml"))
    assert saved["model"]["freeze_depth"] == 2, "all but one of three"


def test_every_example_is_short_and_has_a_check() -> None:
    files = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert set(files) == set(CHECKS)
    assert max(files.values()) <= 60
    page = (EXAMPLES.parent / "plugins.md").read_text()
    assert not [name for name in files if f"examples/{name}.py" not in page]
