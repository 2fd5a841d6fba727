"""`da6401 explain RUN`: pictures of what a trained model sees, and of its mistakes, in RUN/explain."""

# N images, B batch, K classes, C channels, H height, W width

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from da6401.commands.data_of_run import data_of_run
from da6401.commands.evaluate import answers_of, look_at_test
from da6401.commands.explain.attribution import output_layer
from da6401.commands.explain.drawing import own_style, save
from da6401.commands.explain.views import Answers, choose, views
from da6401.config.schema import RunConfig
from da6401.config.splits import TEST
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_training_data
from da6401.errors import DataError, RunError
from da6401.models.stages import StagedModel
from da6401.plugins.needed import plugins_of
from da6401.redact import safe
from da6401.report.explanations import ABOUT
from da6401.runs.atomic_files import explain_write_errors, write_json
from da6401.training.device import choose_device, prepare, restore_torch_settings
from da6401.training.trained_model import load_network

TRAINED_ON = (
    "was trained on these validation images, too (trainer.train_on=all): it errs less on them than on new ones; "
    "--split test shows new ones, where the data have a test split"
)


@restore_torch_settings()
def explain_run(folder: Path, *, split: str) -> int:
    """Write the pictures of a run's best model and RUN/explain/about.json, on the images of a split.

    Raises:
        UserError: no such run, no such split, a device that is not here, or no room on the disk.
    """
    with plugins_of(folder):
        return _explained(folder, split)


def _explained(folder: Path, split: str) -> int:
    about = folder / ABOUT
    out = about.parent
    model, cfg, class_names = load_network(folder)
    if out.is_symlink():
        raise RunError(f"{out}: is a symbolic link, and could lead out of the run folder; remove it")
    device = choose_device(cfg.device)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    model.freeze(0)  # for the gradients to reach the image
    model.requires_grad_(False)

    def answer(images: ImageSet) -> Answers:
        return _answer(model.to(device), images, class_names, cfg, device)

    if split == TEST:
        purpose = "pictures of its images and of what the model makes of them"
        answers = look_at_test(folder, cfg, class_names, answer, verb="explain", purpose=purpose)
    else:
        answers = answer(_validation(folder, cfg, class_names))
        if cfg.trainer.train_on == "all":
            print(f"da6401: {safe(folder)}: {TRAINED_ON}", file=sys.stderr)
    model.cpu()
    with explain_write_errors(out):
        out.mkdir(exist_ok=True)
        about.unlink(missing_ok=True)  # it would describe pictures that are being replaced
    entries = []
    with own_style():
        for picture in views(model, answers, cfg.seed, split):
            save(picture.draw(), out / picture.file)
            entries.append({"file": picture.file, "title": picture.title, "caption": picture.caption})
            print(f"{safe(out / picture.file)}  {picture.title}")
    write_json(about, entries)
    return 0


def _validation(folder: Path, cfg: RunConfig, class_names: Sequence[str]) -> ImageSet:
    with data_of_run(folder, cfg.data):
        data = load_training_data(cfg.data)
    if list(data.class_names) != list(class_names):
        raise DataError(f"data={cfg.data.source} has other classes than the model: explain it on its own data.")
    return data.validation


def _answer(
    model: StagedModel, images: ImageSet, class_names: Sequence[str], cfg: RunConfig, device: torch.device
) -> Answers:
    """Classify the whole split, and keep the features of the images that the embedding shows."""
    labels_N = images.labels_N.numpy()
    choice = choose(labels_N, seed=cfg.seed)
    wanted_N = torch.zeros(len(labels_N), dtype=torch.bool)
    wanted_N[torch.from_numpy(choice.embedded_P)] = True

    last = output_layer(model, images.images_NCHW[torch.tensor([0])].to(device).float().div(255))
    features: list[Tensor] = []
    seen = 0

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal seen
        features.append(given[0].float().cpu()[wanted_N[seen : seen + len(given[0])]])
        seen += len(given[0])

    handles = [last.register_forward_pre_hook(keep)] if last is not None else []
    try:
        probabilities_NK = answers_of(model, images, cfg, device).probabilities_NK
    finally:
        for handle in handles:
            handle.remove()
    if not probabilities_NK.isfinite().all():
        raise RunError("the model's answers are not finite numbers: its weights are damaged, train it again")
    confidence_N, predicted_N = probabilities_NK.max(1)
    kept = features or [torch.empty(len(choice.embedded_P), 0)]
    return Answers(
        images=images, class_names=class_names, labels_N=labels_N, predicted_N=predicted_N.numpy(),
        confidence_N=confidence_N.numpy(), choice=choice, features_PE=torch.cat(kept).numpy(),
    )  # fmt: skip
