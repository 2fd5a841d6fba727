"""Intervals and paired tests as `compare`, `evaluate` and a sweep print them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.stats import binomtest

from da6401.runs.predictions import read_predictions
from tests.tiny_runs import SMALL, typed

HARD = (*SMALL, "data.images_per_class=40", "trainer.epochs=3")


def right(run: Path) -> npt.NDArray[np.bool_]:
    """Of each validation image whether it is predicted right."""
    answers = read_predictions(run / "validation.csv")
    right_N: npt.NDArray[np.bool_] = answers.predicted == answers.labels_N
    return right_N


def test_compare_tests_runs_on_the_same_images(tmp_path: Path) -> None:
    for name, rate in (("good", "0.02"), ("poor", "0.000001")):
        code, _, err = typed("train", *HARD, f"optimizer.lr={rate}", f"hydra.run.dir={name}", cwd=tmp_path)
        assert code == 0, err
    one, other = right(tmp_path / "good"), right(tmp_path / "poor")
    alone, other_alone = int((one & ~other).sum()), int((other & ~one).sum())
    p = binomtest(alone, alone + other_alone).pvalue
    assert p < 0.05, "the networks of this test are too much alike"
    code, out, err = typed("compare", "good", "poor", cwd=tmp_path)
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("validation accuracy, A - B: "))
    assert f"only A right on {alone} and only B on {other_alone}; McNemar, p = {p:.3g}: A is better" in line
    assert f"{one.mean() - other.mean():+.4f}" in line
    shutil.copytree(tmp_path / "good", tmp_path / "copy")
    code, out, err = typed("compare", "good", "copy", cwd=tmp_path)
    assert code == 0, err
    assert "only A right on 0 and only B on 0; McNemar, p = 1: no difference shown" in out


@pytest.fixture
def swapped(tmp_path: Path) -> Path:
    """Red and blue pictures; in test, which is brighter, the names of the two are exchanged."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 24), ("test", 24)):
        for label, name in enumerate(("blue", "red")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (16, 16, 3)) + (100 if split == "test" else 0)
                pixels[:, :, 0 if (label == 1) != (split == "test") else 2] += 80
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def test_evaluate_says_where_test_is_unlike_validation(swapped: Path, tmp_path: Path) -> None:
    small = [word for word in HARD if not word.startswith(("data", "trainer.epochs"))]
    words = (*small, "data=folder", f"data.root={swapped}", "data.image_size=16", "trainer.epochs=6",
             "augmentation=none", "optimizer.lr=0.02")  # fmt: skip
    code, _, err = typed("train", *words, "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    assert right(tmp_path / "run").mean() > 0.9, "the network of this test learned nothing"
    code, out, err = typed("evaluate", "run", cwd=tmp_path)
    assert code == 0, err
    assert re.search(r"test accuracy 0\.\d+ lies outside validation's 95% interval, .* \(n = 48\): it is worse", out)
    assert "The images' brightness is distributed otherwise in test" in out
    assert f"da6401 data check {swapped} --near" in out
    assert "have other shares" not in out


def test_a_sweep_marks_what_cannot_be_told_from_its_winner(tmp_path: Path) -> None:
    """Trials 0 and 1 have nearly the same learning rate, that of trial 2 teaches nothing."""
    space = "hydra.sweeper.params={optimizer.lr: 'choice(0.02, 0.0200001, 0.000001)'}"
    words = ("hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1", "hydra/sweeper/pruner=none", "study=s")
    code, out, err = typed("train", "--multirun", *HARD, *words, space, cwd=tmp_path)
    assert code == 0, err
    sweep = tmp_path / "outputs/sweeps/s"
    summary = json.loads((sweep / "sweep.json").read_text())
    answers = [right(sweep / f"trial-{number}") for number in range(3)]
    winner = int(np.argmax([each.mean() for each in answers]))
    p_values = {
        number: binomtest(alone, alone + other).pvalue if alone + other else 1.0
        for number, each in enumerate(answers)
        if number != winner
        for alone, other in [(int((answers[winner] & ~each).sum()), int((each & ~answers[winner]).sum()))]
    }
    same = [number for number, p in p_values.items() if p >= 0.05]
    assert same == [1 - winner], "trial 2 of this test is too good"
    assert 2 * p_values[2] < 0.05
    assert summary["not_told_from_best"] == same
    assert re.search(rf"^\s*~{same[0]}\s+1\.0", out, re.MULTILINE)
    assert re.search(rf"^\s*\*{winner}\s", out, re.MULTILINE)
    assert "~ cannot be told from the winner on these validation images: 1 of 2 other trials" in out
    code, _, err = typed("report", str(sweep), cwd=tmp_path)
    assert code == 0, err
    page = next(sweep.glob("*.html")).read_text(encoding="utf-8")
    assert "cannot be told from the winner on these validation images: 1 of 2 other trials" in page
