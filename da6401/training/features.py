"""What a network is fed with: pictures, or what its frozen stages make of them, computed once for all epochs and runs.

An entry of the cache is a file of rows, one a view of a training image (all of view 0, then all of view 1, ...), then
one a validation image. View 0 is the plain picture. The views do not depend on the run's seed, so that all trials share
them; which view an epoch sees does.
"""

# B batch, N images, M rows, V views

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from da6401.config.freeze_rules import flips_only
from da6401.config.schema import AugmentationConfig, PretrainedConfig, TrainerConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import Batch, batches, seeded
from da6401.data.cache.image_cache import CachedRows
from da6401.data.cache.store import CacheEntry, Store
from da6401.data.progress import with_progress
from da6401.data.sources import ImageSet, TrainingData
from da6401.errors import DataError, ModelError
from da6401.models.stages import StagedModel
from da6401.training.checkpoint import weights_sha256
from da6401.training.feature_cache_policy import Decision
from da6401.training.signals import StopFlag
from da6401.training.validation import AUTOCAST, laid_out

log = logging.getLogger(__name__)

KIND = "features"
FILE = "features.bin"
VERSION = 1  # raise it when an entry's rows come out differently
IN_MEMORY = 256e6  # bytes: entries up to this live in memory
BATCH = 64  # least number of images that are computed together
VIEW, CHOICE = 101, 102  # the purposes that have random numbers of their own
STORED = {"float32": torch.float32, "float16": torch.float16}
COMPUTED = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


class Feed(Protocol):
    """Where the batches of an epoch come from."""

    cut: int  # the stages that are already done
    validation: ImageSet

    def images_of(self, epoch: int, order_N: Tensor, augment: Augmenter) -> ImageSet:
        """The training images of an epoch that sees them in this order."""

    def inputs(self, batch: Batch, augment: Augmenter) -> Tensor:
        """What the network is given for a training batch."""


class Pictures:
    """The plain way: every epoch augments the pictures, and all stages are computed."""

    cut = 0

    def __init__(self, data: TrainingData) -> None:
        self.train = data.train
        self.validation = data.validation

    def images_of(self, epoch: int, order_N: Tensor, augment: Augmenter) -> ImageSet:
        return self.train

    def inputs(self, batch: Batch, augment: Augmenter) -> Tensor:
        return augment(batch.images_BCHW, batch.rows_B)


class FeatureRows:
    """Some rows of an entry, as the type that the network computed them in."""

    def __init__(self, rows: Tensor | CachedRows, places_N: Tensor, dtype: torch.dtype) -> None:
        self._rows = rows
        self._places_N = places_N
        self._dtype = dtype
        self.shape = torch.Size((len(places_N), *rows.shape[1:]))

    def __getitem__(self, positions_B: Tensor) -> Tensor:
        return self._rows[self._places_N[positions_B]].to(self._dtype)


class Features:
    """The features of both splits; each epoch draws one of the views of each training image."""

    def __init__(self, data: TrainingData, decision: Decision, held: CacheEntry, *, seed: int) -> None:
        shape, count = held.about["shape"], decision.rows
        on_disk = CachedRows(held, FILE, np.arange(count), shape, STORED[decision.dtype])
        self._rows: Tensor | CachedRows = on_disk
        if decision.bytes <= IN_MEMORY:
            self._rows = on_disk[torch.arange(count)]
        self._computed = COMPUTED[held.about["computed"]]
        self._train = data.train
        self._seed = seed
        self._views, self._flips = decision.views, decision.views == 2 and decision.exact
        self.cut = decision.cut
        kept = FeatureRows(self._rows, torch.arange(count - len(data.validation.names), count), self._computed)
        self.validation = dataclasses.replace(data.validation, images_NCHW=kept)

    def images_of(self, epoch: int, order_N: Tensor, augment: Augmenter) -> ImageSet:
        count = len(self._train.names)
        views_N = torch.zeros(count, dtype=torch.int64)
        if self._flips:
            views_N[order_N] = augment.mirrored(torch.arange(count)).long()
        elif self._views > 1:
            views_N = torch.randint(self._views, (count,), generator=seeded(self._seed, CHOICE, epoch))
        places_N = views_N * count + torch.arange(count)
        rows = FeatureRows(self._rows, places_N, self._computed)
        return dataclasses.replace(self._train, images_NCHW=rows)

    def inputs(self, batch: Batch, augment: Augmenter) -> Tensor:
        return batch.images_BCHW


def views(augmentation: AugmentationConfig, count: int, *, images: int) -> list[Augmenter]:
    """What makes each view of the training images: the plain one, the mirrored one, or fixed draws."""
    fixed = dataclasses.replace(augmentation, flip=1.0) if flips_only(augmentation) else augmentation
    settings = [AugmentationConfig()] + [fixed] * (count - 1)
    return [Augmenter(cfg, count=images, generator=seeded(VIEW, view)) for view, cfg in enumerate(settings)]


class Feeds:
    """What each part of a training is fed with, opened when its time has come.

    Args:
        decisions: for each number of frozen stages that an epoch may have.
        pixels: what the bits of the pictures depend on besides their files.
    """

    def __init__(
        self,
        model: StagedModel,
        data: TrainingData,
        decisions: Sequence[Decision],
        *,
        cfg: PretrainedConfig | None,
        augmentation: AugmentationConfig,
        trainer: TrainerConfig,
        device: torch.device,
        pixels: str,
        limit_bytes: int,
        seed: int,
    ) -> None:
        self.model = model
        self.data = data
        self.decisions = {decision.cut: decision for decision in decisions}
        self.cfg = cfg
        self.augmentation = augmentation
        self.trainer = trainer
        self.device = device
        self.pixels = pixels
        self.limit_bytes = limit_bytes
        self.seed = seed
        self.facts: list[dict[str, Any]] = [dataclasses.asdict(decision) for decision in decisions]

    def open(self, depth: int, *, stop: StopFlag) -> Feed:
        """The feed of epochs in which so many stages are frozen; the model follows that plan already.

        Raises:
            InterruptedRun, TrialTimeoutError: ``stop`` asked for the end while features were computed; nothing of them
                is left.
            DataError: the cache does not take what was asked for.
            ModelError: float16 cannot hold the features.
        """
        decision = self.decisions.get(depth)
        if decision is None or self.cfg is None or depth == 0:
            return Pictures(self.data)
        if not decision.on:
            log.info("features of the %d frozen stages are not kept: %s", depth, decision.reason)
            return Pictures(self.data)
        try:
            held, computed = self._held(self.cfg, decision, stop)
            feed = Features(self.data, decision, held, seed=self.seed)
        except DataError as error:
            if self.cfg.feature_cache == "on" or not decision.exact:
                raise
            log.warning("features are not kept, all stages are computed: %s", error)
            self._note(depth, on=False, reason=str(error))
            return Pictures(self.data)
        seconds = held.about["seconds"]
        self._note(depth, shape=held.about["shape"], extraction_seconds=seconds, extracted_by_this_run=computed)
        log.info("%s; %s %.1f s", decision.reason, "computed in" if computed else "found; computing took", seconds)
        return feed

    def _note(self, depth: int, **facts: Any) -> None:
        for each in self.facts:
            if each["cut"] == depth:
                each.update(facts)

    def _held(self, cfg: PretrainedConfig, decision: Decision, stop: StopFlag) -> tuple[CacheEntry, bool]:
        """The entry, and whether it was computed now."""
        last = self.model.stage_names[decision.cut - 1]
        label = f"{cfg.name} up to {last}: {decision.rows} rows, {decision.views} views, {decision.dtype}"
        computed = False

        def build(folder: Path) -> Mapping[str, Any]:
            nonlocal computed
            log.info("computing the frozen stages once: %s", label)
            started = time.perf_counter()
            shape, dtype = self._extract(folder / FILE, cfg, decision, stop)
            computed = True
            return {"shape": shape, "computed": dtype, "seconds": time.perf_counter() - started}

        store = Store(KIND, limit_bytes=self.limit_bytes, off="model.feature_cache=off")
        held = store.open_or_build(self._key(cfg, decision), build, needed_bytes=decision.bytes, label=label)
        return held, computed

    def _key(self, cfg: PretrainedConfig, decision: Decision) -> str:
        """All that can move a bit of the rows."""
        state = self.model.state_dict()
        inside = tuple(f"stages.{name}." for name in self.model.stage_names[: decision.cut])
        prefix = {name: tensor for name, tensor in state.items() if name.startswith((*inside, "mean", "std"))}
        device = self.device.type, torch.backends.cpu.get_cpu_capability()
        if self.device.type == "cuda":
            device = self.device.type, torch.cuda.get_device_name(self.device)
        parts = {
            "version": VERSION,
            "network": [cfg.name, decision.cut, weights_sha256(prefix)],
            "data": [self.data.fingerprint, self.pixels, list(self.data.train.images_NCHW.shape)],
            "views": [decision.views, repr(self.augmentation) if decision.views > 1 else ""],
            "arithmetic": [self.trainer.precision, self.trainer.channels_last, device, torch.__version__],
            "stored": decision.dtype,
        }
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @torch.inference_mode()
    def _extract(self, path: Path, cfg: PretrainedConfig, decision: Decision, stop: StopFlag) -> tuple[list[int], str]:
        """Write all rows; the shape of one, and the type that they were computed in."""
        train, stored = self.data.train, STORED[decision.dtype]
        autocast_dtype = AUTOCAST[self.trainer.precision]
        changes = views(self.augmentation, decision.views, images=len(train.names))
        (plain,) = views(self.augmentation, 1, images=len(self.data.validation.names))
        passes = [*((train, change) for change in changes), (self.data.validation, plain)]
        size = max(BATCH, self.trainer.batch_size)
        with open(path, "wb") as file:
            stream = (
                change(batch.images_BCHW, batch.rows_B)
                for images, change in passes
                for batch in batches(images, batch_size=size, device=self.device, shuffle=None)
            )
            total = sum(-(-len(images.names) // size) for images, _ in passes)
            for pixels_BCHW in with_progress(stream, "frozen stages", total=total, enabled=self.trainer.progress):
                stop.check()
                with torch.autocast(self.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                    x = self.model.normalise(laid_out(pixels_BCHW, channels_last=self.trainer.channels_last))
                    x = self.model.run_stages(x, 0, decision.cut)
                rows = x.to(stored)
                if stored is torch.float16 and not torch.isfinite(rows).all():
                    raise ModelError(
                        f"model.feature_dtype=float16: features of {cfg.name} at stage "
                        f"{self.model.stage_names[decision.cut - 1]} are too large for it; use float32"
                    )
                file.write(rows.contiguous().cpu().numpy().data)
        return list(x.shape[1:]), str(x.dtype)
