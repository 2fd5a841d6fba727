"""What a training will take, from a few of its steps: the network is trained on them and thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from da6401.config.schema import RunConfig
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import batch_rows, seeded
from da6401.models.build import build_model
from da6401.models.counts import count
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.learner import Learner
from da6401.training.setup import load_images, set_up
from da6401.training.state import History

STEPS = 3  # that are measured, after one to warm up
FROZEN_IMAGES = 16  # in a batch for networks with frozen stages: what these take does not depend on it, and is much


@dataclass(frozen=True)
class Speed:
    """Of one configuration on this machine, in seconds."""

    features: float  # to compute the features of the frozen stages that are kept; 0 where none are
    epoch: float  # training and validation
    answers: float  # the whole network on the validation images


@restore_torch_settings()
def measure(cfg: RunConfig) -> Speed:
    """Load the data, build the network, and time some steps of its training and its validation.

    Raises:
        UserError: as the training would.
    """
    device = choose_device(cfg.device)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    data = load_images(cfg)
    setup = set_up(cfg, device, data)
    learner = Learner(setup, History())
    model = learner.model  # under the plan of the last epoch
    decision = setup.inputs.decisions.get(model.plan.depth)
    kept = decision if decision is not None and decision.on else None
    cut = kept.cut if kept else 0

    train = data.train
    size = min(FROZEN_IMAGES if cut else cfg.trainer.batch_size, len(train.labels_N))
    rows_B = batch_rows(len(train.labels_N), size, training=True)[0]
    augment = Augmenter(cfg.augmentation, count=len(train.labels_N), generator=seeded(cfg.seed))
    pixels_BCHW, labels_B = train.images_NCHW[rows_B].to(device), train.labels_N[rows_B].to(device)

    def through_frozen() -> torch.Tensor:
        with torch.inference_mode(), learner.arithmetic.autocast():
            x = learner.arithmetic.in_layout(augment(pixels_BCHW, rows_B))
            frozen: torch.Tensor = model.run_stages(model.normalise(x), 0, cut)
            return frozen

    model.eval()
    features_BCHW = through_frozen().clone() if cut else pixels_BCHW

    def step() -> None:
        model.train()
        x = features_BCHW if cut else augment(pixels_BCHW, rows_B)
        learner.step(x, [(labels_B, 1.0)], first_stage=cut)

    @torch.inference_mode()
    def validate() -> None:
        model.eval()
        x = learner.arithmetic.in_layout(features_BCHW if cut else pixels_BCHW.float().div_(255))
        with learner.arithmetic.autocast():
            model(x, cut)

    an_image = 1 / len(rows_B)
    frozen_seconds = _seconds(through_frozen, device) * an_image if cut else 0.0
    validation = _seconds(validate, device) * an_image * len(data.validation.labels_N)
    epoch = _seconds(step, device) * an_image * len(train.labels_N) + validation
    return Speed(
        features=frozen_seconds * kept.rows if kept else 0.0, epoch=epoch,
        answers=validation + frozen_seconds * len(data.validation.labels_N),
    )  # fmt: skip


@restore_torch_settings()
def macs_of(cfg: RunConfig) -> int:
    """Multiply-accumulates of one image in the configuration's network, for ten classes."""
    model = build_model(cfg.model, num_classes=10, image_size=cfg.data.image_size)
    return sum(layer.macs for layer in count(model, cfg.data.image_size).layers)


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """The median of STEPS calls."""
    times = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
