"""The best model of a run, from its folder; or the model that a sweep hands over, which several runs make."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from da6401.config.compose import saved_config
from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.errors import RunError
from da6401.metrics.calibration import calibration_of
from da6401.models.build import build_model
from da6401.models.ensemble import Ensemble
from da6401.models.stages import StagedModel
from da6401.plugins.needed import plugins_of
from da6401.runs.members import read_members
from da6401.runs.run_folder import BEST, CONFIG, RESULT, read_result
from da6401.runs.trial_folders import fold_folders, sweep_of
from da6401.training.checkpoint import load_checkpoint, model_state
from da6401.training.device import restore_torch_settings


def load_model(
    folder: Path, *, flips: bool = False, calibrated: bool = False
) -> tuple[StagedModel | Ensemble, RunConfig, list[str]]:
    """A folder's best model in eval mode on the CPU, its configuration, and its class names in the order of the logits.

    Args:
        flips: it answers with the mean over the image and its mirror image.
        calibrated: at the temperature that was fitted on validation.

    Raises:
        RunError: the folder holds no run, or a damaged one; or no image was left to fit a temperature on.
    """
    model, cfg, class_names = _load(folder)
    if calibrated and cfg.trainer.train_on == "all":
        raise RunError(
            f"{folder}: was trained on all images (trainer.train_on=all), so none was left to fit a temperature on: "
            "leave out --calibrated"
        )
    temperature = calibration_of(folder).temperature if calibrated else 1.0
    if not flips and not calibrated:
        return model, cfg, class_names
    if isinstance(model, Ensemble):
        model.flips, model.temperature = flips or model.flips, temperature
        return model, cfg, class_names
    alone = Ensemble([model], sides=[cfg.data.image_size], flips=flips, temperature=temperature)
    return alone.eval(), cfg, class_names


def _load(folder: Path) -> tuple[StagedModel | Ensemble, RunConfig, list[str]]:
    members = read_members(folder)
    if members is None:
        return _load_run(folder)
    pairs = zip(members.runs, members.checkpoints, strict=True)
    loaded = [_load_run(folder.parent / name, checkpoint) for name, checkpoint in pairs]
    _, cfg, class_names = loaded[0]
    for name, (_, _, names) in zip(members.runs, loaded, strict=True):
        if names != class_names:
            raise RunError(f"{folder.parent / name}: has other classes than {members.runs[0]}")
    networks, sides = [model for model, _, _ in loaded], [each.data.image_size for _, each, _ in loaded]
    return Ensemble(networks, sides=sides, flips=members.flips, temperature=1.0).eval(), cfg, class_names


def load_network(folder: Path, checkpoint: str = BEST) -> tuple[StagedModel, RunConfig, list[str]]:
    """As ``load_model``; of several members the first alone.

    Args:
        checkpoint: BEST or AVERAGE of a run.
    """
    members = read_members(folder)
    if members is None:
        return _load_run(folder, checkpoint)
    return _load_run(folder.parent / members.runs[0], members.checkpoints[0])


@restore_torch_settings()
def _load_run(folder: Path, checkpoint: str = BEST) -> tuple[StagedModel, RunConfig, list[str]]:
    with plugins_of(folder):
        return _with_plugins(folder, checkpoint)


def _with_plugins(folder: Path, checkpoint: str) -> tuple[StagedModel, RunConfig, list[str]]:
    cfg = saved_config(folder / CONFIG)
    if folds := fold_folders(folder):
        raise RunError(
            f"{folder}: is a trial of {len(folds)} folds and has no network of its own; name one of "
            f"{folds[0].name}, ... in it, or train its config on the ordinary split (the sweep's best.yaml)"
        )
    if not (folder / checkpoint).exists():
        _explain_deleted(folder, checkpoint, cfg)
    content = load_checkpoint(folder / checkpoint)
    class_names = content.get("class_names")
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise RunError(f"{folder / checkpoint}: names no classes; the file is damaged")
    # The checkpoint has all the weights: nothing is to be fetched first, and a weights file may be gone by now.
    model_cfg = dataclasses.replace(cfg.model, weights="none") if isinstance(cfg.model, PretrainedConfig) else cfg.model
    model = build_model(model_cfg, num_classes=len(class_names), image_size=cfg.data.image_size)
    try:
        model.float().load_state_dict(model_state(content))  # whatever a notebook's default type is
    except RuntimeError as error:
        raise RunError(f"{folder / checkpoint}: the weights do not fit the model of {folder / CONFIG}") from error
    return model.eval(), cfg, class_names


def _explain_deleted(folder: Path, checkpoint: str, cfg: RunConfig) -> None:
    """Say why a run that has ended has no checkpoint; nothing of a run that has not, or that ended no epoch.

    Raises:
        RunError: it was deleted.
    """
    if not (folder / RESULT).exists() or read_result(folder).epochs_run == 0:
        return
    why = "was deleted"
    if sweep_of(folder) is not None:
        trials = (
            "its best trial" if cfg.sweep.keep_checkpoints == 1 else f"its best {cfg.sweep.keep_checkpoints} trials"
        )
        why += f": a sweep keeps the checkpoints of {trials} (sweep.keep_checkpoints, sweep.checkpoint_gb)"
    again = shlex.join(["da6401", "reproduce", str(folder)])
    raise RunError(f"{folder / checkpoint}: {why}; {again} trains the run again")
