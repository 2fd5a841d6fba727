"""python -m benchmarks.curves DIR[,KEY=VALUE]... [--jobs 1]: complete learning curves of many configurations.

The same pool of configurations of sweep=tune_a on each DIR, a folder of labelled images with a test split: the recipe
and the other given ones, then in turn one near the recipe, as a race draws them, and one from the whole space. Each is
trained completely as every one of RUNS says, with one seed and one thread. The commands benchmarks.judges and
benchmarks.replays work on the table: benchmarks/curves.jsonl, one line a training, to which only what is missing is
added, so that the command can be stopped and given again. Each data set has at most IMAGES training images, drawn with
every class alike.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import functools
import json
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.hour import data_words, name_of
from da6401.config.command_line import check_command_line
from da6401.config.schema import RunConfig
from da6401.config.search_space import Point, SearchSpace
from da6401.config.validate import config_from_tree, tree_of
from da6401.data.draw import stratified_split
from da6401.data.image_sets import ImageSet, TrainingData
from da6401.data.resident import chosen_images
from da6401.data.sources import load_test_data, load_training_data
from da6401.training.arithmetic import Arithmetic
from da6401.training.device import prepare
from da6401.training.loop import RunHooks, fit
from da6401.training.optim import MovingAverage
from da6401.training.setup import TrainingSetup, set_up
from da6401.training.signals import StopFlag
from da6401.training.state import History
from da6401.training.tracking import LocalTracker
from da6401.training.validation import Evaluation, evaluate
from da6401.tune.candidates import anywhere, near
from da6401.tune.race import Losses, image_losses

TABLE = Path(__file__).with_suffix(".jsonl")
POOL = 64
IMAGES = 600  # for training, of each data set
SIDE = 24  # px
AVERAGED = 2  # epochs that the moving average of the weights remembers
MOST_LOSS = 16.0  # nats: what an image's loss is stored as at most


class Kind(NamedTuple):
    """How a configuration is trained."""

    epochs: int
    images: float = 1.0  # share of the training images
    side: int = SIDE


FULL = "full"
RUNS = {
    FULL: Kind(18), "third": Kind(6), "ninth": Kind(2), "fewer images": Kind(18, images=1 / 3),
    "smaller images": Kind(18, side=16),
}  # fmt: skip
FIRST = (FULL, "third", "ninth")  # of all configurations, before the others: what the replays need
MIDDLE = (2, 6, 9)  # epochs of a full training
LENGTHS = {RUNS[name].epochs: name for name in FIRST}


def tune_space() -> SearchSpace:
    """The space of sweep=tune_a."""
    return dataclasses.replace(check_command_line(["sweep=tune_a"], multirun=True).space, fixed={})


def pool(space: SearchSpace) -> list[Point]:
    """The configurations, the recipe first; numbers have three digits."""
    given = space.given_points()
    points = [_rounded(point) for point in given]
    rng = random.Random(0)
    while len(points) < POOL:
        point = _rounded(anywhere(space, rng) if len(points) % 2 else near(given[0], space, rng))
        points += [point] if point not in points else []
    return points


def _rounded(point: Point) -> Point:
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in point.items()}


def train(cfg: RunConfig, data: TrainingData, test: ImageSet, *, averaged: bool) -> dict[str, Any]:
    """A complete training: its numbers, those of each epoch as lists.

    Args:
        averaged: also validate a moving average of the weights, which only watches, at the epochs of MIDDLE.
    """
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    setup = set_up(cfg, torch.device("cpu"), data)
    steps = math.ceil(len(data.train.labels_N) / cfg.trainer.batch_size)
    watcher, history = _Watcher(setup, 1 - 1 / (AVERAGED * steps) if averaged else None), History()
    hook = register_optimizer_step_post_hook(lambda *_: watcher.step_done())
    try:
        with tempfile.TemporaryDirectory() as out:
            fit(setup, RunHooks(LocalTracker(), watcher, StopFlag()), history, out=Path(out))
    finally:
        hook.remove()
    end = watcher.evaluate(setup.model, data.validation)
    found = {
        "accuracy": [round(line["val_accuracy"], 4) for line in history.lines],
        "loss": [round(line["val_loss"], 3) for line in history.lines],
        "seconds": round(min(np.diff(watcher.seconds)), 3),
        "test": round(watcher.evaluate(setup.model, test).accuracy, 4), "tests": len(test.labels_N),
        "params": sum(each.numel() for each in setup.model.parameters()),
        "macs": sum(layer.macs for layer in setup.counts.layers), "images": len(data.train.labels_N),
        "losses": pack(image_losses(end.labels_N.numpy(), end.probabilities_NK.numpy())),
    }  # fmt: skip
    return {**found, "averaged": watcher.averaged} if averaged else found


class _Watcher:
    """Validates the average of the weights in the middle of a training, where it has a decay."""

    def __init__(self, setup: TrainingSetup, decay: float | None) -> None:
        self.setup = setup
        self.decay = decay
        self.average: MovingAverage | None = None
        self.averaged: dict[str, list[float]] = {}  # accuracy and loss by epoch
        self.seconds = [time.process_time()]  # of the processor, which other programs do not change

    def evaluate(self, model: nn.Module, images: ImageSet) -> Evaluation:
        trainer = self.setup.cfg.trainer
        arithmetic = Arithmetic(self.setup.device, trainer.precision, trainer.channels_last)
        return evaluate(model, images, arithmetic, batch_size=trainer.batch_size)

    def step_done(self) -> None:
        if self.decay is None:
            return
        # not before the first step: a training moves its model to the device first, with weights of another layout
        if self.average is None:
            self.average = MovingAverage(self.setup.model, self.setup.model.trainable_state(), decay=self.decay)
        self.average.update()

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        self.seconds.append(time.process_time())
        if self.average is not None and epoch in MIDDLE:
            found = self.evaluate(self.average.model, self.setup.data.validation)
            self.averaged[str(epoch)] = [round(found.accuracy, 4), round(found.loss, 3)]


def pack(losses_N: Losses) -> str:
    """The losses of images as text, a byte each, finer where they are small."""
    scaled_N = np.sqrt(np.minimum(losses_N, MOST_LOSS) / MOST_LOSS)
    return base64.b64encode(np.round(255 * scaled_N).astype(np.uint8).tobytes()).decode()


def unpack(text: str) -> Losses:
    """What ``pack`` was given, to a hundredth or so."""
    return MOST_LOSS * (np.frombuffer(base64.b64decode(text), np.uint8) / 255.0) ** 2


@functools.cache
def images_of(words: tuple[str, ...], side: int, share: float = 1.0) -> tuple[TrainingData, ImageSet]:
    """At most IMAGES images for training, or a share of them, and all of validation; and those of the test split."""
    cfg = dataclasses.replace(_config(words).data, image_size=side)
    data = load_training_data(cfg)
    labels = data.train.labels_N.tolist()
    left = min(1.0, IMAGES / len(labels)) * share
    rows = stratified_split(labels, left, seed=0)[1] if left < 1 else range(len(labels))
    train_set = chosen_images(data.train, torch.tensor(list(rows)))
    return dataclasses.replace(data, train=train_set), load_test_data(cfg, data.class_names)


@functools.cache
def _config(words: tuple[str, ...]) -> RunConfig:
    machine = ("seed=0", "device=cpu", "trainer.threads=1", "trainer.progress=false", "trainer.precision=bf16")
    config = check_command_line(["experiment=part_a", *words, *machine], multirun=False).config
    assert config is not None, "there is no search over models"
    return config


def config_of(words: tuple[str, ...], point: Point, kind: Kind) -> RunConfig:
    """The configuration of a training."""
    tree = tree_of(_config(words))
    for key, value in {**point, "trainer.epochs": kind.epochs, "data.image_size": kind.side}.items():
        group, _, name = key.partition(".")
        tree[group][name] = value
    return config_from_tree(tree)


class Training(NamedTuple):
    """A training that is to be done."""

    words: tuple[str, ...]  # of the data
    number: int
    point: Point
    run: str


def do(training: Training) -> dict[str, Any]:
    """The line of the table."""
    kind = RUNS[training.run]
    cfg = config_of(training.words, training.point, kind)
    data, test = images_of(training.words, kind.side, kind.images)
    about = {"data": name_of(training.words), "config": training.number, "run": training.run, "point": training.point}
    return {**about, **train(cfg, data, test, averaged=training.run == FULL)}


def missing(
    words: Sequence[tuple[str, ...]], points: Sequence[Point], table: Sequence[Mapping[str, Any]]
) -> Iterator[Training]:
    """What the table lacks: data sets in turn, so that it is balanced wherever it is stopped.

    Raises:
        SystemExit: the table is of another space.
    """
    have = {(line["data"], line["config"], line["run"]): line["point"] for line in table}
    for runs in (FIRST, [name for name in RUNS if name not in FIRST]):
        for number, run, of_data in product(range(len(points)), runs, words):
            point = have.get((name_of(of_data), number, run))
            if point is None:
                yield Training(of_data, number, points[number], run)
            elif point != points[number]:
                raise SystemExit(f"{TABLE}: configuration {number} is another one now: delete the table to begin anew")


def read_table(path: Path = TABLE) -> list[dict[str, Any]]:
    """The trainings so far; a line that was cut is left out."""
    lines = {}
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines[line["data"], line["config"], line["run"]] = line
    return list(lines.values())


def seconds_of_epoch(table: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Of an epoch: seconds, and seconds for each multiply-accumulate of each training image: a fitted line."""
    work = [line["macs"] * line["images"] for line in table]
    slope, fixed = np.polyfit(work, [line["seconds"] for line in table], 1)
    return max(0.0, float(fixed)), float(slope)


def main() -> None:
    """Train what is missing."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="+", metavar="DIR[,KEY=VALUE...]")
    arguments.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    given = arguments.parse_args()
    words = [data_words(text) for text in given.folders]
    points = pool(tune_space())
    todo = list(missing(words, points, read_table()))
    with multiprocessing.get_context("spawn").Pool(given.jobs) as processes, TABLE.open("a") as file:
        for done, line in enumerate(processes.imap_unordered(do, todo), start=1):
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            about = f"{line['data']} {line['config']} {line['run']}: validation {line['accuracy'][-1]}"
            print(f"{done} of {len(todo)}: {about}, test {line['test']}, {line['seconds']} s an epoch", flush=True)


if __name__ == "__main__":
    main()
