"""What the network is fed with in an epoch: images, or the features that its frozen stages make of them."""

# B batch, N images

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from da6401.config.freeze_rules import is_plain
from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import Batch, batches, batches_at_once, seeded
from da6401.data.cache.image_cache import CachedRows
from da6401.data.cache.store import CacheEntry
from da6401.data.image_sets import ImageSet, TrainingData
from da6401.data.resident import ChosenRows, bring, chosen_images, room_on
from da6401.errors import DataError
from da6401.models.counts import Counts
from da6401.models.stages import StagedModel
from da6401.training.feature_cache_policy import Decision, decisions_of
from da6401.training.frozen_features import COMPUTED, FILE, STORED, FeatureCache
from da6401.training.signals import StopFlag

log = logging.getLogger(__name__)

IN_MEMORY = 256e6  # bytes: entries up to this size are read into memory
CHOICE = 102  # the purpose that has random numbers of its own: see also frozen_features.VIEW


class EpochInputs(Protocol):
    """Where the batches of an epoch come from."""

    first_stage: int  # the stages before it are already computed
    count: int  # training images
    validation: ImageSet

    def images_of(self, epoch: int, order_N: Tensor, augment: Augmenter, rows_N: Tensor) -> ImageSet:
        """The training images of an epoch that sees them in this order.

        Args:
            rows_N: the images, of which some may come several times and others not at all; N is ``count``.
        """

    def of_batch(self, batch: Batch, augment: Augmenter) -> Tensor:
        """The input of stage ``first_stage`` for a training batch."""


def training_batches(
    inputs: EpochInputs, images: ImageSet, augment: Augmenter, *, batch_size: int, device: torch.device,
    shuffle: torch.Generator, first: int, part: Callable[[int], slice] | None,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """The input of stage ``first_stage`` and the labels of each step of an epoch, from step ``first`` on.

    Args:
        part: as of ``batches``.
    """
    at_once = batches_at_once(images.images_NCHW.shape[1:].numel(), batch_size, device)
    groups = batches(
        images,
        batch_size=batch_size,
        device=device,
        shuffle=shuffle,
        at_once=at_once,
        first=first // at_once,
        part=part,
    )
    steps = chain.from_iterable(group.steps(inputs.of_batch(group, augment)) for group in groups)
    return islice(steps, first % at_once, None)


class ImageInputs:
    """Every epoch augments the images, and all stages are computed."""

    first_stage = 0

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self.count = len(data.train.labels_N)
        room = room_on(device)
        self.train = resident_images(data.train, device, room=room)
        if self.train is not data.train:
            room -= data.train.images_NCHW.shape.numel()
        self.validation = resident_images(data.validation, device, room=room)

    def images_of(self, epoch: int, order_N: Tensor, augment: Augmenter, rows_N: Tensor) -> ImageSet:
        return self.train if torch.equal(rows_N, torch.arange(self.count)) else chosen_images(self.train, rows_N)

    def of_batch(self, batch: Batch, augment: Augmenter) -> Tensor:
        return augment(batch.images_BCHW, batch.rows_B)


def resident_images(images: ImageSet, device: torch.device, *, room: int) -> ImageSet:
    """The same images on the device where they take at most ``room`` bytes, else as they are."""
    rows = bring(images.images_NCHW, torch.uint8, device, room=room)
    return images if rows is None else dataclasses.replace(images, images_NCHW=ChosenRows(rows, None, torch.uint8))


class FeatureInputs:
    """The features of both splits; each epoch draws one of the views of each training image."""

    def __init__(
        self, data: TrainingData, decision: Decision, entry: CacheEntry, device: torch.device, *, seed: int
    ) -> None:
        shape, rows = entry.about["shape"], decision.rows
        on_disk = CachedRows(entry, FILE, np.arange(rows), shape, STORED[decision.dtype])
        self._rows: Tensor | CachedRows = on_disk
        if decision.bytes <= IN_MEMORY:
            self._rows = on_disk[torch.arange(rows)]
        resident = bring(self._rows, STORED[decision.dtype], device, room=room_on(device))
        self._rows = self._rows if resident is None else resident
        self._computed = COMPUTED[entry.about["computed"]]
        self._train = data.train
        self._seed = seed
        self._views, self._flips = decision.views, decision.views == 2 and decision.exact
        self.count = len(data.train.labels_N)
        self.first_stage = decision.cut
        last_rows = self._choice(torch.arange(rows - len(data.validation.names), rows))
        self.validation = dataclasses.replace(data.validation, images_NCHW=last_rows)

    def images_of(self, epoch: int, order_N: Tensor, augment: Augmenter, rows_N: Tensor) -> ImageSet:
        views_N = torch.zeros(self.count, dtype=torch.int64)
        if self._flips:
            views_N[order_N] = augment.mirrored(torch.arange(self.count)).long()
        elif self._views > 1 and not is_plain(dataclasses.replace(augment.cfg, flip=0.0)):  # else the plain view
            views_N = torch.randint(self._views, (self.count,), generator=seeded(self._seed, CHOICE, epoch))
        pixels, labels_N = self._choice(views_N * self.count + rows_N), self._train.labels_N[rows_N]
        return dataclasses.replace(self._train, images_NCHW=pixels, labels_N=labels_N)

    def _choice(self, places_N: Tensor) -> ChosenRows:
        return ChosenRows(self._rows, places_N, self._computed)

    def of_batch(self, batch: Batch, augment: Augmenter) -> Tensor:
        return batch.images_BCHW


class TrainingInputs:
    """The inputs of each part of a training, opened when it begins: nothing is computed before."""

    def __init__(
        self, cfg: RunConfig, model: StagedModel, data: TrainingData, counts: Counts, device: torch.device
    ) -> None:
        self.cfg = cfg
        self.data = data
        self.device = device
        self.cache = FeatureCache(cfg, model, data, device)
        decisions = decisions_of(cfg, data, counts, stage_names=model.stage_names, device=device.type)
        self.decisions = {decision.cut: decision for decision in decisions}
        # For the receipt: the decision for each number of frozen stages, and what came of it.
        self.facts: dict[int, dict[str, Any]] = {each.cut: dataclasses.asdict(each) for each in decisions}

    def open(self, depth: int, *, stop: StopFlag) -> EpochInputs:
        """The inputs of epochs in which so many stages are frozen, as they are in the model by now.

        Raises:
            InterruptedRun, TrialTimeoutError: ``stop`` asked for the end while features were computed; nothing of them
                is left.
            DataError: the cache does not take what was asked for.
            ModelError: float16 cannot hold the features.
        """
        decision = self.decisions.get(depth)
        if decision is None or depth == 0:
            return ImageInputs(self.data, self.device)
        if not decision.on:
            log.info("features of the %d frozen stages are not kept: %s", depth, decision.reason)
            return ImageInputs(self.data, self.device)
        try:
            entry, computed = self.cache.open(decision, stop)
            inputs = FeatureInputs(self.data, decision, entry, self.device, seed=self.cfg.seed)
        except DataError as error:
            asked_for = isinstance(self.cfg.model, PretrainedConfig) and self.cfg.model.feature_cache == "on"
            if asked_for or not decision.exact:
                raise
            log.warning("features are not kept, all stages are computed: %s", error)
            self.facts[depth].update(on=False, reason=str(error))
            return ImageInputs(self.data, self.device)
        shape, seconds = entry.about["shape"], entry.about["seconds"]
        self.facts[depth].update(shape=shape, extraction_seconds=seconds, extracted_by_this_run=computed)
        log.info("%s; %s %.1f s", decision.reason, "computed in" if computed else "found; computing took", seconds)
        return inputs
