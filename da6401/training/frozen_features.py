"""The features of frozen stages: computed once for all epochs and all runs, and kept in the cache.

An entry of the cache is a file of rows, one a view of a training image (all of view 0, then all of view 1, ...), then
one a validation image. View 0 is the plain image. The views do not depend on the run's seed, so that all trials share
them; which view an epoch sees does.
"""

# V views

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from da6401.config.freeze_rules import flips_only
from da6401.config.schema import AugmentationConfig, RunConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import batches, seeded
from da6401.data.cache.image_cache import decoder_of
from da6401.data.cache.store import CacheEntry, Store
from da6401.data.image_sets import TrainingData
from da6401.data.sources import reads_files
from da6401.errors import ModelError
from da6401.machine.terminal import with_progress
from da6401.models.stages import StagedModel
from da6401.plugins.needed import recorded
from da6401.training.arithmetic import Arithmetic
from da6401.training.checkpoint import weights_sha256
from da6401.training.feature_cache_policy import Decision, limit_bytes
from da6401.training.signals import StopFlag

log = logging.getLogger(__name__)

KIND = "features"
FILE = "features.bin"
VERSION = 1  # raise it when an entry's rows come out differently
BATCH = 64  # least number of images that are computed together
VIEW = 101  # the purpose that has random numbers of its own
STORED = {"float32": torch.float32, "float16": torch.float16}
COMPUTED = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


def views(augmentation: AugmentationConfig, count: int, *, images: int) -> list[Augmenter]:
    """What makes each view of the training images: the plain one, the mirrored one, or fixed draws."""
    fixed = dataclasses.replace(augmentation, flip=1.0) if flips_only(augmentation) else augmentation
    settings = [AugmentationConfig()] + [fixed] * (count - 1)
    return [Augmenter(cfg, count=images, generator=seeded(VIEW, view)) for view, cfg in enumerate(settings)]


class FeatureCache:
    """Opens the cache's entry for a number of frozen stages of a network, or computes it."""

    def __init__(self, cfg: RunConfig, model: StagedModel, data: TrainingData, device: torch.device) -> None:
        self.cfg = cfg
        self.model = model
        self.data = data
        self.arithmetic = Arithmetic(device, cfg.trainer.precision, cfg.trainer.channels_last)

    def open(self, decision: Decision, stop: StopFlag) -> tuple[CacheEntry, bool]:
        """The entry, and whether it was computed now."""
        network, last = self.cfg.model.name, self.model.stage_names[decision.cut - 1]
        label = f"{network} up to {last}: {decision.rows} rows, {decision.views} views, {decision.dtype}"
        computed = False

        def build(folder: Path) -> Mapping[str, Any]:
            nonlocal computed
            log.info("computing the frozen stages once: %s", label)
            started = time.perf_counter()
            shape, dtype = self._extract(folder / FILE, decision, stop)
            computed = True
            return {"shape": shape, "computed": dtype, "seconds": time.perf_counter() - started}

        store = Store(KIND, limit_bytes=limit_bytes(self.cfg.data), off="model.feature_cache=off")
        entry = store.open_or_build(self._key(decision), build, needed_bytes=decision.bytes, label=label)
        return entry, computed

    def _key(self, decision: Decision) -> str:
        """A hash of all that the bits of the rows depend on."""
        cfg, trainer = self.cfg, self.cfg.trainer
        inside = tuple(f"stages.{name}." for name in self.model.stage_names[: decision.cut])
        state = self.model.state_dict()
        prefix = {name: tensor for name, tensor in state.items() if name.startswith((*inside, "mean", "std"))}
        device = self.arithmetic.device
        processor = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        )
        pixels = f"{cfg.data.resize}, {decoder_of(cfg.data)}" if reads_files(cfg.data) else cfg.data.source
        parts = {
            "version": VERSION,
            "network": [cfg.model.label, decision.cut, weights_sha256(prefix)],
            "data": [self.data.fingerprint, pixels, list(self.data.train.images_NCHW.shape)],
            "views": [decision.views, repr(cfg.augmentation) if decision.views > 1 else ""],
            "arithmetic": [trainer.precision, trainer.channels_last, (device.type, processor), torch.__version__],
            "stored": decision.dtype,
        }
        if loaded := recorded():  # a plugin's stages and augmentation are its code
            parts["plugins"] = loaded
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @torch.inference_mode()
    def _extract(self, path: Path, decision: Decision, stop: StopFlag) -> tuple[list[int], str]:
        """Write all rows; the shape of one, and the type that they were computed in."""
        cfg, train, stored = self.cfg, self.data.train, STORED[decision.dtype]
        changes = views(cfg.augmentation, decision.views, images=len(train.names))
        (plain,) = views(cfg.augmentation, 1, images=len(self.data.validation.names))
        passes = [*((train, change) for change in changes), (self.data.validation, plain)]
        size = max(BATCH, cfg.trainer.batch_size)
        with open(path, "wb") as file:
            stream = (
                change(batch.images_BCHW, batch.rows_B)
                for images, change in passes
                for batch in batches(images, batch_size=size, device=self.arithmetic.device, shuffle=None)
            )
            total = sum(-(-len(images.names) // size) for images, _ in passes)
            for pixels_BCHW in with_progress(stream, "frozen stages", total=total, enabled=cfg.trainer.progress):
                stop.check()
                with self.arithmetic.autocast():
                    x = self.model.normalise(self.arithmetic.in_layout(pixels_BCHW))
                    x = self.model.run_stages(x, 0, decision.cut)
                rows = x.to(stored)
                if stored is torch.float16 and not torch.isfinite(rows).all():
                    raise ModelError(
                        f"model.feature_dtype=float16: features of {cfg.model.name} at stage "
                        f"{self.model.stage_names[decision.cut - 1]} are too large for it; use float32"
                    )
                file.write(rows.contiguous().cpu().numpy().data)
        return list(x.shape[1:]), str(x.dtype)
