"""Predictions as CSV: they come back bit for bit, whatever the names; damage is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from da6401.errors import RunError
from da6401.runs.predictions import Predictions, read_predictions, write_predictions

NAMES = st.lists(st.text(st.characters(exclude_categories=()), max_size=8), min_size=2, max_size=5, unique=True)


@settings(max_examples=40, deadline=None)
@given(class_names=NAMES, names=NAMES, seed=st.integers(0, 99))
def test_any_names_and_all_bits_come_back(class_names: list[str], names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities_NK = rng.random((len(names), len(class_names)), dtype=np.float32) ** 8
    labels_N = rng.integers(0, len(class_names), len(names))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "validation.csv"
        write_predictions(path, Predictions(tuple(class_names), tuple(names), labels_N, probabilities_NK))
        back = read_predictions(path)
        assert path.read_bytes().isascii() or path.read_text(encoding="utf-8")
    assert (back.class_names, back.names) == (tuple(class_names), tuple(names))
    assert back.labels_N.tolist() == labels_N.tolist()
    assert back.probabilities_NK.tobytes() == probabilities_NK.tobytes()


def test_the_file_is_one_that_people_read(tmp_path: Path) -> None:
    answers = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    write_predictions(
        tmp_path / "a.csv", Predictions(("cat, big", "\u0394\n"), ("x.png", "a\\b"), np.array([1, 0]), answers)
    )
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines() == [
        'image,class,"cat, big",\u0394\\u{a}', "x.png,\u0394\\u{a},0.25,0.75", 'a\\u{5c}b,"cat, big",1,0',
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"", b"image,class,a\n", b"image,class\nx,a\n", b"a,b,c\nx,a,1\n", b"image,class,a\nx,b,1\n",
        b"image,class,a,b\nx,a,1\n", b"image,class,a\nx,a,one\n", b"image,class,a\nx,a,nan\n",
        b"image,class,a\nx,a,1.5\n", b"image,class,a,a\nx,a,1,0\n", b"image,class,a\nx\xff,a,1\n",
        b'image,class,a\n"x,a,1\n', b"image,class,a\nx\\u{fffffff},a,1\n",
    ],
)  # fmt: skip
def test_damage_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.csv: cannot be read as predictions"):
        read_predictions(tmp_path / "a.csv")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not found"):
        read_predictions(tmp_path / "a.csv")
