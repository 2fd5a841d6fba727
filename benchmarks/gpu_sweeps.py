"""Head-only sweeps of GoogLeNet on cached features: trials a second with several slots on one device."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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


def head_words(root: Path, weights: Path, *, side: int, device: str) -> list[str]:
    """sweep=head on a folder of images."""
    return [
        "sweep=head", "data=folder", f"data.root={root}", f"data.image_size={side}", f"model.weights={weights}",
        f"device={device}", "model.feature_cache=on",
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


def main() -> None:
    """python -m benchmarks.gpu_sweeps ROOT FOLDER DEVICE SLOTS...: for one look."""
    root, folder, device, *slots = sys.argv[1:]
    weights = Path(folder, "googlenet.pth")
    write_weights(weights)
    words = head_words(Path(root), weights, side=224, device=device)
    first = sweep(words, Path(folder, "first"), slots=1, trials=2)
    print("first", first.rate, flush=True)
    for number in map(int, slots):
        started = time.perf_counter()
        found = sweep(words, Path(folder, f"slots-{device}-{number}"), slots=number, trials=8 + 6 * number)
        same = sum(found.hashes[each] == sha for each, sha in first.hashes.items())
        print(device, number, f"{found.rate:.2f} trials/s, {same} of {len(first.hashes)} the same weights",
              f"whole command {time.perf_counter() - started:.1f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
