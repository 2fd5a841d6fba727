"""What a race hands over: the folder `model` beside its trials, which the verbs take as they take a run.

It is there from the first finished training on, and is only replaced by a better one. At the end, the mean of a
training's last epochs' weights, mirror images and a mean of the best few trainings are tried. Half of the validation
images choose among these, the other half must show the gain; else the best training's best epoch stands alone.
"""

# N validation images, K classes

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from da6401.config.compose import saved_config
from da6401.config.schema import RunConfig
from da6401.data.sources import load_training_data
from da6401.errors import RunError
from da6401.metrics.scores import accuracy
from da6401.models.ensemble import resized
from da6401.models.stages import StagedModel
from da6401.runs.run_folder import AVERAGE, BEST, CONFIG, data_fingerprint, read_metrics, read_result
from da6401.study.objective import Objective
from da6401.sweep.model_folder import (
    HandedOver,
    Option,
    Probabilities,
    Trained,
    Weights,
    current_model,
    is_current,
    write_model,
)
from da6401.training.arithmetic import Arithmetic
from da6401.training.checkpoint import Checkpoint, load_checkpoint
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.trained_model import load_network
from da6401.training.validation import evaluate
from da6401.tune.race import image_losses, is_lower

log = logging.getLogger(__name__)


def trained_runs(runs: Sequence[Path], objective: Objective) -> list[Trained]:
    """Those with weights of at least one epoch, best first."""
    found = []
    for run in runs:
        try:
            result, lines = read_result(run), read_metrics(run)
        except RunError:
            continue
        line = next((line for line in lines if line["epoch"] == result.best_epoch), None)
        if line is not None and (run / BEST).is_file() and objective.of_epoch(line) is not None:
            found.append(Trained(run, result, line))
    return objective.order(
        found, lambda each: [value for value in [objective.of_epoch(each.epoch)] if value is not None]
    )


def keep_best(folder: Path, trained: Sequence[Trained], *, seconds: float) -> HandedOver | None:
    """Let `model` be the best network so far, if it is not; None where no epoch was trained.

    Args:
        trained: best first.
    """
    if not trained:
        return None
    best = trained[0]
    if (current := current_model(folder, best)) is not None:
        return current
    cfg = saved_config(best.run / CONFIG)
    if not _saw_these_images(best.run, cfg):
        log.warning("the images have changed since %s was trained: no model is made of it", best.run)
        return None
    content = load_checkpoint(best.run / BEST)
    alone = Option((Weights(best.run),), flips=False, probabilities_NK=_probabilities(content))
    write_model(folder, alone, [best], cfg, content["class_names"], seconds=seconds)
    return current_model(folder, best)


@restore_torch_settings()
def hand_over(folder: Path, trained: Sequence[Trained], *, members: int, seconds: float) -> HandedOver:
    """Let `model` be the best of: the best network, or a mean of the best few, each with or without mirror images.

    A network's weights are those of its best epoch, or the mean of those of its last ones where that is better.

    Args:
        trained: best first, at least one.
        members: most networks in a mean; 0 takes the best alone, and nothing is computed.
    """
    loaded: list[_Loaded] = []
    for each in trained:
        if len(loaded) == max(1, members):
            break
        one = _Loaded(*load_network(each.run), each)
        if not loaded or (one.fits(loaded[0]) and not any(one.is_alike(other) for other in loaded)):
            loaded.append(one)
    first = loaded[0]
    cfg = first.cfg
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    labels_N = load_training_data(cfg.data).validation.labels_N.numpy()
    best, *averaged = first.alone
    options, refused = [best], list[Option]()
    if members:
        loaded = [one.with_better_weights(labels_N) for one in loaded]
        (refused if loaded[0] is first else options).extend(averaged)
        plain = [one.answers(cfg, mirrored=False) for one in loaded]
        both = [np.mean([plain_NK, one.answers(cfg, mirrored=True)], axis=0)
                for one, plain_NK in zip(loaded, plain, strict=True)]  # fmt: skip
        options += [
            Option(tuple(one.weights for one in loaded[:count]), flips, np.mean(answers[:count], axis=0))
            for count in range(1, len(loaded) + 1)
            for flips, answers in ((False, plain), (True, both))
            if (count, flips) != (1, False)
        ]
    chosen = choose(options, labels_N)
    alone = accuracy(labels_N, best.probabilities_NK)
    tried = tuple(
        {"model": option.words, "val_accuracy": accuracy(labels_N, option.probabilities_NK),
         "val_loss": float(image_losses(labels_N, option.probabilities_NK).mean()), "chosen": option is chosen}
        for option in (*options, *refused)
    )  # fmt: skip
    members_of_it = [one.trained for one in loaded[: len(chosen.members)]]
    if not is_current(folder, chosen, members_of_it[0]):
        write_model(folder, chosen, members_of_it, cfg, first.class_names, seconds=seconds)
    return HandedOver(chosen.members, chosen.flips, accuracy(labels_N, chosen.probabilities_NK), alone, tried)


def choose(options: Sequence[Option], labels_N: npt.NDArray[np.int64]) -> Option:
    """The option with the lowest loss on half of the images, if the other half shows it to be better than the first.

    Shown means: a loss lower by one standard error of the paired differences, and an accuracy that is no lower, there
    and on all images.
    """
    half_N = np.zeros(len(labels_N), dtype=bool)
    for label in np.unique(labels_N):  # every second image of each class
        half_N[np.flatnonzero(labels_N == label)[::2]] = True
    losses = [image_losses(labels_N, option.probabilities_NK) for option in options]
    best = min(range(len(options)), key=lambda index: float(losses[index][half_N].mean()))
    now, then = options[0].probabilities_NK, options[best].probabilities_NK
    shown = is_lower(losses[best][~half_N], losses[0][~half_N]) and all(
        accuracy(labels_N[where_N], then[where_N]) >= accuracy(labels_N[where_N], now[where_N])
        for where_N in (~half_N, np.ones_like(half_N))
    )
    return options[best] if shown else options[0]


def _saw_these_images(run: Path, cfg: RunConfig) -> bool:
    """Whether a run's answers are of the images that are there now; a run of an older version does not say."""
    return data_fingerprint(run) in (None, load_training_data(cfg.data).fingerprint)


def _probabilities(best: Checkpoint) -> Probabilities:
    """Those on the validation images, from a run's checkpoint."""
    found: Probabilities = best["probabilities"].numpy().astype(np.float64)
    return found


@dataclass(frozen=True)
class _Loaded:
    """A training's network: that of its best epoch, or with the mean weights of its last ones."""

    network: StagedModel
    cfg: RunConfig
    class_names: list[str]
    trained: Trained
    checkpoint: str = BEST

    @property
    def weights(self) -> Weights:
        """Where its weights are."""
        return Weights(self.trained.run, self.checkpoint)

    @functools.cached_property
    def alone(self) -> list[Option]:
        """It alone by its best epoch, then by the mean weights where the training kept them, which kept the answers on
        the validation images, too, at the network's own size."""
        run = self.trained.run
        names = [BEST, AVERAGE] if (run / AVERAGE).is_file() else [BEST]
        return [Option((Weights(run, name),), flips=False, probabilities_NK=self._kept(name)) for name in names]

    def with_better_weights(self, labels_N: npt.NDArray[np.int64]) -> _Loaded:
        """The one with the mean weights where the validation images show it to be better, else this one."""
        if len(self.alone) == 1 or choose(self.alone, labels_N) is self.alone[0]:
            return self
        network, _, _ = load_network(self.trained.run, AVERAGE)
        return dataclasses.replace(self, network=network, checkpoint=AVERAGE)

    def fits(self, first: _Loaded) -> bool:
        """Whether it answers the same question: the same classes, of the same images at any size."""
        data = dataclasses.replace(self.cfg.data, image_size=first.cfg.data.image_size)
        same = (self.class_names, data) == (first.class_names, first.cfg.data)
        return same and data_fingerprint(self.trained.run) == data_fingerprint(first.trained.run)

    def is_alike(self, other: _Loaded) -> bool:
        """Whether the other one differs in its epochs alone: a longer training gains nothing by a shorter one."""
        epochs = dataclasses.replace(self.cfg.trainer, epochs=other.cfg.trainer.epochs)
        return dataclasses.replace(self.cfg, trainer=epochs) == other.cfg

    def answers(self, first: RunConfig, *, mirrored: bool) -> Probabilities:
        """On the validation images, or their mirror images, at the size of the first member."""
        if not mirrored and self.cfg.data == first.data:
            return self._kept(self.checkpoint)
        cfg = dataclasses.replace(self.cfg, data=first.data)
        return _answers(_Member(self.network, self.cfg.data.image_size, mirrored=mirrored), cfg)

    def _kept(self, checkpoint: str) -> Probabilities:
        return _probabilities(load_checkpoint(self.trained.run / checkpoint))


class _Member(nn.Module):
    """A network that sees every image at its own size, and mirrored where asked for."""

    def __init__(self, network: StagedModel, side: int, *, mirrored: bool) -> None:
        super().__init__()
        self.network, self.side, self.mirrored = network, side, mirrored

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        images_BCHW = resized(images_BCHW, self.side)
        logits_BK: Tensor = self.network(images_BCHW.flip(3) if self.mirrored else images_BCHW)
        return logits_BK


def _answers(model: nn.Module, cfg: RunConfig) -> Probabilities:
    """The model's probabilities on the validation images of a configuration."""
    device = choose_device(cfg.device)
    arithmetic = Arithmetic(device, cfg.trainer.precision, cfg.trainer.channels_last)
    model = model.to(device, memory_format=arithmetic.memory_format)  # type: ignore[call-overload]  # torch's stub
    images = load_training_data(cfg.data).validation
    found = evaluate(model, images, arithmetic, batch_size=cfg.trainer.batch_size)
    return found.probabilities_NK.numpy().astype(np.float64)
