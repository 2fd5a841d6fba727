"""What is said of plugins: which a diverged run uses, which are slow, what `models`, `report` and `compare` show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from da6401.runs.run_folder import read_result
from tests.tiny_runs import SMALL, SMALL_BACKBONE, typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SLOW = """
import time

from da6401.plugins import augmentation, callback, metric


@augmentation("dull")
def dull(images, generator, cfg):
    time.sleep(0.1)
    return images


@callback("sleepy")
class Sleepy:
    def __init__(self, cfg, out):
        pass

    def epoch_done(self, epoch, values):
        time.sleep(1)


@metric("quick", maximise=True)
def quick(labels, probabilities, cfg):
    return float((probabilities.argmax(1) == labels).mean())
"""
DULL = ("train", "--plugin", "slow.py", *SMALL, "augmentation=dull", "callbacks=sleepy", "trainer.metric=quick")


def test_what_takes_much_of_the_time_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.plugins.in_use.LEAST_SECONDS", 0.5)
    (tmp_path / "slow.py").write_text(SLOW)
    code, _, err = typed(*DULL, "trainer.epochs=3", "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    log = (tmp_path / "run" / "train.log").read_text()
    line = SLOW.splitlines().index("class Sleepy:")  # its decorator's line
    told = re.findall(r"plugin (\S+), line (\d+): (\w+) (\w+) takes (\d+)% of epoch (\d): ([\d.]+) of ([\d.]+) s", log)
    found = {name: (file, int(at), int(share)) for file, at, _, name, share, *_ in told}
    assert "sleepy" in found
    assert set(found) <= {"sleepy", "dull"}, "quick is not told"
    assert len(told) == len(found), "each once a run"
    assert found["sleepy"][:2] == (str(tmp_path / "slow.py"), line)
    for *_, epoch, own, whole in told:
        assert epoch == "2", "the first epoch warms up"
        assert float(own) > 0.25 * float(whole)
    assert float(next(own for *_, name, _, _, own, _ in told if name == "sleepy")) >= 1


def test_what_takes_little_in_all_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW.replace("time.sleep(1)", "time.sleep(0.3)"))
    code, _, err = typed(*DULL, "trainer.epochs=2", "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    assert " takes " not in (tmp_path / "run" / "train.log").read_text(), "less than five seconds"


def test_a_slow_data_source_is_told_by_its_share_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.plugins.in_use.LEAST_SECONDS", 0.5)
    text = (EXAMPLES / "own_data.py").read_text()
    (tmp_path / "own.py").write_text("import time\n" + text.replace("    draws =", "    time.sleep(3)\n    draws ="))
    words = ("data=stripes", "data.images=60", "data.image_size=16", "model.filters=4", "model.blocks=2")
    code, _, err = typed(
        "train", "--plugin", "own.py", *words, "trainer.epochs=1", "trainer.threads=1", "hydra.run.dir=run",
        cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    log = (tmp_path / "run" / "train.log").read_text()
    assert re.search(r"own\.py, line \d+: data_source stripes takes \d{2,3}% of the run\n", log), log


def test_a_diverged_run_names_the_plugins_that_the_loss_depends_on(tmp_path: Path) -> None:
    plugins = [word for name in ("own_model", "own_metric", "own_augmentation", "own_callback")
               for word in ("--plugin", str(EXAMPLES / f"{name}.py"))]  # fmt: skip
    words = (
        "model=mlp", "model.depth=8", "augmentation=noise", "trainer.metric=cost", "callbacks=journal",
        "optimizer=sgd", "optimizer.lr=100", "optimizer.momentum=0.99", "schedule=constant", "trainer.epochs=20",
    )  # fmt: skip
    code, _, err = typed("train", *plugins, *SMALL_BACKBONE, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 3, err
    lines = dict(re.findall(r"(model mlp|augmentation noise) \(\S+, line (\d+)\)", err))
    for name, file in (("model mlp", "own_model.py"), ("augmentation noise", "own_augmentation.py")):
        assert (EXAMPLES / file).read_text().splitlines()[int(lines[name]) - 1].startswith("@")
    assert "try a lower optimizer.lr; or look at the plugin's" in err
    assert "cost" not in err, "a metric makes no loss"
    assert "model mlp (" in read_result(tmp_path / "run").reason


def test_models_lists_those_of_plugins(tmp_path: Path) -> None:
    plugins = [word for name in ("own_model", "own_block", "own_backbone")
               for word in ("--plugin", str(EXAMPLES / f"{name}.py"))]  # fmt: skip
    code, out, err = typed("models", *plugins, cwd=tmp_path)
    assert code == 0, err
    rows = {cells[0]: cells[1:] for line in out.splitlines() if len(cells := line.split()) >= 5}
    assert rows["mlp"] == [f"{3 * 32 * 32 * 64 + 64 + 64 * 10 + 10:,}", "32", "px", "1", "none"]
    assert rows["twostage"] == [f"{3 * 16 * 9 + 32 + 16 * 32 * 9 + 64:,}", "224", "px", "2", "none"]
    assert rows["separable"][1:] == ["32", "px", "5", "none"]
    assert "resnet18" in rows
    assert typed("models", "two*", *plugins, cwd=tmp_path)[1].count("px") == 1
    assert typed("models", "two*", cwd=tmp_path)[0] == 2
    code, out, err = typed("count", "model=mlp", *plugins, cwd=tmp_path)
    assert code == 0, err
    assert "parameters;" in out


def test_compare_and_report_take_plugins(tmp_path: Path) -> None:
    plugin = ("--plugin", str(EXAMPLES / "own_metric.py"))
    for name in "ab":
        code, _, err = typed(
            "train", *plugin, *SMALL, "trainer.metric=cost", "trainer.epochs=1", f"hydra.run.dir={name}", cwd=tmp_path
        )
        assert code == 0, err
    assert typed("compare", "a", "b", *plugin, cwd=tmp_path)[0] == 0
    assert typed("report", "a", "b", *plugin, "--out", "page.html", cwd=tmp_path)[0] == 0
    assert "cost of an image" in (tmp_path / "page.html").read_text()
    code, _, err = typed("report", "a", "--plugin", "none.py", cwd=tmp_path)
    assert code == 2
    assert "none.py: cannot be read" in err
