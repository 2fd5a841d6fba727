"""From Python: the same runs and messages as the command line, as objects that a notebook can show."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
import torch

import da6401
from da6401 import Run, Sweep, load_run, load_sweep, train
from da6401.errors import ConfigError, DivergedError, RunError
from da6401.notebook.notebook_html import number
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import read_json, read_metrics, read_result
from tests.tiny_runs import DIVERGING, SMALL, compose, typed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    return train(*SMALL, out=place / "a run, 'quoted'")


@pytest.fixture(scope="module")
def sweep(place: Path) -> Sweep:
    words = ["optimizer.lr=choice(1e-3,1e-2,0.1)", "hydra.sweeper.n_trials=2"]
    return train(*SMALL, *words, "trainer.epochs=1", out=place / "study", multirun=True)


def test_importing_the_package_costs_nothing_and_the_function_keeps_its_name() -> None:
    code = (
        "import sys, da6401; "
        "assert not {'torch', 'hydra', 'pandas', 'optuna', 'yaml'} & set(sys.modules); "
        "from da6401 import train; import da6401.training.loop; from da6401 import train as again; "
        "assert callable(train) and again is train"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_name_that_the_package_does_not_have_is_an_error() -> None:
    with pytest.raises(AttributeError, match="trian"):
        _ = da6401.trian


def test_a_run_is_the_command_lines(run: Run, tmp_path: Path) -> None:
    code, _, problem = typed("train", *SMALL, "hydra.run.dir=typed", cwd=tmp_path)
    assert code == 0, problem
    other = load_run(tmp_path / "typed")
    assert run.result.weights_sha256 == other.result.weights_sha256 is not None
    assert run.config == other.config == compose(*SMALL)
    mine, theirs = ({path.name for path in each.folder.iterdir()} for each in (run, other))
    assert mine == theirs
    assert read_json(run.folder / "receipt.json")["command"].startswith("da6401 train data=synthetic")


def test_a_run_without_a_place_goes_where_the_command_line_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, handlers = sys.argv, list(logging.getLogger().handlers)
    run = train(*SMALL, "trainer.epochs=1")
    assert re.fullmatch(r"outputs/runs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}", run.folder.as_posix())
    assert run.result.status == "completed"
    assert "epoch 1/1" in (run.folder / "train.log").read_text()
    assert sys.argv is arguments
    assert logging.getLogger().handlers == handlers, "a notebook's own logging is no business of a run"


def test_the_folder_and_the_database_are_those_of_the_whole_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(*SMALL, "trainer.epochs=1", "seed=3", "hydra.run.dir=runs/seed-${seed}").folder == Path("runs/seed-3")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  run:\n    dir: runs/mine\n  sweep:\n    dir: sweeps/${study}\n"
        "  sweeper:\n    storage: journal://${study}.log\n"
    )
    words = (*SMALL, "trainer.epochs=1", "experiment=mine")
    assert train(*words, config_dir="conf").result.status == "completed"
    sweep = train(*words, "optimizer.lr=choice(1e-3)", "study=own", config_dir="conf", multirun=True)
    assert (sweep.folder, sweep.storage) == (Path("sweeps/own"), "journal://own.log")
    assert list(sweep.trials()["state"]) == ["complete"]


def test_overrides_and_folders_of_configs_are_the_command_lines(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "quick.yaml").write_text("epochs: 1\n")
    words = [word for word in SMALL if not word.startswith("trainer.epochs")]
    named = f"hydra.run.dir='{tmp_path}/r'"
    assert train(*words, "trainer=quick", named, config_dir=tmp_path).result.epochs_run == 1
    again = train(*words, "trainer=quick", "trainer.resume=never", named, config_dir=tmp_path)
    assert (again.folder, again.result.epochs_run) == (tmp_path / "r-2", 1)


def test_mistakes_are_the_command_lines_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train("model.droput=0.3", "trainer.epochs=0", out=tmp_path / "r")
    assert len(caught.value.problems) == 2
    assert "did you mean model.dropout?" in str(caught.value)
    with pytest.raises(ConfigError, match="multirun="):
        train("--multirun", out=tmp_path / "r")
    with pytest.raises(ConfigError, match="several values"):
        train("seed=1,2", out=tmp_path / "r")
    with pytest.raises(DivergedError):
        train(*DIVERGING, out=tmp_path / "d")
    assert load_run(tmp_path / "d").result.status == "diverged"
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(RunError, match="holds no run"):
            load_run(wrong)
        with pytest.raises(RunError, match="holds no sweep"):
            load_sweep(wrong)


def test_metrics_are_those_of_the_folder(run: Run) -> None:
    frame = run.metrics()
    lines = read_metrics(run.folder)
    assert frame.index.tolist() == [1, 2]
    assert frame["val_loss"].tolist() == [line["val_loss"] for line in lines]


def test_the_model_answers_as_the_run_did(run: Run) -> None:
    model, class_names = run.model()
    assert len(class_names) == 3
    with torch.inference_mode():
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert not model.training


def test_evaluating_records_the_test_split(run: Run) -> None:
    result = run.evaluate()
    assert result.test_accuracy is not None
    assert read_result(run.folder) == result
    assert "test accuracy" in run._repr_html_()
    assert [look.verb for look in run.looks] == ["evaluate"]
    assert re.search(r"test split looked at</th>\s*<td>once", run._repr_html_())


def test_predictions_have_a_row_an_image(tmp_path: Path) -> None:
    probabilities_NK = np.array([[0.75, 0.25], [0.9, 0.1]], dtype=np.float32)
    answers = Predictions(("image", "b"), ("x.jpg", "y.jpg"), np.array([0, 1]), probabilities_NK)
    write_predictions(tmp_path / "validation.csv", answers)
    frame = Run(tmp_path).predictions("validation")
    assert frame.to_dict("list") == {
        "image": ["x.jpg", "y.jpg"],
        "class": ["image", "b"],
        "predicted": ["image", "image"],
        "confidence": pytest.approx([0.75, 0.9]),
        "correct": [True, False],
        "p(image)": pytest.approx([0.75, 0.9]),
        "p(b)": pytest.approx([0.25, 0.1]),
    }
    with pytest.raises(RunError, match="not found"):
        Run(tmp_path).predictions("test")


def test_a_run_shows_itself(run: Run) -> None:
    html = run._repr_html_()
    assert len(html) < 50_000
    assert number(run.result.val_accuracy) in html
    assert 'alt="accuracy over epoch: training, validation"' in html
    ElementTree.fromstring(html)  # well-formed, though the folder's name has quotes
    assert "completed, validation accuracy" in repr(run)


def test_what_others_have_named_is_text(tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)</script>"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "train_accuracy": 0.5, "val_accuracy": 0.25, "val_loss": 1}\n')
    run = Run(folder)
    html = run._repr_html_()
    assert "<script" not in html
    assert "&lt;script" in html
    assert "unfinished, epochs 1" in repr(run)


def test_a_sweep_is_the_command_lines(sweep: Sweep) -> None:
    frame = sweep.trials()
    assert frame.index.tolist() == [0, 1]
    assert frame["state"].tolist() == ["complete", "complete"]
    values = [read_result(Path(folder)).val_accuracy for folder in frame["folder"]]
    assert frame["value"].tolist() == values
    assert [run.config.optimizer.lr for run in sweep.runs()] == frame["optimizer.lr"].tolist()
    assert sweep.best.result.val_accuracy == max(value for value in values if value is not None)
    assert sweep.summary["trials"]["complete"] == 2
    study = sweep.study()
    assert isinstance(study, optuna.Study)
    assert [trial.number for trial in study.trials] == [0, 1]


def test_a_sweep_goes_on_to_its_total_and_may_move(sweep: Sweep, tmp_path: Path) -> None:
    words = ["optimizer.lr=choice(1e-3,1e-2,0.1)", "hydra.sweeper.n_trials=3"]
    longer = train(*SMALL, *words, "trainer.epochs=1", out=sweep.folder, multirun=True)
    assert len(longer.trials()) == 3
    moved = load_sweep(sweep.folder.rename(tmp_path / "moved"))
    assert moved.best.folder.parent == tmp_path / "moved"
    assert len(moved.runs()) == 3
    html = moved._repr_html_()
    ElementTree.fromstring(html)
    assert "best so far" in html
    assert "3 complete" in repr(moved)
    moved.folder.rename(sweep.folder)


def test_a_sweep_over_models_is_named_as_the_command_line_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["model=choice(cnn,googlenet)", "data.image_size=32", "sweep.dry_run=true"]
    sweep = train("sweep=both", *words, multirun=True)
    assert re.fullmatch(r"outputs/sweeps/both_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", sweep.folder.as_posix())
    assert f"study={sweep.folder.name}" in capfd.readouterr().out, "the sweep goes where the object looks"
    assert not Path("outputs").exists(), "a dry run leaves nothing behind"
    assert repr(sweep).endswith(": not begun)")
    ElementTree.fromstring(sweep._repr_html_())


def test_a_sweep_without_its_database_says_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"winner": null}')
    sweep = load_sweep(tmp_path)
    with pytest.raises(RunError, match="storage="):
        sweep.trials()
    with pytest.raises(RunError, match="cannot be opened"):
        load_sweep(tmp_path, storage="sqlite:////nowhere/at/all.db").trials()
    with pytest.raises(RunError, match="no trial was completed"):
        _ = sweep.best
