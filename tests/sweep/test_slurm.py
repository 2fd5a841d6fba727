"""A real SLURM of one node: an array of workers, preemption, the time limit's signal, and Hydra's submitit launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from benchmarks.servers import HAS_SLURM, Slurm
from da6401.config.compose import saved_config
from da6401.runs.run_folder import read_metrics, read_result
from da6401.study.storage import open_storage
from da6401.sweep.leases import ATTEMPTS
from da6401.training.run import run
from tests.tiny_runs import SMALL

pytestmark = pytest.mark.skipif(not HAS_SLURM, reason="no SLURM on this machine (slurmctld, slurmd, munged; as root)")
SCRIPT = Path(__file__).parents[2] / "docs" / "cluster" / "workers.sbatch"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path / "slurm")
    # The jobs find `da6401` as a user's would: on the PATH.
    cluster.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        yield cluster
    finally:
        cluster.stop()


def words(tmp_path: Path, *, total: int, epochs: int) -> list[str]:
    return [
        *SMALL, "study=s", "optimizer.lr=tag(log,interval(1e-3,1e-1))", "trainer.checkpoint_minutes=0.0001",
        "hydra/sweeper/sampler=random", "sweep.keep_checkpoints=100",
        f"hydra.sweeper.storage=journal://{tmp_path}/study.log", f"hydra.sweeper.n_trials={total}",
        f"trainer.epochs={epochs}",
    ]  # fmt: skip


def submit(slurm: Slurm, tmp_path: Path, *arguments: str) -> str:
    flags = ("--parsable", f"--chdir={tmp_path}", f"--output={tmp_path}/%A_%a.log", "--cpus-per-task=1")
    return slurm.call("sbatch", *flags, *arguments).strip()


def trials(tmp_path: Path) -> list[FrozenTrial]:
    if not (tmp_path / "study.log").exists():
        return []
    try:
        return optuna.load_study(
            study_name="s", storage=open_storage(f"journal://{tmp_path}/study.log", minutes=1)
        ).trials
    except KeyError:  # it has not been made yet
        return []


def wait(tmp_path: Path, until: Callable[[], object], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        logs = "\n".join(log.read_text() for log in tmp_path.glob("*.log") if log.name != "study.log")
        assert time.monotonic() < deadline, logs
        time.sleep(0.2)


def all_done(tmp_path: Path, total: int) -> bool:
    return [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * total


def in_mid_trial(tmp_path: Path) -> bool:
    return any(
        not (metrics.parent / "result.json").exists() and len(read_metrics(metrics.parent)) > 5
        for metrics in tmp_path.glob("outputs/sweeps/s/trial-*/metrics.jsonl")
    )


def goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """Trial 0 was stopped and taken up, in the same folder; it ended as one that never stopped."""
    folder = tmp_path / "outputs/sweeps/s/trial-0"
    assert "resuming after epoch" in (folder / "train.log").read_text()
    assert trials(tmp_path)[0].user_attrs[ATTEMPTS] == 1, "it was stopped, not killed"
    again = run(saved_config(folder / "config.yaml"), tmp_path / "again")
    assert again.weights_sha256 == read_result(folder).weights_sha256


def test_an_array_of_workers_shares_one_study(slurm: Slurm, tmp_path: Path) -> None:
    submit(slurm, tmp_path, "--array=0-1", str(SCRIPT), *words(tmp_path, total=6, epochs=15))
    wait(tmp_path, lambda: all_done(tmp_path, 6))
    wait(tmp_path, lambda: not slurm.call("squeue", "--noheader").strip())
    assert len({trial.user_attrs["owner"] for trial in trials(tmp_path)}) == 2


def test_a_preempted_worker_puts_its_trial_back_and_goes_on_when_it_is_queued_again(
    slurm: Slurm, tmp_path: Path
) -> None:
    job = submit(slurm, tmp_path, "--array=0", str(SCRIPT), *words(tmp_path, total=1, epochs=60))
    wait(tmp_path, lambda: in_mid_trial(tmp_path))
    urgent = submit(slurm, tmp_path, "--partition=high", "--cpus-per-task=2", "--wrap=sleep 3")
    wait(tmp_path, lambda: [trial.state for trial in trials(tmp_path)] == [TrialState.WAITING], seconds=30)
    wait(tmp_path, lambda: all_done(tmp_path, 1))
    assert urgent != job
    goes_on_with_the_same_bits(tmp_path)


def test_the_time_limits_signal_writes_a_checkpoint_and_queues_the_job_again(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "--array=0", str(SCRIPT), *words(tmp_path, total=1, epochs=60))
    wait(tmp_path, lambda: in_mid_trial(tmp_path))
    slurm.call("scancel", "--signal=USR1", f"{job}_0")  # what --signal=USR1@120 sends ahead of the limit
    wait(tmp_path, lambda: [trial.state for trial in trials(tmp_path)] == [TrialState.WAITING], seconds=30)
    wait(tmp_path, lambda: all_done(tmp_path, 1))
    assert "stopped by SIGUSR1" in (tmp_path / f"{job}_0.log").read_text()
    goes_on_with_the_same_bits(tmp_path)


def test_hydras_launcher_submits_workers(slurm: Slurm, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'da6401[slurm]'")
    done = subprocess.run(
        ["da6401", "train", "--multirun", *words(tmp_path, total=6, epochs=15),
         "hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "hydra.launcher.cpus_per_task=1",
         "hydra.launcher.timeout_min=5", "hydra.launcher.partition=low"],
        cwd=tmp_path, env=slurm.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all_done(tmp_path, 6)
    assert {trial.user_attrs["owner"].partition("-")[0].rpartition("/")[2] for trial in trials(tmp_path)} == {"1", "2"}
