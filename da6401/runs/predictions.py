"""A model's answers on a set of images as a CSV file: one line an image, the true class, a probability a class.

A file begins with ``image,class`` and the class names; read_predictions goes by the order of the columns, so a class
may have any name, even "image". Names are escaped where UTF-8 or a line of CSV cannot hold them as they are.
"""

# N images, K classes

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from da6401.errors import RunError
from da6401.runs.atomic_files import write_atomic
from da6401.runs.run_folder import TEST_CSV, VALIDATION_CSV

DIGITS = 9  # significant ones: a float32 comes back with the same bits


class ClassScore(NamedTuple):
    """How a class is predicted; what would be divided by 0 is None."""

    name: str
    images: int  # of this class
    predicted: int  # as this class, right or wrong
    right: int

    @property
    def precision(self) -> float | None:
        return self.right / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        return self.right / self.images if self.images else None

    @property
    def f1(self) -> float | None:
        total = self.images + self.predicted
        return 2 * self.right / total if total else None


class Mistake(NamedTuple):
    """An image that is predicted wrong."""

    row: int  # of the predictions
    image: str
    true: str
    predicted: str
    confidence: float  # 0..1, the predicted class's probability
    true_probability: float  # 0..1, the true class's


@dataclass(frozen=True)
class Predictions:
    """Images in the order of their set; ``names`` are those of ImageSet."""

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels_N: npt.NDArray[np.int64]  # index into class_names
    probabilities_NK: npt.NDArray[np.float32]

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(N,): the most probable class of each image; ties go to the lower one."""
        predicted_N: npt.NDArray[np.int64] = self.probabilities_NK.argmax(axis=1)
        return predicted_N

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """(N,): the probability of that class."""
        confidence_N: npt.NDArray[np.float32] = self.probabilities_NK.max(axis=1)
        return confidence_N

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """(K, K): images by true class (row) and predicted class (column)."""
        return confusion_counts(self.labels_N, self.predicted, classes=len(self.class_names))

    def by_class(self) -> list[ClassScore]:
        """The score of each class."""
        sums = [each.tolist() for each in (self.counts.sum(1), self.counts.sum(0), self.counts.diagonal())]
        return [ClassScore(*each) for each in zip(self.class_names, *sums, strict=True)]

    def mistakes(self) -> list[Mistake]:
        """The wrong predictions, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels_N)
        return [
            Mistake(
                row, self.names[row], self.class_names[true := self.labels_N[row]],
                self.class_names[self.predicted[row]], float(self.confidence[row]),
                float(self.probabilities_NK[row, true]),
            )
            for row in wrong[np.argsort(-self.confidence[wrong], kind="stable")].tolist()
        ]  # fmt: skip


def confusion_counts(
    labels_N: npt.NDArray[np.int64], predicted_N: npt.NDArray[np.int64], *, classes: int
) -> npt.NDArray[np.int64]:
    """(K, K): images by true class (row) and predicted class (column)."""
    counts_KK = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts_KK, (labels_N, predicted_N), 1)
    return counts_KK


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the file atomically.

    Raises:
        WriteError: it cannot be written.
    """
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    classes = [_escaped(name) for name in predictions.class_names]
    lines.writerow(["image", "class", *classes])
    for name, label, row_K in zip(
        predictions.names, predictions.labels_N.tolist(), predictions.probabilities_NK.tolist(), strict=True
    ):
        lines.writerow([_escaped(name), classes[label], *(f"{value:.{DIGITS}g}" for value in row_K)])
    write_atomic(path, lambda file: file.write(text.getvalue().encode("utf-8")))


def read_predictions(path: Path) -> Predictions:
    """The answers of such a file.

    Raises:
        RunError: missing, damaged, or no such file.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
        if len(rows) < 2 or rows[0][:2] != ["image", "class"] or len(rows[0]) < 3:
            raise ValueError("image, class and the names of the classes are expected in its first line")
        classes = rows[0][2:]
        number = {name: label for label, name in enumerate(classes)}
        if len(number) < len(classes):
            raise ValueError("two classes have one name")
        for line, row in enumerate(rows[1:], start=2):
            if len(row) != len(rows[0]) or row[1] not in number:
                raise ValueError(f"entry {line} does not fit the first line")
        probabilities_NK = np.array([[float(cell) for cell in row[2:]] for row in rows[1:]], dtype=np.float32)
        if not ((probabilities_NK >= 0) & (probabilities_NK <= 1)).all():
            raise ValueError("a probability is outside 0..1")
        names = tuple(_unescaped(row[0]) for row in rows[1:])
        class_names = tuple(map(_unescaped, classes))
    except FileNotFoundError as error:
        raise RunError(
            f"{path}: not found; a completed run has {VALIDATION_CSV}, an evaluated one {TEST_CSV}"
        ) from error
    except (OSError, ValueError, csv.Error, OverflowError) as error:
        raise RunError(f"{path}: cannot be read as predictions ({error}); the file is damaged") from error
    labels_N = np.array([number[row[1]] for row in rows[1:]], dtype=np.int64)
    return Predictions(class_names, names, labels_N, probabilities_NK)


def _escaped(name: str) -> str:
    """A name as printable text: a backslash, and what a line of UTF-8 cannot hold, as a code point like \\u{5c}."""
    return "".join(
        character if character.isprintable() and character != "\\" else f"\\u{{{ord(character):x}}}"
        for character in name
    )


def _unescaped(text: str) -> str:
    return re.sub(r"\\u\{([0-9a-f]+)\}", lambda found: chr(int(found[1], 16)), text)
