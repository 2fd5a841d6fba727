"""Hydra's launchers start a sweep's workers and train its confirmations.

Ray on a real local cluster, submitit and joblib in processes of this machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from da6401.cli import main
from da6401.runs.run_folder import read_json, read_result, read_yaml
from tests.forked import command
from tests.sweep.sweeps import DIVERGES, FOLDER, RATE, SWEEP, N, states, trials
from tests.tiny_runs import SMALL_BACKBONE

pytestmark = [pytest.mark.slow, pytest.mark.integration]
TOTAL = 6
WORDS = (*SWEEP, "trainer.epochs=10", f"{N}{TOTAL}", "hydra.sweeper.n_jobs=2")


def ended(*words: str, package: str, code: int = 0) -> str:
    """What a sweep printed that was run by a launcher, in a process that is done with it when it ends."""
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason=f"no {package}: see da6401's extras")
    ended_with, out, errors = command(words, cwd=Path.cwd(), timeout=300)
    assert ended_with == code, errors
    return out + errors


def shared_by_two_workers() -> None:
    """The trials agree with their folders, and were run by both workers."""
    assert states() == ["COMPLETE"] * TOTAL
    for trial in trials():
        assert read_result(FOLDER / f"trial-{trial.number}").val_accuracy == trial.value
    assert {trial.user_attrs["owner"].partition("-")[0] for trial in trials()} == {"1", "2"}


def confirmed(seeds: int) -> None:
    """The winner was trained again, by the launcher, and `evaluate` takes what it left."""
    (first,) = read_json(FOLDER / "sweep.json")["confirmed"]
    runs = sorted((FOLDER / "confirm").iterdir())
    assert len(runs) == len(first["values"]) == seeds
    assert sorted(first["values"]) == sorted(read_result(run).val_accuracy or 0.0 for run in runs)
    trial = read_yaml(FOLDER / f"trial-{first['trial']}" / "config.yaml")
    for number, run in enumerate(runs):
        assert read_yaml(run / "config.yaml") == {**trial, "seed": 1_000_003 + number}
    assert main(["evaluate", read_json(FOLDER / "sweep.json")["winner"]]) == 0


def test_two_workers_on_a_ray_of_their_own() -> None:
    words = ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=0.5")
    ended(*WORDS, RATE, *words, "sweep.confirm_top=1", "sweep.confirm_seeds=1", package="ray")
    shared_by_two_workers()
    confirmed(seeds=1)
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in trials()]
    assert any(
        one[0] and one[1] and other[0] and one[0] < other[0] < one[1] for one in spans for other in spans
    ), "the two workers took turns"  # fmt: skip


def test_two_workers_by_submitit() -> None:
    words = ("hydra/launcher=submitit_local", "sweep.confirm_top=1", "sweep.confirm_seeds=2")
    ended(*WORDS, RATE, *words, package="submitit")
    shared_by_two_workers()
    confirmed(seeds=2)


def test_a_sweep_of_ours_by_joblib() -> None:
    """Its YAML sets keys of hydra.sweeper and an interpolation of ours, which the launcher's processes must know."""
    words = (*SMALL_BACKBONE, "sweep=part_b", "model=resnet18", "model.weights=none", "data.image_size=32",
             "trainer.epochs=1", "study=s", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"{N}2",
             "sweep.confirm_top=1", "sweep.confirm_seeds=1")  # fmt: skip
    assert "2 workers by hydra/launcher" in ended("train", "--multirun", *words, package="joblib")
    confirmed(seeds=1)


def test_a_worker_that_fails_is_a_message() -> None:
    words = ("optimizer.lr=100", "model.dropout=choice(0.1,0.2)", "hydra.sweeper.max_failure_rate=0")
    said = ended(*DIVERGES, *words, "hydra/launcher=submitit_local", package="submitit", code=2)
    assert "failed, more than hydra.sweeper.max_failure_rate allows: DivergedError" in said
    assert "Traceback" not in said
