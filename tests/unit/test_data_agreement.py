"""`data check` reports a problem exactly where a training or an evaluation refuses, or skips (data.bad_files=skip)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from da6401.config.schema import FolderConfig, ValRole
from da6401.data.image_sets import TrainingData
from da6401.data.sources import load_test_data, load_training_data
from da6401.data.tree_check import TreeReport, check_tree
from da6401.errors import DataError
from tests.pngs import COLOUR, chunk, png
from tests.tiffs import tiff

IMAGES = Path(__file__).parents[1] / "images"
CLEAN, PROBLEM = True, False


def fill(root: Path, **splits: dict[str, int]) -> None:
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng(list(f"{split}/{name}/{number}".encode("utf-8", "surrogateescape")))
                Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(
                    root / split / name / f"{number}.png"
                )


def two(count: int = 3) -> dict[str, int]:
    return {"cat": count, "dog": count}


Make = Callable[[Path], object]


def added(name: str, make: Make) -> Make:
    """A good tree with one file more, in train."""

    def tree(root: Path) -> None:
        fill(root, train=two(), val=two(1), test=two(1))
        make(root / "train" / "cat" / name)

    return tree


def copied(name: str) -> Make:
    return added(name, lambda path: shutil.copy(IMAGES / name, path))


def bytes_of(name: str, content: bytes) -> Make:
    return added(name, lambda path: path.write_bytes(content))


def saved(name: str, mode: str = "RGB", **options: object) -> Make:
    def make(path: Path) -> None:
        rng = np.random.default_rng(1)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).convert(mode).save(path, **options)  # type: ignore[arg-type]

    return added(name, make)


def linked(name: str, to: str) -> Make:
    return added(name, lambda path: path.symlink_to(to))


def cut(path: Path) -> None:
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-3000])


def truncated(root: Path) -> None:
    fill(root, train=two(), val=two(1), test=two(1))
    cut(root / "test" / "dog" / "cut.jpg")


def flat_test(root: Path) -> None:
    fill(root, train=two(), val=two(1))
    (root / "test").mkdir()
    Image.new("RGB", (8, 8)).save(root / "test" / "0001.jpg")


def outside(root: Path) -> None:
    fill(root, train=two(), val=two(1), test=two(1))
    fill(root.parent / "elsewhere", train={"cat": 2})
    shutil.rmtree(root / "train" / "cat")
    (root / "train" / "cat").symlink_to(root.parent / "elsewhere" / "train" / "cat")


def animated(path: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(path, save_all=True, append_images=[Image.new("RGB", (9, 9), "blue")])


NOISE = np.random.default_rng(0).random((20, 20, 3))
TREES: dict[str, tuple[Make, bool]] = {
    # ---- files
    "nothing special": (saved("plain.png"), CLEAN),
    "a lossless JPEG": (copied("lossless.jpg"), CLEAN),
    "a JPEG of 12 bits": (copied("twelve_bits.jpg"), PROBLEM),
    "a TIFF of 12 bits": (copied("u12_packed.tif"), CLEAN),
    "a TIFF, white is zero": (copied("u16_miniswhite.tif"), CLEAN),
    "a signed TIFF": (copied("s16_positive.tif"), PROBLEM),
    "a TIFF in planes of 16 bits": (
        bytes_of("x.tif", tiff(np.moveaxis(NOISE, -1, 0), 16, photometric="rgb", planarconfig="separate")), PROBLEM
    ),
    "a damaged TIFF": (bytes_of("x.tif", tiff(NOISE, 8, photometric="rgb", deflate=True)[:700] + bytes(600)), PROBLEM),
    "a progressive JPEG": (saved("x.jpg", progressive=True), CLEAN),
    "a CMYK JPEG": (saved("x.jpg", "CMYK"), CLEAN),
    "a grey JPEG": (saved("x.jpg", "L"), CLEAN),
    "a JPEG named png": (saved("x.png", format="JPEG"), CLEAN),
    "one bit": (saved("x.png", "1"), CLEAN),
    "16 bits": (bytes_of("x.png", png(np.arange(1200).reshape(20, 20, 3) * 50, 16, COLOUR)), CLEAN),
    "16 bits, one transparent colour": (
        bytes_of("x.png", png(np.full((4, 4, 3), 9), 16, COLOUR, before=chunk(b"tRNS", bytes(6)))), PROBLEM
    ),
    "a palette with transparency": (saved("x.png", "P", transparency=bytes(range(255))), CLEAN),
    "an animated GIF": (added("x.gif", animated), CLEAN),
    "an animated PNG": (added("x.png", animated), CLEAN),
    "a WebP": (saved("x.webp", "RGBA"), CLEAN),
    "an AVIF": (saved("x.avif"), CLEAN),
    "a JPEG 2000": (saved("x.jp2"), CLEAN),
    "a colour profile that is none": (saved("x.jpg", icc_profile=b"nonsense" * 20), CLEAN),
    "a bad EXIF block": (saved("x.jpg", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\x01\x12"), CLEAN),
    "an empty file": (bytes_of("x.jpg", b""), PROBLEM),
    "a text": (bytes_of("notes.txt", b"hello"), PROBLEM),
    "an HEIC photograph": (bytes_of("x.heic", b"\0\0\0\x18ftypheic" + bytes(99)), PROBLEM),
    "floating-point pixels": (saved("x.tif", "F"), PROBLEM),
    "a cut file in test": (truncated, PROBLEM),
    "one pixel": (added("x.png", lambda path: Image.new("RGB", (1, 1)).save(path)), CLEAN),
    "a thread": (added("x.png", lambda path: Image.new("RGB", (1, 5000)).save(path)), CLEAN),
    "more pixels than allowed": (
        bytes_of("x.png", png(np.zeros((1, 1)), 8, 0).replace(b"\0\0\0\1\0\0\0\1", b"\0\1\0\0\0\1\0\0")), PROBLEM
    ),
    # ---- links
    "a link to another file of the tree": (linked("x.png", "../dog/0.png"), CLEAN),
    "a link that leads nowhere": (linked("x.png", "gone.png"), PROBLEM),
    "a link to itself": (linked("x.png", "x.png"), PROBLEM),
    "a link out of the tree": (linked("x.png", "/etc/hostname"), PROBLEM),
    "a class folder elsewhere": (outside, PROBLEM),
    "a class folder that leads nowhere": (linked("../bird", "gone"), PROBLEM),
    "a class folder that leads to itself": (linked("../bird", "bird"), PROBLEM),
    "a folder among the images": (added("more", lambda path: path.mkdir()), PROBLEM),
    "a pipe": (added("pipe.png", os.mkfifo), PROBLEM),
    # ---- classes and splits
    "a class with one image": (lambda root: fill(root, train={"cat": 4, "dog": 1}, test=two()), PROBLEM),
    "a class with one image, and a validation split": (
        lambda root: fill(root, train={"cat": 4, "dog": 1}, val=two(), test=two()), CLEAN
    ),
    "a class with one image, and val as the test split": (
        lambda root: fill(root, train={"cat": 4, "dog": 1}, val=two()), PROBLEM
    ),
    "a class without an image": (lambda root: fill(root, train={"cat": 4, "dog": 0}, test=two()), PROBLEM),
    "one class alone": (lambda root: fill(root, train={"cat": 4}, val={"cat": 1}, test={"cat": 1}), PROBLEM),
    "validation without images": (lambda root: fill(root, train=two(), val=two(0), test=two()), PROBLEM),
    "a class without an image in validation": (
        lambda root: fill(root, train=two(), val={"cat": 1, "dog": 0}, test=two()), CLEAN
    ),
    "test without images": (lambda root: fill(root, train=two(), val=two(), test=two(0)), PROBLEM),
    "a class that validation lacks": (lambda root: fill(root, train=two(), val={"cat": 2}, test=two()), PROBLEM),
    "a class that test alone has": (lambda root: fill(root, train=two(), val=two(), test={**two(), "x": 1}), PROBLEM),
    "a test split without classes": (flat_test, CLEAN),
    "train alone": (lambda root: fill(root, train=two()), CLEAN),
    "other names": (lambda root: fill(root, Training=two(), DEV=two(1), testing=two(1)), CLEAN),
    "two validation splits": (lambda root: fill(root, train=two(), val=two(), Valid=two(), test=two()), PROBLEM),
    "two training splits": (lambda root: fill(root, train=two(), Train=two(), test=two()), PROBLEM),
    "a folder beside the splits": (lambda root: fill(root, train=two(), val=two(), test=two(), extra=two()), CLEAN),
    "no splits": (lambda root: fill(root, images=two()), CLEAN),
    "no splits, and too few images to draw them": (lambda root: fill(root, images=two(2)), PROBLEM),
    "no train": (lambda root: fill(root, val=two(), test=two()), PROBLEM),
    "train without class folders": (lambda root: fill(root, **{"train": {"": 3}, "test": two()}), PROBLEM),
    "validation without class folders": (lambda root: fill(root, train=two(), val={"": 3}, test=two()), PROBLEM),
    "class names that look alike": (lambda root: fill(root, train={"Cat": 2, "cat": 2, "dog": 2}), CLEAN),
    "a data set within a folder": (lambda root: fill(root / "training", train=two(), test=two()), CLEAN),
    "a data set within two": (lambda root: fill(root / "training" / "x", train=two(), test=two()), CLEAN),
    "a class named as a split": (
        lambda root: fill(root, train={"bus": 3, "train": 3}, test={"bus": 1, "train": 1}), CLEAN
    ),
}  # fmt: skip


def trained(root: Path, *, skip: bool, val_role: ValRole = "auto") -> TrainingData:
    """What a training and then an evaluation read."""
    cfg = FolderConfig(
        root=str(root), image_size=4, bad_files="skip" if skip else "stop", val_role=val_role, cache="off"
    )
    data = load_training_data(cfg)
    layout = check_tree(root, val_role).layout
    if layout is None or layout.test is not None:
        load_test_data(cfg, data.class_names)
    return data


def refused(root: Path, *, skip: bool, val_role: ValRole = "auto") -> str:
    try:
        trained(root, skip=skip, val_role=val_role)
    except DataError as error:
        return str(error)
    return ""


def checked(root: Path, val_role: ValRole = "auto") -> TreeReport | DataError:
    try:
        return check_tree(root, val_role)
    except DataError as error:
        return error


@pytest.mark.parametrize("name", TREES)
def test_check_and_train_agree(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, clean = TREES[name]
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    report, refusal = checked(root), refused(root, skip=False)
    found_clean = isinstance(report, TreeReport) and report.clean
    assert found_clean == (not refusal) == clean, (report, refusal)
    assert capfd.readouterr().err == ""  # nothing of Pillow's, nothing of libtiff's
    if isinstance(report, TreeReport) and report.bad:
        for file in report.bad:  # in the same words
            assert f"{file.name}: {file.reason}" in refusal or not file.name.startswith(("train/", "val/"))
        emptied = refused(root, skip=True)
        assert not emptied or "no readable training image" in emptied
        if not emptied:
            bad = {file.name for file in report.bad if not file.name.startswith("test/")}
            assert {file.name for file in trained(root, skip=True).skipped} == bad
    elif isinstance(report, TreeReport):
        for problem in report.problems:
            assert problem.partition(", unknown")[0] in refusal or "no readable image" in problem


def test_the_role_of_val_changes_the_verdict_of_both(tmp_path: Path) -> None:
    fill(tmp_path, train={"cat": 4, "dog": 1}, val=two())
    for val_role, clean in (("auto", False), ("validation", True), ("test", False)):
        report = checked(tmp_path, val_role)  # type: ignore[arg-type]
        assert isinstance(report, TreeReport)
        assert report.clean == (not refused(tmp_path, skip=False, val_role=val_role)) == clean  # type: ignore[arg-type]
