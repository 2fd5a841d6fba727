"""A machine that cannot run a trial puts it back and leaves; a configuration that cannot be run is a failed trial."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from PIL import Image
from sqlalchemy.exc import OperationalError

import da6401
from da6401.cli import main
from da6401.errors import MachineError, UserError
from da6401.runs.atomic_files import explain_write_errors
from da6401.runs.run_folder import RESULT, read_result
from da6401.sweep.leases import ATTEMPTS, OWNER, REASON, REQUEUED, Worker
from tests.outcomes import outcome
from tests.sweep.sweeps import FOLDER, states, trials
from tests.tiny_runs import SMALL

pytestmark = pytest.mark.integration

TINY = (*SMALL, "trainer.epochs=2", "trainer.checkpoint_minutes=0.00001")
GRID = ("seed=choice(1,2,3)", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=3")
PICTURES = ("data=folder", "data.image_size=16", "data.cache=off", "data.val_role=validation")
NETWORK = tuple(word for word in TINY if word.startswith(("model.", "trainer.")))


def sweep(*words: str, folder: Path = FOLDER) -> None:
    da6401.train(*TINY, *GRID, *words, multirun=True, out=folder)


def disk_full() -> None:
    with explain_write_errors(Path("last.pt")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raising(error: Exception) -> Callable[[], None]:
    def fails() -> None:
        raise error

    return fails


MACHINE: dict[str, tuple[Callable[[], None], str]] = {
    "a full disk": (disk_full, "No space left on device"),
    "no memory": (raising(MemoryError()), "memory is used up"),
    "a GPU that is lost": (raising(RuntimeError("CUDA error: device-side assert triggered")), "device-side assert"),
}
CONFIGURATION: dict[str, Exception] = {
    "too large for the GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "the user's": UserError("model.filters: too many"),
}


class _FailAt:
    """A training that fails after its first epoch, in some of the times that one is begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[], None], *, times: set[int]) -> None:
        from da6401.training import loop

        self.begun = 0
        original = loop.fit

        def fit(*values: Any, **named: Any) -> None:
            number, self.begun = self.begun, self.begun + 1
            if number in times:
                setup, hooks, *rest = values
                values = (setup, dataclasses.replace(hooks, tracker=_Tracker(hooks.tracker, fails)), *rest)
            original(*values, **named)

        monkeypatch.setattr("da6401.training.run.fit", fit)


class _Tracker:
    def __init__(self, inner: Any, fails: Callable[[], None]) -> None:
        self.inner = inner
        self.fails = fails

    def log(self, epoch: int, line: Any) -> None:
        self.inner.log(epoch, line)
        self.fails()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep on a machine that is well."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    sweep(folder=folder)
    return folder


@pytest.mark.parametrize("name", MACHINE)
def test_a_failure_of_the_machine_puts_the_trial_back_and_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, whole: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fails, reason = MACHINE[name]
    with monkeypatch.context() as patch:
        _FailAt(patch, fails, times={1})
        with pytest.raises(MachineError, match=rf"trial 1 is requeued, and this worker ends: .*{reason}"):
            sweep()
    assert states() == ["COMPLETE", "WAITING"]
    left = trials()[1]
    assert left.user_attrs[OWNER] == ""
    assert reason in left.user_attrs[REQUEUED]
    assert REASON not in left.user_attrs
    assert reason in re.sub(r"\s+", " ", capsys.readouterr().out), "the sweep's table says why it waits"
    assert not (FOLDER / "trial-1" / RESULT).exists()  # unfinished: it goes on
    # The next worker takes it up from its checkpoint, and nothing shows that it was left.
    sweep()
    assert states() == ["COMPLETE"] * 3
    assert trials()[1].user_attrs[ATTEMPTS] == 2
    for number in range(3):
        assert outcome(FOLDER / f"trial-{number}") == outcome(whole / f"trial-{number}")


@pytest.mark.parametrize("name", CONFIGURATION)
def test_a_failure_of_the_configuration_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _FailAt(monkeypatch, raising(CONFIGURATION[name]), times={1})
    sweep()
    assert states() == ["COMPLETE", "FAIL", "COMPLETE"]
    failed = trials()[1]
    assert str(CONFIGURATION[name]) in failed.user_attrs[REASON]
    assert REQUEUED not in failed.user_attrs
    assert read_result(FOLDER / "trial-1").status == "failed"


def test_a_trial_does_not_go_round_machines_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    _FailAt(monkeypatch, raising(MemoryError()), times={0, 1, 2})
    for told in ("trial 0 is requeued", "trial 0 is requeued", "trial 0 failed, and this worker ends"):
        with pytest.raises(MachineError, match=told):
            sweep("trainer.epochs=5")
    (failed,) = trials()
    assert failed.state is TrialState.FAIL
    assert "memory is used up" in failed.user_attrs[REASON]
    assert "(3 attempts)" in failed.user_attrs[REASON]
    sweep("trainer.epochs=5")
    assert states() == ["FAIL", "COMPLETE", "COMPLETE"]


# ---- data that is gone ------------------------------------------------------------------------------------------


def pictures(root: Path) -> Path:
    for split, name, number in [(s, n, i) for s in ("train", "val") for n in ("cat", "dog") for i in range(8)]:
        path = root / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number * 30, 200 if name == "cat" else 20, 90 * (split == "val"))).save(path)
    return root


def folder_sweep(root: str, *words: str) -> None:
    da6401.train(*NETWORK, *PICTURES, f"data.root={root}", *words, multirun=True, out=FOLDER)


@pytest.mark.parametrize("mount_point", [True, False])
def test_data_that_is_gone_after_the_first_trial_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount_point: bool
) -> None:
    root = pictures(tmp_path / "data")

    def unmounted() -> None:
        (root).rename(tmp_path / "elsewhere")
        if mount_point:
            root.mkdir()

    _AfterTrial(monkeypatch, unmounted, number=0)
    with pytest.raises(MachineError, match=r"trial 1 is requeued.*data"):
        folder_sweep(str(root), *GRID)
    assert states() == ["COMPLETE", "WAITING"]
    if mount_point:
        root.rmdir()
    (tmp_path / "elsewhere").rename(root)
    folder_sweep(str(root), *GRID)
    assert states() == ["COMPLETE"] * 3


class _AfterTrial:
    """Something that happens when a trial of this number has been told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None], *, number: int) -> None:
        from da6401.sweep import run_trials

        original = run_trials._report_end

        def tell(sweep: Any, trial: Any, ended: Any, run: Path) -> None:
            original(sweep, trial, ended, run)
            if trial.number == number:
                happens()

        monkeypatch.setattr(run_trials, "_report_end", tell)


def test_a_folder_that_a_trial_chose_is_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there when the sweep began, which looks at every choice; what goes later fails the trial that chose it."""
    roots = [pictures(tmp_path / name) for name in ("data", "other")]

    def gone() -> None:
        for root in roots:
            root.rename(f"{root}-gone")

    _AfterTrial(monkeypatch, gone, number=0)
    grid = ("hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=2")
    folder_sweep(f"choice({roots[0]},{roots[1]})", *grid)
    assert states() == ["COMPLETE", "FAIL"]
    failed = trials()[1]
    assert "does not exist" in failed.user_attrs[REASON]
    assert REQUEUED not in failed.user_attrs


SLOTS = """
import atexit, os, pathlib, time

slot, left = os.environ.get("DA6401_SLOT"), pathlib.Path({left!r})
if slot == "1":
    os.environ["HOME"] = {empty!r}
    atexit.register(left.touch)
elif slot == "2":
    until = time.monotonic() + 60
    while not left.exists() and time.monotonic() < until:
        time.sleep(0.05)
"""


def test_a_worker_without_the_data_leaves_and_the_other_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Slot 1 has another home, so that ~/data is not there: a machine whose mount is missing. Slot 2 begins later."""
    pictures(tmp_path / "home" / "data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sitecustomize.py").write_text(SLOTS.format(empty=str(tmp_path / "empty"), left=str(tmp_path / "left")))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    words = ["train", "--multirun", *NETWORK, *PICTURES, "data.root=~/data", "study=s", *GRID, "hydra.sweeper.n_jobs=2"]
    monkeypatch.setattr("sys.argv", ["da6401", *words])  # the workers are given the leader's command
    assert main(words) == 2
    said = capfd.readouterr().err
    assert "the worker in slot 1 ended with exit code 2: trial" in said
    assert str(tmp_path / "empty" / "data") in said
    assert "Traceback" not in said
    assert states() == ["COMPLETE"] * 3
    assert all(trial.user_attrs[OWNER].startswith("2-") for trial in trials())
    assert sum(REQUEUED in trial.user_attrs for trial in trials()) == 1


# ---- the study's own storage, and what comes after the trials -----------------------------------------------------


def full_storage(*_: object) -> None:
    cause = OperationalError("INSERT", {}, Exception("database or disk is full"))
    raise optuna.exceptions.StorageInternalError("An exception is raised during the commit.") from cause


def test_a_study_on_a_full_disk_ends_the_worker_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "claim", full_storage)
        with pytest.raises(MachineError, match=r"this worker ends: .*database or disk is full"):
            sweep()
    with monkeypatch.context() as patch:  # where not even the putting back can be written
        _FailAt(patch, disk_full, times={0})
        patch.setattr(Worker, "_requeue", full_storage)
        with pytest.raises(MachineError, match="No space left on device"):
            sweep()
    sweep()
    assert states() == ["COMPLETE"] * 3


def test_a_confirmation_that_the_machine_cannot_run_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed = ("sweep.confirm_top=1", "sweep.confirm_seeds=2")
    with monkeypatch.context() as patch:
        _FailAt(patch, disk_full, times={4})  # the second seed
        with pytest.raises(MachineError, match=r"trial-\d-seed-\d+ is not confirmed: .*No space left"):
            sweep(*confirmed)
    assert states() == ["COMPLETE"] * 3
    sweep(*confirmed)
    assert len([*(FOLDER / "confirm").glob(f"*/{RESULT}")]) == 2
