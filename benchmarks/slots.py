"""Are two slots busy where trials differ much in length? Real trainings of 1 to 16 epochs, two worker processes.

python -m benchmarks.slots    (about two minutes)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

from da6401.runs.atomic_files import write_json

OUT = Path("outputs/bench/slots.json").absolute()
SLOTS, TRIALS = 2, 30


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "train", "--multirun", "study=slots", "data.image_size=16", "model.blocks=3",
            "trainer.epochs=choice(1,2,16)", "hydra/sweeper/sampler=random", f"hydra.sweeper.n_trials={TRIALS}",
            f"hydra.sweeper.n_jobs={SLOTS}",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        trials = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/outputs/sweeps/slots/study.db").trials
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    assert len(ends) == TRIALS, "a trial has not ended"
    lengths = sorted((end - start).total_seconds() for start, end in zip(starts, ends, strict=True))
    window = (max(ends) - min(starts)).total_seconds()
    found = {"slots": SLOTS, "trials": TRIALS, "shortest": lengths[0], "longest": lengths[-1], "seconds": window,
             "busy": sum(lengths) / (SLOTS * window)}  # fmt: skip
    write_json(OUT, found)
    print(found)


if __name__ == "__main__":
    main()
