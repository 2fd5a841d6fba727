"""What a race hands over: the folder `model` beside its trials, which the verbs take as they take a run.

It is there from the first finished training on, and is only replaced by a better one. At the end, mirror images and a
mean of the best few trainings are tried. Half of the validation images choose among these, the other half must show
the gain; else the best training stands alone.
"""

# N validation images, K classes

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from da6401.config.compose import saved_config
from da6401.config.schema import RunConfig
from da6401.data.sources import load_training_data
from da6401.errors import RunError
from da6401.metrics.scores import accuracy
from da6401.models.stages import StagedModel
from da6401.runs.run_folder import BEST, CONFIG, read_metrics, read_result
from da6401.study.objective import Objective
from da6401.sweep.model_folder import HandedOver, Option, Probabilities, Trained, current_model, write_model
from da6401.training.arithmetic import Arithmetic
from da6401.training.checkpoint import Checkpoint, load_checkpoint
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.trained_model import load_network
from da6401.training.validation import evaluate
from da6401.tune.race import image_losses, is_lower


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
    content = load_checkpoint(best.run / BEST)
    alone = Option((best.run,), flips=False, probabilities_NK=_probabilities(content))
    write_model(folder, alone, [best], saved_config(best.run / CONFIG), content["class_names"], seconds=seconds)
    return current_model(folder, best)


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
    tried = tuple(
        {"model": option.words, "val_accuracy": accuracy(labels_N, option.probabilities_NK),
         "val_loss": float(image_losses(labels_N, option.probabilities_NK).mean()), "chosen": option is chosen}
        for option in options
    )  # fmt: skip
    write_model(folder, chosen, [each for *_, each in loaded[: len(chosen.runs)]], cfg, loaded[0][2], seconds=seconds)
    return HandedOver(chosen.runs, chosen.flips, accuracy(labels_N, chosen.probabilities_NK), alone, tried)


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
