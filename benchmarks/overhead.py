"""What a trial costs besides its training.

python -m benchmarks.overhead [--trials 1000]   # a sweep whose runs return at once, everything else real
python -m benchmarks.overhead --head DIR        # sweep=head on a folder of images: seconds beyond the training's steps
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import da6401.training.run
from da6401.cli import main as da6401_main
from da6401.config.schema import RunConfig
from da6401.runs.atomic_files import write_json
from da6401.runs.run_folder import RunResult, write_result
from da6401.training import loop

OUT = Path("outputs/bench/overhead.json").absolute()


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--trials", type=int, default=1000)
    given.add_argument("--head", type=Path, metavar="DIR")
    chosen = given.parse_args()
    if chosen.head is not None:
        print(head_trials(chosen.head.resolve()))
        return
    trials = chosen.trials
    ends: list[float] = []

    def instant(cfg: RunConfig, out: Path, watcher: object = None, *, files: Mapping[str, str]) -> RunResult:
        value = cfg.optimizer.lr * (1 - cfg.model.dropout)
        result = RunResult(
            status="completed", val_accuracy=value, val_loss=1.0, best_epoch=1, epochs_run=1, test_accuracy=None,
            test_loss=None, parameters=1, macs=1, seconds=0.0, reason="",
        )  # fmt: skip
        write_result(out, result)
        ends.append(time.perf_counter())
        return result

    setattr(da6401.training.run, "run", instant)  # noqa: B010 (mypy knows what it replaces)
    with tempfile.TemporaryDirectory() as folder:
        code = da6401_main(["train", "--multirun", "sweep=part_a", f"hydra.sweeper.n_trials={trials}",
                            f"hydra.sweep.dir={folder}/study"])  # fmt: skip
    assert code == 0, "the sweep has failed"
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    first, last = statistics.fmean(seconds[:100]), statistics.fmean(seconds[-100:])
    found: dict[str, Any] = {"trials": trials, "first_100": first, "last_100": last, "ratio": last / first,
                             "mean": statistics.fmean(seconds)}  # fmt: skip
    write_json(OUT, found)
    print(found)


def head_trials(images: Path, trials: int = 9) -> dict[str, float]:
    """Medians over the trials of a head on kept features, the first left out: CPU seconds, which other programs on the
    machine move little, and seconds of the clock.

    A trial counts from the end of the one before to its own; its steps are the passes over the training images.
    """
    ends: list[tuple[float, float]] = []
    steps: list[tuple[float, float]] = [(0.0, 0.0)]
    run, epoch = da6401.training.run.run, loop.train_epoch

    def now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def timed_epoch(*values: Any, **named: Any) -> None:
        before = now()
        epoch(*values, **named)
        steps[-1] = steps[-1][0] + now()[0] - before[0], steps[-1][1] + now()[1] - before[1]

    def timed_run(*values: Any, **named: Any) -> RunResult:
        result = run(*values, **named)
        ends.append(now())
        steps.append((0.0, 0.0))
        return result

    setattr(da6401.training.run, "run", timed_run)  # noqa: B010 (mypy knows what it replaces)
    setattr(loop, "train_epoch", timed_epoch)  # noqa: B010 (as above)
    with tempfile.TemporaryDirectory() as folder:
        code = da6401_main(["train", "--multirun", "sweep=head", "model=efficientnet_lite0", "data=folder",
                            f"data.root={images}", "data.image_size=128", f"hydra.sweeper.n_trials={trials}",
                            "device=cpu", "trainer.threads=1", "trainer.progress=false",
                            f"hydra.sweep.dir={folder}/study"])  # fmt: skip
    assert code == 0, "the sweep has failed"
    found: dict[str, float] = {"trials": trials - 1}
    for index, clock in enumerate(("cpu", "wall")):
        whole = [after[index] - before[index] for before, after in itertools.pairwise(ends)]
        beyond = [all_of - each[index] for all_of, each in zip(whole, steps[1:], strict=False)]
        found |= {f"{clock}_trial": statistics.median(whole), f"{clock}_beyond_steps": statistics.median(beyond)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
