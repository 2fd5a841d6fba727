"""da6401 predict: what it takes, what it writes; and run.predict, which gives the same numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from da6401 import load_run
from da6401.cli import main
from da6401.commands.predict import image_files
from da6401.errors import DataError
from da6401.training.run import run
from tests.image_trees import image_tree
from tests.tiny_runs import SMALL, compose

CLASSES = 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "outputs/runs/day/time"
    run(compose(*SMALL), folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "more/c.PNG", ".hidden/d.png"):
        Image.fromarray(rng.integers(0, 256, (20, 31, 3)).astype(np.uint8)).save(folder / name, format="PNG")
    (folder / "notes.txt").write_text("no picture")
    return folder


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_files_folders_and_patterns_are_taken_each_once(photos: Path) -> None:
    a, b, c = photos / "a.png", photos / "b.png", photos / "more/c.PNG"
    assert image_files([photos]) == [a, b, c]
    assert image_files([b, photos / "*.png"]) == [b, a]
    assert image_files([photos / "**" / "*.PNG"]) == [c]
    assert image_files([photos / "missing.png"]) == [photos / "missing.png"]
    (photos / "a[1].png").write_bytes(a.read_bytes())
    assert image_files([photos / "a[1].png"]) == [photos / "a[1].png"], "a file of that name, no pattern"
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match="no image file"):
        image_files([photos / "empty"])
    with pytest.raises(DataError, match="no file matches"):
        image_files([photos / "*.bmp"])


def test_the_table_the_lines_and_python_have_the_same_numbers(
    finished: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "answers.csv"
    assert main(["predict", str(finished), str(photos), "--json", "--csv", str(table)]) == 0
    said = lines(capsys)
    assert [each["image"] for each in said] == [str(path) for path in image_files([photos])]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frame = load_run(finished).predict(str(photos))
    for one, row, (_, own) in zip(said, rows, frame.iterrows(), strict=True):
        assert one["image"] == row["image"] == own["image"]
        assert one["class"] == row["class"] == own["class"]
        assert one["probability"] == np.float32(row["probability"]) == own["probability"]
        probabilities = one["probabilities"]
        assert isinstance(probabilities, dict)
        assert {f"p({name})": p for name, p in probabilities.items()} == {
            name: float(np.float32(row[name])) for name in row if name.startswith("p(")
        }
    assert main(["predict", str(finished), str(photos), "--csv", str(table)]) == 0
    assert capsys.readouterr().out == f"{table}  3 images\n"


def test_a_table_replaces_tables_alone(
    finished: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, csv_of_the_run = photos / "a.png", photos / "b.png", finished / "validation.csv"
    for taken in (a, photos, csv_of_the_run, finished / "result.json"):
        before = taken.read_bytes() if taken.is_file() else b""
        assert main(["predict", str(finished), str(b), "--csv", str(taken)]) == 2
        assert "name another file (--csv FILE)" in capsys.readouterr().err
        assert not before or taken.read_bytes() == before
    table = tmp_path / "answers.csv"
    table.touch()
    for words in (["--top", "2"], ["--top", "1"], [], []):
        assert main(["predict", str(finished), str(b), "--csv", str(table), *words]) == 0
    assert table.read_bytes().startswith(b"image,class,probability,p(")
    capsys.readouterr()
    assert main(["predict", str(finished), str(b), "--csv", str(a / "answers.csv")]) == 2
    told = capsys.readouterr().err
    assert told.endswith(", or name another file (--csv FILE). What was there before is untouched\n"), told


def test_top_k_are_the_most_probable_classes_best_first(
    finished: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(finished), str(photos / "a.png")]
    assert main([*words, "--json"]) == 0
    ((whole),) = lines(capsys)
    assert isinstance(whole["probabilities"], dict)
    ranked = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])[:2]
    assert main([*words, "--json", "--top", "2"]) == 0
    ((top),) = lines(capsys)
    assert isinstance(top["probabilities"], dict)
    assert list(top["probabilities"].items()) == ranked
    assert main([*words, "--top", "2", "--csv", str(tmp_path / "t.csv")]) == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        head, row = csv.reader(file)
    assert head == ["image", "class", "probability", "class 2", "probability 2"]
    assert [row[1], row[3]] == [name for name, _ in ranked]
    capsys.readouterr()
    assert main([*words, "--top", "2"]) == 0
    assert capsys.readouterr().out.split("  ")[1::2] == [name for name, _ in ranked]
    for wrong in ("0", str(CLASSES + 1)):
        assert main([*words, "--top", wrong]) == 2
        assert f"from 1 to {CLASSES}" in capsys.readouterr().err


def test_a_picture_beside_each_says_why_and_is_not_predicted_itself(
    finished: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = image_files([photos])
    assert main(["predict", str(finished), str(photos), "--explain"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(before)
    for path in before:
        with Image.open(path.with_name(path.name + ".explain.png")) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        left, right = np.array_split(pixels, 2, axis=1)
        assert np.ptp(left) > 200, "the picture"
        assert np.ptp(right) > 100, "its evidence"
    assert image_files([photos]) == before


def test_no_picture_is_put_among_the_training_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    image_tree(root, splits=("train", "validation"), side=16)
    own = [text for text in SMALL if not text.startswith("data")]
    run(compose(*own, "data=folder", f"data.root={root}", "data.image_size=16", "trainer.epochs=1"), tmp_path / "run")
    before = sorted(root.rglob("*"))
    assert main(["predict", str(tmp_path / "run"), str(root / "validation"), "--explain"]) == 2
    assert "would be trained on" in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_python_takes_paths_arrays_and_pictures(finished: Path, photos: Path) -> None:
    found = load_run(finished)
    by_file = found.predict([photos / "a.png", str(photos / "b.png")])
    opened = [Image.open(photos / name) for name in ("a.png", "b.png")]
    arrays = [np.asarray(picture) for picture in opened]
    columns = by_file.columns[1:]
    for same in (found.predict(opened), found.predict(arrays), found.predict(np.stack(arrays))):
        assert (same[columns] == by_file[columns]).all(axis=None)
    assert list(found.predict(arrays)["image"]) == ["0", "1"]
    assert len(found.predict(arrays[0])) == len(found.predict(opened[0].convert("L"))) == 1
    assert len(found.predict([])) == 0
    turned = opened[0].copy()
    turned.getexif()[0x0112] = 3
    upside_down = found.predict(arrays[0][::-1, ::-1])
    assert (found.predict(turned)[columns[2:]] == upside_down[columns[2:]]).all(axis=None)
    for wrong in (arrays[0].astype(float), arrays[0][..., :2], np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(DataError, match="a picture is uint8"):
            found.predict([wrong])
    with pytest.raises(DataError, match="floating-point"):
        found.predict(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(DataError, match="not an image"):
        found.predict(photos / "notes.txt")


def test_latest_names_the_run(
    finished: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.parents[3])
    assert main(["predict", "latest", str(photos / "a.png")]) == 0
    assert capsys.readouterr().err == "da6401: latest: run outputs/runs/day/time\n"
