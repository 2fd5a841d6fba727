"""What a trial costs besides its training: a sweep whose runs return at once, everything else real.

python -m benchmarks.overhead [--trials 1000]
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

OUT = Path("outputs/bench/overhead.json").absolute()


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--trials", type=int, default=1000)
    trials = given.parse_args().trials
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


if __name__ == "__main__":
    main()
