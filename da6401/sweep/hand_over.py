"""What a race hands over: the folder `model` beside its trials, which the verbs take as they take a run.

It is there from the first finished training on, and is only replaced by a better one. At the end, mirror images and a
mean of the best few trainings are tried. Half of the validation images choose among these, the other half must show
the gain; else the best training stands alone.
"""

# N validation images, K classes

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from da6401.config.compose import saved_config
from da6401.config.schema import RunConfig
from da6401.data.sources import load_training_data
from da6401.errors import RunError
from da6401.metrics.calibration import calibrate, write_calibration
from da6401.metrics.scores import accuracy, scores_of
from da6401.models.stages import StagedModel
from da6401.runs.atomic_files import explain_write_errors, write_json
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import (
    BEST,
    CONFIG,
    ENSEMBLE,
    METRICS,
    RECEIPT,
    TEST_CSV,
    VALIDATION_CSV,
    RunResult,
    read_metrics,
    read_result,
    write_result,
)
from da6401.runs.trial_folders import MODEL
from da6401.study.objective import Objective
from da6401.training.arithmetic import Arithmetic
from da6401.training.checkpoint import Checkpoint, load_checkpoint
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.trained_model import load_network, read_members
from da6401.training.validation import evaluate
from da6401.tune.race import image_losses, is_lower

Probabilities = npt.NDArray[np.float64]  # (N, K)


@dataclass(frozen=True)
class Trained:
    """A training whose best weights can be handed over, finished or not."""

    run: Path
    result: RunResult
    epoch: dict[str, float]  # the line of metrics.jsonl of its best epoch


@dataclass(frozen=True)
class Option:
    """A model that could be handed over."""

    runs: tuple[Path, ...]
    flips: bool
    probabilities_NK: Probabilities

    @property
    def words(self) -> str:
        """For people."""
        what = "the best network" if len(self.runs) == 1 else f"the mean of {len(self.runs)} networks"
        return f"{what}, images and mirror images" if self.flips else what


@dataclass(frozen=True)
class HandedOver:
    """What was chosen, for sweep.json and the page."""

    option: Option
    tried: list[dict[str, Any]]  # each option with its numbers
    val_accuracy: float
    alone: float  # the best network's

    def as_json(self, folder: Path) -> dict[str, Any]:
        """Folders are relative to the sweep's."""
        return {
            "runs": [str(run.relative_to(folder)) for run in self.option.runs], "flips": self.option.flips,
            "val_accuracy": self.val_accuracy, "best_network_alone": self.alone, "options": self.tried,
        }  # fmt: skip


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


def best_run(folder: Path) -> str | None:
    """The first run of `model` as it is; None where there is none."""
    try:
        members = read_members(folder / MODEL)
    except RunError:
        return None
    return members.runs[0] if members else None


def hand_over_best(folder: Path, best: Trained, *, seconds: float) -> None:
    """Let `model` be this training's best network alone."""
    content = load_checkpoint(best.run / BEST)
    alone = Option((best.run,), flips=False, probabilities_NK=_probabilities(content))
    _write(folder, alone, [best], saved_config(best.run / CONFIG), content["class_names"], seconds=seconds)


@restore_torch_settings()
def hand_over(folder: Path, trained: Sequence[Trained], *, members: int, seconds: float) -> HandedOver:
    """Let `model` be the best of: the best network, or a mean of the best few, each with or without mirror images.

    Args:
        trained: best first, at least one.
        members: most networks in a mean; 0 takes the best alone, and nothing is computed.
    """
    loaded: list[tuple[StagedModel, RunConfig, list[str], Trained]] = []
    for each in trained[: max(1, members)]:
        network, cfg, class_names = load_network(each.run)
        if not loaded or (class_names, cfg.data) == (loaded[0][2], loaded[0][1].data):
            loaded.append((network, cfg, class_names, each))
    cfg = loaded[0][1]
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    labels_N = load_training_data(cfg.data).validation.labels_N.numpy()
    plain = [_probabilities(load_checkpoint(each.run / BEST)) for *_, each in loaded]
    mirrored = [_answers(Mirrored(network), each) for network, each, _, _ in loaded if members]
    both = [np.mean(pair, axis=0) for pair in zip(plain, mirrored, strict=False)]
    runs = [each.run for *_, each in loaded]
    options = [
        Option(tuple(runs[:count]), flips, np.mean((both if flips else plain)[:count], axis=0))
        for count in range(1, len(runs) + 1)
        for flips in ((False, True) if members else (False,))
    ]
    chosen = choose(options, labels_N)
    alone = accuracy(labels_N, options[0].probabilities_NK)
    tried = [
        {"model": option.words, "val_accuracy": accuracy(labels_N, option.probabilities_NK),
         "val_loss": float(image_losses(labels_N, option.probabilities_NK).mean()), "chosen": option is chosen}
        for option in options
    ]  # fmt: skip
    _write(folder, chosen, [each for *_, each in loaded[: len(chosen.runs)]], cfg, loaded[0][2], seconds=seconds)
    return HandedOver(chosen, tried, accuracy(labels_N, chosen.probabilities_NK), alone)


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


def _probabilities(best: Checkpoint) -> Probabilities:
    """Those of a run's best epoch on the validation images, from its checkpoint."""
    found: Probabilities = best["probabilities"].numpy().astype(np.float64)
    return found


class Mirrored(nn.Module):
    """A network that sees every image mirrored."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits_BK: Tensor = self.network(images_BCHW.flip(3))
        return logits_BK


def _answers(model: nn.Module, cfg: RunConfig) -> Probabilities:
    """The model's probabilities on the validation images of a configuration."""
    device = choose_device(cfg.device)
    arithmetic = Arithmetic(device, cfg.trainer.precision, cfg.trainer.channels_last)
    model = model.to(device, memory_format=arithmetic.memory_format)  # type: ignore[call-overload]  # torch's stub
    images = load_training_data(cfg.data).validation
    found = evaluate(model, images, arithmetic, batch_size=cfg.trainer.batch_size)
    return found.probabilities_NK.numpy().astype(np.float64)


def _write(
    folder: Path, option: Option, members: Sequence[Trained], cfg: RunConfig, class_names: Sequence[str], *,
    seconds: float,
) -> None:  # fmt: skip
    """Replace `model`; a test split that was looked at for the one before is not looked at for this one.

    Args:
        cfg: of the first member, as are the class names.
    """
    first, place = members[0], folder / MODEL
    validation = load_training_data(cfg.data).validation
    labels_N = validation.labels_N.numpy()
    views = 2 if option.flips else 1
    probabilities_NK = option.probabilities_NK.astype(np.float32)
    answers = Predictions(tuple(class_names), validation.names, labels_N, probabilities_NK)
    scored = scores_of(answers)
    result = RunResult(
        status="completed", val_accuracy=accuracy(labels_N, option.probabilities_NK),
        val_loss=float(image_losses(labels_N, option.probabilities_NK).mean()), best_epoch=first.result.best_epoch,
        epochs_run=first.result.epochs_run, test_accuracy=None, test_loss=None,
        parameters=sum(each.result.parameters for each in members),
        macs=views * sum(each.result.macs for each in members), seconds=seconds, reason="",
        trainable_parameters=sum(each.result.trainable_parameters for each in members),
        val_metrics=scored.values,
        undefined_metrics={f"val_metrics.{name}": why for name, why in scored.undefined.items()},
    )  # fmt: skip
    with explain_write_errors(place):
        place.mkdir(exist_ok=True)
        (place / TEST_CSV).unlink(missing_ok=True)
        write_json(place / ENSEMBLE, {"runs": [str(run.relative_to(folder)) for run in option.runs],
                                      "flips": option.flips})  # fmt: skip
        for name in (CONFIG, RECEIPT, METRICS):
            shutil.copyfile(first.run / name, place / name)
        write_predictions(place / VALIDATION_CSV, answers)
        write_calibration(place, calibrate(answers))
        write_result(place, result)
