"""make bench: is the data as fast as the device? Ratios within one run, rounds interleaved, medians.

Writes benchmarks/README.md and outputs/bench.json. About five minutes on two cores; let nothing else run beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import loaders
from benchmarks.loaders import BATCH, MEAN, STD, Epoch
from benchmarks.pictures import HEIGHT, WIDTH, make_tree
from benchmarks.table import Row, write
from da6401.config.schema import (
    AugmentationConfig,
    CnnConfig,
    FolderConfig,
    OptimizerConfig,
    RunConfig,
    TrainerConfig,
)
from da6401.data import sources
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import batches, seeded
from da6401.data.cache.cache_folder import FOLDER_VARIABLE, clear
from da6401.data.image_sets import ImageSet
from da6401.machine.cores import available_cores
from da6401.models.build import build_model
from da6401.training import loop
from da6401.training.epoch_inputs import training_batches
from da6401.training.optim import build_optimizer
from da6401.training.run import run

PICTURES = 320
SMALL_FILES = 12_000  # as many as iNaturalist-12K has, for the start-up
ROUNDS = 5
STEPS = 20  # of training in a round
CPU = torch.device("cpu")
STANDARD = AugmentationConfig(
    flip=0.5, crop_scale=0.5, crop_ratio=1.333, brightness=0.2, contrast=0.2, saturation=0.2
)  # conf/augmentation/standard.yaml


def main() -> None:
    load = os.getloadavg()[0]
    torch.set_num_threads(available_cores())
    logging.basicConfig(level=logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="da6401-bench-"))
    os.environ[FOLDER_VARIABLE] = str(folder / "cache")
    try:
        say(f"drawing {PICTURES} pictures of {WIDTH} x {HEIGHT} px")
        root = make_tree(folder / "pictures", train=PICTURES, validation=10)
        rows = [*reading_rows(root), training_row(root), startup_row(folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write(rows, pictures=PICTURES, rounds=ROUNDS, load=load)
    sys.exit(0 if all(row.ok for row in rows if row.bound is not None) else 1)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- reading ------------------------------------------------------------------------------------------------------


def config(root: Path, size: int) -> FolderConfig:
    return FolderConfig(root=str(root), image_size=size)


def load(root: Path, size: int) -> ImageSet:
    """Train, from the cache or into it, as another process would load it."""
    sources._last = None
    return sources.load_training_data(config(root, size)).train


def host_side(images: ImageSet) -> Epoch:
    """Gathering and handing over, and nothing else."""
    return lambda: sum(
        len(batch.labels_B) for batch in batches(images, batch_size=BATCH, device=CPU, shuffle=seeded(1))
    )


def pipeline(images: ImageSet, change: Callable[[Tensor], Tensor] | None = None) -> Epoch:
    """Normalised, augmented float batches; by our augmentation, or by another on the same uint8 batches."""
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (MEAN, STD))

    def made() -> Iterator[Tensor]:
        augment = Augmenter(STANDARD, count=len(images.labels_N), generator=seeded(2))
        for batch in batches(images, batch_size=BATCH, device=CPU, shuffle=seeded(1)):
            if change is not None:
                yield change(batch.images_BCHW)
            else:
                yield augment(batch.images_BCHW, batch.rows_B).sub_(mean).div_(std)

    return loaders.epochs_of(made)


def reading_rows(root: Path) -> list[Row]:
    train = root / "train"

    def forget() -> None:
        sources._last = None
        clear("all")

    def build(size: int) -> Epoch:
        return lambda: len(load(root, size).labels_N)

    builds = {f"build {size}": build(size) for size in (64, 224, 256)}
    say("building the cache, and the usual pipeline beside it")
    usuals: dict[str, Epoch | str] = {f"usual {size}": loaders.usual(train, size) for size in (64, 224, 256)}
    contenders = {**usuals, **builds}
    built, _ = rates(contenders, before=forget)
    images = {size: load(root, size) for size in (64, 224, 256)}
    contenders = {
        **usuals,
        "host 256": host_side(images[256]),
        "ours 64": pipeline(images[64]),
        "ours 224": pipeline(images[224]),
        "v2 loader": loaders.torchvision_v2(train, 224),
        "timm": loaders.timm_loader(train, 224),
        "webdataset": loaders.webdataset_loader(train, 224),
        "ffcv": loaders.ffcv_loader(train, 224),
    }
    for size in (64, 224):
        kornia = loaders.kornia_augmenter(size)
        contenders[f"kornia {size}"] = kornia if isinstance(kornia, str) else pipeline(images[size], kornia)
        contenders[f"v2 {size}"] = pipeline(images[size], loaders.v2_augmenter(size))
    say("reading")
    speed, why = rates(contenders, before=lambda: None)

    def against(name: str, base: str, of: Mapping[str, list[float]] = speed) -> list[float]:
        return [mine / other for mine, other in zip(of[name], of[base], strict=True)]

    def peer(text: str, name: str, base: str) -> Row:
        if name in why:
            return Row(text, [], None, "at_least", why[name])
        return Row(text, against(name, base), None, "at_least", f"{statistics.median(speed[name]):.0f} images/s")

    def build_row(size: int) -> Row:
        ratios = [1 / ratio for ratio in against(f"build {size}", f"usual {size}", built)]
        ours, theirs = (statistics.median(built[f"{name} {size}"]) for name in ("build", "usual"))
        text = f"building the cache / one epoch of the usual pipeline, both at {size} px, time"
        return Row(text, ratios, 0.6, "at_most", f"{ours:.0f} images/s; usual {theirs:.0f} images/s")

    usual = f"usual {statistics.median(speed['usual 224']):.0f} images/s"
    instead = (("kornia", "kornia"), ("v2", "torchvision v2 picture by picture"))
    return [
        *(build_row(size) for size in (224, 64, 256)),
        Row("host side of an epoch from the cache, 256 px / usual, images/s", against("host 256", "usual 256"), 30,
            "at_least", f"{statistics.median(speed['host 256']):.0f} images/s; usual at 256 px "
            f"{statistics.median(speed['usual 256']):.0f} images/s"),
        Row("augmented, normalised float batches on the CPU, 64 px / usual, images/s", against("ours 64", "usual 64"),
            5, "at_least", f"{statistics.median(speed['ours 64']):.0f} images/s; usual at 64 px "
            f"{statistics.median(speed['usual 64']):.0f} images/s"),
        Row("augmented, normalised float batches on the CPU, 224 px / usual, images/s",
            against("ours 224", "usual 224"), 1.5, "at_least",
            f"{statistics.median(speed['ours 224']):.0f} images/s; {usual}"),
        peer("DataLoader, torchvision decoder and v2 transforms, 224 px / usual", "v2 loader", "usual 224"),
        peer("timm create_loader, 224 px / usual", "timm", "usual 224"),
        peer("webdataset, 224 px / usual", "webdataset", "usual 224"),
        peer("ffcv, 224 px / usual", "ffcv", "usual 224"),
        *(
            peer(f"our cache with {label} in place of our augmentation, {size} px / ours", f"{name} {size}",
                 f"ours {size}")
            for size in (64, 224)
            for name, label in instead
        ),
    ]  # fmt: skip


def rates(
    contenders: Mapping[str, Epoch | str], *, before: Callable[[], None]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Images a second of each in every round, all of them once a round; and why some could not be measured."""
    why = {name: epoch for name, epoch in contenders.items() if isinstance(epoch, str)}
    speed: dict[str, list[float]] = {name: [] for name in contenders if name not in why}
    for number in range(ROUNDS + 1):
        for name, epoch in contenders.items():
            if isinstance(epoch, str):
                continue
            before()
            started = time.perf_counter()
            count = epoch()
            rate = count / (time.perf_counter() - started)
            if number:  # the first round starts the workers and warms everything up
                speed[name].append(rate)
    for name, values in speed.items():
        say(f"  {name}: {statistics.median(values):.1f} images/s")
    return speed, why


# ---- training -----------------------------------------------------------------------------------------------------


def training_row(root: Path) -> Row:
    """The default CNN's steps with everything that brings the data, against the same steps on one resident batch."""
    say("training")
    images = load(root, 64)
    torch.manual_seed(0)
    model = build_model(CnnConfig(), num_classes=10, image_size=64).to(memory_format=torch.channels_last)
    groups = model.parameter_groups()
    optimizer = build_optimizer(
        OptimizerConfig(), stages=[(group.values(), 1.0) for group in groups.stages], head=groups.head.values()
    )

    def step(pixels_BCHW: Tensor, labels_B: Tensor) -> None:
        loss = F.cross_entropy(model(pixels_BCHW.contiguous(memory_format=torch.channels_last)), labels_B)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        loss.item()

    def fed() -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            epoch += 1
            augment = Augmenter(STANDARD, count=len(images.labels_N), generator=seeded(2, epoch))
            for batch in batches(images, batch_size=BATCH, device=CPU, shuffle=seeded(1, epoch)):
                yield augment(batch.images_BCHW, batch.rows_B), batch.labels_B

    stream = fed()
    resident = next(stream)
    for _ in range(5):
        step(*resident)
    ratios, speeds = [], []
    for _ in range(ROUNDS):
        seconds = {}
        for name in ("resident", "fed"):
            started = time.perf_counter()
            for _ in range(STEPS):
                step(*(resident if name == "resident" else next(stream)))
            seconds[name] = time.perf_counter() - started
        ratios.append(seconds["resident"] / seconds["fed"])
        speeds.append(STEPS * BATCH / seconds["fed"])
    return Row("training the default CNN, 64 px, standard augmentation / one resident batch, images/s", ratios, 0.9,
               "at_least", f"{statistics.median(speeds):.0f} images/s")  # fmt: skip


def startup_row(folder: Path) -> Row:
    """From the call of run() to the first step, in the second and later trials of a process."""
    say(f"starting trials on {SMALL_FILES} files")
    root = make_tree(folder / "small", train=SMALL_FILES * 5 // 6, validation=SMALL_FILES // 6, width=72, height=64)
    time.sleep(0.2)  # a file's digest is remembered once it is older than its time stamp's grain
    cfg = RunConfig(
        data=config(root, 64),
        model=CnnConfig(filters=4),
        trainer=TrainerConfig(epochs=1, batch_size=1024, progress=False),
    )
    seconds = []

    class FirstStepError(Exception):
        """Far enough."""

    def watched(*given: Any, **named: Any) -> Iterator[tuple[Tensor, Tensor]]:
        next(training_batches(*given, **named))
        raise FirstStepError

    with mock.patch.object(loop, "training_batches", watched):
        for trial in range(ROUNDS + 1):
            started = time.perf_counter()
            with contextlib.suppress(FirstStepError):
                run(cfg, folder / f"trial-{trial}")
            seconds.append(time.perf_counter() - started)
    say(f"  {', '.join(f'{value:.3f}' for value in seconds)} s")
    return Row(f"start-up of the second trial of a sweep, {SMALL_FILES:,} files, seconds", seconds[1:], 0.5, "at_most",
               f"the first, which decodes: {seconds[0]:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
