"""`da6401 data check` and `info`: every fault is named, and the exit code says whether there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from da6401.data.tree_check import check_tree, describe_tree
from da6401.errors import DataError
from tests.data_verb import data_verb as run


def save(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clean tree: two classes, train and test, and the litter that file managers leave."""
    for number in range(3):
        save(tmp_path / f"train/cat/{number}.png", number)
        save(tmp_path / f"train/dog/{number}.jpg", 10 + number, size=(40, 30))
    save(tmp_path / "test/cat/0.png", 20, mode="L")
    save(tmp_path / "test/dog/0.png", 21)
    for litter in (".DS_Store", "train/.DS_Store", "train/cat/Thumbs.db", "train/cat/._0.png"):
        (tmp_path / litter).write_bytes(b"junk")
    return tmp_path


def test_a_clean_tree(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check_tree(tree)
    assert report.clean
    assert (report.duplicates, report.leaks, report.conflicts) == ((), (), ())
    assert report.counts("train") == {"cat": 3, "dog": 3}
    assert run("check", tree) == 0
    assert "clean: 8 readable images; 0 problems" in capsys.readouterr().out


def test_every_bad_file_is_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "train/cat/empty.png").write_bytes(b"")
    (tree / "train/cat/text.png").write_text("hello")
    cut = (tree / "train/dog/0.jpg").read_bytes()
    (tree / "test/dog/cut.jpg").write_bytes(cut[: len(cut) // 2])
    (tree / "test/dog/more").mkdir()
    report = check_tree(tree)
    reasons = {file.name: file.reason for file in report.bad}
    assert sorted(reasons) == ["test/dog/cut.jpg", "test/dog/more", "train/cat/empty.png", "train/cat/text.png"]
    assert reasons["train/cat/empty.png"] == "empty file"
    assert "not an image" in reasons["train/cat/text.png"]
    assert "truncated" in reasons["test/dog/cut.jpg"]
    assert len(report.files) == 8
    assert run("check", tree) == 2
    out = capsys.readouterr().out
    assert "NOT CLEAN: 8 readable images; 0 problems of the tree, 4 unusable files" in out
    for name in reasons:
        assert f"  {name}: " in out


@pytest.mark.parametrize(
    ("copy", "kind", "code", "words"),
    [
        ("train/cat/copy.png", "duplicates", 0, "train/cat/0.png = train/cat/copy.png"),  # a warning
        ("test/cat/again.png", "leaks", 2, "1 image in two splits"),
        ("train/dog/0.png", "conflicts", 0, "train/cat/0.png = train/dog/0.png"),
    ],
)
def test_copies_within_a_split_between_two_and_under_two_classes(
    copy: str, kind: str, code: int, words: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tree / "train/cat/0.png", tree / copy)
    report = check_tree(tree)
    assert getattr(report, kind) == (("train/cat/0.png", copy),)
    assert kind == "leaks" or report.leaks == ()
    assert kind != "leaks" or report.duplicates == ()
    assert run("check", tree) == code
    assert words in capsys.readouterr().out


def test_problems_of_the_tree(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tree / "test/bird/0.png", 30)
    (tree / "train/fish").mkdir()
    (tree / "val").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        check_tree(tree)
    save(tree / "val/cat/0.png", 31)
    save(tree / "validation/cat/0.png", 32)
    report = check_tree(tree)
    text = "\n".join(report.problems)
    parts = ("test/ has the class bird", "val/ lacks 2 classes (dog, fish)", "image in the class fish", "both val/ and")
    for part in parts:
        assert part in text
    assert report.class_names == ("bird", "cat", "dog", "fish")
    assert run("check", tree) == 2
    capsys.readouterr()


def test_what_a_training_notes_is_shown_too(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tree / "train/Dog/0.png", 40)
    save(tree / "train/Dog/1.png", 41)
    save(tree / "test/Dog/0.png", 42)
    (tree / "spare").mkdir()
    assert run("check", tree) == 0
    out = capsys.readouterr().out
    assert "Class names that look alike: 'Dog' and 'dog'. Is it one class?" in out
    assert "Not used, beside the splits: spare/" in out
    assert run("info", tree) == 0
    assert "Note: Not used, beside the splits: spare/" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["check", "info"])
def test_the_role_of_val_can_be_said(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("cat", 3), ("dog", 1)):
        for number in range(count):
            save(tmp_path / f"train/{name}/{number}.png", number + len(name) * count)
            save(tmp_path / f"val/{name}/{number}.png", 50 + number + len(name) * count)
    run(verb, tmp_path)
    assert "only one image in class dog" in capsys.readouterr().out
    run(verb, tmp_path, "--val-role", "validation")
    assert "only one image" not in capsys.readouterr().out


def test_info_describes_the_tree(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "val").mkdir()
    shutil.move(tree / "test", tree / "val")
    shutil.rmtree(tree / "val")
    save(tree / "val/cat/0.png", 20, mode="L")
    save(tree / "val/dog/0.png", 21)
    assert run("info", tree) == 0
    out = capsys.readouterr().out
    size = sum(path.stat().st_size for path in tree.rglob("[0-9].*"))
    for line in (
        "Formats: PNG 5, JPEG 3",
        "Modes:   RGB 7, L 1",
        "Width:   20 to 40 px, median 20",
        "Height:  10 to 30 px, median 10",
        f"Bytes:   {size:,}",
        "  validation: a part of train/ (data.val_fraction)",
        "  test:       val/",
    ):
        assert f"{line}\n" in out
    assert "cat" in out


def test_an_unbalanced_train_is_told_whatever_its_folder_is_called(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        save(tree / f"train/cat/more{number}.png", 100 + number)
    (tree / "train").rename(tree / "Training")
    for verb in ("check", "info"):
        assert run(verb, tree) == 0
        assert "the largest class of train has 3.0 times the images of the smallest" in capsys.readouterr().out


def test_info_reads_headers_only(tree: Path) -> None:
    cut = (tree / "train/dog/0.jpg").read_bytes()
    (tree / "train/dog/0.jpg").write_bytes(cut[:-50])
    assert describe_tree(tree).bad == ()
    assert len(check_tree(tree).bad) == 1


def test_strange_names_do_not_reach_the_terminal(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "train/cat/[red]\x1b[2J\r.png").write_bytes(b"")
    long = "x" * 150
    (tree / f"train/cat/{long}.png").write_bytes(b"")
    assert run("check", tree) == 2
    out = capsys.readouterr().out
    assert r"train/cat/[red]\x1b[2J\r.png: empty file" in out
    assert f"  train/cat/{long}.png: empty file\n" in out


def test_the_verbs_never_import_torch(tree: Path) -> None:
    code = (
        "import argparse, sys; from da6401.commands.data import add_verbs; p = argparse.ArgumentParser();"
        "add_verbs(p); assert not {'PIL', 'rich', 'numpy'} & set(sys.modules);"
        "import da6401.data.fetch.inaturalist;"
        f"a = p.parse_args(['check', {str(tree)!r}]); a.handler(a);"
        f"a = p.parse_args(['info', {str(tree)!r}]); a.handler(a); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
