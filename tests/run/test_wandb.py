"""What W&B gets of real runs and of a sweep, read back from the offline files that `wandb sync` would upload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from da6401.cli import main
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import flat, read_metrics, read_result, read_yaml
from da6401.training.tracking import MOST_MISTAKES, THUMBNAIL
from tests.tiny_runs import DIVERGING, SMALL
from tests.unit.test_tracking import records_of, values_of

WANDB = (*SMALL, "tracking=wandb", "tracking.timeout=60")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials, with the folder's own offline files."""
    place = tmp_path_factory.mktemp("wandb")
    words = ["optimizer.lr=choice(1e-3,1.0)", "hydra.sweeper.n_trials=2", "study=tracked", "trainer.epochs=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("WANDB_DATA_DIR", str(place / "staging"))  # artifacts wait there for their upload
        patch.setenv("WANDB_CACHE_DIR", str(place / "cache"))
        folder = place / "outputs" / "sweeps" / "tracked"
        folder.mkdir(parents=True)
        (folder / "report.html").write_text("<!doctype html>as `da6401 report --watch` leaves it")
        assert main(["train", "--multirun", *WANDB, *words]) == 0
    return folder


def records(folder: Path) -> list[Any]:
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return records_of(file)


def of_kind(folder: Path, kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records(folder) if record.HasField(kind)]


def summary(folder: Path) -> dict[str, Any]:
    """The last value of each key: what W&B shows in its table of runs."""
    found: dict[str, Any] = {}
    for record in of_kind(folder, "summary"):
        found |= values_of(record.update)
    return found


def artifacts(folder: Path) -> dict[str, dict[str, int]]:
    """Each artifact's files and their bytes, by its type and name."""
    return {
        f"{each.type} {each.name}": {entry.path: entry.size for entry in each.manifest.contents}
        for each in of_kind(folder, "artifact")
    }


def table(folder: Path, name: str) -> tuple[list[str], list[list[Any]]]:
    """A logged table: columns and rows, from the staged file that is uploaded."""
    entries = [entry for each in of_kind(folder, "artifact") for entry in each.manifest.contents]
    (file,) = [entry.local_path for entry in entries if entry.path == f"{name}.table.json"]
    content = json.loads(Path(file).read_text())
    return content["columns"], content["data"]


@pytest.fixture(scope="module", params=[0, 1])
def trial(sweep: Path, request: pytest.FixtureRequest) -> Path:
    return sweep / f"trial-{request.param}"


def test_a_trial_is_in_its_studys_group_with_a_flat_config(trial: Path) -> None:
    (run,) = of_kind(trial, "run")
    assert (run.run_group, run.job_type, list(run.tags)) == ("tracked", "train", ["part_a"])
    assert run.display_name == trial.name
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    config.pop("_wandb")
    assert config == flat(read_yaml(trial / "config.yaml"))
    assert config["optimizer.lr"] in (1e-3, 1.0)


def test_every_epoch_is_a_row_of_the_history(trial: Path) -> None:
    rows = [values_of(record.item) for record in of_kind(trial, "history")]
    epochs = [row for row in rows if "val_loss" in row]
    lines = read_metrics(trial)
    assert len(lines) == 3
    assert [{name: row[name] for name in lines[0]} for row in epochs] == lines


def test_the_summary_is_the_runs_result_not_its_last_epoch(trial: Path) -> None:
    result, found = read_result(trial), summary(trial)
    for name in ("status", "val_accuracy", "val_loss", "best_epoch", "epochs_run", "parameters", "macs", "seconds"):
        assert found[name] == getattr(result, name)
    assert "test_accuracy" not in found, "nobody has evaluated it"


def test_the_best_epoch_is_not_the_last_in_one_of_them(sweep: Path) -> None:
    assert any(read_result(sweep / f"trial-{number}").best_epoch != 3 for number in (0, 1)), "the test above is blind"


def test_the_charts_agree_with_the_runs_answers(trial: Path) -> None:
    answers = read_predictions(trial / "validation.csv")
    predicted_N = answers.probabilities_NK.argmax(1)
    names = answers.class_names
    _, cells = table(trial, "confusion_table")
    for truth, said, count in cells:
        pair = (answers.labels_N == names.index(truth)) & (predicted_N == names.index(said))
        assert count == pair.sum()
    columns, rows = table(trial, "classes")
    assert columns == ["class", "images", "precision", "recall"]
    for name, images, _, recall in rows:
        here = answers.labels_N == names.index(name)
        assert images == here.sum()
        assert recall == (predicted_N[here] == names.index(name)).sum() / here.sum()
    visualised = [record for record in of_kind(trial, "config") if "confusion_matrix/v1" in str(record)]
    assert visualised, "W&B draws the table as a confusion matrix"


def test_the_mistakes_have_small_pictures(trial: Path) -> None:
    answers = read_predictions(trial / "validation.csv")
    wrong = answers.labels_N != answers.probabilities_NK.argmax(1)
    columns, rows = table(trial, "mistakes")
    assert columns == ["image", "file", "class", "predicted", "confidence"]
    assert 0 < len(rows) == min(wrong.sum(), MOST_MISTAKES)
    assert {row[1] for row in rows} <= {name for name, is_wrong in zip(answers.names, wrong, strict=True) if is_wrong}
    confidences = [row[4] for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    (name,) = [name for name in artifacts(trial) if name.endswith("-mistakes")]
    pictures = {path: size for path, size in artifacts(trial)[name].items() if path.endswith(".jpg")}
    assert len(pictures) == len({row[0]["path"] for row in rows})
    assert max(pictures.values()) < 10_000


def test_everything_that_a_sync_uploads_is_on_the_disk(trial: Path) -> None:
    entries = [entry for each in of_kind(trial, "artifact") for entry in each.manifest.contents if entry.local_path]
    assert {entry.path: Path(entry.local_path).stat().st_size for entry in entries} == {e.path: e.size for e in entries}
    assert {Path(entry.path).suffix for entry in entries} >= {".json", ".jpg", ".csv", ".yaml"}
    pictures = [Path(entry.local_path) for entry in entries if entry.path.endswith(".jpg")]
    for picture in pictures:
        with Image.open(picture) as opened:
            assert max(opened.size) == THUMBNAIL
    shown = {key.partition("/")[0] for record in of_kind(trial, "history") for key in values_of(record.item)}
    assert {"classes", "mistakes", "confusion_table"} <= shown, "tables that no row of the history names are not shown"


def test_the_run_is_an_artifact_that_can_be_made_again(trial: Path) -> None:
    (name,) = [name for name in artifacts(trial) if name.startswith("run run-")]
    files = artifacts(trial)[name]
    assert set(files) == {"config.yaml", "receipt.json", "metrics.jsonl", "result.json", "validation.csv"}
    assert files == {path: (trial / path).stat().st_size for path in files}


def test_the_sweep_is_a_run_of_the_group_with_its_page(sweep: Path) -> None:
    (run,) = of_kind(sweep, "run")
    assert (run.run_group, run.job_type, run.display_name) == ("tracked", "sweep", "tracked")
    best = json.loads((sweep / "sweep.json").read_text())["best"][0]
    found = summary(sweep)
    assert (found["n_trials"], found["trials.complete"], found["best.value"]) == (2, 2, best["value"])
    assert found["best.params.optimizer.lr"] == best["params"]["optimizer.lr"]
    (files,) = artifacts(sweep).values()
    assert set(files) == {"sweep.json", "best.yaml", "report.html"}


def test_a_run_that_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    assert main(["train", *DIVERGING, *WANDB[len(SMALL) :], f"hydra.run.dir={tmp_path / 'run'}"]) == 3
    found = summary(tmp_path / "run")
    assert found["status"] == "diverged"
    assert "optimizer.lr" in found["reason"]
    assert of_kind(tmp_path / "run", "exit")[0].exit_code == 1
    assert not list(tmp_path.glob("run/wandb/*/files/media"))
