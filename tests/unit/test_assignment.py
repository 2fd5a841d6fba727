"""`da6401 report --assignment`: the questions in their order, each answered from the folders or by a command."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from da6401.cli import main
from da6401.config.closed_form import by_formula, layer_formulas
from da6401.models.build import build_model
from da6401.models.counts import count
from da6401.report.assignment_pretrained import strategy_of
from da6401.runs.looks import record_look
from da6401.runs.run_folder import (
    CONFIG,
    ENSEMBLE,
    METRICS,
    RECEIPT,
    RESULT,
    TEST_CSV,
    VALIDATION_CSV,
    read_json,
    read_result,
    write_result,
)
from da6401.runs.trial_folders import MODEL
from tests.outcomes import page_data
from tests.tiny_runs import compose

WINNER = "confirm/trial-4-seed-1000003"  # of the sweep
GOLDEN = Path(__file__).parents[1] / "golden"
PICTURES = {"guided.png": "Guided backpropagation", "predictions.png": "Predictions",
            "filters.png": "Filters of the first convolution", "gradcam.png": "Grad-CAM"}  # fmt: skip
Page = Callable[..., dict[str, Any]]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a sweep of Part A and of a run of Part B."""
    names = ("sweep_pruned_confirmed", "part_b_lite0_head")
    scratch, pretrained = (Path(shutil.copytree(GOLDEN / name, tmp_path / name)) for name in names)
    return scratch, pretrained


@pytest.fixture
def written(tmp_path: Path) -> Page:
    def write(*folders: Path) -> dict[str, Any]:
        out = tmp_path / "page.html"
        assert main(["report", "--assignment", *map(str, folders), "--out", str(out)]) == 0
        return page_data(out)

    return write


def blocks(page: dict[str, Any], part: int, question: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page["parts"][part]["sections"][question - 1]["blocks"]
    return found


def said(page: dict[str, Any], part: int, question: int) -> str:
    return " ".join(block["text"] for block in blocks(page, part, question) if block["kind"] == "text")


def commands(page: dict[str, Any], part: int, question: int) -> list[str]:
    return [block["text"] for block in blocks(page, part, question) if block["kind"] == "command"]


def charts(page: dict[str, Any], part: int, question: int) -> list[str]:
    return [block["title"] for block in blocks(page, part, question) if block["kind"] == "chart"]


def table(page: dict[str, Any], part: int, question: int, caption: str) -> Sequence[Sequence[Any]]:
    (found,) = [b for b in blocks(page, part, question) if b["kind"] == "table" and caption in b["caption"]]
    rows: Sequence[Sequence[Any]] = found["rows"]
    return rows


def test_the_questions_are_in_the_assignments_order(folders: tuple[Path, Path], written: Page) -> None:
    page = written(*folders[::-1])  # in any order
    titles = [[section["title"] for section in part["sections"]] for part in page["parts"]]
    assert [title.partition(":")[0] for title in titles[0]] == [f"Question {number}" for number in (1, 2, 3, 4)]
    assert [title.partition(":")[0] for title in titles[1]] == [f"Question {number}" for number in (1, 2, 3)]
    assert [part["title"].partition(":")[0] for part in page["parts"]] == [
        "Part A",
        "Part B",
        "How the numbers were made",
    ]


def test_the_cost_is_that_which_training_counted(
    folders: tuple[Path, Path], written: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    page = written(*folders)
    trained = read_result(folders[0] / WINNER)
    rows = table(page, 0, 1, "layer by layer")
    assert (rows[-1][2], rows[-1][4]) == (trained.parameters, trained.macs)
    assert "the same." in said(page, 0, 1)
    assert main(commands(page, 0, 1)[0].split()[1:]) == 0
    assert f"{trained.parameters:,} parameters; {trained.macs:,} multiply-accumulates" in capsys.readouterr().out
    write_result(folders[0] / WINNER, dataclasses.replace(trained, macs=trained.macs + 1))
    assert "which is not this sum." in said(written(*folders), 0, 1)


def test_the_search_has_its_plots_and_its_savings(folders: tuple[Path, Path], written: Page) -> None:
    page = written(*folders)
    drawn = charts(page, 0, 2)
    assert drawn[0] == "Validation accuracy against time of creation"
    assert {"Parallel coordinates", "Correlation"} <= set(drawn)
    history = next(block for block in blocks(page, 0, 2) if block["kind"] == "chart")
    assert next(iter(history["views"])) == "by time of creation"
    assert str(history["traces"][0]["x"][0]).startswith("20"), "a time"
    epochs = [len((folders[0] / f"trial-{number}" / "metrics.jsonl").read_text().splitlines()) for number in range(5)]
    found = re.search(r"5 trials, of which 1 were pruned and 0 failed; (\d+) epochs", said(page, 0, 2))
    assert found is not None
    assert int(found[1]) == sum(epochs)
    rows = table(page, 0, 3, "by the values of each key")
    best = json.loads((folders[0] / "sweep.json").read_text())["best"][0]
    assert max(row[4] for row in rows) == best["value"]
    assert f"by trial {best['trial']}." in said(page, 0, 3)


def test_what_the_folders_lack_names_its_command(folders: tuple[Path, Path], written: Page) -> None:
    page = written(*folders)
    scratch, pretrained = folders
    assert commands(page, 0, 4) == [f"da6401 evaluate {scratch}", f"da6401 explain {scratch} --split test"]
    assert any("experiment=freeze_curve model=efficientnet_lite0" in each for each in commands(page, 1, 2))
    assert f"da6401 evaluate {pretrained}" in commands(page, 1, 3)
    alone = written(scratch)
    for number in (1, 2, 3):
        assert [each.split()[:4] for each in commands(alone, 1, number)] == [
            ["da6401", "train", "--multirun", "sweep=part_b"]
        ]
    alone = written(pretrained)
    assert all("sweep=part_a" in commands(alone, 0, number)[0] for number in (1, 2, 3, 4))
    assert "sweep=part_a" in commands(alone, 1, 3)[-1]


def test_the_best_model_on_test_with_its_pictures(folders: tuple[Path, Path], written: Page) -> None:
    winner = folders[0] / WINNER
    found = read_result(winner)
    write_result(winner, dataclasses.replace(found, test_accuracy=found.val_accuracy, test_loss=1.0))
    shutil.copy(winner / VALIDATION_CSV, winner / TEST_CSV)
    record_look(winner, verb="evaluate", purpose="accuracy")
    (winner / "explain").mkdir()
    for name in PICTURES:
        Image.new("RGB", (4, 4)).save(winner / "explain" / name)
    listed = [{"file": name, "title": title, "caption": "of the test split"} for name, title in PICTURES.items()]
    (winner / "explain" / "about.json").write_text(json.dumps(listed))
    page = written(*folders)
    assert f"has a test accuracy of {found.val_accuracy:.4f} (95% interval" in said(page, 0, 4)
    (shown,) = [block["items"] for block in blocks(page, 0, 4) if block["kind"] == "pictures"]
    assert [item["title"] for item in shown] == [
        PICTURES[name] for name in ("predictions.png", "filters.png", "guided.png")
    ]
    assert commands(page, 0, 4) == [f"da6401 explain {folders[0]} --split test"], "no look by explain is recorded"
    record_look(winner, verb="explain", purpose="pictures")
    assert commands(written(*folders), 0, 4) == []


def hand_over(sweep: Path, *runs: str, flips: bool = False) -> Path:
    """`model` beside the trials, as a race writes it."""
    model = sweep / MODEL
    model.mkdir()
    for name in (CONFIG, RECEIPT, METRICS, RESULT, VALIDATION_CSV):
        shutil.copy(sweep / runs[0] / name, model)
    first, views = read_result(model), 2 if flips else 1
    write_result(model, dataclasses.replace(
        first, parameters=len(runs) * first.parameters, macs=views * len(runs) * first.macs, seconds=60.0
    ))  # fmt: skip
    (model / ENSEMBLE).write_text(json.dumps({"runs": runs, "flips": flips}))
    return model


def test_what_a_race_hands_over_is_the_best_model(folders: tuple[Path, Path], written: Page) -> None:
    model = hand_over(folders[0], "trial-4")
    found = read_result(model)
    write_result(model, dataclasses.replace(found, test_accuracy=0.25, test_loss=1.0))
    shutil.copy(model / VALIDATION_CSV, model / TEST_CSV)
    record_look(model, verb="evaluate", purpose="accuracy")
    page = written(*folders)
    assert f"The best model, {model}, has a test accuracy of 0.2500 (95% interval" in said(page, 0, 4)
    assert "The best run's test split was looked at once." in said(page, 0, 2)
    assert commands(page, 0, 4) == [f"da6401 explain {folders[0]} --split test"]
    assert "the same." in said(page, 0, 1)
    assert "hands over" not in said(page, 0, 1), "one network that sees an image once"
    rows = table(page, 1, 3, "Both winners")
    assert next(row[1] for row in rows if row[0] == "time of the run") == "0 s", "not that of the whole race"
    out = folders[0] / "report.html"
    assert main(["report", str(folders[0])]) == 0
    of_sweep, of_winner = page_data(out)["parts"]
    assert of_winner["title"] == "The winner: model"
    (looks,) = [block for block in of_sweep["sections"][0]["blocks"] if "looked at" in block.get("caption", "")]
    assert [row[0] for row in looks["rows"]] == ["model"]
    assert {"kind": "command", "text": f"da6401 reproduce {model}"} in of_sweep["sections"][0]["blocks"]


def test_a_mean_of_networks_has_the_cost_of_all_and_the_layers_of_the_first(
    folders: tuple[Path, Path], written: Page
) -> None:
    hand_over(folders[0], "trial-4", "trial-0", flips=True)
    found, page = read_result(folders[0] / "trial-4"), written(*folders)
    assert (
        "is the mean of 2 networks (trial-4, trial-0), each asked about the image and its mirror image: "
        f"{2 * found.parameters:,} parameters and {4 * found.macs:,} multiply-accumulates an image in all. What is "
        "shown here is trial-4."
    ) in said(page, 0, 1)
    assert f"counted to have {found.parameters:,} parameters" in said(page, 0, 1)
    assert "the same." in said(page, 0, 1)


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_sweep_over_both_parts_has_the_best_of_each(
    folders: tuple[Path, Path], written: Page, handed_over: bool
) -> None:
    sweep, pretrained = folders
    for name in (CONFIG, RECEIPT, RESULT, VALIDATION_CSV):
        shutil.copy(pretrained / name, sweep / "trial-0")
    best = hand_over(sweep, "trial-4") if handed_over else sweep / WINNER
    page = written(sweep)
    shown = [
        block["items"][0]["value"] for block in page["parts"][2]["sections"][0]["blocks"] if block["kind"] == "facts"
    ]
    assert shown == [str(best), str(sweep / "trial-0")]
    assert f"da6401 evaluate {sweep}" in commands(page, 0, 4)
    assert commands(page, 1, 3)[0] == f"da6401 evaluate {sweep / 'trial-0'}", "the sweep stands for the other part"


def test_two_of_one_part_or_three_are_refused(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    scratch, pretrained = map(str, folders)
    wrong = (
        ([scratch, str(folders[0] / "trial-0")], "both answer Part A"),
        ([pretrained, pretrained], "both answer Part B"),
        ([scratch, scratch, pretrained], "not 3"), ([scratch, "--watch"], "--watch"),
    )  # fmt: skip
    for words, rule in wrong:
        assert main(["report", "--assignment", *words]) == 2
        assert rule in capsys.readouterr().err


def test_the_receipts_say_how_both_were_made(folders: tuple[Path, Path], written: Page) -> None:
    (section,) = written(*folders)["parts"][2]["sections"]
    rows = [dict(block["rows"]) for block in section["blocks"] if block["kind"] == "table"]
    runs = (folders[0] / WINNER, folders[1])
    assert [row["command"] for row in rows] == [read_json(run / "receipt.json")["command"] for run in runs]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, "all stages train"),
        ({"freeze_depth": 9}, "the head alone trains"),
        ({"freeze_depth": 4, "head_epochs": 2}, "the first 4 of 9 stages are frozen, the head first, for 2 epochs"),
        ({"train_only": "norm"}, "all stages train, only norm layers train"),
    ],
)  # fmt: skip
def test_strategies_in_words(model: dict[str, Any], words: str) -> None:
    assert strategy_of({"model": model}, 9) == words


@pytest.mark.parametrize(
    "words",
    [
        ("data.image_size=64",), ("data.image_size=40", "model.organisation=halve", "model.filters=64"),
        ("model.batch_norm=false", "model.dense_width=0", "model.blocks=2"),
        ("model.filters=[4,6]", "model.kernel_size=[3,5]", "model.global_pool=true"),
    ],
)  # fmt: skip
def test_the_layers_formulas_give_what_the_network_has(words: tuple[str, ...]) -> None:
    cfg = compose("data.image_size=32", *words) if "data.image_size" not in words[0] else compose(*words)
    layers = layer_formulas(cfg, 7)
    counted = count(build_model(cfg.model, num_classes=7, image_size=cfg.data.image_size), cfg.data.image_size).layers
    assert sum(each.parameters for each in layers) == sum(each.parameters for each in counted)
    assert sum(each.macs for each in layers) == sum(each.macs for each in counted)
    for each in layers:
        for text, number in ((each.parameters_text, each.parameters), (each.macs_text, each.macs)):
            assert sum(math.prod(map(int, term.split(" x "))) for term in text.split(" + ")) == number
    assert layer_formulas(compose(*words, "model.residual=true"), 7) == []


def test_the_formula_has_the_assignments_numbers() -> None:
    assert by_formula(32, 3, 128, side=224, classes=10, batch_norm=False)[0] == 240_010
    parameters, macs = by_formula(64, 3, 256, side=224, classes=10, batch_norm=False)
    assert (parameters, round(macs / 1e6, 1)) == (955_146, 701.7)
