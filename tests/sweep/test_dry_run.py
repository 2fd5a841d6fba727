"""sweep.dry_run leaves nothing behind, and prints what the sweep then runs; inputs are looked at before trial 0."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import torch
from PIL import Image

from da6401.cli import main
from da6401.runs.run_folder import read_yaml
from da6401.sweep.jobs import Job, JobComposer
from tests.sweep.sweeps import FOLDER, RANDOM, RATE, SWEEP, N, open_study
from tests.tiny_runs import SMALL, SMALL_BACKBONE

SPACES = {
    "random": (RATE, RANDOM),
    "a grid": ("optimizer.lr=0.1,0.2", "model.dropout=0.0,0.1"),
    "tpe, the defaults first": (RATE, "model.dropout=choice(0.0,0.5)", "seed=3"),
}


def printed(out: str) -> dict[int, list[str]]:
    """The trials that a dry run has told of, with their overrides."""
    lines = [line.partition(": ") for line in out.splitlines() if line.startswith("trial ") and "starts" not in line]
    return {int(head.removeprefix("trial ")): shlex.split(rest) for head, _, rest in lines}


def files(place: Path) -> set[str]:
    return {str(path) for path in place.rglob("*")}


@pytest.mark.parametrize("space", SPACES)
def test_a_dry_run_prints_what_the_sweep_then_runs_and_leaves_nothing(
    space: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*SWEEP, *SPACES[space], f"{N}4"]
    assert main([*words, "sweep.dry_run=true"]) == 0
    told = printed(capfd.readouterr().out)
    assert files(tmp_path) == set()
    for total in (2, 4):  # and once more, when two of them are finished
        assert main([*words, f"{N}{total}"]) == 0
        before = {str(path): path.read_bytes() for path in FOLDER.rglob("*.db")}
        capfd.readouterr()
        assert main([*words, "sweep.dry_run=true"]) == 0
        assert set(printed(capfd.readouterr().out)) == set(range(total, 4))
        assert {str(path): path.read_bytes() for path in FOLDER.rglob("*.db")} == before
    assert set(told) == set(range(4))
    for number, overrides in told.items():
        run = read_yaml(FOLDER / f"trial-{number}" / ".hydra" / "hydra.yaml")["hydra"]["overrides"]["task"]
        assert run[: len(overrides)] == overrides


def test_a_dry_run_of_a_sweep_that_would_be_refused_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "optimizer.lr=0.1,0.2", f"{N}1"]) == 0
    study = open_study()
    before = study.user_attrs
    words = [*SWEEP, "optimizer.lr=0.1,0.3", "sweep.dry_run=true"]
    assert main(words) == 2
    assert "sweep.on_space_change=extend" in capfd.readouterr().err
    assert main([*words, "sweep.on_space_change=extend"]) == 0
    told = printed(capfd.readouterr().out)
    assert [each for each in told[1] if "lr" in each] == ["optimizer.lr=0.3"]
    assert study.user_attrs == before
    assert study.trials[0].distributions["optimizer.lr"] == (optuna.distributions.CategoricalDistribution([0.1, 0.2]))


def pictures(root: Path, *, classes: Sequence[str] = ("a", "b")) -> Path:
    for split in ("train", "val", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(root / split / name / "1.png")
    return root


INPUTS = {
    "no such folder": (("data=folder", "data.root=nowhere"), ["nowhere"]),
    "an empty folder": (("data=folder", "data.root=empty"), ["empty"]),
    "one of two roots": (("data=folder", "data.root=choice(good,nowhere)"), ["nowhere"]),
    "two of three roots": (("data=folder", "data.root=choice(good,nowhere,empty)"), ["nowhere", "empty"]),
    "no CUDA": (("device=cuda:7",), ["device=cuda:7"]),
    "fp16 without CUDA": (("device=cpu", "trainer.precision=choice(fp32,fp16)"), ["trainer.precision=fp16"]),
    "weights that are not there": (("model=resnet18", "model.weights=none.pt"), ["none.pt: no such file"]),
    "weights of another network": (("model=resnet18", "model.weights=choice(none,other.pt)"), ["does not fit"]),
    "weights of one of two networks": (
        ("model=choice(resnet18,cnn)", "model.weights=damaged.pt"), ["cannot be read as a state_dict"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "dry"),
    [*((case, "true") for case in INPUTS), ("one of two roots", "false"), ("weights of one of two networks", "false")],
)
def test_inputs_are_looked_at_before_the_first_trial(
    case: str, dry: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words, told = INPUTS[case]
    pictures(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    torch.save({"conv1.weight": torch.zeros(3)}, "other.pt")
    Path("damaged.pt").write_text("no weights")
    small = SMALL_BACKBONE if any("resnet18" in word for word in words) else SMALL
    ours = [word for word in small if not (word.startswith("data") and "data=folder" in words)]
    space = ("optimizer.lr=0.1,0.2", "data.image_size=32") if small is SMALL_BACKBONE else ("optimizer.lr=0.1,0.2",)
    code = main(["train", "--multirun", *ours, *space, "study=s", *words, f"sweep.dry_run={dry}"])
    message = capfd.readouterr().err
    assert code == 2, message
    assert [text for text in told if text not in message] == []
    assert "Traceback" not in message
    assert not (tmp_path / "outputs").exists()


def test_inputs_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[tuple[str, ...]] = []
    original = JobComposer.config_of

    def counted(self: JobComposer, job: Job) -> object:
        composed.append(job.overrides)
        return original(self, job)

    monkeypatch.setattr(JobComposer, "config_of", counted)
    assert main([*SWEEP, "optimizer.lr=interval(0.1,0.2)", "model.dropout=choice(0.0,0.1)", "sweep.dry_run=true"]) == 0
    assert len(composed) == 1, "what does not say which data, weights and device is not varied"
