"""What frozen features are worth: a head-only sweep against one plain forward pass, and against the usual way.

python -m benchmarks.frozen --root PATH/TO/clothing-small    (about half an hour)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from da6401.config.compose import saved_config
from da6401.config.schema import RunConfig
from da6401.data.batches import batches
from da6401.data.sources import load_training_data
from da6401.models.build import build_model
from da6401.runs.run_folder import read_metrics, read_result
from da6401.training.run import run

PAGE = Path(__file__).parent / "frozen.md"
STUDY = "bench-head"
TRIALS, EPOCHS, COMPARED, PER_CLASS = 30, 20, 3, 30


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--root", required=True, type=Path)
    root = given.parse_args().root
    sweeps = Path("outputs/sweeps") / STUDY
    shutil.rmtree(sweeps, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DA6401_CACHE_DIR"] = str(Path(folder, "cache"))  # nothing is there from before
        images = ["data=folder", f"data.root={root}", "model=efficientnet_lite0"]
        usual = Path(folder, "usual")
        da6401(
            "train", "sweep=head", *images, "model.feature_cache=off", "trainer.epochs=1", f"hydra.run.dir={usual}"
        )  # decodes the pictures, too: neither of the two times below holds that
        epoch = read_metrics(usual)[0]["seconds"]
        cfg = saved_config(usual / "config.yaml")
        before, count = forward_pass(cfg, pieces=False)
        started = time.perf_counter()
        words = [f"study={STUDY}", f"hydra.sweeper.n_trials={TRIALS}", f"trainer.epochs={EPOCHS}"]
        da6401("train", "--multirun", "sweep=head", *images, *words)
        swept = time.perf_counter() - started
        in_pieces, _ = forward_pass(cfg, pieces=True)
        forward = min(before, forward_pass(cfg, pieces=False)[0])  # a noisy machine must not flatter the sweep
        best = json.loads((sweeps / "sweep.json").read_text(encoding="utf-8"))["best"][0]
        rows = same_answers(root, Path(folder), sweeps)
    extrapolated = TRIALS * EPOCHS * epoch
    machine = f"{os.cpu_count()} cores, no GPU, torch {torch.__version__.partition('+')[0]}"
    text = f"""# Frozen features: benchmark

Written by `python -m benchmarks.frozen` on {date.today()}, {machine}.
efficientnet_lite0, 224 px, {count:,} images (train and validation of clothing-small), n=1 run of each.

| what | seconds |
|---|---|
| one plain forward pass over all images, batches of 64: the faster of one before and one after | {forward:.0f} |
| the same pass a few images at a time, as da6401 does it on a CPU | {in_pieces:.0f} |
| `sweep=head`: {TRIALS} trials of {EPOCHS} epochs, extraction, start and summary included | {swept:.0f} |
| one epoch without the feature cache | {epoch:.0f} |

- Sweep / plain forward pass: **{swept / forward:.2f}** (bound 1.25); {swept / in_pieces:.2f} by the faster pass.
- The same sweep without the cache, extrapolated from that epoch: {extrapolated / 3600:.1f} hours,
  **{extrapolated / swept:.0f} times** as long.
- Best validation accuracy {best["value"]:.4f}, trial {best["trial"]}.

The same answers: {COMPARED} of its trials on {PER_CLASS} images a class, {EPOCHS} epochs, with the cache and without.

| trial | validation accuracy, cached | without | largest difference of a training loss |
|---|---|---|---|
""" + "".join(f"| {trial} | {on:.4f} | {off:.4f} | {difference:.1e} |\n" for trial, on, off, difference in rows)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def da6401(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "da6401", *words], check=True, stdout=subprocess.DEVNULL)


def forward_pass(cfg: RunConfig, *, pieces: bool) -> tuple[float, int]:
    """Seconds of the whole network over every image, and how many images.

    Args:
        pieces: a few images at a time, as StagedModel does it on a CPU; else batches of 64, as anyone would write it.
    """
    data = load_training_data(cfg.data)
    staged = build_model(cfg.model, num_classes=len(data.class_names), image_size=cfg.data.image_size)
    staged = staged.eval().to(memory_format=torch.channels_last)
    plain = nn.Sequential(*staged.stages.values(), staged.head)

    def model(images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = staged(images_BCHW) if pieces else plain(staged.normalise(images_BCHW))
        return logits_BK

    count, started = 0, time.perf_counter()
    with torch.inference_mode():
        for part in (data.train, data.validation):
            for batch in batches(part, batch_size=64, device=torch.device("cpu"), shuffle=None):
                pixels_BCHW = batch.images_BCHW.float().div_(255).contiguous(memory_format=torch.channels_last)
                count += len(model(pixels_BCHW))
    return time.perf_counter() - started, count


def same_answers(root: Path, folder: Path, sweeps: Path) -> Sequence[tuple[int, float, float, float]]:
    """Of some trials: the accuracies with and without the cache on a few images, and how far the losses are apart."""
    few = folder / "few"
    for split in ("train", "validation"):
        for group in sorted((root / split).iterdir()):
            if group.is_dir():
                (few / split / group.name).mkdir(parents=True)
                for file in sorted(group.iterdir())[:PER_CLASS]:
                    shutil.copy(file, few / split / group.name)
    rows = []
    for trial in range(COMPARED):
        losses, accuracies = [], []
        for cache in ("on", "off"):
            out = folder / f"trial-{trial}-{cache}"
            changes = [f"data.root={few}", f"model.feature_cache={cache}", "trainer.progress=false"]
            run(saved_config(sweeps / f"trial-{trial}" / "config.yaml", changes), out)
            losses.append([line["train_loss"] for line in read_metrics(out)])
            accuracies.append(read_result(out).val_accuracy or 0.0)
        rows.append((trial, *accuracies, max(abs(a - b) for a, b in zip(*losses, strict=True))))
    return rows


if __name__ == "__main__":
    main()
