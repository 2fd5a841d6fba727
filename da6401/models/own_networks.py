"""The networks of plugins as staged models, checked once with images before they are trained."""

# B batch, K classes, C channels, F filters, H height, W width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from da6401.config.cnn_shapes import filters_of
from da6401.config.schema import CnnConfig
from da6401.models.stages import StagedModel
from da6401.plugins.registered import as_plugin_error, broken
from da6401.registry import NETWORKS

NETWORK = "network"  # the one stage of a module that is not staged
UNCHANGED: tuple[Sequence[float], Sequence[float]] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # the module sees 0..1
IMAGES = 2  # of a check


def build_own(cfg: Any, *, num_classes: int, image_size: int) -> StagedModel:
    """The network of a plugin's model: its own stages where it is a StagedModel, else all of it as one stage.

    What it has frozen stays frozen.

    Raises:
        PluginError: it is no module, or its answers are not finite logits (B, K).
    """
    made = NETWORKS[cfg.name](cfg, num_classes, image_size)
    if not isinstance(made, nn.Module):
        raise broken("model", cfg.name, f"gave {type(made).__name__}, which is no torch.nn.Module")
    model = made if isinstance(made, StagedModel) else one_stage(made)
    check_network("model", cfg.name, model, num_classes=num_classes, image_size=image_size)
    model.keep_frozen()  # after the answer: lazy layers have no parameters before it
    return model


def check_trainable(name: str, model: StagedModel) -> None:
    """Raise PluginError where nothing of a network trains. Built and read it may be: older versions unfroze all."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        frozen = "; all are frozen (requires_grad=False)" if any(True for _ in model.parameters()) else ""
        raise broken("model", name, f"has no parameter to train{frozen}")


def one_stage(network: nn.Module) -> StagedModel:
    """A module as a staged model: one stage, and a head that passes its answers on."""
    mean, std = UNCHANGED
    return StagedModel(stages={NETWORK: network}, head=nn.Identity(), mean=mean, std=std)


def check_network(kind: str, name: str, model: StagedModel, *, num_classes: int, image_size: int) -> None:
    """Raise PluginError where a network's answers to two images are not finite logits; random numbers are not used."""
    logits = _answer(
        kind, name, model, torch.linspace(0, 1, IMAGES * 3 * image_size**2).view(IMAGES, 3, image_size, image_size)
    )
    if not isinstance(logits, Tensor):
        raise broken(kind, name, f"answers with {type(logits).__name__}, which is no tensor")
    if tuple(logits.shape) != (IMAGES, num_classes):
        given = f"({IMAGES}, 3, {image_size}, {image_size})"
        raise broken(
            kind, name, f"answers images {given} with {tuple(logits.shape)}; it should be ({IMAGES}, {num_classes})"
        )
    if not (logits.is_meta or torch.isfinite(logits).all()):
        raise broken(kind, name, "answers with values that are not finite (NaN or infinity)")
    if extra := [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise broken(
            kind, name, f"has {extra[0].removeprefix(f'stages.{NETWORK}.')} in its state dict, which is no tensor",
            remedy="keep it in a buffer (register_buffer) in place of get_extra_state()",
        )  # fmt: skip


def check_blocks(cnn: StagedModel, cfg: CnnConfig, *, image_size: int) -> None:
    """Raise PluginError where a plugin's block does not halve the maps of the one before into its filters."""
    maps_BCHW = torch.linspace(0, 1, IMAGES * 3 * image_size**2).view(IMAGES, 3, image_size, image_size)
    for number, (stage, filters) in enumerate(zip(cnn.stages.values(), filters_of(cfg), strict=True), start=1):
        after = _answer("block", cfg.name, stage, maps_BCHW)
        height, width = maps_BCHW.shape[-2] // 2, maps_BCHW.shape[-1] // 2
        wanted = (IMAGES, filters, height, width)
        if not isinstance(after, Tensor) or tuple(after.shape) != wanted:
            found = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
            given = tuple(maps_BCHW.shape)
            raise broken("block", cfg.name, f"makes {found} of {given} as block {number}; it should be {wanted}")
        if not (after.is_meta or torch.isfinite(after).all()):
            raise broken("block", cfg.name, f"gives values that are not finite (NaN or infinity) as block {number}")
        maps_BCHW = after


def _answer(kind: str, name: str, module: nn.Module, x: Tensor) -> Any:
    """In eval mode; neither the mode nor torch's generator is changed by it.

    Raises:
        PluginError: layers of torch that do not fit together; an exception of the plugin's own line is raised as it is.
    """
    was_training = module.training
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return module.eval()(x.to(device))
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or as_plugin_error(error) is not None:
            raise
        raise broken(kind, name, f"cannot compute the answer to {tuple(x.shape)}: {error}") from error
    finally:
        module.train(was_training)
