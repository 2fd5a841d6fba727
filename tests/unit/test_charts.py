"""The page's charts by hand-computed answers: where an axis ends, what stands on it, and what is told of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from rich.console import Console

from da6401.report.charts import Focus
from da6401.report.figures import history
from da6401.report.importance import correlation
from da6401.report.parallel import parallel
from da6401.report.parameter_figures import slices
from da6401.report.sweep_sections import sweep_sections
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import VALIDATION_CSV
from da6401.study.objective import Objective
from da6401.study.roles import DEFAULT, GIVEN, role_of
from da6401.study.told_apart import ToldApart
from da6401.sweep.tables import trial_table
from tests.unit.test_report import ACCURACY, blocks_of, sweep, trial

GOOD = [0.90, 0.92, 0.93, 0.95, 0.96, 0.97, 0.98]


@pytest.mark.parametrize(
    ("values", "maximise", "is_cut", "outside"),
    [
        (GOOD, True, False, []),
        ([*GOOD, 0.1], True, True, [0.1]),
        ([*GOOD, 0.1, 0.2, 0.3], True, True, [0.1, 0.2, 0.3]),
        ([*GOOD[3:], 0.1, 0.2, 0.3], True, False, []),
        ([1 - value for value in GOOD] + [9.0], False, True, [9.0]),
        ([0.1, 0.2, 0.3, 0.8, 0.9], True, False, []),
        ([0.5, 0.5, 0.5], True, False, []),
        ([0.97] * 9 + [0.1], True, False, []),
        ([], True, False, []),
    ],
)
def test_an_axis_shows_the_better_values(
    values: list[float], maximise: bool, is_cut: bool, outside: list[float]
) -> None:
    seen = Focus.on(values, maximise=maximise)
    assert seen.is_cut is is_cut
    assert [value for value in values if not seen.holds(value)] == outside
    assert all(seen.place(value) == (seen.edge if value in outside else value) for value in values)
    if is_cut:
        low, high = seen.axis["range"]
        assert low < min(map(seen.place, values))
        assert high > max(map(seen.place, values))
        assert str(len(outside)) in seen.sentence(values)


def test_one_bad_trial_is_marked_at_the_edge_and_keeps_its_number() -> None:
    found = sweep([*(trial(n, (value,), {"lr": value}) for n, value in enumerate(GOOD)), trial(7, (0.1,), {"lr": 0.5})])
    for drawn in (history(found, ACCURACY), *slices(found, ACCURACY)):
        points = drawn["traces"][0]
        low, high = drawn["layout"]["yaxis"]["range"]
        assert high - low < 0.2
        assert low < points["y"][7] < 0.9
        assert points["marker"]["symbol"][6:] == ["circle", "arrow-down"]
        assert "0.1000" in points["text"][7]
        assert "1 trial lies outside, at the bottom" in drawn["summary"]
        assert drawn["rows"][7][-1] == 0.1


def test_a_choice_of_two_is_correlated_once() -> None:
    params = [{"bn": n % 2 == 0, "org": "ab"[n % 2], "act": "xyz"[n % 3]} for n in range(12)]
    found = sweep([trial(n, (0.5 + n % 2 / 10 + n / 1000,), own) for n, own in enumerate(params)])
    drawn = correlation(found, ACCURACY)
    assert drawn is not None
    by_name = dict(drawn["rows"])
    assert set(by_name) == {"bn=true", "org=b", "act=x", "act=y", "act=z"}
    assert by_name["bn=true"] < 0 < by_name["org=b"]


def test_the_headings_of_parallel_coordinates_have_room() -> None:
    keys = {f"model.a_rather_long_name_{n}": n for n in range(3)} | {"x.lr": 1}
    values = (0.0, 0.001, 0.002, 0.5, 1.0)
    found = sweep(
        [trial(n, (0.5 + n / 10,), {**keys, "x.lr": value, "flag": n % 2 == 0}) for n, value in enumerate(values)]
    )
    drawn = parallel(found, ACCURACY)
    notes = drawn["layout"]["annotations"]
    columns = len({note["x"] for note in notes})
    width = drawn["layout"]["width"] / columns
    for note in notes:
        lines = note["text"].replace("<b>", "").replace("</b>", "").split("<br>")
        assert max(map(len, lines)) * 6.5 < width
        assert note["xanchor"] == ("center" if note["y"] > 1 else "left")
    assert {note["text"] for note in notes if note["x"] == 3 and note["y"] <= 1} == {"0", "0.5", "1"}
    assert {note["text"] for note in notes if note["x"] == 4 and note["y"] <= 1} == {"false", "true"}


def answers(folder: Path, right: int, images: int = 40) -> Path:
    """A run folder whose model is right on the first so many images."""
    sure = np.full((images, 2), 0.2, dtype=np.float32)
    labels = np.arange(images) % 2
    sure[np.arange(images), np.where(np.arange(images) < right, labels, 1 - labels)] = 0.8
    folder.mkdir()
    write_predictions(folder / VALIDATION_CSV, Predictions(("a", "b"), tuple(map(str, range(images))), labels, sure))
    return folder


def test_the_gain_over_the_default_has_its_paired_interval(tmp_path: Path) -> None:
    best, default = answers(tmp_path / "best", 36), answers(tmp_path / "default", 20)
    trials = [trial(0, (0.5,), {"lr": 1}), trial(1, (0.9,), {"lr": 2}), trial(2, (0.6,), {"lr": 3}, role=GIVEN)]
    for each, folder in zip(trials, (default, best, tmp_path), strict=True):
        object.__setattr__(each.run, "folder", folder)
    found = sweep(trials)
    sections = sweep_sections(found)
    assert found.told.gain is not None
    low, high = found.told.gain.interval
    (fact,) = [item for block in blocks_of(sections, "facts") for item in block["items"] if "default" in item["label"]]
    assert fact["value"] == "+0.4"
    assert f"95% interval {low:+.3f} to {high:+.3f}, n = 40, on images that did not choose the winner" in fact["note"]
    rows = blocks_of(sections, "trials")[0]["trials"]
    assert [row["badge"] for row in rows] == [DEFAULT, "", GIVEN]


@pytest.fixture
def study() -> optuna.Study:
    """Six trials of which the default, one that was given, and one that failed."""
    made = optuna.create_study(direction="maximize")
    spaces: dict[str, BaseDistribution] = {
        "a.width": CategoricalDistribution((8, 16)),
        "a.same": CategoricalDistribution((1, 2)),
    }
    for number, value in enumerate((0.5, 0.7, None, 0.9, 0.8, 0.6)):
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        params = {"a.width": 8 * (1 + number % 2), "a.same": 1}
        given: dict[str, Any] = {"fixed_params": params} if number < 2 else {}
        made.add_trial(
            optuna.create_trial(params=params, distributions=spaces, value=value, state=state, system_attrs=given,
                                user_attrs={"reason": "out of memory"} if value is None else {})
        )  # fmt: skip
    return made


def printed(study: optuna.Study) -> list[str]:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(trial_table(study.trials, Objective((ACCURACY,)), ToldApart(), title="study s"))
    return captured.get().splitlines()


def test_the_printed_table_is_best_first_within_80_characters(study: optuna.Study) -> None:
    assert [role_of(each) for each in study.trials] == [DEFAULT, GIVEN, "", "", "", ""]
    lines = printed(study)
    assert lines[0].rstrip() == "study s, best first"
    assert lines[-1].rstrip() == "all have same=1"
    rows = [line.split() for line in lines if line.strip()[:1].isdigit() or line.strip().startswith("*")]
    assert [row[0] for row in rows] == ["*3", "4", "1", "5", "0", "2"]
    assert rows[0][1:3] == ["complete", "0.9000"]
    assert "(given)" in rows[2]
    assert "(default)" in rows[4]
    assert rows[5][1] == "fail"
    assert "(out of memory)" in " ".join(rows[5])
    assert max(map(len, lines)) <= 80


def test_a_state_that_all_have_stands_below(study: optuna.Study) -> None:
    kept = optuna.create_study(direction="maximize")
    kept.add_trials([each for each in study.trials if each.values])
    lines = printed(kept)
    assert " ".join(line.strip() for line in lines if "all" in line) == "all 5 trials are complete; all have same=1"
    assert sum("complete" in line for line in lines) == 1
