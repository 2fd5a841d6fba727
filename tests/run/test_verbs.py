"""evaluate, predict and reproduce on a finished run."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from da6401.cli import main
from da6401.commands import evaluate
from da6401.commands.evaluate import evaluate_run
from da6401.commands.predict import Output, predict_images
from da6401.commands.reproduce import NOT_REPRODUCED, reproduce_run
from da6401.errors import RunError
from da6401.runs.looks import read_looks
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import BEST, CONFIG, LOOKS, RECEIPT, TEST_CSV, VALIDATION_CSV, read_result, write_result
from da6401.training.run import run
from da6401.training.setup import load_images
from da6401.training.trained_model import load_model
from tests.image_trees import image_tree
from tests.tiny_runs import SMALL, compose


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verbs") / "run"
    run(compose(*SMALL, "augmentation=light", "model.dropout=0.2"), folder)
    return folder


def test_evaluate_looks_at_the_test_split_once(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate_run(finished) == 0
    result = read_result(finished)
    assert result.test_accuracy is not None
    assert f"{result.test_accuracy:.4f}" in capsys.readouterr().out
    (look,) = read_looks(finished)
    assert (look.verb, look.purpose) == ("evaluate", "test accuracy and loss")

    def never(*_: object) -> None:
        raise AssertionError("the test split was opened again")

    monkeypatch.setattr(evaluate, "load_test_data", never)
    assert evaluate_run(finished) == 0
    assert "recorded; evaluated once; test split looked at once" in capsys.readouterr().out
    assert read_result(finished) == result
    assert read_looks(finished) == [look]


@pytest.mark.parametrize("relative", [True, False])
def test_a_run_without_its_images_says_where_they_were_and_what_to_do(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    monkeypatch.chdir(tmp_path / "then")
    root = Path("images") if relative else tmp_path / "then/images"
    image_tree(root)
    words = ("data=folder", "data.image_size=16", f"data.root={root}", "trainer.epochs=1", "data.cache=off")
    run(compose(*(each for each in SMALL if not each.startswith(("data", "trainer.epochs"))), *words), Path("run"))
    shutil.move("run", tmp_path / "now")
    images = Path("images").rename(tmp_path / "images")
    monkeypatch.chdir(tmp_path / "now")
    was = "trained with data.root=images, relative to" if relative else "trained on the images there"
    where = root if relative else shlex.quote(str(root))
    for verb in (["evaluate"], ["explain"], ["explain", "--split", "test"], ["reproduce"]):
        assert main([verb[0], "run", *verb[1:]]) == 2
        said = capsys.readouterr().err
        assert f"{root.absolute()}, does not exist. run was {was}" in said
        assert f"(ln -s PATH {where})" in said
        assert (", or add data.root=PATH." in said) is (verb == ["reproduce"])
    assert main(["reproduce", "run", "data.root=elsewhere"]) == 2
    assert "trained" not in capsys.readouterr().err
    root.symlink_to(images)
    assert main(["evaluate", "run"]) == 0


def test_a_look_that_cannot_be_recorded_shows_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(LOOKS, TEST_CSV))
    write_result(folder, dataclasses.replace(read_result(folder), test_accuracy=None, test_loss=None))
    (folder / LOOKS).symlink_to(tmp_path / "elsewhere")
    assert main(["evaluate", str(folder)]) == 2
    captured = capsys.readouterr()
    assert "symbolic link" in captured.err
    assert "accuracy" not in captured.out
    assert read_result(folder).test_accuracy is None
    assert not (folder / TEST_CSV).exists()


def test_data_that_changed_since_the_training_is_told_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{number}.png" for number in range(10)]
    root, folder = image_tree(tmp_path / "data", splits=["."], names=names, side=16), tmp_path / "run"
    own = [text for text in SMALL if not text.startswith("data")]
    run(compose(*own, "data=folder", f"data.root={root}", "data.image_size=16", "trainer.epochs=1"), folder)
    shutil.copytree(folder, tmp_path / "other")
    shutil.copytree(folder, tmp_path / "older")
    trained = load_images(load_model(folder)[1]).train.names[0]
    validated = read_predictions(folder / VALIDATION_CSV).names

    shutil.copy(root / validated[0], root / trained)
    assert main(["evaluate", str(folder)]) == 0
    assert "train and validation have changed since" in capsys.readouterr().err
    receipt = json.loads((tmp_path / "older" / RECEIPT).read_text())
    del receipt["data_fingerprint"]
    (tmp_path / "older" / RECEIPT).write_text(json.dumps(receipt))
    assert main(["evaluate", str(tmp_path / "older")]) == 0
    assert "changed since" not in capsys.readouterr().err

    for name in read_predictions(folder / TEST_CSV).names:  # the next ones are drawn as test
        (root / name).unlink()
    for words in (["evaluate", str(tmp_path / "other")], ["explain", str(tmp_path / "other"), "--split", "test"]):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert "were in validation when this run was trained" in captured.err
        assert any(name in captured.err for name in validated)
        assert captured.out == ""
    assert read_looks(tmp_path / "other") == []


def test_predicting_files_of_the_test_split_is_a_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_tree(tmp_path / "data", splits=("train", "validation", "test"), side=16)
    own = [text for text in SMALL if not text.startswith("data")]
    words = ("data=folder", f"data.root={tmp_path / 'data'}", "data.image_size=16", "trainer.epochs=1")
    folder = tmp_path / "run"
    run(compose(*own, *words), folder)
    other = tmp_path / "own.png"
    Image.new("RGB", (9, 9)).save(other)
    validation = sorted((tmp_path / "data" / "validation").glob("*/*"))
    assert predict_images(folder, [other, *validation], Output(as_json=True)) == 0
    assert read_looks(folder) == []
    tested = sorted((tmp_path / "data" / "test").glob("*/*"))
    (tmp_path / "link").symlink_to(tmp_path / "data" / "test")
    linked = [tmp_path / "link" / path.relative_to(tmp_path / "data" / "test") for path in tested]
    assert predict_images(folder, [other, *linked], Output(as_json=True)) == 0
    (look,) = read_looks(folder)
    assert (look.verb, look.purpose) == ("predict", "answers on 8 of its files")
    shutil.rmtree(tmp_path / "data")
    assert predict_images(folder, [other], Output(as_json=True)) == 0, "the data may be gone by now"
    assert capsys.readouterr().err == ""


def test_predict_prints_class_and_probability(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("L", (9, 90), 128).save(tmp_path / "b.jpg")
    assert predict_images(finished, [tmp_path / "a.png", tmp_path / "b.jpg"], Output(as_json=True)) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    _, _, class_names = load_model(finished)
    for answer in answers:
        assert list(answer["probabilities"]) == class_names
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer["probability"] == max(answer["probabilities"].values())
    assert predict_images(finished, [tmp_path / "a.png"], Output()) == 0
    assert answers[0]["class"] in capsys.readouterr().out


def test_predict_names_unreadable_images_and_goes_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [tmp_path / "bad.png", tmp_path / "missing.png", tmp_path / "good.png"]
    assert predict_images(finished, images, Output()) == 2
    captured = capsys.readouterr()
    assert "bad.png" in captured.err
    assert "missing.png" in captured.err
    assert "good.png" in captured.out


def test_a_run_is_reproduced_exactly(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce_run(finished, []) == 0
    assert "identical metrics in all 2 epochs" in capsys.readouterr().out


def test_a_run_that_differs_says_what(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("config.yaml", "receipt.json", "metrics.jsonl", "result.json"):
        (changed / name).write_bytes((finished / name).read_bytes())
    (changed / "metrics.jsonl").write_text((finished / "metrics.jsonl").read_text().replace('"epoch": 2', '"epoch": 9'))
    receipt = json.loads((changed / "receipt.json").read_text())
    receipt["packages"]["torch"] = "1.0"
    (changed / "receipt.json").write_text(json.dumps(receipt))
    assert reproduce_run(changed, []) == NOT_REPRODUCED
    out = capsys.readouterr().out
    assert "epoch, epoch 2" in out
    assert "likely cause: packages.torch" in out


def test_reproduce_with_overrides_shows_them(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce_run(finished, ["seed=3", "optimizer.lr=0.01"]) == NOT_REPRODUCED
    out = capsys.readouterr().out
    assert "config seed" in out
    assert "config optimizer.lr" in out
    assert "changed as asked" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "nowhere"], "neither a folder nor a study's name"),
        (["predict", "nowhere", "x.jpg"], "neither a folder nor a study's name"),
        (["reproduce", "nowhere"], "neither a folder nor a study's name"),
        (["reproduce", "RUN", "optimizer.lrr=1"], "did you mean optimizer.lr"),
        (["reproduce", "RUN", "nonsense"], "write key=value"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(
    finished: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished) if word == "RUN" else word for word in words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_checkpoint_of_another_model_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / BEST).write_bytes((finished / BEST).read_bytes())
    (folder / CONFIG).write_text((finished / CONFIG).read_text().replace("filters: 4", "filters: 5"))
    with pytest.raises(RunError, match="do not fit"):
        load_model(folder)
