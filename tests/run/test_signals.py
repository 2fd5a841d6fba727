"""A signal at any statement between the last batch and the end of a run: heeded, and nothing is lost.

From the last batch of the last validation on a signal no longer interrupts: the run completes, and says afterwards that
it was stopped. Before it, the run is left interrupted, and goes on.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import da6401
from da6401.errors import InterruptedRun, PrunedError
from da6401.runs import run_folder
from da6401.runs.run_folder import RESULT, read_result
from da6401.sweep import run_trials, summary
from da6401.training import checkpoint_writer, loop
from da6401.training.run import run
from da6401.training.signals import stop_on_signals
from da6401.training.validation import evaluate
from tests import forked
from tests.outcomes import outcome
from tests.tiny_runs import SMALL, compose

pytestmark = pytest.mark.integration

TINY = (*SMALL, "trainer.epochs=1", "model.blocks=1", "data.images_per_class=4")
STRETCH = (  # in training/
    "run.py", "run_writer.py", "signals.py", "loop.py", "state.py", "checkpoint_writer.py", "validation.py",
)  # fmt: skip
Place = tuple[str, int]  # a file of the package, and a line in it


class _Statements:
    """Follows the statements of STRETCH from the last validation on, and sends a signal before one of them."""

    def __init__(self, target: Place | None = None, signum: int = signal.SIGINT) -> None:
        self.seen: dict[Place, None] = {}
        self.target = target
        self.signum = signum

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        place = _place(frame)
        if place[0] not in STRETCH:
            return None
        if event == "line" and place not in self.seen:
            self.seen[place] = None
            if place == self.target:
                os.kill(os.getpid(), self.signum)
        return self

    def run(self, folder: Path) -> None:
        """A training that is followed from its validation on: the way there takes much longer when it is."""

        def followed(*values: Any, **named: Any) -> Any:
            sys.settrace(self)
            caller: FrameType | None = sys._getframe(1)
            while caller is not None:
                if _place(caller)[0] in STRETCH:
                    caller.f_trace = self
                caller = caller.f_back
            return evaluate(*values, **named)

        before = sys.gettrace()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "evaluate", followed)
            patch.setattr(checkpoint_writer, "PATIENCE", 10**9)  # the same statements, however busy the machine is
            try:
                run(compose(*TINY), folder)
            finally:
                sys.settrace(before)


def _place(frame: FrameType) -> Place:
    return frame.f_code.co_filename.rpartition("/da6401/training/")[2], frame.f_lineno


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], list[Place]]:
    """A run that nobody stopped: its outcome, and the statements after its last batch."""
    folder, statements = tmp_path_factory.mktemp("whole") / "run", _Statements()
    statements.run(folder)
    places = list(statements.seen)
    assert len(places) > 60
    assert {name for name, _ in places} == set(STRETCH)
    return outcome(folder), places


def ended(folder: Path) -> str:
    """The status of a run, "" without a result."""
    return read_result(folder).status if (folder / RESULT).exists() else ""


def test_a_signal_before_any_statement_ends_the_process_and_loses_nothing(
    tmp_path: Path, whole: tuple[tuple[Any, ...], list[Place]]
) -> None:
    expected, places = whole
    statuses = []
    for number, place in enumerate(places):
        folder, statements = tmp_path / str(number), _Statements(place)
        stopped: BaseException | None = None
        try:
            statements.run(folder)
        except (InterruptedRun, KeyboardInterrupt) as error:
            stopped = error
        assert stopped is not None, (place, set(places) ^ set(statements.seen))
        assert getattr(stopped, "exit_code", 130) == 130, place  # the command ends in 130 of a KeyboardInterrupt, too
        statuses.append(ended(folder))
        if statuses[-1] != "completed":
            run(compose(*TINY), folder)
        assert outcome(folder) == expected, place
    # First interrupted, from some statement on completed, and nothing else.
    assert set(statuses) == {"interrupted", "completed"}
    assert statuses == sorted(statuses, reverse=True)
    stopped_before = places[: statuses.index("completed")]
    # What can still stop it is the flag's question in the last validation, and nothing after that.
    assert {name for name, _ in stopped_before} == {"validation.py", "signals.py"}, stopped_before[-1]


def test_whoever_had_the_signal_before_gets_it_once(tmp_path: Path, whole: tuple[tuple[Any, ...], list[Place]]) -> None:
    received = list[int]()
    before = signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
    try:
        ends = [place for place in whole[1] if place[0] == "signals.py"]  # the other statements: see above
        for number, place in enumerate([*whole[1][::10], *ends]):
            folder, statements = tmp_path / str(number), _Statements(place, signal.SIGTERM)
            try:
                statements.run(folder)
            except InterruptedRun:  # before the last batch
                assert ended(folder) == "interrupted"
            else:
                assert outcome(folder) == whole[0], place
            assert received == [signal.SIGTERM], place
            received.clear()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_that_comes_with_another_end_reaches_its_owner_too() -> None:
    received = list[int]()
    before = signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
    try:
        with pytest.raises(PrunedError), stop_on_signals():  # noqa: PT012
            os.kill(os.getpid(), signal.SIGTERM)
            raise PrunedError
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def _stopped_as_it_completes(signum: int) -> None:
    def written(folder: Path, result: run_folder.RunResult) -> None:
        run_folder.write_result(folder, result)
        os.kill(os.getpid(), signum)

    pytest.MonkeyPatch().setattr("da6401.training.run_writer.write_result", written)  # for the life of the process


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_the_command_says_that_it_was_stopped_though_its_run_is_complete(
    tmp_path: Path, signum: int, code: int
) -> None:
    limits = functools.partial(_stopped_as_it_completes, signum)
    ended_in, _, errors = forked.command(["train", *TINY, "hydra.run.dir=run"], cwd=tmp_path, before=limits)
    assert (ended_in, errors.strip()) == (code, f"da6401: stopped by {signal.Signals(signum).name}")
    assert ended(tmp_path / "run") == "completed"


# ---- in a sweep -------------------------------------------------------------------------------------------------


def sweep(folder: Path, *more: str) -> list[optuna.trial.FrozenTrial]:
    """Three trials, in this process; the trials of the study afterwards, however it ended."""
    da6401.train(
        *TINY, "seed=choice(1,2,3)", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=3", *more,
        multirun=True, out=folder,
    )  # fmt: skip
    return trials(folder)


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/study.db").get_trials()


def test_a_signal_while_a_trial_completes_stops_the_sweep_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(folder: Path, result: run_folder.RunResult) -> None:
        run_folder.write_result(folder, result)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("da6401.training.run_writer.write_result", written)
        with pytest.raises(InterruptedRun) as stopped:
            sweep(tmp_path / "sweep")
    assert stopped.value.exit_code == 143
    (first,) = trials(tmp_path / "sweep")
    assert first.state is TrialState.COMPLETE
    assert first.value == read_result(tmp_path / "sweep" / "trial-0").val_accuracy
    assert [trial.state for trial in sweep(tmp_path / "sweep")] == [TrialState.COMPLETE] * 3


def test_a_signal_after_the_last_trial_stops_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list[str]()

    def told(*values: Any, **named: Any) -> str:
        lines.append(summary.progress_line(*values, **named))
        if len(lines) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return lines[-1]

    with monkeypatch.context() as patch:
        patch.setattr(run_trials, "progress_line", told)
        with pytest.raises(InterruptedRun) as stopped:
            sweep(tmp_path / "sweep", "sweep.confirm_top=1", "sweep.confirm_seeds=1")
    assert stopped.value.exit_code == 143
    assert [trial.state for trial in trials(tmp_path / "sweep")] == [TrialState.COMPLETE] * 3
    assert not (tmp_path / "sweep" / "confirm").exists()
    sweep(tmp_path / "sweep", "sweep.confirm_top=1", "sweep.confirm_seeds=1")
    assert len(list((tmp_path / "sweep" / "confirm").iterdir())) == 1
