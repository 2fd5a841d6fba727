"""trainer.metric: what chooses the best epoch, and what result.json says of the answers in the CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
import pytest
from sklearn import metrics as sk

from da6401.runs.run_folder import read_metrics, read_result
from tests.tiny_runs import SMALL, typed

HARD = (*SMALL, "data.classes=6", "data.images_per_class=9", "trainer.epochs=6", "optimizer.lr=0.02")
ALL = {"accuracy", "balanced_accuracy", "macro_f1", "top5", "log_loss", "macro_auroc", "mcc", "kappa"}


def read_as_a_user(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Labels and probabilities of a CSV file, without a line of da6401."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    labels = np.array([head[2:].index(row[1]) for row in rows])
    return labels, np.array([[float(cell) for cell in row[2:]] for row in rows])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metric")
    code, out, err = typed("train", *HARD, "trainer.metric=macro_f1", "hydra.run.dir=run", cwd=folder)
    assert code == 0, err
    assert "validation macro F1" in out
    code, _, err = typed("evaluate", "run", cwd=folder)
    assert code == 0, err
    return folder / "run"


@pytest.mark.filterwarnings("ignore:The y_p:UserWarning")  # scikit-learn's: nine digits sum to 1 only nearly
def test_the_result_holds_every_metric_of_both_csv_files(trained: Path) -> None:
    result = read_result(trained)
    for values, name in ((result.val_metrics, "validation.csv"), (result.test_metrics, "test.csv")):
        labels, probabilities = read_as_a_user(trained / name)
        predicted, every = probabilities.argmax(1), list(range(6))
        expected = {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            "top5": sk.top_k_accuracy_score(labels, probabilities, k=5, labels=every),
            "log_loss": sk.log_loss(labels, probabilities, labels=every),
            "macro_auroc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
            "mcc": sk.matthews_corrcoef(labels, predicted),
            "kappa": sk.cohen_kappa_score(labels, predicted),
        }
        assert set(values) == ALL == set(expected)
        assert values == pytest.approx(expected, abs=1e-9)
    assert result.undefined_metrics == {}


def test_the_best_epoch_is_that_of_the_metric(trained: Path) -> None:
    result, lines = read_result(trained), read_metrics(trained)
    best = max(lines, key=lambda line: (line["val_macro_f1"], -line["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.val_accuracy == best["val_accuracy"]
    assert result.val_metrics["macro_f1"] == pytest.approx(best["val_macro_f1"], abs=1e-12)


def test_a_metric_that_is_minimised_and_early_stopping(tmp_path: Path) -> None:
    words = (*HARD, "trainer.metric=log_loss", "trainer.epochs=30", "trainer.patience=2", "optimizer.lr=0.3")
    code, _, err = typed("train", *words, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    losses = [line["val_log_loss"] for line in read_metrics(tmp_path / "run")]
    best = losses.index(min(losses)) + 1
    assert read_result(tmp_path / "run").best_epoch == best
    assert len(losses) == best + 2 < 30
    assert "no better validation log loss in 2 epochs" in (tmp_path / "run/train.log").read_text()


def test_the_default_is_accuracy_and_its_epochs_have_no_other_key(tmp_path: Path) -> None:
    assert typed("train", *SMALL, "hydra.run.dir=run", cwd=tmp_path)[0] == 0
    lines = read_metrics(tmp_path / "run")
    assert {name for name in lines[0] if name.startswith("val_")} == {"val_accuracy", "val_loss"}
    result = read_result(tmp_path / "run")
    assert result.val_metrics["accuracy"] == result.val_accuracy
    assert result.val_metrics["top5"] is None
    assert result.undefined_metrics == {"val_metrics.top5": "3 classes are no more than 5: every answer would be right"}


def test_a_sweep_optimises_and_prunes_by_the_trainers_metric(tmp_path: Path) -> None:
    words = ("trainer.metric=balanced_accuracy", "study=s", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1",
             "sweep.confirm_top=1", "sweep.confirm_seeds=2",
             "hydra.sweeper.params={optimizer.lr: 'choice(0.001, 0.01, 0.05)'}")  # fmt: skip
    code, out, err = typed("train", "--multirun", *HARD, *words, cwd=tmp_path)
    assert code == 0, err
    assert "val_balanced_accuracy" in out
    sweep = tmp_path / "outputs/sweeps/s"
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{sweep / 'study.db'}")
    assert study.user_attrs["objective"]["objectives"] == ["val_balanced_accuracy"]
    for trial in study.trials:
        if trial.values is None:
            continue
        lines = read_metrics(sweep / f"trial-{trial.number}")
        assert list(trial.intermediate_values.values()) == [line["val_balanced_accuracy"] for line in lines]
        if trial.state.name == "COMPLETE":
            result = read_result(sweep / f"trial-{trial.number}")
            assert trial.value == result.val_metrics["balanced_accuracy"]
    code, out, err = typed("train", "--multirun", *HARD, *words, "sweep.objectives=[val_accuracy]", cwd=tmp_path)
    assert code == 2
    assert "val_balanced_accuracy" in err


def test_an_unknown_metric_is_one_message(tmp_path: Path) -> None:
    code, _, err = typed("train", *SMALL, "trainer.metric=f1_macro", cwd=tmp_path)
    assert code == 2
    assert "trainer.metric='f1_macro': must be one of accuracy, balanced_accuracy, macro_f1" in err


def test_a_plugins_metric_that_changes_its_arrays_changes_nothing_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from da6401.plugins import metric\n\n"
        '@metric("gap", maximise=True)\n'
        "def gap(labels, probabilities, cfg):\n"
        "    probabilities.sort(axis=1)\n"
        "    labels[labels == 2] = 1\n"
        "    return float((probabilities[:, -1] - probabilities[:, -2]).mean())\n"
    )
    for name, more in (("plain", ()), ("own", ("--plugin", "own.py"))):
        code, _, err = typed("train", *more, *SMALL, "trainer.metric=log_loss", f"hydra.run.dir={name}", cwd=tmp_path)
        assert code == 0, err
    for file in ("validation.csv", "calibration.json"):
        assert (tmp_path / "own" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    code, _, err = typed("train", *more, *SMALL, "trainer.metric=gap", "hydra.run.dir=chosen", cwd=tmp_path)
    assert code == 0, err
    labels = [read_as_a_user(tmp_path / name / "validation.csv")[0].tolist() for name in ("chosen", "plain")]
    assert labels[0] == labels[1]
