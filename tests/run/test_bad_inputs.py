"""What people hand in by mistake or by malice: one screen, exit code 2, no traceback; docs/bad-inputs.md is its table.

Write the page anew: DA6401_WRITE_DOCS=1 python -m pytest tests/run/test_bad_inputs.py
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from da6401.training.run import run
from tests import forked
from tests.image_trees import image_tree
from tests.pngs import COLOUR, chunk, png
from tests.tiny_runs import SMALL, compose, typed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bad-inputs.md"
HEAD = """# Bad inputs

What the program says to inputs that are wrong, damaged or hostile: the command, its message, its exit code. No case
ends in a traceback, and none leaves the old files worse than it found them. Written by the tests, from what the
program really said: `DA6401_WRITE_DOCS=1 python -m pytest tests/run/test_bad_inputs.py`.

`TINY` stands for a data set and a network of toy size.
"""
Case = Callable[[Path], list[str]]
CASES: dict[str, Case] = {}
TRAIN = ["train", *SMALL, "trainer.epochs=1"]
FOLDER = ["train", "data=folder", "data.root=images", "data.image_size=32", "data.cache=off", "trainer.epochs=1"]


def case(name: str) -> Callable[[Case], Case]:
    def add(prepare: Case) -> Case:
        CASES[name] = prepare
        return prepare

    return add


def images(cwd: Path) -> Path:
    """A tree of two classes; the folder of one of them."""
    return image_tree(cwd / "images") / "train" / "cat"


def picture() -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


def huge_png() -> bytes:
    """A PNG of a few bytes that says that it has ten thousand million pixels."""
    before, after = (chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, COLOUR, 0, 0, 0)) for side in (1, 100_000))
    return png(np.zeros((1, 1, 3), np.uint8), 8, COLOUR).replace(before, after)


def archive(cwd: Path, name: str, content: bytes = b"x", mode: int = 0o644) -> list[str]:
    (cwd / "zips").mkdir()
    with zipfile.ZipFile(cwd / "zips" / "nature_100.zip", "w", zipfile.ZIP_DEFLATED) as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        file.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return ["data", "fetch", "inaturalist12k", "--size", "100", "--to", "zips"]


def saved(cwd: Path, **change: object) -> list[str]:
    path = cwd / "run" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    return ["reproduce", "run"]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch executed",))


# ---- configs and the command line -------------------------------------------------------------------------------

case("a misspelt key")(lambda cwd: ["train", "model.droput=0.3"])
case("several mistakes at once")(lambda cwd: ["train", "optimizer=adamww", "optimizer.lr=-1", "sead=3"])
case("an image size of 0")(lambda cwd: ["train", "data.image_size=0"])
case("an image too small for the network")(lambda cwd: ["train", "data.image_size=8", "model.blocks=5"])
case("an image too small for the backbone")(lambda cwd: ["train", "model=inception_v3", "data.image_size=16"])
case("a freeze depth that is too deep")(lambda cwd: ["train", "model=resnet18", "model.freeze_depth=9"])
case("a number beyond any float")(lambda cwd: ["train", "optimizer.lr=" + "9" * 40])
case("several values without --multirun")(lambda cwd: ["train", "seed=1,2"])
case("a precision that the device lacks")(lambda cwd: [*TRAIN, "trainer.precision=fp16", "device=cpu"])
case("a study's name that leads elsewhere")(lambda cwd: ["train", "study=../../etc"])
case("a folder that holds another run")(lambda cwd: [*TRAIN, "seed=7", "hydra.run.dir=run"])


@case("a user's YAML with a misspelt key")
def _(cwd: Path) -> list[str]:
    (cwd / "mine" / "trainer").mkdir(parents=True)
    (cwd / "mine" / "trainer" / "long.yaml").write_text("epoch: 90\n")
    return ["train", "--config-dir", "mine", "trainer=long"]


# ---- sweeps -----------------------------------------------------------------------------------------------------

SWEEP = ["train", "--multirun", *SMALL, "trainer.epochs=1", "study=s"]
SEARCHES = {
    "a condition on an option that there is not": [
        "optimizer=choice(sgd,adamw)",
        'hydra.sweeper.conditional=[{when: "optimizer=sdg", params: {optimizer.lr: "choice(0.1,0.05)"}}]',
    ],
    "a condition with another word for when": [
        "seed=0,1", 'hydra.sweeper.conditional=[{if: "optimizer=sgd", params: {optimizer.lr: "choice(0.1,0.05)"}}]',
    ],
    "a search over what steers the sweep": ["study=a,b", "device=cpu,cuda", "sweep.patience=1,2"],
    "a sampler with a dot for the slash": ["hydra.sweeper.sampler=random", "seed=0,1"],
    "a sampler that Optuna has no more": ["hydra/sweeper/sampler=motpe", "seed=0,1"],
    "an interval with its ends exchanged": ["optimizer.lr=interval(0.1,0.01)"],
    "null in a choice, and a choice of nothing": ["model.dropout=choice(null,0.1)", "optimizer.lr=choice()"],
    "no worker, and more failures than there can be": ["hydra.sweeper.n_jobs=-1", "hydra.sweeper.max_failure_rate=2"],
    "a key that the sweeper does not have": ["+hydra.sweeper.search_space={model.filters: {type: int, low: 2}}"],
    "a grid of an endless interval": ["optimizer.lr=interval(0.01,0.1)", "hydra/sweeper/sampler=grid"],
    "a pruner with a wrong number": [
        "seed=0,1", "hydra/sweeper/pruner=successive_halving", "hydra.sweeper.pruner.reduction_factor=1",
    ],
}  # fmt: skip
for _name, _words in SEARCHES.items():
    CASES[_name] = lambda cwd, words=_words: [*SWEEP, *words]  # type: ignore[misc]

# ---- saved configs of strangers ---------------------------------------------------------------------------------

case("a saved config that names code")(lambda cwd: saved(cwd, model={"name": "cnn", "_target_": "os.system"}))
case("a saved config that reads the environment")(lambda cwd: saved(cwd, study="${oc.env:WANDB_API_KEY}"))
case("a saved config that brings callbacks")(lambda cwd: saved(cwd, hydra={"callbacks": {"x": {"_target_": "os.x"}}}))
case("a saved config that leaves its folder")(lambda cwd: saved(cwd, study="../../home"))
case("an override of a launcher")(lambda cwd: ["reproduce", "run", "hydra/launcher=theirs"])
case("a saved config that unfolds without end")(
    lambda cwd: (
        (cwd / "run" / "config.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        ["reproduce", "run"],
    )[-1]
)


@case("a run folder with a link inside")
def _(cwd: Path) -> list[str]:
    shutil.rmtree(cwd / "run" / "checkpoints")
    (cwd / "run" / "result.json").unlink()
    (cwd / "elsewhere").mkdir()
    (cwd / "run" / "checkpoints").symlink_to(cwd / "elsewhere")
    return [*TRAIN, "hydra.run.dir=run"]


# ---- checkpoints and results ------------------------------------------------------------------------------------


@case("a checkpoint that was cut off")
def _(cwd: Path) -> list[str]:
    path = cwd / "run" / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:5000])
    return ["evaluate", "run"]


@case("a checkpoint with one flipped bit")
def _(cwd: Path) -> list[str]:
    path = cwd / "run" / "checkpoints" / "best.pt"
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    return ["evaluate", "run"]


@case("a checkpoint that would run code")
def _(cwd: Path) -> list[str]:
    torch.save({"model": {}, "x": Bomb()}, cwd / "run" / "checkpoints" / "best.pt")
    return ["evaluate", "run"]


@case("a result that was edited")
def _(cwd: Path) -> list[str]:
    path = cwd / "run" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"val_accuracy": "great"}))
    return ["evaluate", "run"]


@case("metrics with a damaged line")
def _(cwd: Path) -> list[str]:
    (cwd / "run" / "metrics.jsonl").write_text('{"epoch": 1}\nnonsense\n{"epoch": 3}\n')
    shutil.copytree(cwd / "run", cwd / "copy")
    return ["compare", "run", "copy"]


case("no run folder")(lambda cwd: ["reproduce", "nowhere"])
case("one run to compare")(lambda cwd: ["compare", "run"])
case("a run compared with itself")(lambda cwd: ["compare", "run", "./run"])

# ---- weights files ----------------------------------------------------------------------------------------------


@case("a weights file that would run code")
def _(cwd: Path) -> list[str]:
    torch.save(Bomb(), cwd / "w.pt")
    return [*FOLDER[:1], "data=synthetic", "data.image_size=32", "model=resnet18", "model.weights=w.pt"]


@case("a weights file of another network")
def _(cwd: Path) -> list[str]:
    torch.save({"conv.weight": torch.zeros(2)}, cwd / "w.pt")
    return [*FOLDER[:1], "data=synthetic", "data.image_size=32", "model=resnet18", "model.weights=w.pt"]


case("a weights file that is not there")(
    lambda cwd: ["train", "data=synthetic", "data.image_size=32", "model=resnet18", "model.weights=w.pt"]
)

# ---- images and archives ----------------------------------------------------------------------------------------

case("a data folder that is not there")(lambda cwd: FOLDER)


@case("nested classes, which may be read in several ways")
def _(cwd: Path) -> list[str]:
    for name in ("Fruit/Apple", "Fruit/Kiwi", "Milk/Oat"):
        (cwd / "images/train" / name).mkdir(parents=True)
        (cwd / "images/train" / name / "0.png").write_bytes(picture())
    return FOLDER


@case("splits without a training split")
def _(cwd: Path) -> list[str]:
    for split in ("val", "test"):
        for name in ("cat", "dog"):
            (cwd / "images" / split / name).mkdir(parents=True)
            (cwd / "images" / split / name / "0.png").write_bytes(picture())
    return FOLDER


def table_of(cwd: Path, *lines: str) -> list[str]:
    (cwd / "images").mkdir()
    (cwd / "images/labels.csv").write_text("\n".join(lines))
    return ["train", "data=table", *FOLDER[2:]]


case("a table with two columns that may be labels")(
    lambda cwd: table_of(cwd, "path,fine,coarse", "0.png,Apple,Fruit", "1.png,Oat,Milk")
)
case("a table in which an image has two labels")(lambda cwd: table_of(cwd, "path,label", "0.png,cat", "0.png,dog"))
case("a pattern of groups that fits no name")(lambda cwd: [*clean(cwd), "data.group_by=patient([0-9]+)"])


def clean(cwd: Path) -> list[str]:
    folder = images(cwd)
    for number in range(1, 4):
        (folder / f"{number}.png").write_bytes(picture())
    return FOLDER


@case("a truncated, an empty and a text file among the images")
def _(cwd: Path) -> list[str]:
    folder = images(cwd)
    (folder / "cut.jpg").write_bytes(picture()[:700])
    (folder / "empty.jpg").touch()
    (folder / "notes.jpg").write_text("no image")
    return FOLDER


@case("a decompression bomb among the images")
def _(cwd: Path) -> list[str]:
    (images(cwd) / "bomb.png").write_bytes(huge_png())
    return FOLDER


@case("a link that leaves the data root")
def _(cwd: Path) -> list[str]:
    folder = images(cwd)
    (cwd / "secret.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "link.png").symlink_to(cwd / "secret.png")
    return FOLDER


@case("a link that leads nowhere")
def _(cwd: Path) -> list[str]:
    (images(cwd) / "link.png").symlink_to("gone.png")
    return FOLDER


@case("a photograph of a telephone, and a TIFF with signed pixels")
def _(cwd: Path) -> list[str]:
    folder = images(cwd)
    (folder / "IMG_0001.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100))
    shutil.copy(Path(__file__).parents[1] / "images" / "s16_positive.tif", folder)
    return FOLDER


@case("one class alone")
def _(cwd: Path) -> list[str]:
    root = images(cwd).parents[1]
    for split in ("train", "val", "test"):
        shutil.rmtree(root / split / "dog")
    return FOLDER


@case("two folders that mean validation")
def _(cwd: Path) -> list[str]:
    shutil.copytree(images(cwd).parents[1] / "val", cwd / "images" / "Valid")
    return FOLDER


@case("a file's name that steers the terminal")
def _(cwd: Path) -> list[str]:
    (images(cwd) / "\x1b[2J\x1b[31mred.jpg").write_text("no image")
    return FOLDER


case("a picture to predict that is none")(
    lambda cwd: ((cwd / "x.png").write_text("no image"), ["predict", "run", "x.png"])[-1]
)
case("an archive with ../")(lambda cwd: archive(cwd, "../../evil.txt"))
case("an archive with an absolute name")(lambda cwd: archive(cwd, "/etc/evil.txt"))
case("an archive with a link")(lambda cwd: archive(cwd, "train/link", b"/etc/passwd", stat.S_IFLNK | 0o777))
case("an archive that grows a thousandfold")(lambda cwd: archive(cwd, "train/a/0.jpg", bytes(30_000_000)))

# ---- storages and disks -----------------------------------------------------------------------------------------

SWEEP = ["train", "--multirun", *SMALL, "study=s", "seed=0,1", "hydra.sweeper.n_trials=1"]
case("a storage of no known kind, with a password")(
    lambda cwd: [*SWEEP, "hydra.sweeper.storage='nosuch://ann:hunter2secret@host/db'"]
)
case("a storage that is no address")(lambda cwd: [*SWEEP, "hydra.sweeper.storage='my studies'"])
case("a limit on the size of files")(lambda cwd: [*TRAIN, "model.dense_width=512", "hydra.run.dir=big"])


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(compose(*SMALL, "trainer.epochs=1"), folder)
    return folder


@pytest.fixture(scope="module")
def rows(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, int]]:
    """Each case's command, message and exit code."""
    said = {}
    for name, prepare in CASES.items():
        cwd = tmp_path_factory.mktemp("case")
        shutil.copytree(finished, cwd / "run")
        words = prepare(cwd)
        if name == "a limit on the size of files":
            code, _, errors = forked.command(words, cwd=cwd, before=_small_files)
        else:
            code, _, errors = typed(*words, cwd=cwd)
        assert not (cwd / "executed").exists(), name
        shown = [word for word in words if word not in SMALL]
        if len(shown) < len(words):
            shown.insert(2 if "--multirun" in shown else 1, "TINY")
        command = "da6401 " + " ".join(shown)
        for place in (str(cwd), str(cwd.resolve())):
            errors = errors.replace(place, "DIR")
        errors = re.sub(r"\d+ bytes not processed", "N bytes not processed", errors)  # another libjpeg, another number
        said[name] = (command, errors.strip(), code)
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_is_told_in_one_screen_and_exit_code_2(name: str, rows: dict[str, tuple[str, str, int]]) -> None:
    _, message, code = rows[name]
    assert code == 2, message
    assert "Traceback" not in message
    assert message.startswith("da6401: ")
    assert 1 <= message.count("\n") + 1 <= 24
    assert all(char.isprintable() or char in "\n\t" for char in message)
    assert "hunter2secret" not in message
    assert "site-packages" not in message


def test_there_are_many_of_every_kind() -> None:
    assert len(CASES) >= 20


def page(rows: dict[str, tuple[str, str, int]]) -> str:
    lines = [HEAD, "| what | command | message | exit |", "|---|---|---|---|"]
    for name, (command, message, code) in rows.items():
        cells = (name, _code(command.replace("hunter2secret", "PASSWORD")), _prose(message), str(code))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text if len(text) < 120 else text[:117] + '...'}`"


def _prose(text: str) -> str:
    text = re.sub(r"([<*_])", r"\\\1", text.replace("\\", "\\\\"))
    return "<br>".join(line.replace("  ", "&nbsp; ") for line in text.splitlines())


@pytest.mark.slow
def test_the_page_is_what_the_program_says(rows: dict[str, tuple[str, str, int]]) -> None:
    if os.environ.get("DA6401_WRITE_DOCS"):
        PAGE.write_text(page(rows), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(rows), "write it anew with DA6401_WRITE_DOCS=1"
