"""A real SLURM of one node: an array of workers, preemption, the time limit's signal, and Hydra's submitit launcher."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from benchmarks.servers import HAS_SLURM, Slurm
from da6401.config.compose import saved_config
from da6401.runs.run_folder import read_metrics, read_result
from da6401.study.storage import open_storage
from da6401.sweep.leases import ATTEMPTS
from da6401.training.run import run
from tests.forked import command
from tests.sweep.sweeps import FOLDER, RANDOM, RATE, SWEEP, N, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(not HAS_SLURM, reason="no SLURM on this machine (slurmctld, slurmd, munged; as root)"),
]
SCRIPT = Path(__file__).parents[2] / "docs" / "cluster" / "workers.sbatch"
TRIAL = FOLDER / "trial-0"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("cluster") / "slurm")
    # The jobs find `da6401` as a user's would: on the PATH.
    cluster.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        yield cluster
    finally:
        cluster.stop()


def words(*, total: int, epochs: int) -> list[str]:
    return [
        *SWEEP[2:], RATE, RANDOM, "trainer.checkpoint_minutes=0.0001", "sweep.keep_checkpoints=100", f"{N}{total}",
        f"hydra.sweeper.storage=journal://{Path.cwd()}/study.log", f"trainer.epochs={epochs}",
    ]  # fmt: skip


def submit(slurm: Slurm, *arguments: str) -> str:
    here = Path.cwd()
    flags = ("--parsable", f"--chdir={here}", f"--output={here}/%A_%a.log", "--cpus-per-task=1")
    return slurm.call("sbatch", *flags, *arguments).strip()


def trials() -> list[FrozenTrial]:
    if not Path("study.log").exists():
        return []
    try:
        return optuna.load_study(study_name="s", storage=open_storage("journal://study.log", minutes=1)).trials
    except KeyError:  # it has not been made yet
        return []


def logs() -> str:
    return "\n".join(log.read_text() for log in Path().glob("*.log") if log.name != "study.log")


def wait_for(*states: str) -> None:
    wait_until(lambda: [trial.state.name for trial in trials()] == [*states], what=logs)


def wait_for_epoch(number: int) -> None:
    """Until trial 0 is beyond that epoch, and not at its end."""
    wait_until(lambda: (TRIAL / "metrics.jsonl").exists() and len(read_metrics(TRIAL)) > number, what=logs)
    assert [trial.state.name for trial in trials()] == ["RUNNING"]


def test_an_array_of_workers_shares_one_study(slurm: Slurm) -> None:
    submit(slurm, "--array=0-1", str(SCRIPT), *words(total=6, epochs=15))
    wait_for(*["COMPLETE"] * 6)
    wait_until(lambda: not slurm.call("squeue", "--noheader").strip())
    assert len({trial.user_attrs["owner"] for trial in trials()}) == 2


def test_a_worker_that_is_stopped_requeues_its_trial_and_resumes_it_when_its_job_runs_again(slurm: Slurm) -> None:
    """Stopped by the time limit's signal, and then by a job of higher priority."""
    job = submit(slurm, "--array=0", str(SCRIPT), *words(total=1, epochs=150))
    wait_for_epoch(5)
    slurm.call("scancel", "--signal=USR1", f"{job}_0")  # what --signal=USR1@120 sends ahead of the limit
    wait_for("WAITING")
    done = len(read_metrics(TRIAL))
    wait_for_epoch(done + 5)
    submit(slurm, "--partition=high", "--cpus-per-task=2", "--wrap=sleep 2")
    wait_for("WAITING")
    wait_for("COMPLETE")
    assert "stopped by SIGUSR1" in Path(f"{job}_0.log").read_text()
    assert (TRIAL / "train.log").read_text().count("resuming after epoch") == 2
    assert trials()[0].user_attrs[ATTEMPTS] == 1, "it was stopped, not killed"
    again = run(saved_config(TRIAL / "config.yaml"), Path("again"))
    assert again.weights_sha256 == read_result(TRIAL).weights_sha256


def test_hydras_launcher_submits_workers(slurm: Slurm) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'da6401[slurm]'")
    launcher = ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "hydra.launcher.cpus_per_task=1",
                "hydra.launcher.timeout_min=5", "hydra.launcher.partition=low")  # fmt: skip
    given = ["train", "--multirun", *words(total=6, epochs=15), *launcher]
    code, _, errors = command(given, cwd=Path.cwd(), env=slurm.environment, timeout=120)
    assert code == 0, errors
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * 6
    assert {trial.user_attrs["owner"].partition("-")[0].rpartition("/")[2] for trial in trials()} == {"1", "2"}
