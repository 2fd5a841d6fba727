"""Looks at the test split: none is lost, none is counted twice, and a choice after one is told."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import da6401
from da6401.errors import RunError
from da6401.runs.atomic_files import write_json
from da6401.runs.looks import (
    EVALUATED_BEFORE,
    LISTED,
    UNREADABLE,
    Look,
    choice_warnings,
    comparison_warnings,
    looked_in_sweep,
    read_looks,
    record_look,
    search_warnings,
    times,
)
from da6401.runs.run_folder import LOOKS, RECEIPT, SUMMARY, RunResult, write_result
from da6401.runs.trial_folders import MODEL

RESULT = RunResult(
    status="completed", val_accuracy=0.5, val_loss=1.0, best_epoch=1, epochs_run=1, test_accuracy=None, test_loss=None,
    parameters=1, macs=1, seconds=1.0, reason="",
)  # fmt: skip
LOST = "test accuracy is no longer an honest estimate"


def run_folder(path: Path, *, data: str = "data", looks: int = 0) -> Path:
    path.mkdir(parents=True)
    write_result(path, RESULT)
    write_json(path / RECEIPT, {"data_fingerprint": data})
    for _ in range(looks):
        record_look(path, verb="evaluate", purpose="test accuracy and loss")
    return path


def sweep_folder(path: Path, *looks: int, data: str = "data") -> Path:
    for number, count in enumerate(looks):
        run_folder(path / f"trial-{number}", data=data, looks=count)
    write_json(path / SUMMARY, {})
    return path


def test_looks_come_back_in_order_with_time_verb_and_purpose(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    assert read_looks(run) == []
    record_look(run, verb="evaluate", purpose="a")
    record_look(run, verb="explain", purpose='b "\n\udcff')
    first, second = read_looks(run)
    assert (first.verb, first.purpose, second.verb, second.purpose) == ("evaluate", "a", "explain", 'b "\n\udcff')
    assert first.time.endswith("Z")
    assert first.when is not None
    assert abs(datetime.now(UTC) - first.when) < timedelta(minutes=1)
    assert len((run / LOOKS).read_text().splitlines()) == 2


def test_many_at_once_lose_no_look(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: record_look(run, verb="predict", purpose=str(number)), range(40)))
    assert sorted(int(look.purpose) for look in read_looks(run)) == list(range(40))


def test_a_line_that_a_crash_cut_off_counts_and_spoils_no_other(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", looks=1)
    whole = (run / LOOKS).read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        (run / LOOKS).write_bytes(whole + whole[:cut])
        assert len(read_looks(run)) == 2
        record_look(run, verb="explain", purpose="after it")
        looks = read_looks(run)
        assert [looks[0].verb, looks[2].verb] == ["evaluate", "explain"]
        assert len(looks) == 3


@pytest.mark.parametrize("line", ["3", "[]", "{}", '{"time": 1, "verb": "a", "purpose": "b"}', "\x00", '{"a": 1}'])
def test_what_is_no_look_counts_as_one_of_unknown_time(tmp_path: Path, line: str) -> None:
    run = run_folder(tmp_path / "run")
    (run / LOOKS).write_text(line + "\n")
    assert read_looks(run) == [UNREADABLE]


def test_an_evaluation_of_an_older_version_is_one_look_of_unknown_time(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    write_result(run, dataclasses.replace(RESULT, test_accuracy=0.5, test_loss=1.0))
    assert read_looks(run) == [EVALUATED_BEFORE]
    assert EVALUATED_BEFORE.when is None
    record_look(run, verb="explain", purpose="")
    assert [look.verb for look in read_looks(run)] == ["evaluate", "explain"]
    record_look(run, verb="evaluate", purpose="")
    assert [look.verb for look in read_looks(run)] == ["explain", "evaluate"]


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00", "9" * 50])
def test_a_time_that_says_nothing_is_unknown(time: str) -> None:
    assert Look(time, "", "").when is None


def test_a_link_is_not_followed_and_a_huge_file_not_read(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (run / LOOKS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="symbolic link"):
        record_look(run, verb="evaluate", purpose="")
    assert not (tmp_path / "elsewhere").exists()
    (run / LOOKS).unlink()
    with open(run / LOOKS, "wb") as file:
        file.truncate(2**25)
    with pytest.raises(RunError, match="larger"):
        read_looks(run)


def test_a_look_for_one_trial_of_a_sweep_warns_the_next(tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path / "s", 0, 0, 2)
    assert len(looked_in_sweep(sweep)) == 1
    (told,) = choice_warnings(sweep / "trial-0")
    assert "looked at 2 times for sweep s (trial-2)" in told
    assert LOST in told
    assert choice_warnings(sweep / "trial-2") == [], "the one that was looked at may be looked at again"
    record_look(sweep / "trial-0", verb="explain", purpose="")
    assert "3 times for sweep s (trial-0, trial-2)" in choice_warnings(sweep / "trial-2")[0]
    run_folder(sweep / "confirm" / "trial-1-seed-7", looks=1)
    (told,) = choice_warnings(sweep / "trial-1")
    assert "4 times for sweep s" in told
    assert "confirm/trial-1-seed-7" in told


def test_the_runs_beside_it_count_where_their_data_is_the_same(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a")
    run_folder(tmp_path / "b", looks=1)
    run_folder(tmp_path / "c", looks=1, data="other")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / LOOKS).write_text("{}\n")  # no receipt: nobody knows its data
    (told,) = choice_warnings(run)
    assert f"looked at once for other runs on the same data ({tmp_path.name}/b)" in told
    day = run_folder(tmp_path / "runs" / "2026-01-01" / "10-00-00")
    run_folder(tmp_path / "runs" / "2025-12-31" / "23-00-00", looks=1)
    assert "(2025-12-31/23-00-00)" in choice_warnings(day)[0]


def test_a_search_after_a_look_is_told(tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path / "s", 0, 0)
    assert search_warnings(sweep, warm_start="") == []
    sweep_folder(tmp_path / "old", 1, 0)
    sweep_folder(tmp_path / "unlike", 1, data="other")
    assert search_warnings(sweep, warm_start="") == [
        "The test split has been looked at once for other sweeps on the same data (old/trial-0). For a model that is "
        f"chosen after a look, {LOST}."
    ]
    (told,) = search_warnings(sweep, warm_start="old")
    assert "sweep old, which this one starts from" in told
    record_look(sweep / "trial-1", verb="evaluate", purpose="")
    assert [re.search(r"for (.*?) \(", told)[1] for told in search_warnings(sweep, warm_start="")] == [  # type: ignore[index]
        "sweep s", "other sweeps on the same data",
    ]  # fmt: skip
    assert search_warnings(tmp_path / "new", warm_start="") == []


def test_a_look_at_what_a_race_hands_over_counts_as_one_at_a_trial(tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path / "s", 0, 0)
    model = run_folder(sweep / MODEL)
    assert choice_warnings(sweep / "trial-0") == search_warnings(sweep, warm_start="") == []
    record_look(model, verb="evaluate", purpose="")
    assert [*looked_in_sweep(sweep)] == [model]
    assert choice_warnings(model) == [], "the one that was looked at may be looked at again"
    other = sweep_folder(tmp_path / "other", 0)
    for told, where in (
        (choice_warnings(sweep / "trial-0"), "once for sweep s (model)"),
        (search_warnings(sweep, warm_start=""), "once for sweep s (model)"),
        (choice_warnings(other / "trial-0"), "once for other runs on the same data (s/model)"),
        (choice_warnings(run_folder(other / MODEL)), "once for other runs on the same data (s/model)"),
        (search_warnings(other, warm_start=""), "once for other sweeps on the same data (s/model)"),
        (search_warnings(other, warm_start="s"), "once for sweep s, which this one starts from (s/model)"),
    ):
        (sentence,) = told
        assert where in sentence


def test_runs_side_by_side(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / "x" / str(number), looks=1) for number in range(LISTED + 2)]
    other = run_folder(tmp_path / "other", looks=1, data="other")
    assert comparison_warnings([runs[0], other]) == []
    assert comparison_warnings([runs[0], runs[0]]) == []
    (told,) = comparison_warnings([*runs, other])
    assert f"{len(runs)} times for these runs" in told
    assert "and 2 more)" in told


def test_a_damaged_neighbour_spoils_nothing(tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path / "s", 0, 1)
    (sweep / "trial-1" / "result.json").write_text("{")
    assert looked_in_sweep(sweep) == {sweep / "trial-1": [UNREADABLE]}
    assert len(choice_warnings(sweep / "trial-0")) == 1


def test_how_often_in_words() -> None:
    assert [times(count) for count in (1, 2, 10)] == ["once", "2 times", "10 times"]


def test_one_function_alone_opens_the_test_split() -> None:
    """Any other way to it would be a look that nobody records."""
    package = Path(da6401.__file__).parent
    users = {
        f"{path.relative_to(package)}:{function.name}"
        for path in package.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_test_data"
    }
    assert users == {"commands/evaluate.py:look_at_test"}


def test_the_file_is_plain_json_lines(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", looks=2)
    lines = [json.loads(line) for line in (run / LOOKS).read_text(encoding="utf-8").splitlines()]
    assert [set(line) for line in lines] == [{"time", "verb", "purpose"}] * 2
