"""python -m benchmarks.recipe DIR...: `experiment=part_a` against 0.1.0's recipe, for about the same seconds.

Each DIR is a folder of labelled images. Writes benchmarks/recipe.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from da6401.api import train
from da6401.cli import main as da6401
from da6401.machine.cores import available_cores
from da6401.runs.run_folder import read_result

PAGE = Path(__file__).parent / "recipe.md"
# 0.1.0's: five blocks of one convolution, random crops to the end.
OLD = (
    "model.filters=32", "model.blocks=5", "model.convolutions=1", "optimizer.lr=2e-3", "trainer.epochs=15",
    "augmentation.plain_end=0",
)  # fmt: skip
ARMS = {"0.1.0": OLD, "now": ()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--image-size", type=int, default=32)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in given.folders:
        accuracy: dict[str, list[float]] = {arm: [] for arm in ARMS}
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for seed in range(given.seeds):
            for arm, words in ARMS.items():
                with tempfile.TemporaryDirectory() as place:
                    run, started = Path(place) / "run", time.process_time()
                    data = ("data=folder", f"data.root={folder}", f"data.image_size={given.image_size}")
                    machine = ("device=cpu", "trainer.threads=1", "trainer.progress=false")
                    train("experiment=part_a", *data, *machine, f"seed={seed}", *words, out=run)
                    seconds[arm].append(time.process_time() - started)
                    assert da6401(["evaluate", str(run)]) == 0
                    result = read_result(run)
                assert result.test_accuracy is not None
                accuracy[arm].append(result.test_accuracy)
        gains = [100 * (new - old) for old, new in zip(accuracy["0.1.0"], accuracy["now"], strict=True)]
        cells = [
            f"{statistics.mean(accuracy[arm]):.3f} ({min(accuracy[arm]):.3f} to {max(accuracy[arm]):.3f}), "
            f"{statistics.mean(seconds[arm]):.0f} s"
            for arm in ARMS
        ]
        gain = f"{statistics.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"
        rows.append(f"| {folder.name} | {' | '.join(cells)} | {gain} |")
        print(rows[-1], flush=True)
    PAGE.write_text(
        f"# The recipe of Part A\n\nWritten by `python -m benchmarks.recipe`. {given.image_size} px, one thread, "
        f"n={given.seeds} seeds, {available_cores()} cores, torch {torch.__version__}. Test accuracy, mean (lowest to "
        "highest), and CPU seconds of a training; the gain in points, paired by seed.\n\n"
        "| data set | recipe of 0.1.0 | now | gain |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
