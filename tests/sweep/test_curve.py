"""experiment=freeze_curve and sweep.plot_by: the trials of a sweep by one key, as a table, a CSV and a picture."""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from da6401.cli import main
from da6401.config.command_line import check_command_line
from da6401.runs.atomic_files import write_yaml
from da6401.runs.run_folder import CONFIG, RunResult, read_result, write_result
from da6401.sweep.curve import draw, read_points, write_curve
from tests.sweep.sweeps import FOLDER, SWEEP, N
from tests.tiny_runs import compose

KEY = "model.freeze_depth"
RESULT = RunResult(
    status="completed", val_accuracy=0.5, val_loss=1.0, best_epoch=1, epochs_run=1, test_accuracy=None, test_loss=None,
    parameters=100, macs=10, seconds=2.0, reason="", trainable_parameters=80, peak_memory_mb=50.0,
)  # fmt: skip


def trial(folder: Path, number: int, value: object, result: RunResult = RESULT) -> None:
    write_yaml(folder / f"trial-{number}" / CONFIG, {"model": {"freeze_depth": value}})
    write_result(folder / f"trial-{number}", result)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "curve.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(told: Table | str) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(told)
    return captured.get()


def test_every_depth_and_seed_is_trained_and_told(
    capsys: pytest.CaptureFixture[str], tiny_resnet18: tuple[str, ...]
) -> None:
    words = ("experiment=freeze_curve", *tiny_resnet18, "model=resnet18", f"{KEY}=choice(0,5)", "seed=choice(0,1)")
    assert main(["train", "--multirun", *words, "study=s"]) == 0
    folder = FOLDER
    out = capsys.readouterr().out
    assert "by model.freeze_depth: mean +- standard deviation" in out
    table = rows(folder)
    assert [(row[KEY], row["n"]) for row in table] == [("0", "2"), ("5", "2")]
    results = [read_result(path.parent) for path in folder.glob("trial-*/result.json")]
    assert len(results) == 4
    for row in table:
        trained = int(float(row["trainable_parameters_mean"]))
        own = [result for result in results if result.trainable_parameters == trained]
        assert len(own) == 2
        assert float(row["val_accuracy_mean"]) == statistics.fmean(result.val_accuracy or 0.0 for result in own)
        assert float(row["seconds_std"]) == statistics.stdev(result.seconds for result in own)
        assert f"{trained:,}" in out
    assert float(table[1]["trainable_parameters_mean"]) == 4 * 3 + 3  # the head alone
    (winner,) = json.loads((folder / "sweep.json").read_text())["best"]
    means = {int(row[KEY]): float(row["val_accuracy_mean"]) for row in table}
    assert winner["mean"] == max(means.values()) == means[winner["params"][KEY]]
    assert f"trial {winner['trial']}, the median of 2 seeds, by their mean" in out
    with Image.open(folder / "curve.png") as picture:
        assert picture.size == (1200, 840)


def test_the_space_is_every_depth_of_the_chosen_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("experiment=freeze_curve", "model=googlenet", "model.weights=none", "data=synthetic", "sweep.dry_run=true")
    assert main(["train", "--multirun", *words, "study=s"]) == 0
    assert f"{13 * 3} trials" in capsys.readouterr().out


def test_the_numbers_of_a_value_are_its_trials(tmp_path: Path) -> None:
    other = dataclasses.replace(RESULT, val_accuracy=0.7, seconds=4.0)
    for number, (depth, result) in enumerate([(10, RESULT), (2, RESULT), (2, other)]):
        trial(tmp_path, number, depth, result)
    trial(tmp_path, 3, 2, dataclasses.replace(RESULT, status="pruned", val_accuracy=0.1))
    trial(tmp_path, 4, 2, dataclasses.replace(RESULT, status="failed", val_accuracy=None))
    (tmp_path / "trial-5").mkdir()
    shown = text(write_curve(tmp_path, KEY))
    two, ten = rows(tmp_path)
    assert (two[KEY], ten[KEY]) == ("2", "10")  # in the order of numbers
    assert (two["n"], ten["n"]) == ("2", "1")
    assert float(two["val_accuracy_mean"]) == pytest.approx(0.6)
    assert float(two["val_accuracy_std"]) == pytest.approx(0.02**0.5)
    assert float(two["seconds_std"]) == pytest.approx(2**0.5)
    assert ten["val_accuracy_std"] == ""  # one trial has no deviation
    assert "0.6000 +- 0.1414" in shown
    assert "0.5000 +-" not in shown


def test_the_picture_shows_each_trial_and_names_what_it_shows(tmp_path: Path) -> None:
    for number, (depth, accuracy) in enumerate([(0, 0.5), (0, 0.7), (4, 0.8), (4, 0.6)]):
        trial(tmp_path, number, depth, dataclasses.replace(RESULT, val_accuracy=accuracy))
    figure = draw(read_points(tmp_path, KEY), KEY)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "validation accuracy (0 to 1)", "trainable parameters", "time of a run (s)", "peak memory (MB)",
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in figure.axes} == {KEY}
    dots = [line for line in figure.axes[0].lines if line.get_color() == "0.6"]
    heights = np.concatenate([np.asarray(line.get_ydata()) for line in dots])
    assert sorted(heights) == [0.5, 0.6, 0.7, 0.8]
    (bars,) = figure.axes[0].containers
    assert len(bars.get_children()) == 4  # the means, two caps and the bars


def test_values_that_are_no_numbers_stand_side_by_side(tmp_path: Path) -> None:
    for number, value in enumerate(["silu", [8, 16], "relu", None]):
        trial(tmp_path, number, value)
    write_curve(tmp_path, KEY)
    assert [row[KEY] for row in rows(tmp_path)] == ["None", "[8, 16]", "relu", "silu"]
    ticks = draw(read_points(tmp_path, KEY), KEY).axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["None", "[8, 16]", "relu", "silu"]


def test_a_key_that_no_trial_has_is_said(tmp_path: Path) -> None:
    trial(tmp_path, 0, 1)
    assert "no completed trial has the key model.nonsense" in text(write_curve(tmp_path, "model.nonsense"))
    assert not (tmp_path / "curve.csv").exists()


def test_without_the_key_there_is_no_curve() -> None:
    assert main([*SWEEP, "seed=choice(0,1)", f"{N}1"]) == 0
    assert not list(FOLDER.glob("curve.*"))


def test_its_trials_are_runs_of_part_b() -> None:
    curve, part_b = check_command_line(["experiment=freeze_curve"], multirun=True).config, compose("experiment=part_b")
    assert curve is not None
    assert dataclasses.replace(curve, sweep=part_b.sweep, study=part_b.study) == part_b
    assert curve.sweep.plot_by == KEY
    assert check_command_line(["experiment=freeze_curve", "model=vit_b_16"], config_dir=None, multirun=True) is not None
