"""Head-only sweeps of GoogLeNet on cached features: trials a second with several slots on one device."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from torchvision.models import googlenet

from da6401.runs.run_folder import read_result


@dataclass(frozen=True)
class Swept:
    """What a sweep took."""

    trials: int
    seconds: float  # from the first trial's beginning to the last one's end: imports are before it
    hashes: dict[int, str]  # of each trial's weights
    accuracy: float  # the best

    @property
    def rate(self) -> float:
        """Trials a second."""
        return self.trials / self.seconds


def write_weights(file: Path) -> None:
    """GoogLeNet's random weights as a file: all trials have the same backbone, and its features are computed once."""
    torch.manual_seed(0)
    torch.save(googlenet(weights=None, aux_logits=False, init_weights=False).state_dict(), file)


def head_words(weights: Path, *, images: int, device: str) -> list[str]:
    """sweep=head on so many training images: their size does not matter to a head."""
    return [
        "sweep=head", "data=synthetic", "data.classes=10", f"data.images_per_class={images // 8}", "data.image_size=32",
        f"model.weights={weights}", f"device={device}", "model.feature_cache=on",
    ]  # fmt: skip


def sweep(words: list[str], folder: Path, *, slots: int, trials: int) -> Swept:
    """Run it in its own process; with one thread a slot, which launches what the GPU computes."""
    command = [
        sys.executable, "-m", "da6401", "train", "--multirun", *words, f"hydra.sweep.dir={folder}",
        "hydra/sweeper/sampler=random", f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.n_jobs={slots}",
        "trainer.threads=1", "trainer.progress=false",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")
    began = min(trial.datetime_start for trial in study.trials if trial.datetime_start)
    ended = max(trial.datetime_complete for trial in study.trials if trial.datetime_complete)
    hashes = {
        trial.number: read_result(folder / f"trial-{trial.number}").best_weights_sha256 or ""
        for trial in study.trials
    }  # fmt: skip
    return Swept(len(study.trials), (ended - began).total_seconds(), hashes, study.best_value)


def compared(folder: Path, *, images: int, device: str, slots: int, trials: int) -> tuple[Swept, Swept]:
    """The sweep in so many slots, and in one; both have the same features, which a first sweep computes.

    Raises:
        RuntimeError: a sweep failed, or a trial has other weights than in a slot alone.
    """
    weights = folder / "googlenet.pth"
    write_weights(weights)
    words = head_words(weights, images=images, device=device)
    sweep(words, folder / "first", slots=1, trials=1)
    alone = sweep(words, folder / "alone", slots=1, trials=max(2, trials // slots))
    together = sweep(words, folder / "together", slots=slots, trials=trials)
    differ = [number for number, sha in alone.hashes.items() if together.hashes[number] != sha]
    if differ:
        raise RuntimeError(f"trials {differ} have other weights than alone")
    return together, alone
