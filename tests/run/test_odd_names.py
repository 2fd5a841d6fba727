"""Names as people have them, wherever a path is given: spaces, brackets, accents, quotes, signs that Hydra reads."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from da6401 import train
from tests.image_trees import image_tree
from tests.tiny_runs import SMALL, typed

IMAGES = Path(__file__).parents[1] / "images"
ODD = "archive (1) données=it's & #1, [x] {y} $z 100%"
TINY = [*(word for word in SMALL if "classes" not in word and "per_class" not in word), "data=folder"]
NOT_UTF8 = os.fsdecode(b"caf\xe9\nline.png")


def tree(root: Path, *names: str) -> Path:
    return image_tree(root, classes=("cat (1)", "dög, ='x'"), names=names or ("0.png", "1.png", "2.png"))


def done(*words: str, cwd: Path, code: int = 0) -> tuple[str, str]:
    ended, out, err = typed(*words, cwd=cwd)
    assert ended == code, f"{words}: {out}\n{err}"
    assert "Traceback" not in err
    return out, err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an odd name that holds such a data set, and a run on it in a folder with such a name."""
    cwd = tmp_path_factory.mktemp("x") / ODD
    tree(cwd / ODD)
    done("train", *TINY, f"data.root={ODD}", f"hydra.run.dir=runs/{ODD}", cwd=cwd)
    shutil.copytree(cwd / "runs" / ODD, cwd / "copies" / ODD)
    return cwd


def test_train_finds_the_folder_and_writes_to_the_folder(place: Path) -> None:
    run = place / "runs" / ODD
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["root"] == ODD
    assert f"data.root={ODD}" in json.loads((run / "receipt.json").read_text())["command"].replace("'\"'\"'", "'")


def test_predict_reads_the_odd_files_and_says_nothing_else(place: Path) -> None:
    """What Pillow and libtiff say of metadata is no word of ours; what is refused is refused by its name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("P", (9, 9)).save(place / "palette.png", transparency=bytes(range(256)))
    Image.new("RGB", (9, 9)).save(place / "turned.jpg", exif=exif)
    Image.new("RGB", (9, 9)).save(place / "bad exif.jpg", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\x01\x12")
    good = [
        *map(str, sorted(IMAGES.glob("u*.tif"))),
        str(IMAGES / "lossless.jpg"),
        "palette.png",
        "turned.jpg",
        "bad exif.jpg",
    ]
    out, err = done("predict", f"runs/{ODD}", *good, cwd=place)
    assert out.count("\n") == len(good)
    assert err == ""
    bad = [str(IMAGES / name) for name in ("s16_positive.tif", "twelve_bits.jpg")]
    out, err = done("predict", f"runs/{ODD}", *bad, "palette.png", cwd=place, code=2)
    assert out.count("\n") == 1
    assert [line.split(": ")[1] for line in err.splitlines()] == bad


def test_python_takes_them_as_the_shell_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for words, folder in (([], Path("api (1), it's")), ([f"hydra.run.dir=api (2)/{ODD}"], Path("api (2)", ODD))):
        run = train(*TINY, f"data.root={ODD}", "trainer.epochs=1", *words, out=None if words else folder)
        assert run.folder == folder
        assert run.result.status == "completed"


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", ODD],
        ["data", "info", ODD],
        ["evaluate", f"runs/{ODD}"],
        ["predict", f"runs/{ODD}", f"{ODD}/test/cat (1)/0.png", f"{ODD}/test/dög, ='x'/0.png"],
        ["explain", f"runs/{ODD}"],
        ["report", f"runs/{ODD}"],
        ["compare", f"runs/{ODD}", f"copies/{ODD}"],
        ["reproduce", f"runs/{ODD}", f"data.root={ODD}"],
    ],
    ids=lambda words: words[0] if words[0] != "data" else f"data {words[1]}",
)
def test_every_verb_takes_such_paths(words: list[str], place: Path) -> None:
    done(*words, cwd=place)


def test_a_folder_of_yaml_files_and_a_weights_file(place: Path) -> None:
    mine = place / ODD / "mine"  # beside the splits
    (place / ODD / "conf" / "trainer").mkdir(parents=True)
    (place / ODD / "conf" / "trainer" / "short.yaml").write_text("epochs: 1\n")
    torch.save({"conv.weight": torch.zeros(2)}, place / ODD / "w.pt")
    words = ["train", "--config-dir", f"{ODD}/conf", "trainer=short", "data=synthetic", "data.image_size=32"]
    _, err = done(*words, "model=resnet18", f"model.weights={ODD}/w.pt", cwd=place, code=2)
    assert f"model.weights={ODD}/w.pt: does not fit this backbone" in err  # the file was found, and read
    assert not mine.exists()


@pytest.mark.slow
@pytest.mark.integration
def test_a_sweep_and_its_workers(place: Path) -> None:
    words = [*TINY, f"data.root={ODD}", f"hydra.sweep.dir=sweeps/{ODD}", "seed=1,2", "hydra.sweeper.n_trials=2"]
    done("train", "--multirun", *words, "trainer.epochs=1", "hydra.sweeper.n_jobs=2", cwd=place)
    results = list((place / "sweeps" / ODD).glob("trial-*/result.json"))
    assert sorted(json.loads(file.read_text())["status"] for file in results) == ["completed", "completed"]
    done("report", f"sweeps/{ODD}", cwd=place)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", "NAME"], "NAME: is neither a folder nor a study's name"),
        (["predict", "RUN", "NAME"], "NAME: cannot be read: File name too long"),
        (["data", "check", "NAME"], "NAME, does not exist: its name is too long"),
        (["data", "fetch", "inaturalist12k", "--to", "NAME"], "(File name too long); name a shorter path"),
        (["train", *TINY, "data.root=NAME"], "NAME, does not exist: its name is too long"),
        (["train", "--multirun", "sweep=part_a", "data=folder", "data.root=NAME"], "its name is too long"),
        (["train", *SMALL, "hydra.run.dir=NAME"], "is too long: choose another folder (hydra.run.dir=...)"),
        (["report", "RUN", "--out", "NAME"], "is too long: name another file (--out FILE)"),
    ],
)
def test_a_name_that_is_too_long_is_told(words: list[str], told: str, place: Path) -> None:
    name = "x" * 300
    meant = [word.replace("NAME", name).replace("RUN", f"runs/{ODD}") for word in words]
    _, err = done(*meant, cwd=place, code=2)
    assert told.replace("NAME", name) in err


def test_folders_whose_names_are_not_utf8(place: Path) -> None:
    name = os.fsdecode(b"d\xff")
    tree(place / name)
    done("train", *TINY, f"data.root={name}", f"hydra.run.dir=run {name}", cwd=place)
    assert yaml.safe_load((place / f"run {name}" / "config.yaml").read_text())["data"]["root"] == name
    for words in (["evaluate"], ["report"], ["predict", f"{name}/test/cat (1)/0.png"]):
        done(words[0], f"run {name}", *words[1:], cwd=place)
    done("reproduce", f"run {name}", f"data.root={name}", cwd=place)
    shutil.copytree(place / f"run {name}", place / "several" / name)
    done("report", "several", cwd=place)
    assert '"text":"d\\\\udcff","href":"./d%FF/' in (place / "several" / "report.html").read_text(encoding="utf-8")
    words = [*TINY, f"data.root={name}", f"hydra.sweep.dir={name}", "seed=1"]
    _, err = done("train", "--multirun", *words, cwd=place, code=2)
    assert "a study needs a folder whose path is UTF-8; choose another" in err
    _, err = done("export", f"run {name}", cwd=place, code=2)
    assert "name another folder with --out" in err


def test_files_and_classes_whose_names_are_no_text(place: Path) -> None:
    """A line end, and bytes that are not UTF-8: every file that is written stays readable by its own rules."""
    root = tree(place / "bytes", "0.png", NOT_UTF8, "2\r\n.png")
    for split in ("train", "val", "test"):
        (root / split / "cat (1)").rename(root / split / os.fsdecode(b"\xff\ncat"))
    done("train", *TINY, "data.root=bytes", "hydra.run.dir=odd", cwd=place)
    done("evaluate", "odd", cwd=place)
    done("explain", "odd", cwd=place)
    done("report", "odd", cwd=place)
    done("data", "check", "bytes", cwd=place)
    (place / "odd" / "report.html").read_text(encoding="utf-8")
    with open(place / "odd" / "test.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 7
    picture = str(root / "test" / "dög, ='x'" / NOT_UTF8)
    out, _ = done("predict", "odd", picture, cwd=place)
    assert out.count("\n") == 1
    out, _ = done("predict", "odd", picture, "--json", cwd=place)
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert answer["image"] == picture
    assert os.fsdecode(b"\xff\ncat") in answer["probabilities"]
