"""`da6401 predict`: class and probability of files, as lines, JSON lines or a CSV table."""

# K classes

from __future__ import annotations

import csv
import glob
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from da6401.commands.evaluate import print_choice_warnings
from da6401.commands.predictor import Picture, Predictor
from da6401.config.schema import FolderConfig, RunConfig
from da6401.config.splits import TEST
from da6401.data.flat import is_flat
from da6401.data.layout import find_layout
from da6401.data.list_images import list_images
from da6401.data.plan import make_plan
from da6401.data.sources import explain_read_errors, reads_files
from da6401.data.table import SUFFIXES
from da6401.errors import DataError, UserError
from da6401.machine.terminal import with_progress
from da6401.plugins.needed import plugins_of
from da6401.redact import json_text, one_line, safe
from da6401.runs.atomic_files import write_atomic
from da6401.runs.looks import record_look
from da6401.runs.named_folders import is_folder_there
from da6401.runs.user_outputs import OutputKind
from da6401.training.device import restore_torch_settings

EXPLAINED = ".explain.png"  # a.jpg.explain.png lies beside a.jpg; no such file is predicted
TABLE = OutputKind(
    what="table of da6401 predict",
    option="--csv FILE",
    begins=re.compile(rb'image,class,probability(,"?p\(|,class 2,|\r?\n)'),
)
Images = str | Picture | Sequence[str | Picture]


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written of the answers, and where."""

    as_json: bool = False  # JSON lines on standard output
    csv: Path | None = None  # a table, in place of the lines on standard output
    top: int | None = None  # the most probable classes of each image alone; None: all
    explain: bool = False  # a picture beside each


@restore_torch_settings()
def predict_images(
    folder: Path, words: Sequence[Path], output: Output, *, tta: bool = False, calibrated: bool = False
) -> int:
    """Print class and probability of each image; 2 where some could not be read, after all the others.

    Args:
        words: files, folders (with all image files below them) and patterns such as ``photos/*.jpg``.
        tta, calibrated: as of Predictor.load.

    Raises:
        UserError: nothing to read, --top outside 1..K, a run that cannot be read, or a file that cannot be written or
            is not to be written over.
    """
    if output.csv is not None:
        TABLE.check(output.csv)  # without its FILE, --csv takes the first of the images
    predictor = Predictor.load(folder, tta=tta, calibrated=calibrated)
    classes = len(predictor.class_names)
    if output.top is not None and not 1 <= output.top <= classes:
        raise UserError(f"--top {output.top}: the model has {classes} classes; write a number from 1 to {classes}")
    images = image_files(words)
    explainer = None
    if output.explain:
        from da6401.commands.explain.beside import Explainer  # matplotlib

        _refuse_beside(images, predictor.cfg)
        explainer = Explainer.load(folder)
    record_test_files(folder, predictor.cfg, images)
    table = _Table(predictor.class_names, output.top) if output.csv else None
    done = refused = 0
    # Lines on a terminal show how far it is by themselves.
    bar = with_progress(images, "predict", total=len(images), enabled=not sys.stdout.isatty() or table is not None)
    for path in bar:
        try:
            pixels = predictor.read(path)
        except DataError as error:
            print(f"da6401: {safe(error)}", file=sys.stderr)
            refused += 1
            continue
        (probabilities_K,) = predictor.probabilities([pixels])
        done += 1
        if output.as_json:
            print(json_text({"image": str(path), **predictor.answer(probabilities_K, top=output.top)}))
        elif table is None:
            print(f"{one_line(safe(path))}  {_in_words(predictor, probabilities_K, output.top or 1)}")
        if table is not None:
            table.add(str(path), probabilities_K)
        if explainer is not None:
            explainer.write(path.with_name(path.name + EXPLAINED), pixels, probabilities_K)
    if table is not None and output.csv is not None:
        table.write(output.csv)
        if not output.as_json:
            print(f"{safe(output.csv)}  {done} images" + (f", {refused} could not be read" if refused else ""))
    return 2 if refused else 0


@restore_torch_settings()
def probabilities_of(folder: Path, images: Images) -> tuple[list[str], tuple[str, ...], npt.NDArray[np.float32]]:
    """The names of pictures (files, or their numbers), the classes, and the probabilities (N, K) that predict gives.

    Args:
        images: one or several of: files, folders and patterns; pictures of Pillow's; uint8 arrays (H, W), (H, W, 3) or
            (H, W, 4); an array (N, H, W, 3) is N of these.

    Raises:
        UserError: one cannot be read, or the run cannot.
    """
    predictor = Predictor.load(folder)
    named: list[tuple[str, Picture]] = []
    for each in _one_by_one(images):
        if isinstance(each, str | Path):
            named += [(str(path), path) for path in image_files([Path(each)])]
        else:
            named.append((str(getattr(each, "filename", "") or len(named)), each))
    record_test_files(folder, predictor.cfg, [picture for _, picture in named if isinstance(picture, Path)])
    rows = [predictor.probabilities([predictor.read(picture)])[0] for _, picture in named]
    stacked = np.stack(rows) if rows else np.zeros((0, len(predictor.class_names)), np.float32)
    return [name for name, _ in named], predictor.class_names, stacked


def _one_by_one(images: Images) -> Iterator[str | Picture]:
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, str | bytes | Path | np.ndarray | Image.Image):
        yield images
    else:
        yield from images


def image_files(words: Sequence[Path]) -> list[Path]:
    """The files that are meant, each once: files, whether they are there or not; a folder's image files; a pattern's.

    Raises:
        DataError: a folder without an image file, or a pattern that matches none.
    """
    found: dict[Path, None] = {}
    for word in words:
        if is_folder_there(word):
            inside = sorted(path for path in word.rglob("*") if _is_image(path) and not _hidden(path, word))
            if not inside:
                raise DataError(f"{word}: has no image file in it ({', '.join(SUFFIXES)})")
            found |= dict.fromkeys(inside)
        elif not os.path.lexists(word) and glob.has_magic(str(word)):
            matches = sorted(map(Path, glob.glob(str(word), recursive=True)))
            if not matches:
                raise DataError(f"{word}: no file matches this pattern")
            found |= dict.fromkeys(path for match in matches for path in (image_files([match])))
        else:
            found[word] = None
    return [path for path in found if not path.name.endswith(EXPLAINED)]


def record_test_files(folder: Path, cfg: RunConfig, images: Sequence[Path]) -> None:
    """Record a look where some of the files are in the test split of the run's own data.

    Raises:
        UserError: it cannot be recorded.
    """
    with plugins_of(folder):
        tested = _count_test_files(cfg, images)
    if tested:
        print_choice_warnings(folder)
        record_look(folder, verb="predict", purpose=f"answers on {tested} of its files")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _in_words(predictor: Predictor, probabilities_K: npt.NDArray[np.float32], top: int) -> str:
    order = np.argsort(-probabilities_K, kind="stable")[:top]
    names = predictor.class_names
    return "  ".join(f"{one_line(safe(names[label]))}  {float(probabilities_K[label]):.4f}" for label in order)


def _refuse_beside(images: Sequence[Path], cfg: RunConfig) -> None:
    """A picture beside an image of the run's own data would be one of its images from then on."""
    if not reads_files(cfg.data) or not cfg.data.root:
        return
    root = os.path.realpath(cfg.data.root)
    inside = next((path for path in images if Path(os.path.realpath(path)).is_relative_to(root)), None)
    if inside is not None:
        raise UserError(
            f"--explain: {inside} lies in the run's own data ({root}), and a picture beside it would be trained on; "
            "copy it elsewhere, or use da6401 explain"
        )


def _count_test_files(cfg: RunConfig, images: Sequence[Path]) -> int:
    """How many of these files are in the test split of the run's own data; 0 where the data is no longer here."""
    if not reads_files(cfg.data):
        return 0
    real = [Path(os.path.realpath(path)) for path in images]  # resolve() raises at loops
    try:
        with explain_read_errors():
            if not isinstance(cfg.data, FolderConfig) or is_flat(cfg.data):
                files = make_plan(list_images(cfg.data), cfg.data).files(TEST)
                test = {os.path.realpath(file.path) for file in files if file.content is None}
                return sum(str(path) in test for path in real)
            layout = find_layout(cfg.data.root, cfg.data.val_role)
    except UserError:
        return 0
    if layout.test is None:
        return 0
    split = (layout.root / layout.test).resolve()
    return sum(path.is_relative_to(split) for path in real)


class _Table:
    """The answers as CSV: image, class, probability, and p(CLASS) of each class, or the next best classes."""

    def __init__(self, class_names: Sequence[str], top: int | None) -> None:
        self.class_names, self.top = class_names, top
        self.text = io.StringIO(newline="")
        self.lines = csv.writer(self.text, lineterminator="\n")
        names = (f"p({name})" for name in class_names)
        ranks = (f"{what} {rank}" for rank in range(2, (top or 1) + 1) for what in ("class", "probability"))
        self.lines.writerow(["image", "class", "probability", *(names if top is None else ranks)])

    def add(self, image: str, probabilities_K: npt.NDArray[np.float32]) -> None:
        self.lines.writerow([image, *self._cells(probabilities_K)])

    def _cells(self, probabilities_K: npt.NDArray[np.float32]) -> Iterator[str]:
        order = np.argsort(-probabilities_K, kind="stable")[: self.top or 1]
        for label in order:
            yield from (self.class_names[label], f"{probabilities_K[label]:.9g}")
        if self.top is None:
            yield from (f"{value:.9g}" for value in probabilities_K)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with TABLE.writing():
            write_atomic(path, lambda file: file.write(self.text.getvalue().encode("utf-8", "backslashreplace")))
