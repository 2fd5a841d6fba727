"""python -m benchmarks.fine_tuning DIR[,KEY=VALUE]... [--seeds 2]: are experiment=part_b's own values good ones?

Each of VARIANTS changes one or two of them. On each DIR, a folder of labelled images with a test split, all are trained
with EfficientNet-Lite0 (its weights come with da6401[offline]) at SIDE px on at most 600 images, every class alike.
What counts is the validation split, on which values may be chosen. What is done is kept in
benchmarks/fine_tuning.jsonl, so that the command can be stopped and given again; the page is benchmarks/fine_tuning.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.curves import IMAGES, images_of, train
from benchmarks.hour import MACHINE, data_words, interval, name_of
from da6401.config.command_line import check_command_line

LINES, PAGE = Path(__file__).with_suffix(".jsonl"), Path(__file__).with_suffix(".md")
SIDE = 96  # px
OWN = "as it is"
VARIANTS: dict[str, tuple[str, ...]] = {
    OWN: (),
    "optimizer.lr=1e-3": ("optimizer.lr=1e-3",),
    "optimizer.lr=4e-3": ("optimizer.lr=4e-3",),
    "model.backbone_lr_factor=0.2": ("model.backbone_lr_factor=0.2",),
    "model.backbone_lr_factor=1": ("model.backbone_lr_factor=1.0",),
    "model.freeze_depth=8 of 9 stages": ("model.freeze_depth=8",),
    "model.freeze_depth=4 of 9 stages": ("model.freeze_depth=4",),
    "model.freeze_depth=2 of 9 stages": ("model.freeze_depth=2",),
    "model.freeze_depth=4 of 9 stages, model.backbone_lr_factor=1": (
        "model.freeze_depth=4", "model.backbone_lr_factor=1.0",
    ),
    "model.freeze_depth=4 of 9 stages, trainer.epochs=10": ("model.freeze_depth=4", "trainer.epochs=10"),
    "trainer.label_smoothing=0": ("trainer.label_smoothing=0.0",),
    "augmentation=none": ("augmentation=none",),
    "trainer.epochs=10": ("trainer.epochs=10",),
}  # fmt: skip


def do(data: tuple[str, ...], variant: str, seed: int) -> dict[str, Any]:
    """Train a variant: the line of the table."""
    images, _ = images_of(data, SIDE)
    words = ["experiment=part_b", "model=efficientnet_lite0", *data, f"data.image_size={SIDE}", *VARIANTS[variant]]
    config = check_command_line([*words, f"seed={seed}", *MACHINE], multirun=False).config
    assert config is not None, "there is no search over models"
    found = train(config, images, images.validation, averaged=False)
    return {"data": name_of(data), "variant": variant, "seed": seed, "accuracy": found["accuracy"][-1],
            "loss": found["loss"][-1], "images": len(images.validation.names)}  # fmt: skip


def rows(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The page's table: the values as they are, and what each change gains on them, paired by seed."""
    found = {(line["variant"], line["data"], line["seed"]): 100 * line["accuracy"] for line in lines}
    names = sorted({line["data"] for line in lines})
    table = [f"| change | {' | '.join(names)} | mean |", f"|---|{'---|' * len(names)}---|"]
    for variant in VARIANTS:
        cells, means = [], []
        for name in names:
            own = {seed: value for (kind, data, seed), value in found.items() if (kind, data) == (OWN, name)}
            gains = [found[variant, name, seed] - own[seed] for seed in own if (variant, name, seed) in found]
            if variant == OWN:
                cells.append(f"{statistics.fmean(own.values()):.1f}")
            elif gains:
                means.append(statistics.fmean(gains))
                cells.append(", ".join(f"{gain:+.1f}" for gain in gains))
            else:
                cells.append("")
        table.append(f"| {variant} | {' | '.join(cells)} | {interval(means) if means else ''} |")
    return table


def main() -> None:
    """Train what is missing, then write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="*", metavar="DIR[,KEY=VALUE...]")
    arguments.add_argument("--seeds", type=int, default=2)
    given = arguments.parse_args()
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    have = {(line["data"], line["variant"], line["seed"]) for line in lines}
    for seed, variant, data in product(range(given.seeds), VARIANTS, map(data_words, given.folders)):
        if (name_of(data), variant, seed) not in have:
            lines.append(do(data, variant, seed))
            with LINES.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(json.dumps(lines[-1]), flush=True)
    seeds = len({line["seed"] for line in lines})
    PAGE.write_text(
        "# The values of experiment=part_b\n\nWritten by `python -m benchmarks.fine_tuning`: EfficientNet-Lite0, "
        f"{SIDE} px, {IMAGES} training images of each data set, one thread of an x86 CPU, {seeds} seeds. First line: "
        "accuracy on validation, %, mean over the seeds; others: points that the change gains, one number a seed; mean "
        "over the data sets with its 95% interval. The test splits were not looked at.\n\n"
        + "\n".join(rows(lines)) + "\n"
    )  # fmt: skip
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
