"""What can be chosen by name: backbones, data sources, augmentations, optimizers, schedules, metrics.

A registry maps names to entries, in the order of registration. The modules that register the entries are named here,
and imported when the registry is first asked, so that this module imports neither them nor torch. Entries of the
configuration's registries are made without torch too; the functions in them import it when they are called.

A backbone is added to ``models/backbones.py``, and so on; a user's own by a plugin (plugins/). Configuration, messages,
``--help``, completion and documentation follow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from da6401.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn
    from torch.optim import Optimizer

    Labels = npt.NDArray[np.int64]
    Probabilities = npt.NDArray[np.floating[Any]]

T = TypeVar("T")
Defaults = Mapping[str, int | float]  # of an option: keys of its group that depart from the schema's defaults


class Registry(Generic[T]):
    """Names and what they stand for.

    Args:
        key: the configuration's key that takes such a name, for messages.
        modules: register the entries; imported in this order when the registry is first asked.
    """

    def __init__(self, key: str, *modules: str) -> None:
        self.key = key
        self._modules = modules
        self._entries: dict[str, T] = {}

    @property
    def entries(self) -> dict[str, T]:
        """Each name with its entry."""
        for module in self._modules:
            importlib.import_module(module)
        return self._entries

    def register(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            UserError: the name is taken.
        """
        if name in self._entries:
            raise UserError(f"{self.key}={name}: this name is registered already; choose another")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """Raises UserError, with all names, where there is no such entry."""
        if name not in self.entries:
            known = ", ".join(self.entries)
            raise UserError(f"{self.key}={name}: must be one of {known}{did_you_mean(name, self.entries)}")
        return self.entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


# ---- models -------------------------------------------------------------------------------------------------------

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class BackboneEntry:
    """A backbone: the images that it takes, its stages, and how it is made and loaded. See models/backbones.py."""

    stages: tuple[str, ...]  # names, first to last
    make: Callable[[int], nn.Module]  # side of the images in px -> the network, random weights, any head
    cut: Callable[[Any], Sequence[nn.Module]]  # the network -> its stages
    features: int  # numbers an image that the last stage hands to the head
    min_size: int = 1  # px; below it some pool or convolution has nothing left to work on
    multiple_of: int = 1  # px
    trained_at: int = 224  # px, side of the images that the ImageNet weights were made for
    refuses: Callable[[int], str] | None = None  # side of the images in px -> why it does not take them, "" if it does
    statistics: Statistics = IMAGENET  # mean and deviation of the input
    has_norms: bool = True  # it has normalisation layers, which model.train_only=norm trains
    imagenet: str = ""  # torchvision's name of the ImageNet weights, or their URL
    imagenet_file: Callable[[], Path] | None = None  # the file of weights that come in an installed package
    replaced: tuple[str, ...] = ()  # tensors whose names start so belong to heads, which are not loaded
    adapt: Callable[[Mapping[str, Tensor], str, int], dict[str, Tensor]] | None = (
        None  # of weights: their tensors, model.weights, side of the images in px
    )
    pretrained: Callable[[int, str], nn.Module] | None = None  # the network with weights, loaded by its own library:
    # side of the images in px, model.weights (imagenet or a file)
    weights_here: Callable[[], bool] | None = None  # whether the ImageNet weights are on this machine
    note: str = ""  # what is said of it when it is built


BACKBONES: Registry[BackboneEntry] = Registry("model.name", "da6401.models.backbones")


@dataclass(frozen=True, kw_only=True)
class LibraryEntry:
    """A library of architectures, each a backbone by its name there. See models/libraries.py."""

    names: Callable[[], Sequence[str]]
    backbone: Callable[[str], BackboneEntry]  # model.arch -> its entry; UserError where there is none


LIBRARIES: Registry[LibraryEntry] = Registry("model.name", "da6401.models.libraries")

# Of plugins alone: see plugins/registered.py.
NETWORKS: Registry[Callable[..., nn.Module]] = Registry("model.name")
BLOCKS: Registry[Callable[..., nn.Module]] = Registry("model.name")
CALLBACKS: Registry[Callable[..., Any]] = Registry("callbacks")


# ---- data ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataSourceEntry:
    """Where images come from."""

    schema: type  # the dataclass of its keys, whose `source` is the name
    source: str  # "module:name" of what makes a data.sources.Source from those keys
    reads_files: bool = False  # its schema is a data_schema.ImageFiles: root, resize, cache_limit_gb, ...
    function: Callable[..., Any] | None = None  # of a plugin


DATA_SOURCES: Registry[DataSourceEntry] = Registry("data.source", "da6401.data.sources")

# Images (B, C, H, W), their rows (B, D) of the random table on the CPU, and AugmentationConfig: the changed images.
Step = Callable[["Tensor", "Tensor", Any], "Tensor"]


@dataclass(frozen=True, kw_only=True)
class AugmentationEntry:
    """A random change of training images."""

    step: Step
    keys: tuple[str, ...]  # of `augmentation`; the step is left out where all of them are at their defaults
    on_float: bool = False  # it takes float images in 0..1; else uint8 ones, as torchvision does it, and comes before
    order: int = 100  # among the steps on images of one kind
    own: str = ""  # of a plugin: its keys stand in augmentation.NAME, and its step takes them and a generator


AUGMENTATIONS: Registry[AugmentationEntry] = Registry(
    "augmentation",
    "da6401.data.augment.geometry",
    "da6401.data.augment.trivial_augment",
    "da6401.data.augment.colour",
    "da6401.data.augment.erasing",
)


def augmentation(name: str, *keys: str, on_float: bool = False, order: int = 100) -> Callable[[Step], Step]:
    """Register a step; the arguments are those of AugmentationEntry."""

    def decorate(step: Step) -> Step:
        AUGMENTATIONS.register(name, AugmentationEntry(step=step, keys=keys, on_float=on_float, order=order))
        return step

    return decorate


# ---- training -----------------------------------------------------------------------------------------------------

MakeOptimizer = Callable[[list[dict[str, Any]], Any], "Optimizer"]  # groups of parameters, and OptimizerConfig


@dataclass(frozen=True)
class OptimizerEntry:
    """How an optimizer is made, and the keys that its option sets."""

    make: MakeOptimizer
    defaults: Defaults = field(default_factory=dict)


OPTIMIZERS: Registry[OptimizerEntry] = Registry("optimizer.name", "da6401.training.optimizers")


def optimizer(name: str, **defaults: float) -> Callable[[MakeOptimizer], MakeOptimizer]:
    """Register a function that makes an optimizer; `optimizer=NAME` sets these defaults."""

    def decorate(make: MakeOptimizer) -> MakeOptimizer:
        OPTIMIZERS.register(name, OptimizerEntry(make, defaults))
        return make

    return decorate


@dataclass(frozen=True)
class Progress:
    """Where a step stands in the run, warm-up left out."""

    step: int  # from 0
    steps: int  # in all
    steps_per_epoch: int

    @property
    def share(self) -> float:
        """0 at the first step; below 1."""
        return self.step / max(1, self.steps)


Shape = Callable[[Any, Progress], float]  # ScheduleConfig -> the rate as a share of the highest
Rise = Callable[[float], float]  # share of the warm-up, above 0 to 1 -> the rate as a share of the highest


@dataclass(frozen=True)
class ScheduleEntry:
    """The shape of a learning-rate schedule after its warm-up, how the warm-up rises, and the keys its option sets."""

    shape: Shape
    rise: Rise
    defaults: Defaults = field(default_factory=dict)


SCHEDULES: Registry[ScheduleEntry] = Registry("schedule.name", "da6401.training.schedules")


def schedule(name: str, *, rise: Rise = float, **defaults: float) -> Callable[[Shape], Shape]:
    """Register a shape; the warm-up is linear unless `rise` says otherwise; `schedule=NAME` sets these defaults."""

    def decorate(shape: Shape) -> Shape:
        SCHEDULES.register(name, ScheduleEntry(shape, rise, defaults))
        return shape

    return decorate


# ---- metrics ------------------------------------------------------------------------------------------------------


Score = Callable[["Labels", "Probabilities"], float]  # a split's labels (N,) and probabilities (N, K) -> its value


@dataclass(frozen=True)
class MetricEntry:
    """A number of a finished run that a sweep can optimise: the field of its result of that name, or measured."""

    words: str
    maximise: bool
    form: str  # how a value is printed
    by_epoch: bool = False  # each epoch has its own, which a pruner can compare
    is_share: bool = False  # of the images: its interval is Wilson's
    of: Score | None = None  # of a split's answers: trainer.metric can name it, and every result has it


METRICS: Registry[MetricEntry] = Registry("sweep.objectives", "da6401.metrics.scores")
OF_VALIDATION = "val_"  # a metric of answers is an objective under its name with this before it
DECIMALS = 12  # that count: means of shares, and gaps such as 3/60, differ in their last bits by how they were computed


def metric(
    name: str, words: str, *, maximise: bool, form: str = "{:.4f}", is_share: bool = False
) -> Callable[[Score], Score]:
    """Register a metric of labels and probabilities: `trainer.metric=NAME`, `sweep.objectives=val_NAME`.

    The function raises UndefinedMetricError where it has no value.
    """

    def decorate(score: Score) -> Score:
        entry = MetricEntry(f"validation {words}", maximise, form, by_epoch=True, is_share=is_share, of=score)
        METRICS.register(OF_VALIDATION + name, entry)
        return score

    return decorate


class ScoreNames(Mapping[str, MetricEntry]):
    """The metrics of answers among METRICS, by the names that `trainer.metric` takes."""

    def __getitem__(self, name: str) -> MetricEntry:
        """Raises UserError, with all names, where there is no such metric."""
        if name not in set(self):
            raise UserError(f"trainer.metric={name}: must be one of {', '.join(self)}{did_you_mean(name, self)}")
        return METRICS[OF_VALIDATION + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(OF_VALIDATION) for name, entry in METRICS.entries.items() if entry.of)

    def __len__(self) -> int:
        return sum(1 for _ in self)


SCORES = ScoreNames()
