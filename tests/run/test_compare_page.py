"""`da6401 compare --page`: runs and sweeps as a page, with the images on which two disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from da6401.cli import main
from da6401.report.compared import compared_sections, short_names
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import METRICS, VALIDATION_CSV
from da6401.training.run import run
from tests.outcomes import page_data
from tests.run.test_honest_numbers import HARD
from tests.tiny_runs import compose
from tests.unit.test_report import blocks_of
from tests.unit.test_sweep_charts import searched


def test_runs_are_compared_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rate in (("good", "0.02"), ("poor", "0.000001")):
        run(compose(*HARD, f"optimizer.lr={rate}"), tmp_path / name)
    out = tmp_path / "both.html"
    assert main(["compare", str(tmp_path / "poor"), str(tmp_path / "good"), "--page", str(out)]) == 0
    assert f"compare: {out}" in capsys.readouterr().out
    data = page_data(out)
    assert data["title"] == "Compared: poor, good"
    sections = data["parts"][0]["sections"]
    assert [each["title"] for each in sections] == ["Result", "Curves", "good against poor", "Differences"]
    (curves,) = blocks_of(sections, "charts")
    assert [len(chart["traces"]) for chart in curves["items"]] == [2, 2, 2, 2]
    said = [block["text"] for block in sections[0]["blocks"] if block["kind"] == "text"]
    assert any(line.startswith("validation accuracy, poor - good: ") for line in said)
    one, other = (read_predictions(tmp_path / name / VALIDATION_CSV) for name in ("good", "poor"))
    matrix = next(b for b in sections[2]["blocks"] if b["kind"] == "chart" and "matrix" in b["title"])
    assert [row[1:] for row in matrix["rows"]] == (one.counts - other.counts).tolist()
    rows = np.flatnonzero((one.predicted == one.labels_N) & (other.predicted != one.labels_N))
    assert len(rows), "the two networks of this test are too much alike"
    (shown, *_) = blocks_of(sections, "pictures")
    assert len(shown["items"]) == min(len(rows), 8)
    assert all(item["source"].startswith("data:image/webp;base64,") for item in shown["items"])
    assert {item["title"] for item in shown["items"]} <= {one.class_names[one.labels_N[row]] for row in rows}
    metrics, words = (
        (tmp_path / "good" / METRICS).read_bytes(),
        ["compare", str(tmp_path / "poor"), str(tmp_path / "good")],
    )
    assert main([*words, "--page", str(tmp_path / "good" / METRICS)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, (tmp_path / "good" / METRICS).read_bytes()) == ("", metrics)
    assert printed.err.endswith(
        "metrics.jsonl: is there already, and is no page of da6401; name another file (--page FILE). It is unchanged\n"
    )
    assert main([*words, "--page", str(out)]) == 0


def test_sweeps_are_compared_by_their_searches() -> None:
    one, other = searched(12), searched(15)
    object.__setattr__(other, "folder", Path("t"))
    sections = compared_sections([one, other])
    assert [each["title"] for each in sections] == ["Result", "Curves", "Searches", "Distribution", "Differences"]
    searches, distribution = (sections[at]["blocks"][0] for at in (2, 3))
    best = 0.0
    for (_, number, minutes, so_far), trial in zip(searches["rows"][:12], one.trials, strict=True):
        best = max(best, trial.values[0] if trial.values else 0.0)
        assert (number, so_far) == (trial.number, best)
        assert minutes == pytest.approx(number + 50 / 60, abs=1e-3)
    assert set(searches["views"]) == {"trials", "minutes"}
    assert [trace["name"] for trace in distribution["traces"]] == ["s (n = 12)", "t (n = 15)"]
    assert sections[0]["blocks"][0]["rows"][0][2] == 12


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("x/a", "x/b"), ["a", "b"]),
        (("x/a/trial-1", "x/b/trial-1"), ["a/trial-1", "b/trial-1"]),
        (("x/a", "y/x/a"), ["x/a", "x/a"]),
    ],
)
def test_names_are_as_short_as_they_can_be(folders: tuple[str, str], names: list[str]) -> None:
    found = short_names([Path("/", folder) for folder in folders])
    assert len(set(found)) == 2
    if len(set(names)) == 2:
        assert found == names
