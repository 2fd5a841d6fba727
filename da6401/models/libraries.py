"""The classification models of timm and torchvision, each a backbone by its name there: model=timm model.arch=NAME.

A library's own metadata says what a network is given; models/cutting.py finds its stages. torch and the libraries are
imported inside the functions: the configuration asks for the names of the libraries alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da6401.errors import ModelError, UserError, did_you_mean
from da6401.models.backbones import MINUS_ONE_TO_ONE, adapt_positions
from da6401.registry import IMAGENET, LIBRARIES, BackboneEntry, LibraryEntry, Statistics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from da6401.models.cutting import Cuts


def _entry(
    make: Callable[[int], nn.Module], *, hints: Sequence[str] = (), trained_at: int, **facts: Any
) -> BackboneEntry:
    """The entry of a network that is cut as its forward pass allows.

    Args:
        make: side of the images in px -> the network without its classifier.
        hints: names of its modules after which the library itself takes features.
        facts: more of the entry.
    """
    from da6401.models.cutting import find_cuts, split
    from da6401.models.pretrained import on_meta
    from da6401.models.stages import NORMS

    @functools.cache
    def cuts_at(image_size: int) -> Cuts:
        return find_cuts(on_meta(lambda: make(image_size)).eval(), image_size, hints=hints)

    @functools.cache
    def refuses(image_size: int) -> str:
        try:
            same = cuts_at(image_size).names == cuts.names
        except Exception as error:  # whatever a library says to an image that its network cannot take
            return (str(error).strip() or type(error).__name__).splitlines()[0]
        return "" if same else f"it has other stages than for images of {trained_at} px"

    cuts = cuts_at(trained_at)
    network = on_meta(lambda: make(trained_at))
    note = f"its stages cannot be told apart ({cuts.whole}): model.freeze_depth is 0, or 1 for all but the head"
    return BackboneEntry(
        stages=cuts.names, make=make, cut=lambda net: split(net, cuts), features=cuts.features, trained_at=trained_at,
        refuses=refuses, has_norms=any(isinstance(module, NORMS) for module in network.modules()),
        note=note if cuts.whole else "", **facts,
    )  # fmt: skip


# ---- timm ---------------------------------------------------------------------------------------------------------


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError("model=timm: timm is not installed; run pip install 'da6401[timm]'") from error
    return timm


def timm_names() -> list[str]:
    """Raises UserError where timm is not installed."""
    return list(_timm().list_models())


@functools.cache
def timm_backbone(arch: str) -> BackboneEntry:
    """Raises UserError where timm is not installed, or has no such architecture."""
    timm = _timm()
    if not timm.is_model(arch):
        raise _unknown("timm", arch, timm_names())
    about = timm.get_pretrained_cfg(arch) or timm.models.PretrainedCfg()
    side = about.input_size[1]

    def make(image_size: int, **how: Any) -> nn.Module:
        if about.fixed_input_size and image_size != side:
            how["img_size"] = image_size  # whose windows and positions depend on it
        network: nn.Module = timm.create_model(arch, num_classes=0, **how)
        return network

    def pretrained(image_size: int, source: str) -> nn.Module:
        if source == "imagenet":
            return _from_hub(lambda: make(image_size, pretrained=True), arch, bool(about.has_weights))
        from da6401.models import weights

        heads = tuple(f"{name}." for name in _words(about.classifier))
        read = weights.unwrapped(weights.read(Path(source)), make(image_size), source=source)
        state = {name: tensor for name, tensor in read.items() if not name.startswith(heads)}
        own = {"state_dict": state, "num_classes": 0, "source": "", "custom_load": False, "label_offset": 0}
        try:
            return make(image_size, pretrained=True, pretrained_cfg_overlay=own)
        except Exception as error:  # timm's own conversion of a file of another network may raise nearly anything
            reason = " ".join(str(error).split())
            raise ModelError(
                f"model.weights={source}: does not fit {arch}: {reason[:400]}. The names are those of timm's model of "
                "the same name; choose the model that the file was made with"
            ) from error

    from da6401.models.pretrained import on_meta

    features = getattr(on_meta(lambda: make(side)), "feature_info", None)
    known = features if isinstance(features, list) else []
    return _entry(
        make,
        hints=[str(each["module"]) for each in known if isinstance(each, Mapping) and "module" in each],
        trained_at=side,
        statistics=_statistics(about.mean, about.std),
        pretrained=pretrained,
        weights_here=lambda: _timm_weights_here(about),
    )


def _from_hub(make: Callable[[], nn.Module], arch: str, has_weights: bool) -> nn.Module:
    from http.client import HTTPException

    if not has_weights:
        raise ModelError(
            f"model.weights=imagenet: timm has no weights of {arch}; give a state_dict file, or train from scratch "
            "with model.weights=none"
        )
    try:
        return make()
    # The hub's client has errors of its own kinds above these; RuntimeError is torch.hub's word for a wrong hash.
    except (OSError, HTTPException, RuntimeError) as error:
        raise ModelError(
            f"model.weights=imagenet: cannot fetch the weights of {arch} ({' '.join(str(error).split())[:200]}); fetch "
            "them where there is a network and pass the file as model.weights=<file>, or train from scratch with "
            "model.weights=none"
        ) from error


def _timm_weights_here(about: Any) -> bool:
    """Whether the weights are in the hub's cache, or in torch's."""
    if about.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        files = (about.hf_hub_filename, "model.safetensors", "pytorch_model.bin")
        hub = about.hf_hub_id.partition("@")[0]
        if any(isinstance(try_to_load_from_cache(hub, file), str) for file in files if file):
            return True
    from da6401.models.weights import cached_file

    return isinstance(about.url, str) and cached_file(about.url).is_file()


# ---- torchvision --------------------------------------------------------------------------------------------------

# Their auxiliary heads are left out; and torchvision normalises for ImageNet, and then undoes it.
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
CLASSES = 1000  # of torchvision's classifiers
SIZE_KEYS = {"vit": "image_size", "maxvit": "input_size"}  # what these families call the side of their images


def torchvision_names() -> list[str]:
    """Classification models alone."""
    from torchvision import models

    return list(models.list_models(module=models))


@functools.cache
def torchvision_backbone(arch: str) -> BackboneEntry:
    """Raises UserError where torchvision has no such architecture."""
    from torchvision import models

    from da6401.models.pretrained import on_meta

    names = torchvision_names()
    if arch not in names:
        raise _unknown("torchvision", arch, names)
    family, options = arch.partition("_")[0], OPTIONS.get(arch, {})
    weights = models.get_model_weights(arch).DEFAULT
    preset = weights.transforms()

    def whole(image_size: int) -> nn.Module:
        key = SIZE_KEYS.get(family)
        sized = {key: (image_size, image_size) if key == "input_size" else image_size} if key else {}
        network: nn.Module = models.get_model(arch, weights=None, **options, **sized)
        return network

    def make(image_size: int) -> nn.Module:
        return _without_classifier(whole(image_size))[0]

    _, classifier = _without_classifier(on_meta(lambda: whole(preset.crop_size[0])))
    return _entry(
        make,
        trained_at=preset.crop_size[0],
        statistics=MINUS_ONE_TO_ONE if arch in OPTIONS else _statistics(preset.mean, preset.std),
        imagenet=str(weights),
        replaced=(f"{classifier}.", *(("aux1.", "aux2.", "AuxLogits.") if arch in OPTIONS else ())),
        adapt=_adapt(arch, family),
    )


def _without_classifier(network: nn.Module) -> tuple[nn.Module, str]:
    """The network with its last layer, and the dropout before it, taken out; and that layer's name."""
    from torch import nn

    kinds = {name: module for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    name = [name for name, module in kinds.items() if _outputs(module) == CLASSES][-1]
    owner_name, _, leaf = name.rpartition(".")
    owner = network.get_submodule(owner_name)
    siblings = [each for each, _ in owner.named_children()]
    before = siblings[: siblings.index(leaf)] if isinstance(owner, nn.Sequential) else ["dropout"]
    for each in reversed(before):  # our head drops features itself
        if not isinstance(getattr(owner, each, None), nn.Dropout):
            break
        setattr(owner, each, nn.Identity())
    setattr(owner, leaf, nn.Identity())
    return network, name


def _outputs(layer: nn.Module) -> object:
    return getattr(layer, "out_features", getattr(layer, "out_channels", None))


def _adapt(arch: str, family: str) -> Callable[[Mapping[str, Tensor], str, int], dict[str, Tensor]] | None:
    if family == "densenet":  # the files are older than the names: norm.1 is norm1
        return lambda state, _, __: {
            re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): tensor for name, tensor in state.items()
        }
    if family == "vit":
        patch = int(arch.rpartition("_")[2])
        return functools.partial(adapt_positions, patch=patch)
    return None


# ---- both ---------------------------------------------------------------------------------------------------------


def _unknown(library: str, arch: str, names: Sequence[str]) -> UserError:
    what = f"has no such architecture{did_you_mean(arch, names)}" if arch else "an architecture is needed"
    return UserError(f"model.arch={arch}: {library} {what}; `da6401 models '{library}/*'` lists all {len(names):,}")


def _words(names: str | Sequence[str] | None) -> Sequence[str]:
    return [names] if isinstance(names, str) else names or []


def _statistics(mean: Sequence[float], std: Sequence[float]) -> Statistics:
    if len(mean) != len(std) or len(mean) != 3:
        return IMAGENET
    return (float(mean[0]), float(mean[1]), float(mean[2])), (float(std[0]), float(std[1]), float(std[2]))


LIBRARIES.register("timm", LibraryEntry(names=timm_names, backbone=timm_backbone))
LIBRARIES.register("torchvision", LibraryEntry(names=torchvision_names, backbone=torchvision_backbone))
