"""A race over tiny trainings: what it plans, writes down and hands over, and what the verbs make of that."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from da6401.cli import main
from da6401.config.schema import SweepConfig
from da6401.errors import OutOfTimeError
from da6401.machine.terminal import table_console
from da6401.metrics.calibration import calibrate, read_calibration
from da6401.metrics.scores import scores_of
from da6401.runs.looks import read_looks
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import ENSEMBLE, read_result
from da6401.study.objective import Objective
from da6401.study.roles import CANDIDATE, EPOCHS, PHASE
from da6401.sweep import end_of_time, model_folder, race_costs, scheduler
from da6401.sweep import hand_over as hand_over_module
from da6401.sweep.hand_over import choose, hand_over, trained_runs
from da6401.sweep.model_folder import HandedOver, Option, Weights
from da6401.sweep.prepare import prepare
from da6401.sweep.race_trials import RaceTrials
from da6401.sweep.summary import _print_model
from da6401.training import loop, run_writer
from da6401.training.trained_model import load_model
from da6401.training.validation import evaluate
from tests.sweep.sweeps import FOLDER, SWEEP, folder, open_study, summary
from tests.tiny_runs import da6401, typed

pytestmark = pytest.mark.integration

RACE = (
    *SWEEP, "sweep.strategy=race", "model.dropout=interval(0.0,0.5)", "sweep.minutes=0.5",
    "hydra.sweeper.first=[{model.dropout: 0.5}]", "data.images_per_class=40", "trainer.epochs=2",
)  # fmt: skip
MODEL = FOLDER / "model"


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a race was run."""
    place = tmp_path_factory.mktemp("race")
    started = time.perf_counter()
    code, said, complained = typed(*RACE, cwd=place)
    assert code == 0, said + complained
    assert time.perf_counter() - started < 60 * 0.5 + 5
    assert "da6401 evaluate outputs/sweeps/s/model" in said
    assert "plan for 30 s: " in said + complained
    return place


@pytest.fixture
def place(raced: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(raced)
    return raced


def test_the_first_trial_is_the_defaults_and_the_last_is_long(place: Path) -> None:
    trials = open_study().trials
    first, last = trials[0], trials[-1]
    assert first.user_attrs[CANDIDATE] == 0
    assert first.params["model.dropout"] == 0.0
    assert first.user_attrs[EPOCHS] <= max(trial.user_attrs[EPOCHS] for trial in trials)
    assert last.user_attrs[PHASE] == "long"
    for trial in trials:
        if trial.state.is_finished():
            assert read_result(folder(trial.number)).epochs_run == trial.user_attrs[EPOCHS]


def test_the_summary_has_the_ledger_and_the_model(place: Path) -> None:
    content = summary()
    rows = content["ledger"]
    assert {step["phase"] for step in content["plan"]} <= {"judge", "long"}
    assert content["plan"][0]["candidate"] == 0
    assert len(rows) == len(open_study().trials) + 1
    assert sum(row["seconds"] or 0 for row in rows) == pytest.approx(content["seconds"])
    chosen = [each for each in content["model"]["options"] if each["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["val_accuracy"] == content["model"]["val_accuracy"]
    assert content["winner"] == str(FOLDER / content["model"]["runs"][0])


def test_the_model_answers_as_its_files_say(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = read_result(MODEL)
    answers = read_predictions(MODEL / "validation.csv")
    assert float((answers.predicted == answers.labels_N).mean()) == pytest.approx(result.val_accuracy)
    assert result.val_metrics == scores_of(answers).values
    assert result.val_metrics["accuracy"] == result.val_accuracy
    assert read_calibration(MODEL / "calibration.json") == calibrate(answers)
    assert main(["evaluate", str(MODEL)]) == 0
    assert read_result(MODEL).test_accuracy is not None
    assert "recorded" in capsys.readouterr().out
    model, _, names = load_model(MODEL)
    assert len(names) == 3
    assert sum(each.numel() for each in model.parameters()) == result.parameters


@pytest.mark.parametrize("flips", [False, True])
def test_a_mean_of_networks_is_exported_explained_and_reproduced(
    place: Path, flips: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    done = sorted(path.parts[-3] for path in FOLDER.glob("trial-*/checkpoints/best.pt"))[:2]
    other = FOLDER / f"two-{flips}"
    other.mkdir()
    for file in MODEL.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    (other / ENSEMBLE).write_text(f'{{"runs": {done!r}, "flips": {str(flips).lower()}}}'.replace("'", '"'))
    for words in (["export", str(other)], ["explain", str(other)])[0 if flips else 1 :]:
        assert main(words) == 0, capsys.readouterr().err
    assert main(["reproduce", str(other)]) == 0
    assert capsys.readouterr().out.count("then: ") == len(done)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"runs": [], "flips": false}', '{"runs": ["../x"], "flips": false}',
                '{"runs": ["/x"], "flips": true}', '{"runs": ["trial-0"], "flips": 3}',
                '{"runs": ["model"], "flips": true}',
                '{"runs": ["trial-0"], "checkpoints": ["config.yaml"], "flips": true}',
                '{"runs": ["trial-0"], "checkpoints": [[]], "flips": true}',
                '{"runs": ["trial-0"], "checkpoints": [], "flips": true}']
)  # fmt: skip
def test_a_damaged_or_hostile_ensemble_is_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ENSEMBLE).write_text(content)
    (tmp_path / "model" / "result.json").write_text("{}")
    assert main(["predict", str(tmp_path / "model"), "x.png"]) == 2
    assert "model" in capsys.readouterr().err


def test_what_shows_no_gain_is_not_taken() -> None:
    labels = np.tile(np.arange(4), 100)
    rng = np.random.default_rng(0)

    def option(runs: int, good: float) -> Option:
        logits = rng.normal(0, 1, (400, 4))
        logits[np.arange(400), labels] += good
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return Option((Weights(Path("a")),) * runs, flips=False, probabilities_NK=probabilities)

    alone = option(1, 2.0)
    assert choose([alone, Option((Weights(Path("a")),) * 2, False, alone.probabilities_NK)], labels) is alone
    assert choose([alone, option(2, 1.0)], labels) is alone
    better = option(2, 4.0)
    assert choose([alone, better], labels) is better


def test_the_line_that_tests_the_model_names_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text("")
    run = tmp_path / "sweep" / "trial-0"
    run.mkdir(parents=True)
    receipt = {"plugins": [{"file": "own.py"}], "plugin_files": [str(tmp_path / "own.py")]}
    (run / "receipt.json").write_text(json.dumps(receipt))
    monkeypatch.chdir(tmp_path)
    _print_model(table_console(), HandedOver((Weights(Path("sweep/trial-0")),), False, 0.5, 0.5), Path("sweep"))
    assert "test it: da6401 evaluate sweep/model --plugin own.py\n" in capsys.readouterr().out


def test_tune_needs_a_folder_and_minutes(tmp_path: Path) -> None:
    assert "--minutes" in da6401("tune", "x", cwd=tmp_path).stderr
    missing = da6401("tune", "x", "--minutes", "1", "trainer.threads=1", cwd=tmp_path)
    assert missing.returncode == 2
    assert "x" in missing.stderr
    assert not (tmp_path / "outputs").exists()


def test_too_few_minutes_are_told(tmp_path: Path) -> None:
    words = (*RACE, "sweep.minutes=0.12", "data.images_per_class=400", "data.image_size=64", "model.filters=64")
    _, said, complained = typed(*words, cwd=tmp_path)
    assert "leaves too little time: the first candidate needs 6 epochs" in said + complained
    assert "which takes sweep.minutes=" in said + complained


class Ctrl:
    """Sends this process Ctrl-C at a call of a function, before it does anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, *, at: int) -> None:
        self.function, self.at, self.calls = getattr(place, name), at, 0
        monkeypatch.setattr(place, name, self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return self.function(*given, **named)


@pytest.mark.parametrize(
    ("place", "name", "at"),
    [
        (loop, "evaluate", 3),  # in the first training, after two epochs
        (run_writer, "write_result", 1),  # as it ends
        (model_folder, "write_calibration", 1),  # as `model` is first written
        (race_costs, "measure", 2),  # between two trainings
        (hand_over_module, "choose", 1),  # as the hand-over chooses
        (model_folder, "write_calibration", -1),  # and replaces `model`
    ],
)
def test_ctrl_c_at_any_moment_hands_over_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, at: int
) -> None:
    with monkeypatch.context() as patched:
        if at < 0:  # the second of the hand-over's own
            at = 1

            def then(options: Any, labels_N: Any) -> Option:
                Ctrl(patched, place, name, at=1)
                last: Option = options[-1]  # not the one that `model` is
                return last

            patched.setattr(hand_over_module, "choose", then)
        else:
            Ctrl(patched, place, name, at=at)
        if place is not race_costs:
            patched.setattr(RaceTrials, "extend", first_trials(RaceTrials.extend, 1))
        code, said, complained = typed(*RACE, "sweep.minutes=1", cwd=tmp_path)
    assert code == 130, said + complained
    monkeypatch.chdir(tmp_path)
    check_model_is_the_best_run()
    assert summary()["model"]["val_accuracy"] == read_result(MODEL).val_accuracy
    assert not list(FOLDER.glob(".model.*[0-9]")), "what was half written is gone"


def check_model_is_the_best_run() -> None:
    """`model` is complete, and its answers are those of the network with the best accuracy of all trials."""
    model, _, names = load_model(MODEL)
    result, content = read_result(MODEL), json.loads((MODEL / ENSEMBLE).read_text())
    answers = read_predictions(MODEL / "validation.csv")
    assert float((answers.predicted == answers.labels_N).mean()) == result.val_accuracy
    done = [read_result(each.parent) for each in FOLDER.glob("trial-*/result.json")]
    best = max(each.val_accuracy for each in done if each.val_accuracy is not None)
    assert read_result(FOLDER / content["runs"][0]).val_accuracy == best
    assert len(names) == 3
    assert not model.training


@pytest.mark.parametrize(("epochs", "told"), [(2, "trial 0 did 2 of its"), (0, "none has done an epoch")])
def test_time_that_is_over_before_a_trial_is_told_with_the_minutes_that_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, told: str
) -> None:
    calls = list[int]()

    def over(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > epochs:
            raise OutOfTimeError("sweep.minutes=2 are over")
        return evaluate(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "evaluate", over)
        code, said, complained = typed(*RACE, "sweep.minutes=2", cwd=tmp_path)
    assert code == 1, said + complained
    monkeypatch.chdir(tmp_path)
    assert f"sweep.minutes=2 are over, and no trial has finished: {told}" in complained
    assert (MODEL / "result.json").is_file() is (epochs > 0)
    if epochs:
        check_model_is_the_best_run()
        assert summary()["model"]["val_accuracy"] == read_result(MODEL).val_accuracy
    minutes = float(complained.split("and sweep.minutes=")[1].split()[0])
    assert 2 < minutes < 8
    monkeypatch.setattr(RaceTrials, "extend", first_trials(RaceTrials.extend, 1))
    assert typed(*RACE, f"sweep.minutes={minutes}", cwd=tmp_path)[0] == 0
    assert open_study().trials[0].state.name == "COMPLETE"
    check_model_is_the_best_run()


def test_a_process_that_hangs_at_the_end_hands_over_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first training has ended, and the main thread hangs before its model is there."""
    sweeps, codes = list[Any](), list[int]()
    main_thread = threading.main_thread()

    def keep(*given: Any) -> Any:
        sweeps.append(prepare(*given))
        return sweeps[0]

    def hang(*given: Any) -> Any:
        if threading.current_thread() is main_thread and not codes:
            assert not MODEL.exists()
            watchdog = threading.Thread(target=end_of_time.end_here, args=(sweeps[0], "sweep.minutes=1 are over"))
            watchdog.start()
            watchdog.join()
            check_model_is_the_best_run()
        return calibrate(*given)

    for place, name, value in (
        (scheduler, "prepare", keep), (model_folder, "calibrate", hang), (os, "_exit", codes.append),
        (end_of_time, "KEEP_SECONDS", 60.0), (RaceTrials, "extend", first_trials(RaceTrials.extend, 1)),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, value)
    code, said, complained = typed(*RACE, "sweep.minutes=1", cwd=tmp_path)
    assert codes == [0], said + complained
    assert code == 0
    assert said.count("test it: da6401 evaluate outputs/sweeps/s/model") == 2


def first_trials(extend: Callable[[RaceTrials], int], count: int) -> Callable[[RaceTrials], int]:
    """A race of so many trainings, which has time for its hand-over."""
    return lambda race: extend(race) if len(race.study.trials) < count else len(race.study.trials)


def test_candidates_of_one_network_are_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []

    class StoppedError(Exception):
        pass

    def watch(self: RaceTrials) -> int:
        seen.append(self.families)
        raise StoppedError

    monkeypatch.setattr(RaceTrials, "extend", watch)
    words = ["train", "--multirun", "sweep=tune_both", "data=synthetic", "model.weights=none", "study=s", "device=cpu",
             "sweep.minutes=5"]  # fmt: skip
    with contextlib.suppress(StoppedError):
        main(words)
    lite = "efficientnet_lite0"
    assert seen == [[lite, "cnn", lite, lite, lite, lite, "cnn"]]


def test_the_page_has_the_model_and_the_ledger(place: Path) -> None:
    assert main(["report", str(FOLDER), "--out", "page.html"]) == 0
    page = (place / "page.html").read_text()
    assert "What the minutes went to" in page
    assert "Best by minute" in page
    assert "The plan at the start" in page
    assert "Handed over" in page


@pytest.mark.parametrize("content", ['{"model": 3, "ledger": [3]}', '{"model": {"options": [[]]}, "ledger": {}}'])
def test_a_page_of_a_summary_that_is_no_races_is_made_all_the_same(place: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(FOLDER, tmp_path / "other")
    (tmp_path / "other" / "sweep.json").write_text(json.dumps({**summary(), **json.loads(content)}))
    assert main(["report", str(tmp_path / "other")]) == 0


def test_what_was_made_of_a_model_stays_with_it(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(place / FOLDER, tmp_path / FOLDER)
    monkeypatch.chdir(tmp_path)
    trained = trained_runs([folder(trial.number) for trial in open_study().trials], Objective.of(SweepConfig()))
    model_folder._replace(
        MODEL, Path(shutil.copytree(MODEL, FOLDER / ".new", ignore=shutil.ignore_patterns("test.csv")))
    )
    shutil.rmtree(FOLDER / "earlier", ignore_errors=True)
    hand_over(FOLDER, trained, members=3, seconds=1.0)
    assert main(["evaluate", str(MODEL)]) == 0
    (MODEL / "export").mkdir()

    hand_over(FOLDER, trained, members=3, seconds=1.0)
    assert read_result(MODEL).test_accuracy is not None, "the same model has been evaluated"
    assert (MODEL / "export").is_dir()

    monkeypatch.setattr(hand_over_module, "choose", lambda options, labels_N: options[-1])
    other = hand_over(FOLDER, trained, members=1, seconds=1.0)
    assert (other.words, read_result(MODEL).test_accuracy) == (other.tried[-1]["model"], None)
    assert not (MODEL / "export").exists()
    assert (FOLDER / "earlier/model/export").is_dir()
    assert read_result(FOLDER / "earlier/model").test_accuracy is not None
    assert read_looks(MODEL) == read_looks(FOLDER / "earlier/model")


def test_a_candidate_that_cannot_be_built_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaceTrials, "extend", first_trials(RaceTrials.extend, 2))
    words = (*RACE, "data.image_size=32", "model.blocks=choice(5,8)", "hydra.sweeper.first=[{model.blocks: 8}]")
    code, said, complained = typed(*words, cwd=tmp_path)
    assert code == 0, said + complained
    assert " is left out: " in said + complained
    assert "what could be handed over" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep.minutes=0",), "sweep.strategy=race: plans its trainings for sweep.minutes"),
        (("sweep.confirm_top=3",), "sweep.confirm_top=3: a race trains its best candidates again"),
        (("sweep.objectives=[val_accuracy,macs]",), "sweep.objectives=[val_accuracy,macs]: a race has one objective"),
        (("hydra/sweeper/pruner=median",), "hydra/sweeper/pruner=median: a race judges complete trainings alone"),
        (("trainer.epochs=2,3",), "trainer.epochs: is searched, and a race gives each training its epochs"),
    ],
)
def test_what_contradicts_a_race_is_refused(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([*RACE, *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_dry_run_tells_the_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RACE, "sweep.dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "candidate 0: " in said
    assert "model.dropout=0.5" in said.partition("candidate 1: ")[2].partition("\n")[0]
    assert "ends with sweep.minutes=0.5" in said
    assert not FOLDER.exists()


def test_the_same_command_once_the_minutes_are_over_writes_one_summary(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / FOLDER, tmp_path / FOLDER)
    code, said, complained = typed(*RACE, "sweep.minutes=0.05", cwd=tmp_path)
    assert code == 0, said + complained
    assert (said + complained).count("what could be handed over") <= 1
    assert "has not ended" not in said + complained
    assert "Traceback" not in said + complained


def test_a_race_does_not_go_on_with_other_images(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / FOLDER, tmp_path / FOLDER)
    monkeypatch.chdir(tmp_path)
    for receipt in FOLDER.glob("trial-*/receipt.json"):
        receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "data_fingerprint": "other"}))
    before = (FOLDER / "sweep.json").read_bytes()
    assert main([*RACE, "sweep.minutes=2"]) == 2
    assert "the images have changed since trial" in " ".join(capsys.readouterr().err.split())
    assert (FOLDER / "sweep.json").read_bytes() == before
