"""What can be done with a finished run: evaluate, predict, reproduce."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from da6401.config.check import tree_of
from da6401.config.compose import saved_config
from da6401.config.schema import FolderConfig, PretrainedConfig, RunConfig
from da6401.data.images import read_image
from da6401.data.sources import load_test_data
from da6401.errors import DataError, RunError
from da6401.models.build import build_model
from da6401.models.stages import StagedModel
from da6401.run import run
from da6401.rundir import BEST, CONFIG, RECEIPT, RESULT, differences, read_json, read_metrics, read_result, write_result
from da6401.runtime import choose_device, prepare
from da6401.train.checkpoint import load_checkpoint, model_state
from da6401.train.evaluate import evaluate

NOT_REPRODUCED = 4
# What of a receipt can move the metrics, the likeliest first.
CAUSES = (
    *("data_fingerprint", "device", "device_name", "threads", "git_commit", "git_dirty"),
    *("packages", "torch_build", "python"),
)
TIMINGS = frozenset({"seconds", "images_per_second"})  # of a line of metrics: these differ from run to run


def load_model(folder: Path) -> tuple[StagedModel, RunConfig, list[str]]:
    """A run's best model in eval mode on the CPU, its configuration, and its class names in the order of the logits.

    Raises:
        RunError: the folder holds no run, or a damaged one.
    """
    cfg = saved_config(folder / CONFIG)
    content = load_checkpoint(folder / BEST)
    class_names = content.get("class_names")
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise RunError(f"{folder / BEST}: names no classes; the file is damaged")
    # The checkpoint has all the weights: nothing is to be fetched first, and a weights file may be gone by now.
    model_cfg = dataclasses.replace(cfg.model, weights="none") if isinstance(cfg.model, PretrainedConfig) else cfg.model
    model = build_model(model_cfg, num_classes=len(class_names), image_size=cfg.data.image_size)
    try:
        model.load_state_dict(model_state(content))
    except RuntimeError as error:
        raise RunError(f"{folder / BEST}: the weights do not fit the model of {folder / CONFIG}") from error
    return model.eval(), cfg, class_names


def evaluate_run(folder: Path) -> int:
    """The best checkpoint on the test split: once, and from then on the recorded value."""
    result = read_result(folder)
    if result.test_accuracy is not None:
        print(f"test accuracy {result.test_accuracy:.4f}  loss {result.test_loss:.4f}  (recorded; evaluated once)")
        return 0
    model, cfg, class_names = load_model(folder)
    device = choose_device(cfg.device)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    images = load_test_data(cfg.data, class_names)
    answer = evaluate(model.to(device), images, batch_size=cfg.trainer.batch_size, device=device)
    write_result(folder, dataclasses.replace(result, test_accuracy=answer.accuracy, test_loss=answer.loss))
    print(
        f"test accuracy {answer.accuracy:.4f}  loss {answer.loss:.4f}  on {len(images.labels_N)} images, "
        f"recorded in {folder / RESULT}"
    )
    return 0


def predict_images(folder: Path, images: Sequence[Path], *, as_json: bool) -> int:
    """Print class and probability of each image; 2 where some could not be read, after all the others."""
    model, cfg, class_names = load_model(folder)
    prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
    resize = cfg.data.resize if isinstance(cfg.data, FolderConfig) else "stretch"
    refused = 0
    for path in images:
        try:
            pixels = torch.from_numpy(read_image(path, size=cfg.data.image_size, resize=resize))
        except DataError as error:
            print(f"da6401: {error}", file=sys.stderr)
            refused += 1
            continue
        with torch.inference_mode():
            probabilities_K = model(pixels[None].float().div_(255)).softmax(1)[0]
        best = int(probabilities_K.argmax())
        if as_json:
            each = {name: float(p) for name, p in zip(class_names, probabilities_K, strict=True)}
            answer = {"image": str(path), "class": class_names[best], "probability": each[class_names[best]]}
            print(json.dumps({**answer, "probabilities": each}, ensure_ascii=False))
        else:
            print(f"{path}  {class_names[best]}  {float(probabilities_K[best]):.4f}")
    return 2 if refused else 0


def reproduce_run(folder: Path, overrides: Sequence[str]) -> int:
    """Train a saved configuration again in a new folder and say what agrees and what differs.

    Returns:
        0 where every metric of every epoch is identical, NOT_REPRODUCED where one is not. With overrides the metrics
        are expected to differ, and it is 0.
    """
    before = saved_config(folder / CONFIG)
    cfg = saved_config(folder / CONFIG, overrides)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    again = folder.parent / f"{folder.name}-again-{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    run(cfg, again)

    rows = [(f"config {name}", old, new) for name, old, new in differences(tree_of(before), tree_of(cfg))]
    if (folder / RECEIPT).exists():
        old, new = read_json(folder / RECEIPT), read_json(again / RECEIPT)
        rows += differences({k: old.get(k) for k in CAUSES}, {k: new.get(k) for k in CAUSES})
    metrics = _metric_differences(folder, again)
    table = Table("what", str(folder), str(again), title="what differs", title_justify="left")
    for what, old_value, new_value in [*rows, *metrics]:
        table.add_row(escape(what), escape(str(old_value)), escape(str(new_value)))
    console = Console(soft_wrap=True)
    if table.row_count:
        console.print(table)
    if not metrics:
        console.print(
            f"reproduced: identical metrics in all {read_result(again).epochs_run} epochs, in {escape(str(again))}"
        )
        return 0
    if overrides:
        console.print(f"changed as asked: {escape(', '.join(overrides))}; the new run is {escape(str(again))}")
        return 0
    cause = rows[0][0] if rows else "nothing that was recorded; is trainer.deterministic off?"
    console.print(f"not reproduced; the likely cause: {escape(cause)}")
    return NOT_REPRODUCED


def _metric_differences(folder: Path, again: Path) -> list[tuple[str, Any, Any]]:
    """The first epoch in which each metric differs; missing epochs count."""
    old, new = read_metrics(folder), read_metrics(again)
    found: dict[str, tuple[str, Any, Any]] = {}
    for index in range(max(len(old), len(new))):
        a = old[index] if index < len(old) else {}
        b = new[index] if index < len(new) else {}
        for name in dict.fromkeys([*a, *b]):
            if name not in TIMINGS and a.get(name, math.nan) != b.get(name, math.nan):
                found.setdefault(name, (f"{name}, epoch {index + 1}", a.get(name), b.get(name)))
    return list(found.values())
