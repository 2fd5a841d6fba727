"""A training of da6401's own parts, epoch by epoch, beside the same network on one batch that stays on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from da6401.config.command_line import check_command_line
from da6401.config.schema import RunConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import batches, seeded
from da6401.data.sources import load_training_data
from da6401.models.build import build_model
from da6401.models.counts import count
from da6401.training.checkpoint_writer import CheckpointWriter
from da6401.training.device import prepare
from da6401.training.epoch_inputs import TrainingInputs
from da6401.training.learner import Learner
from da6401.training.loop import plan_epoch, train_epoch
from da6401.training.ranks import threads_of
from da6401.training.setup import TrainingSetup
from da6401.training.signals import StopFlag
from da6401.training.state import EpochSums, History
from da6401.training.validation import evaluate

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def compose(*words: str) -> RunConfig:
    """The configuration of a command line."""
    config = check_command_line(list(words), config_dir=None, multirun=False).config
    assert config is not None
    return config


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def allocated() -> int:
    return torch.cuda.memory_allocated() if CUDA else 0


class Trial:
    """What `da6401 train` builds from these words, on the device.

    Args:
        tf32: what may use TF32: none, convolutions (torch's default), or all.
    """

    def __init__(self, *words: str, out: Path, tf32: str = "convolutions") -> None:
        self.cfg = compose(*words, "trainer.progress=false", "optimizer.lr=1e-4", "schedule=constant")
        self._tf32 = tf32
        started, before = time.perf_counter(), allocated()
        self.activate()
        data = load_training_data(self.cfg.data)
        model = build_model(self.cfg.model, num_classes=len(data.class_names), image_size=self.cfg.data.image_size)
        counts = count(model, self.cfg.data.image_size)
        plan = plan_epoch(self.cfg, 1)
        model.apply_freeze_plan(plan.freeze)
        model.to(DEVICE)
        inputs = TrainingInputs(self.cfg, model, data, counts, DEVICE)
        self.inputs = inputs.open(plan.freeze.depth, stop=StopFlag())
        self._setup = TrainingSetup(self.cfg, DEVICE, data, model, counts, inputs)
        self.learner = Learner(self._setup, History())
        self._checkpoints = CheckpointWriter(
            out, self.learner.state, about={}, trainable=self.learner.trainable_names
        )  # fmt: skip
        self._epoch = 0
        augment = Augmenter(self.cfg.augmentation, count=self.inputs.count, generator=seeded(1))
        images = self.inputs.images_of(1, torch.arange(self.inputs.count), augment, torch.arange(self.inputs.count))
        size = self.cfg.trainer.batch_size
        batch = next(iter(batches(images, batch_size=size, device=DEVICE, shuffle=seeded(2))))
        self._batch = self.inputs.of_batch(batch, augment), batch.labels_B
        self.step(*self._batch)
        self.learner.settle()
        wait()
        self.first_step = time.perf_counter() - started
        self._own = allocated() - before
        self.peak_mb = 0.0

    def activate(self) -> None:
        """Set torch's global switches as this trial has them: others take turns with it."""
        prepare(seed=0, threads=threads_of(self.cfg.trainer, DEVICE), deterministic=self.cfg.trainer.deterministic)
        torch.backends.cudnn.allow_tf32 = self._tf32 != "none"
        torch.set_float32_matmul_precision("high" if self._tf32 == "all" else "highest")

    def step(self, x: Tensor, labels_B: Tensor) -> None:
        self.learner.step(x, [(labels_B, 1.0)], first_stage=self.inputs.first_stage)

    # ---- turns: each does about ``seconds`` of work and says how many images that were ----

    def epochs(self, seconds: float) -> int:
        """Whole epochs, as the training loop does them."""
        base = allocated()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        images, until = 0, time.perf_counter() + seconds
        while not images or time.perf_counter() < until:
            self._epoch += 1
            self.learner.state.sums = EpochSums()
            plan = plan_epoch(self.cfg, self._epoch)
            train_epoch(
                self.learner, self.inputs, plan, self._setup, stop=StopFlag(), checkpoints=self._checkpoints
            )  # fmt: skip
            images += self.learner.state.sums.images
        if CUDA:
            self.peak_mb = (torch.cuda.max_memory_allocated() - base + self._own) / 1e6
        return images

    def resident(self, seconds: float) -> int:
        """The same steps on one augmented batch, for as many images as an epoch has."""
        images, until = 0, time.perf_counter() + seconds
        self.learner.model.train()
        while not images or time.perf_counter() < until:
            for _ in range(-(-self.inputs.count // len(self._batch[1]))):
                self.step(*self._batch)
                images += len(self._batch[1])
            self.learner.settle()
        return images

    def fed(self, loader: Any) -> Callable[[float], int]:
        """Steps on the batches of another loader, which goes on from turn to turn."""
        stream = _forever(loader)

        def turn(seconds: float) -> int:
            images, until = 0, time.perf_counter() + seconds
            self.learner.model.train()
            while not images or time.perf_counter() < until:
                pixels, labels = next(stream)
                self.step(pixels.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True))
                images += len(labels)
            self.learner.settle()
            return images

        return turn

    def evaluations(self, seconds: float) -> int:
        """Whole evaluations of the training images, as the loop does them of the validation images."""
        images, until = 0, time.perf_counter() + seconds
        rows_N = torch.arange(self.inputs.count)
        augment = Augmenter(self.cfg.augmentation, count=len(rows_N), generator=seeded(1))
        given = self.inputs.images_of(1, rows_N, augment, rows_N)
        while not images or time.perf_counter() < until:
            evaluate(
                self.learner.model, given, self.learner.arithmetic, batch_size=self.cfg.trainer.batch_size,
                first_stage=self.inputs.first_stage,
            )  # fmt: skip
            images += self.inputs.count
        return images

    @torch.inference_mode()
    def resident_evaluations(self, seconds: float) -> int:
        images, until = 0, time.perf_counter() + seconds
        model, arithmetic, first = self.learner.model.eval(), self.learner.arithmetic, self.inputs.first_stage
        x = arithmetic.in_layout(self._batch[0])
        while not images or time.perf_counter() < until:
            for _ in range(-(-self.inputs.count // len(x))):
                with arithmetic.autocast():
                    (model(x, first) if first else model(x)).float()
                images += len(x)
            wait()
        return images


def _forever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader
