"""The report's numbers against hand-computed ones, and what it does with names, gaps and damage."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from PIL import Image

from da6401.cli import main
from da6401.config.metrics import Metric
from da6401.config.validate import tree_of
from da6401.errors import RunError, UserError
from da6401.metrics.calibration import calibration_error
from da6401.report import figures
from da6401.report.charts import label
from da6401.report.collect import read_sweep, signature
from da6401.report.contents import report_data
from da6401.report.explanations import pictures
from da6401.report.importance import correlation, importance
from da6401.report.page import page
from da6401.report.run_figures import confusion, reliability
from da6401.report.run_record import RunRecord
from da6401.report.serve import Source
from da6401.report.sweep_record import SweepRecord, TrialRecord
from da6401.report.sweep_sections import sweep_sections
from da6401.runs.atomic_files import write_yaml
from da6401.runs.looks import Look, record_look
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import CONFIG, METRICS, RESULT, VALIDATION_CSV, RunResult, write_metrics, write_result
from da6401.runs.trial_folders import MODEL
from da6401.study.objective import Objective
from da6401.study.roles import DEFAULT
from tests.tiny_runs import SMALL, compose

HOSTILE = ("<script>alert(1)</script>", "</script><b>", "{{script}} \"'&amp;")
ACCURACY = Metric(index=0, name="val_accuracy", maximise=True)
SIZE = Metric(index=1, name="parameters", maximise=False)


def result(value: float | None, **others: Any) -> RunResult:
    given: dict[str, Any] = {
        "status": "completed", "val_loss": 1.0, "best_epoch": 1, "epochs_run": 2, "test_accuracy": None,
        "test_loss": None, "parameters": 10, "macs": 1000, "seconds": 3.0, "reason": "",
    }  # fmt: skip
    return RunResult(val_accuracy=value, **(given | others))


def write_run(folder: Path, value: float = 0.5, names: Sequence[str] = ("a", "b"), config: str = "") -> Path:
    """A completed run of two epochs with its answers on four images."""
    write_yaml(folder / CONFIG, tree_of(compose(*SMALL, *config.split())))
    write_metrics(folder, [{"epoch": epoch, "val_accuracy": value / 3 * epoch, "lr": 0.1} for epoch in (1, 2, 3)])
    write_result(folder, result(value))
    even = np.full((4, len(names)), 0.1 / (len(names) - 1), dtype=np.float32)
    even[np.arange(4), np.arange(4) % 2] = 0.9
    files = tuple(f"{names[0]}/\"{index}'.jpg" for index in range(4))
    write_predictions(folder / VALIDATION_CSV, Predictions(tuple(names), files, np.array([0, 1, 1, 1]), even))
    return folder


def trial(
    number: int, values: tuple[float, ...] | None, params: Mapping[str, Any] | None = None, **more: Any
) -> TrialRecord:
    lines = [{"epoch": 1.0, "val_accuracy": 0.1}, {"epoch": 2.0, "val_accuracy": values[0] if values else 0.2}]
    run = RunRecord(folder=Path(f"trial-{number}"), config={}, result=None, epochs=lines, receipt={})
    start = datetime(2026, 1, 1) + timedelta(minutes=number)
    given: dict[str, Any] = {
        "state": "complete" if values else "pruned", "reason": "", "slot": str(number % 2), "attempts": 1,
        "constraints": {}, "role": DEFAULT if number == 0 else "", "end": start + timedelta(seconds=50),
    }  # fmt: skip
    return TrialRecord(
        number=number, values=values, params=dict(params or {}), run=run, start=start, **(given | more)
    )  # fmt: skip


def sweep(
    trials: Sequence[TrialRecord], metrics: tuple[Metric, ...] = (ACCURACY,), study: optuna.Study | None = None
) -> SweepRecord:
    return SweepRecord(
        folder=Path("s"), name="s", trials=list(trials), objective=Objective(metrics), logarithmic=frozenset(),
        summary={}, frozen=study.trials if study else [], problems=[],
    )  # fmt: skip


def studied(count: int) -> SweepRecord:
    """A sweep in which lr decides and noise does nothing."""
    spaces = {"lr": FloatDistribution(0, 1), "noise": CategoricalDistribution(("x", "y"))}
    study = optuna.create_study(direction="maximize")
    trials = []
    for number in range(count):
        params: dict[str, Any] = {"lr": (number * 0.37) % 1, "noise": "xy"[number * 7 // 3 % 2]}
        study.add_trial(optuna.create_trial(params=params, distributions=spaces, value=params["lr"]))
        trials.append(trial(number, (params["lr"],), params))
    return sweep(trials, study=study)


def blocks_of(sections: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [block for section in sections for block in section["blocks"] if block["kind"] == kind]


def test_calibration_by_hand() -> None:
    sure = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.62, 0.38]], dtype=np.float32)
    error, bins = calibration_error(Predictions(("a", "b"), ("1", "2", "3", "4"), np.array([0, 1, 1, 0]), sure))
    assert [count for _, _, count in bins] == [1, 3]
    assert bins[1][:2] == pytest.approx((0.9, 2 / 3))
    assert error == pytest.approx((3 * (0.9 - 2 / 3) + 1 * (1 - 0.62)) / 4, abs=1e-6)


def test_the_reliability_diagram_has_the_answers_before_and_after() -> None:
    sure = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.62, 0.38]], dtype=np.float32)
    answers = Predictions(("a", "b"), ("1", "2", "3", "4"), np.array([0, 1, 1, 0]), sure)
    plain, both = reliability(answers), reliability(answers, 2.0)
    assert [trace["name"] for trace in plain["traces"]] == ["perfectly calibrated", "this model"]
    before, after = both["traces"][1:]
    assert (before["x"], after["name"]) == (plain["traces"][1]["x"], "at temperature 2.000")
    tempered = 3 / 4  # of 0.9 against 0.1: the roots' shares
    assert after["x"] == pytest.approx([0.62**0.5 / (0.62**0.5 + 0.38**0.5), tempered], abs=1e-6)
    assert {row[0] for row in both["rows"]} == {"this model", "at temperature 2.000"}


@pytest.mark.parametrize(("value", "interval"), [(0.5, "0.150 to 0.850"), (1.0, f"{4 / (4 + 1.96**2):.3f} to 1.000")])
def test_wilsons_interval_by_hand(tmp_path: Path, value: float, interval: str) -> None:
    (shown,) = blocks_of(report_data([write_run(tmp_path / "r", value)], None)["parts"][0]["sections"], "facts")
    assert f"95% interval {interval}, n = 4" in shown["items"][0]["note"]


def test_the_confusion_matrix_has_the_truth_in_its_rows() -> None:
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    drawn = confusion(Predictions(("a", "b"), ("1", "2", "3"), np.array([0, 1, 1]), sure))
    assert drawn["rows"] == [["a", 1, 0], ["b", 1, 1]]
    assert drawn["traces"][0]["z"] == [[1.0, 0.0], [0.5, 0.5]]


def test_a_pruned_trial_is_never_the_best_nor_counted_as_completed() -> None:
    seen = sweep([trial(0, (0.5,)), trial(1, (0.9,), state="pruned"), trial(2, (0.6,))])
    assert [each.number for each in seen.complete] == [0, 2]
    assert [each.number for each in seen.best] == [2]


def test_the_best_is_within_the_limits_and_the_earliest_of_equals() -> None:
    best = sweep(
        [trial(0, (0.5,)), trial(1, (0.9,), constraints={"parameters": 1.0}), trial(2, (0.8,)), trial(3, (0.8,))]
    ).best
    assert [each.number for each in best] == [2]
    assert sweep([trial(0, None)]).best == []


def test_of_two_metrics_the_front_is_best() -> None:
    values = [(0.5, 10.0), (0.6, 20.0), (0.4, 15.0), (0.6, 30.0)]
    found = sweep([trial(number, each) for number, each in enumerate(values)], (ACCURACY, SIZE))
    assert [each.number for each in found.best] == [1, 0]  # by the first metric
    on_front = [row[3] for row in figures.pareto(found, ACCURACY, SIZE)["rows"]]
    assert on_front == [True, True, False, False]


def test_a_trial_over_a_hard_limit_is_named_so_and_not_beaten() -> None:
    values = [(0.5, 10.0), (0.9, 20.0), (0.4, 15.0)]
    over: dict[int, dict[str, float]] = {1: {"parameters": 5.0}}
    found = sweep([trial(n, each, constraints=over.get(n, {})) for n, each in enumerate(values)], (ACCURACY, SIZE))
    drawn = figures.pareto(found, ACCURACY, SIZE)
    named = {trace["name"]: trace["customdata"] for trace in drawn["traces"]}
    assert named == {"beaten": [2], "over the limit": [1], "Pareto front": [0]}
    assert "1 of 2 completed trials within the limit are beaten by no other; 1 over it cannot win." in drawn["summary"]
    assert drawn["columns"][3:] == ["on the front", "over the limit"]
    assert [row[3:] for row in drawn["rows"]] == [[True, False], [False, True], [False, False]]


def test_history_marks_what_was_pruned_and_what_failed() -> None:
    trials = [trial(0, (0.5,)), trial(1, None), trial(2, None, state="fail"), trial(3, (0.4,)), trial(4, (0.7,))]
    drawn = figures.history(sweep(trials), ACCURACY)
    marks = {trace["name"]: (trace["x"], trace["marker"]["symbol"]) for trace in drawn["traces"][:-1]}
    assert marks["pruned"] == ([1], ["triangle-down-open"])
    assert marks["failed"] == ([2], ["x-thin-open"])
    best = drawn["traces"][-1]
    assert (best["name"], best["x"], best["y"]) == ("best so far", [0, 4, 4], [0.5, 0.7, 0.7])


def test_importance_and_correlation_find_the_one_that_decides() -> None:
    found = studied(40)
    charts, doubts = importance(found, ACCURACY)
    assert charts[0]["columns"] == ["parameter", "PED-ANOVA", "fANOVA"]
    assert charts[0]["rows"][0][0] == "lr"
    assert "n = 40" in charts[0]["summary"]
    assert not any("few" in doubt or "disagree" in doubt for doubt in doubts)
    drawn = correlation(found, ACCURACY)
    assert drawn is not None
    assert drawn["rows"][0] == ["lr", pytest.approx(1.0)]


def test_few_trials_and_evaluators_that_disagree_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _, doubts = importance(studied(6), ACCURACY)
    assert any("n = 6" in doubt and "few" in doubt for doubt in doubts)

    def shares(*given: Any) -> dict[str, float]:
        return {"lr": 0.9, "noise": 0.1} if given[-1] == "fANOVA" else {"lr": 0.1, "noise": 0.9}

    monkeypatch.setattr("da6401.report.importance._shares", shares)
    _, doubts = importance(studied(40), ACCURACY)
    assert any("disagree" in doubt and "PED-ANOVA puts noise" in doubt for doubt in doubts)


def test_a_sweep_that_is_half_done_is_drawn() -> None:
    running = trial(2, None, state="running", end=None)
    waiting = dataclasses.replace(trial(3, None, state="waiting"), start=None, end=None)
    for trials in ([], [running], [trial(0, (0.5,), {"lr": 0.1})], [trial(0, (0.5,), {"lr": 0.1}), running, waiting]):
        sections = sweep_sections(sweep(trials))
        assert sections[0]["title"] == "Result"
        json.dumps(sections, allow_nan=False)


def test_labels_stay_literal() -> None:
    assert label("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert len(label("x" * 100)) == 40


def test_names_of_others_change_nothing_in_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", names=HOSTILE)
    data = report_data([run], None) | {"made": "now"}
    text = page(data, live=False)
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert held is not None
    assert "<" not in held.group(1)
    assert json.loads(held.group(1)) == json.loads(json.dumps(data))
    assert text.count("alert(1)") == held.group(1).count("alert(1)")
    assert text.count("<script") == len(re.findall(r"<script[ >]", text)) == 3
    assert "connect-src 'none'" in text
    assert "http-equiv" in text.partition("<style>")[0]


def test_a_run_says_what_it_lacks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    (run / VALIDATION_CSV).unlink()
    (run / RESULT).unlink()
    said = [block["text"] for block in blocks_of(report_data([run], None)["parts"][0]["sections"], "text")]
    assert any("unfinished" in text for text in said)
    assert any("no predictions" in text for text in said)
    assert any("stages" in text for text in said)


def test_precision_and_recall_by_hand(tmp_path: Path) -> None:
    tables = blocks_of(report_data([write_run(tmp_path / "r")], None)["parts"][0]["sections"], "table")
    rows = next(block["rows"] for block in tables if "precision" in block["columns"])
    assert rows[0] == ["a", 0.5, 1.0, pytest.approx(2 / 3), 1, 2]
    assert rows[1] == ["b", 1.0, pytest.approx(2 / 3), pytest.approx(0.8), 3, 2]


@pytest.mark.parametrize("damage", [RESULT, METRICS, CONFIG, VALIDATION_CSV])
def test_a_damaged_run_is_a_message(tmp_path: Path, damage: str) -> None:
    run = write_run(tmp_path / "r")
    (run / damage).write_text("{damaged\n[")
    with pytest.raises(RunError, match=damage):
        report_data([run], None)


@pytest.mark.parametrize("what", ["nothing", "a file", "empty"])
def test_a_folder_without_a_run_is_a_message(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "a file":
        path.write_text("")
    elif what == "empty":
        path.mkdir()
    with pytest.raises(RunError, match=r"neither a run nor a sweep|is no folder"):
        report_data([path], None)


@pytest.mark.parametrize("content", [b"", b"no database" * 200])
def test_a_damaged_study_is_a_message_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(RunError, match="cannot be read"):
        report_data([tmp_path], None)
    assert (tmp_path / "study.db").read_bytes() == content


def test_without_a_study_the_folders_tell(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.01)):
        write_run(tmp_path / f"trial-{number}", 0.5 + number / 10, config=f"optimizer.lr={rate}")
    write_run(tmp_path / "trial-2")
    (tmp_path / "trial-2" / RESULT).write_text("{")
    found = read_sweep(tmp_path, None)
    assert [(each.number, each.state, each.params) for each in found.trials[:2]] == [
        (0, "complete", {"optimizer.lr": 0.1}), (1, "complete", {"optimizer.lr": 0.01}),
    ]  # fmt: skip
    assert found.best[0].number == 1
    assert len(found.problems) == 2  # the study, and the damaged trial


def test_several_folders_are_compared(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", 0.5)
    other = write_run(tmp_path / "other", 0.6, config="optimizer.lr=0.5")
    parts = report_data([one, other], None)["parts"]
    assert [part["title"] for part in parts] == ["Side by side", "Run one", "Run other"]
    tables = blocks_of(parts[0]["sections"], "table")
    assert [row[5] for row in tables[0]["rows"]] == [0.5, 0.6]
    assert [row[0] for row in tables[0]["rows"]] == ["one", "other"]
    assert ["optimizer.lr", 0.001, 0.5] in tables[-1]["rows"]


def test_pictures_have_room_and_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run" / "explain"
    folder.mkdir(parents=True)
    Image.new("RGB", (2000, 40), "red").save(folder / "a.png")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "secret.png")
    (folder / "broken.png").write_bytes(b"no picture")
    about = [{"file": name, "title": "t", "caption": "c"} for name in ("a.png", "../../secret.png", "broken.png")]
    (folder / "about.json").write_text(json.dumps(about))
    shown, note = pictures(tmp_path / "run")
    assert len(shown["items"]) == 1
    assert shown["items"][0]["source"].startswith("data:image/webp;base64,")
    assert "secret.png" in note["text"]
    monkeypatch.setattr("da6401.report.explanations.MAX_BYTES", 10)
    assert pictures(tmp_path / "run")[0]["items"] == []
    (folder / "about.json").write_text("{")
    assert pictures(tmp_path / "run")[0]["tone"] == "warning"


def test_the_page_is_made_anew_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.report.serve.SECONDS", 0.0)
    run = write_run(tmp_path / "r")
    source = Source([run], out=None, storage=None)
    first = source.newest()
    assert source.newest() is first
    handed_over = write_run(tmp_path / MODEL)  # beside it: of the same sweep
    before, of_sweep = signature([run], None), signature([tmp_path], None)
    record_look(handed_over, verb="evaluate", purpose="accuracy")
    assert signature([tmp_path], None) != of_sweep
    write_metrics(run, [{"epoch": 1, "val_accuracy": 0.25}])
    assert signature([run], None) != before
    second = source.newest()
    assert second is not first
    (run / RESULT).write_text("{")
    held = source.newest()
    assert held["parts"] == second["parts"]
    assert "Not refreshed" in held["made"]
    assert sorted(path.name for path in run.iterdir()) == [CONFIG, METRICS, RESULT, VALIDATION_CSV]


def test_a_port_that_cannot_be_is_a_message(tmp_path: Path) -> None:
    from da6401.report.page import report

    with pytest.raises(UserError, match="--port 99999"):
        report([write_run(tmp_path / "r")], out=None, storage=None, watch=True, port=99999)


def test_a_pdf_needs_a_browser_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "r")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("da6401.report.pdf.PLACES", ())
    assert main(["report", str(run), "--pdf"]) == 2
    assert "no Chromium or Chrome here" in capsys.readouterr().err
    assert not (run / "report.html").exists()
    (tmp_path / "chromium").write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    (tmp_path / "chromium").chmod(0o755)
    assert main(["report", str(run), "--pdf"]) == 2
    assert "it is broken" in capsys.readouterr().err
    assert main(["report", str(run), "--pdf", "--watch"]) == 2


def test_a_page_replaces_pages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(tmp_path / "r"), tmp_path / "my.html"
    config = (run / CONFIG).read_bytes()
    for words in ([], ["--watch"]):
        assert main(["report", str(run), "--out", str(run / CONFIG), *words]) == 2
        told = f"{run / CONFIG}: is there already, and is no page of da6401; name another file (--out FILE)"
        assert told in capsys.readouterr().err
    assert (run / CONFIG).read_bytes() == config
    out.write_text('<!doctype html>\n<html lang="en" data-live="no">\n')  # of the first version
    for _ in range(2):
        assert main(["report", str(run), "--out", str(out)]) == 0
    (run / "report.html").write_text("<!doctype html>\n<title>mine</title>")
    assert main(["report", str(run)]) == 2
    assert "--out FILE" in capsys.readouterr().err
    printed = (
        b"%PDF-1.4\n1 0 obj\n<</Title (Run r)\n/Creator (Mozilla/5.0 HeadlessChrome/156.0)\n/Producer (Skia/PDF m156)>>"
    )
    (tmp_path / "chromium").write_text(
        '#!/bin/sh\nfor w; do case $w in --print-to-pdf=*) cp "$0.pdf" "${w#*=}"; esac; done\n'
    )
    (tmp_path / "chromium").chmod(0o755)
    (tmp_path / "chromium.pdf").write_bytes(printed)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for _ in range(2):
        assert main(["report", str(run), "--out", str(out), "--pdf"]) == 0
    assert out.with_suffix(".pdf").read_bytes() == printed
    out.with_suffix(".pdf").write_bytes(printed.replace(b"Headless", b""))  # by hand, in a browser
    assert main(["report", str(run), "--out", str(out), "--pdf"]) == 2
    assert "my.pdf: is there already, and is no page that da6401 printed" in capsys.readouterr().err


def test_numbers_in_the_page_are_finite(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    write_yaml(run / CONFIG, {"optimizer": {"lr": math.inf}})
    json.dumps(report_data([run], None), allow_nan=False)


def test_a_page_says_how_often_the_test_split_was_looked_at(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]

    def said(folders: Sequence[Path]) -> str:
        return json.dumps(report_data(folders, None))

    assert "The test split has not been looked at for this run." in said(runs[:1])
    assert "honest" not in said(runs)
    write_result(runs[0], result(0.5, test_accuracy=0.5, test_loss=1.0))  # by a version that recorded no looks
    assert "The test split was looked at once" in said(runs[:1])
    assert "not recorded" in said(runs[:1])
    for _ in range(2):
        record_look(runs[1], verb="explain", purpose="</script><b>")
    assert "The test split was looked at 2 times" in said(runs[1:])
    assert "honest" not in said(runs[1:])
    columns, rows = next(
        (block["columns"], block["rows"])
        for block in report_data(runs, None)["parts"][0]["sections"][0]["blocks"]
        if block["kind"] == "table"
    )
    assert [row[columns.index("test looks")] for row in rows] == [1, 2]


def test_a_sweeps_page_warns_of_a_choice_after_a_look() -> None:
    def warned(*trials: TrialRecord, **looked: Sequence[Look]) -> bool:
        read = dataclasses.replace(sweep(trials), looked={Path("s", name): looks for name, looks in looked.items()})
        told = [block["text"] for block in blocks_of(sweep_sections(read), "text") if "honest" in block["text"]]
        return len(told) == 1

    one, two = trial(0, (0.5,)), trial(1, (0.6,))
    assert one.start is not None
    assert two.start is not None
    early, late = (Look(time.astimezone().isoformat(), "evaluate", "") for time in (one.start, two.start))
    assert not warned(one, two)
    assert not warned(one, two, a=[late])
    assert warned(one, two, a=[early]), "a trial began after it"
    assert warned(one, two, a=[late], b=[late]), "two were looked at"
    assert not warned(one, two, a=[Look("", "evaluate", "")]), "nobody knows when"
