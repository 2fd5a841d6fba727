"""Which charts a sweep's page has, and their numbers against hand-computed ones."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from PIL import Image

from da6401.report import budget_figures, optuna_figures, parameter_figures
from da6401.report.disagreements import disagreements, pictures_of_files
from da6401.report.page import LONG, as_json, page
from da6401.report.sweep_charts import CHARTS, chart_sections
from da6401.report.sweep_record import SweepRecord
from da6401.report.versus_figures import class_change, confusion_change
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import VALIDATION_CSV
from tests.unit.test_report import ACCURACY, SIZE, result, sweep, trial

SPACES: dict[str, BaseDistribution] = {
    "o.lr": FloatDistribution(1e-3, 1, log=True),
    "m.bn": CategoricalDistribution((True, False)),
    "o.name": CategoricalDistribution(("<b>sgd", "adam")),
}
EPOCHS = 4


def searched(count: int, *, several: bool = False) -> SweepRecord:
    """A sweep in which lr decides, bn helps a little and the name does nothing; half of an epoch's value is noise."""
    study = optuna.create_study(directions=["maximize", "minimize"] if several else ["maximize"])
    trials = []
    for number in range(count):
        lr = 10 ** -(3 * (number * 0.377 % 1))
        params = {"o.lr": lr, "m.bn": number % 2 == 0, "o.name": ("<b>sgd", "adam")[number // 2 % 2]}
        value = 0.9 + math.log10(lr) / 10 + 0.08 * (number % 2 == 0)
        values = (value, 100.0 + number * 7 % 13) if several else (value,)
        made = trial(number, values, params)
        made.run.epochs[:] = [
            {"epoch": float(epoch), "val_accuracy": value * epoch / EPOCHS + (number * 0.618 % 1) / epoch**3}
            for epoch in range(1, EPOCHS + 1)
        ]
        object.__setattr__(made.run, "result", result(value, parameters=1000 + number * 7 % 13, seconds=10.0 + number))
        trials.append(made)
        study.add_trial(optuna.create_trial(params=params, distributions=SPACES, values=values))
    metrics = (ACCURACY, SIZE) if several else (ACCURACY,)
    found = sweep(trials, metrics=metrics, study=study)
    object.__setattr__(found, "logarithmic", frozenset({"o.lr"}))
    return found


@pytest.fixture(scope="module")
def many() -> SweepRecord:
    return searched(24)


def test_a_chart_is_there_where_it_has_something_to_show(many: SweepRecord) -> None:
    titles = [each["title"] for each in chart_sections(many)]
    assert titles == [each.title for each in CHARTS if each.title not in ("Pareto front", "Winner against default")]
    few = [each["title"] for each in chart_sections(searched(3))]
    assert "History" in few
    assert not {"Partial dependence", "Two keys at once", "Distribution", "Early epochs"} & set(few)
    assert "Pareto front" in [each["title"] for each in chart_sections(searched(12, several=True))]
    text = as_json({"sections": chart_sections(many)})  # raises where a number is not finite
    assert "<" not in text
    assert "&lt;b&gt;sgd" in text


def test_contours_and_ranks_are_those_of_the_keys_that_matter(many: SweepRecord) -> None:
    drawn = {each["title"]: each for each in optuna_figures.pairs_of_keys(many, ACCURACY)}
    assert next(iter(drawn)).startswith("Contour: lr and ")
    surface, points = drawn["Contour: lr and bn"]["traces"]
    assert sorted(surface["x"]) == ["false", "true"]  # Optuna has the keys in the order of the alphabet
    assert len(surface["z"]) == len(surface["y"])
    known = [value for row in surface["z"] for value in row if value is not None]
    assert sorted(known) == pytest.approx(sorted(trial.values[0] for trial in many.frozen))
    assert points["customdata"] == list(range(24))
    axes = drawn["Rank: lr and bn"]["layout"]
    assert (axes["xaxis"]["type"], axes["yaxis"]["type"]) == ("category", "log")
    (ranks,) = drawn["Rank: lr and bn"]["traces"]
    assert ranks["y"] == [trial.params["o.lr"] for trial in many.frozen]
    values = [trial.values[0] for trial in many.frozen]
    assert np.argsort(ranks["marker"]["color"]).tolist() == np.argsort(values).tolist()


def test_a_surface_of_many_trials_joins_the_best_and_some_of_the_others() -> None:
    many = searched(200)
    chosen = optuna_figures._spread(many.frozen, many.objective.by(ACCURACY))
    values = sorted((trial.values[0] for trial in many.frozen), reverse=True)
    assert len({each.number for each in chosen}) == len(chosen) == optuna_figures.SURFACE
    assert [each.values[0] for each in chosen[:40]] == values[:40]
    assert min(each.values[0] for each in chosen) == values[-1]


def test_a_forest_finds_how_a_key_works(many: SweepRecord) -> None:
    drawn = {each["title"]: each for each in parameter_figures.partial_dependence(searched(60), ACCURACY)}
    means = drawn["o.lr"]["traces"][2]["y"]
    assert means[-1] - means[0] > 0.15
    assert all(later >= earlier - 0.02 for earlier, later in itertools.pairwise(means))
    low, high = (drawn["o.lr"]["traces"][at]["y"] for at in (0, 1))
    assert all(a <= b <= c for a, b, c in zip(low, means, high, strict=True))
    assert max(drawn["o.name"]["traces"][2]["y"]) - min(drawn["o.name"]["traces"][2]["y"]) < 0.03
    assert drawn["o.lr"]["layout"]["xaxis"]["type"] == "log"


def test_the_curves_of_a_value_are_means_by_epoch(many: SweepRecord) -> None:
    drawn = {each["title"]: each for each in parameter_figures.curves_by_value(many, ACCURACY)}
    expected = [
        np.mean([t.run.epochs[epoch]["val_accuracy"] for t in many.complete if t.params["m.bn"]])
        for epoch in range(EPOCHS)
    ]
    by_name = {trace["name"]: trace["y"] for trace in drawn["m.bn"]["traces"]}
    assert list(by_name) == ["false (n = 12)", "true (n = 12)"]
    assert by_name["true (n = 12)"] == pytest.approx(expected)
    assert len(drawn["o.lr"]["traces"]) == 3  # thirds of a range


def test_early_epochs_and_costs(many: SweepRecord) -> None:
    from scipy.stats import spearmanr

    (early,) = budget_figures.budget_correlation(many, ACCURACY)
    ends = [t.values[0] for t in many.complete if t.values]
    for epoch, rho, count in early["rows"]:
        assert rho == spearmanr([t.run.epochs[int(epoch) - 1]["val_accuracy"] for t in many.complete], ends).statistic
        assert count == 24
    assert [row[0] for row in early["rows"]] == [1, 2, 3]
    assert early["rows"][0][1] < early["rows"][2][1]
    costs = {each["title"]: each for each in budget_figures.cost_against_value(many, ACCURACY)}
    assert list(costs) == ["Seconds of the run", "Parameters"]  # the multiply-accumulates are all the same
    front = costs["Parameters"]["traces"][1]
    rows = sorted((cost, value) for _, cost, value in costs["Parameters"]["rows"])
    for cost, best in zip(front["x"], front["y"], strict=True):
        assert best == max(value for other, value in rows if other <= cost)
    (table,) = budget_figures.epoch_table(many, ACCURACY)
    assert [row[0] for row in table["rows"]] == [t.number for t in many.objective.ranked(many.trials)]
    assert table["columns"][2:] == [f"epoch {epoch}" for epoch in range(1, EPOCHS + 1)]


def test_the_hypervolume_grows_to_the_whole() -> None:
    found = searched(12, several=True)
    (drawn,) = optuna_figures.hypervolume(found, ACCURACY)
    shares = [share for _, share in drawn["rows"]]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    points = [t.values for t in found.complete if t.values]
    worst = (min(a for a, _ in points), max(b for _, b in points))
    area, floor = 0.0, worst[1]
    for accuracy, size in sorted(points, key=lambda each: -each[0]):  # strips between the steps of the front
        area += (accuracy - worst[0]) * max(0.0, floor - size)
        floor = min(floor, size)
    first = next(share for share in shares if share)
    at = shares.index(first)
    earlier = points[: at + 1]
    assert first == pytest.approx((earlier[-1][0] - worst[0]) * (worst[1] - earlier[-1][1]) / area)


def answered(wrong: dict[int, int], names: tuple[str, ...]) -> Predictions:
    """Six images of three classes; the answers are right but for these rows."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    sure = np.full((6, 3), 0.1, dtype=np.float32)
    for row, label in enumerate(labels):
        sure[row, wrong.get(row, label)] = 0.8
    return Predictions(("a", "b", "c"), names, labels, sure)


def test_two_models_by_class_and_by_mistake() -> None:
    names = tuple("uvwxyz")
    one, other = answered({4: 0}, names), answered({0: 1, 1: 1, 2: 0}, names)
    change = class_change(one, other, ("new", "old"))
    assert [row[:4] for row in change["rows"]] == [["a", 0.0, 1.0, 1.0], ["b", 0.5, 1.0, 0.5], ["c", 1.0, 0.5, -0.5]]
    assert "2 of 3 classes gained and 1 lost" in change["summary"]
    matrix = confusion_change(one, other, ("new", "old"))
    assert [row[1:] for row in matrix["rows"]] == [[2, -2, 0], [-1, 1, 0], [1, 0, -1]]
    assert matrix["traces"][0]["z"] == [[2, 2, 0], [1, 1, 0], [-1, 0, -1]]  # fewer mistakes are better


def test_the_images_on_which_two_models_disagree_are_shown(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "all" / "a").mkdir(parents=True)
    names = ("a/0.png", "a/1.png", "../secret.png", "a/3.png", "a/4.png", "a/5.png")
    for number in (0, 1, 3, 4, 5):
        Image.new("RGB", (30, 20), (number * 40, 0, 0)).save(root / "all" / f"a/{number}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (root / "all" / "a" / "1.png").write_bytes(b"no picture")
    one, other = answered({4: 0}, names), answered({0: 1, 1: 1, 2: 0}, names)
    found = disagreements(one, other, ("new", "old"), pictures_of_files({"data": {"root": str(root)}}))
    assert [block["caption"].split(";")[0] for block in found] == [
        "3 that new has right and old wrong", "1 that old has right and new wrong",
    ]  # fmt: skip
    assert [(item["title"], item["caption"]) for item in found[0]["items"]] == [("a", "old: b (0.80); new: a (0.80)")]
    assert found[1]["items"][0]["caption"] == "new: a (0.80); old: c (0.80)"
    assert found[0]["items"][0]["source"].startswith("data:image/webp;base64,")
    (left, *_) = disagreements(one, other, ("new", "old"), pictures_of_files({"data": {"source": "digits"}}))
    assert left["kind"] == "table"
    assert [row[0] for row in left["rows"]] == list(names[:3])


def test_a_winner_is_shown_against_the_default(tmp_path: Path) -> None:
    trials = [trial(0, (0.5,), {"lr": 1}), trial(1, (0.9,), {"lr": 2})]
    names = tuple("uvwxyz")
    for each, answers in zip(trials, (answered({0: 1}, names), answered({}, names)), strict=True):
        folder = tmp_path / str(each.number)
        folder.mkdir()
        write_predictions(folder / VALIDATION_CSV, answers)
        object.__setattr__(each.run, "folder", folder)
    (section,) = (each for each in chart_sections(sweep(trials)) if each["title"] == "Winner against default")
    kinds = [block["kind"] for block in section["blocks"]]
    assert kinds == ["chart", "chart", "table", "text"]
    assert section["blocks"][0]["rows"][0][:4] == ["a", 0.5, 1.0, 0.5]


def test_much_data_is_compressed() -> None:
    data: dict[str, Any] = {"title": "t", "parts": [], "made": "", "filling": "abcd<" * (LONG // 5)}
    text = page(data, live=False)
    assert len(text) < 2_500_000
    held = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(gzip.decompress(base64.b64decode(held))) == data
    assert 'data-packed="yes"' in text
