"""benchmarks/sweeps.md from what pruning.py, overhead.py and slots.py have left in outputs/bench/."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import overhead, pruning, slots

PAGE = Path(__file__).parent / "sweeps.md"


def main() -> None:
    lines = [
        "# Benchmarks of sweeps",
        "",
        f"Written by `make bench-sweeps` on {date.today()}, {os.cpu_count()} cores, no GPU. Bounds in brackets.",
        "",
        "## Pruning",
        "",
        f"`sweep=part_a` with each `hydra/sweeper/pruner`: {pruning.TRIALS} trials of "
        f"{pruning.EPOCHS} epochs, mean and standard deviation over n seeds (the best within 0.01 of the unpruned "
        "mean, at 45% of its epochs or less). The seconds are of a machine that did other things too.",
    ]
    for name, results in _read(pruning.OUT).items():
        lines += ["", f"### {pruning.TITLES[name]}", "", *pruning.table(results)]
        if replayed := pruning.replay_table(results["none"]):
            count = sum("curves" in run for run in results["none"])
            lines += [
                "", "What a pruner would have lost and saved on the very trials of the sweeps without one "
                f"(n={count}): here the sampler has no part in the difference.", "", *replayed,
            ]  # fmt: skip
    cost, busy = _read(overhead.OUT), _read(slots.OUT)
    if cost:
        lines += [
            "", "## What a trial costs besides its training", "",
            f"{cost['trials']:,} trials of `sweep=part_a` whose runs return at once; everything else is real (sqlite): "
            f"**{cost['mean']:.3f} s** a trial on average (0.15). Trials 1 to 100: {cost['first_100']:.3f} s each, "
            f"the last 100: {cost['last_100']:.3f} s; ratio **{cost['ratio']:.2f}** (1.5).",
        ]  # fmt: skip
    if busy:
        lines += [
            "", "## Slots", "",
            f"{busy['trials']} trials of {busy['shortest']:.1f} to {busy['longest']:.1f} s in {busy['slots']} slots: "
            f"busy **{busy['busy']:.1%}** of {busy['seconds']:.0f} s (90%), from the first start to the last end.",
        ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


if __name__ == "__main__":
    main()
