"""The best model of a run, from its folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from da6401.config.compose import saved_config
from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.errors import RunError
from da6401.models.build import build_model
from da6401.models.stages import StagedModel
from da6401.runs.run_folder import BEST, CONFIG
from da6401.training.checkpoint import load_checkpoint, model_state
from da6401.training.device import restore_torch_settings


@restore_torch_settings()
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
        model.float().load_state_dict(model_state(content))  # whatever a notebook's default type is
    except RuntimeError as error:
        raise RunError(f"{folder / BEST}: the weights do not fit the model of {folder / CONFIG}") from error
    return model.eval(), cfg, class_names
