"""Which folder a word names, and which run stands for a sweep."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from da6401 import load_run, load_sweep
from da6401.errors import RunError
from da6401.report.chosen_run import chosen_run
from da6401.report.index import index_sections
from da6401.runs.named_folders import folder_of, held_in, trained_at
from da6401.runs.trial_folders import is_sweep

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with outputs/ in it: two runs and two sweeps, the sweep `confirmed` trained last."""
    monkeypatch.chdir(tmp_path)
    made = {
        "outputs/runs/2026-01-01/10-00-00": "part_a_digits",
        "outputs/runs/2026-01-02/09-00-00": "interrupted",
        "outputs/sweeps/killed": "sweep_killed",
        "outputs/sweeps/confirmed": "sweep_pruned_confirmed",
    }
    for age, (place, name) in enumerate(made.items()):
        shutil.copytree(GOLDEN / name, place)
        for file in Path(place).rglob("*"):
            os.utime(file, (1e9 + age, 1e9 + age))
    return Path("outputs")


def test_a_word_is_a_path_or_the_name_of_a_study_of_a_trial_or_of_a_run(outputs: Path) -> None:
    sweep = outputs / "sweeps/confirmed"
    assert folder_of("outputs/sweeps/confirmed") == sweep
    assert folder_of(sweep.absolute()) == sweep.absolute()
    assert folder_of("confirmed") == sweep
    assert folder_of("confirmed/trial-0") == sweep / "trial-0"
    assert folder_of("2026-01-01/10-00-00") == outputs / "runs/2026-01-01/10-00-00"
    os.chdir(sweep)
    assert folder_of(".") == Path(".")


def test_latest_is_what_was_trained_last_whatever_was_evaluated_since(outputs: Path) -> None:
    assert folder_of("latest") == outputs / "sweeps/confirmed"
    run = outputs / "runs/2026-01-01/10-00-00"
    os.utime(run / "result.json", (2e9, 2e9))  # evaluate writes it
    assert folder_of("latest") == outputs / "sweeps/confirmed"
    os.utime(run / "metrics.jsonl", (2e9, 2e9))
    assert folder_of("latest") == run
    assert trained_at(run) == 2e9
    assert [path.name for path in held_in(outputs)] == ["10-00-00", "confirmed", "killed", "09-00-00"]


def test_a_study_that_lies_elsewhere_below_outputs_is_found_by_its_name(outputs: Path) -> None:
    moved = (outputs / "sweeps/confirmed").rename(outputs / "elsewhere")
    name = json.loads((moved / "sweep.json").read_text())["study"]
    assert folder_of(name) == moved


def test_what_is_ambiguous_or_not_there_is_one_message(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "part_a_digits", "confirmed")
    with pytest.raises(RunError, match=r"names 2 folders, \./confirmed, outputs/sweeps/confirmed"):
        folder_of("confirmed")
    assert folder_of("./outputs/sweeps/confirmed") == outputs / "sweeps/confirmed"
    with pytest.raises(RunError, match="did you mean killed"):
        folder_of("kiled")
    with pytest.raises(RunError, match=r"outputs: holds 4 runs and sweeps \(outputs/sweeps/confirmed, "):
        folder_of("outputs")
    Path("empty").mkdir()
    with pytest.raises(RunError, match="holds neither a run nor a sweep"):
        folder_of("empty")
    shutil.rmtree("outputs")
    with pytest.raises(RunError, match="there is no run and no sweep below outputs yet"):
        folder_of("latest")


def test_a_path_too_long_for_the_file_system_is_not_there(outputs: Path) -> None:
    word = "x" * 300
    for path in (word, f"runs/{word}", f"/{word}"):
        for load in (folder_of, load_run, load_sweep):
            with pytest.raises(RunError, match=r"x{300}: (is neither a folder nor a study|holds no (run|sweep))"):
                load(path)
    summary = outputs / "sweeps/confirmed/sweep.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "study": word}))
    assert folder_of(word) == summary.parent


def test_a_link_to_a_folder_is_not_a_second_one(outputs: Path) -> None:
    Path("confirmed").symlink_to("outputs/sweeps/confirmed")
    assert folder_of("confirmed") == Path("confirmed")


def test_a_sweep_stands_for_its_confirmed_winner_else_for_the_best_so_far(outputs: Path) -> None:
    confirmed = chosen_run(outputs / "sweeps/confirmed")
    summary = json.loads((outputs / "sweeps/confirmed/sweep.json").read_text())
    assert confirmed.folder.name == Path(summary["winner"]).name == Path(summary["confirmed"][0]["run"]).name
    assert confirmed.folder.parent.name == "confirm"
    assert confirmed.why == "its confirmed winner"
    killed = outputs / "sweeps/killed"
    assert not (killed / "sweep.json").exists()
    values = load_sweep(killed).trials().query("state == 'complete'")["value"]
    found = chosen_run(killed)
    assert found.folder.name == f"trial-{values.idxmax()}"
    assert found.why == f"the best of its {len(values)} completed trials so far"
    assert load_sweep("killed").best.folder == found.folder
    assert load_run("confirmed/trial-0").folder == outputs / "sweeps/confirmed/trial-0"


def test_a_sweep_without_a_completed_trial_says_so(outputs: Path) -> None:
    (outputs / "sweeps/confirmed/sweep.json").write_text('{"winner": null}')
    (outputs / "sweeps/confirmed/study.db").unlink()
    for result in outputs.glob("sweeps/confirmed/trial-*/result.json"):
        result.unlink()
    with pytest.raises(RunError, match="no trial was completed"):
        chosen_run(outputs / "sweeps/confirmed")


def test_the_index_lists_all_newest_first_and_damage_is_a_row(outputs: Path) -> None:
    damaged = outputs / "runs/2026-01-01/10-00-00/result.json"
    damaged.write_text("{")
    (outputs / "sweeps/confirmed/report.html").write_text("")
    (section,) = index_sections(outputs)
    listed = section["blocks"][1]
    names = [row[0]["text"] for row in listed["rows"]]
    assert names == ["sweeps/confirmed", "sweeps/killed", "runs/2026-01-02/09-00-00", "runs/2026-01-01/10-00-00"]
    columns = {name: [row[at] for row in listed["rows"]] for at, name in enumerate(listed["columns"])}
    winner = json.loads((chosen_run(outputs / "sweeps/confirmed").folder / "result.json").read_text())
    assert columns["validation accuracy"][0] == winner["val_accuracy"]
    assert columns["parameters"][0] == winner["parameters"]
    assert columns["status"][2] == "interrupted"
    assert "result.json: cannot be read" in columns["status"][3]
    assert columns["what"][0]["href"] == "./sweeps/confirmed/report.html"
    assert columns["what"][1]["href"] == "./sweeps/killed/"


def test_a_run_that_repeats_a_trial_makes_no_sweep_of_the_folder_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "trial-0-all-2026-01-01").mkdir()
    assert not is_sweep(tmp_path)
    (tmp_path / "trial-0").mkdir()
    assert is_sweep(tmp_path)
