"""The keys of the models: a network from scratch, or a pretrained backbone. A part of ``schema.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from da6401.config.rule import key
from da6401.registry import BACKBONES, LIBRARIES, BackboneEntry

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "mish", "tanh"]
Organisation = Literal["same", "double", "halve"]
Pooling = Literal["max", "avg"]
TrainOnly = Literal["all", "norm"]
FeatureCache = Literal["auto", "on", "off"]
FeatureDtype = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A network from scratch, all of which trains: the CNN of Part A, and those of plugins."""

    name: str = key("", "the kind of network")

    @property
    def label(self) -> str:
        """The network's name, for messages."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class CnnConfig(NetworkConfig):
    """Part A: blocks of convolution, (batch norm,) activation and 2 x 2 pooling, a dense layer, one output a class."""

    name: Literal["cnn"] = key("cnn", "the kind of network")
    filters: int | list[int] = key(
        32, "filters of the first block (organisation says how they go on), or a list, one a block", low=1, high=8192
    )
    blocks: int = key(5, "number of blocks; a list of filters sets it instead", low=1, high=12)
    organisation: Organisation = key("double", "filters from block to block; a list of filters sets it instead")
    kernel_size: int | list[int] = key(
        3, "side of the convolution kernels, odd; or a list, one a block", unit="px", low=1, high=31
    )
    activation: Activation = key("relu", "nonlinearity of the blocks and the dense layer")
    batch_norm: bool = key(True, "batch normalisation after each convolution")
    pooling: Pooling = key("max", "2 x 2 pooling that ends each block")
    convolutions: int | list[int] = key(
        1,
        "convolutions of each block after the first, which has one (its maps are the largest); or a list, one a block",
        low=1,
        high=8,
    )
    residual: bool = key(False, "add a second convolution to each block and a shortcut around both")
    global_pool: bool = key(
        False, "average each feature map to one number before the dense layer, instead of flattening"
    )
    dense_width: int = key(128, "neurons of the dense layer; 0 leaves it out", low=0, high=65536)
    block_dropout: float = key(0.0, "probability of dropping a feature map at the end of a block", low=0, below=1)
    dropout: float = key(0.0, "probability of dropping a neuron before the output layer", low=0, below=1)


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """Part B: a backbone as a list of stages, and a new head."""

    name: str = key("googlenet", "the backbone", names=BACKBONES)
    weights: str = key("imagenet", "imagenet, none (train from scratch), or the path of a state_dict file", path=True)
    freeze_depth: int = key(
        0, "freeze the first k stages: 0 trains all, the number of stages only the head", low=0, high=64
    )
    freeze_last: int = key(
        0, "freeze the last m stages too: gradients flow through them to the trained stages before", low=0, high=64
    )
    train_only: TrainOnly = key(
        "all",
        "what trains in the stages that are not frozen: all, or only the normalisation layers; the head always trains",
    )
    head_epochs: int = key(
        0, "train the head alone for so many epochs first (arXiv 2202.10054)", unit="epochs", low=0, high=100_000
    )
    unfreeze_every: int = key(
        0,
        "after head_epochs, unfreeze one more stage every n epochs, the last first (arXiv 1801.06146); 0: all at once",
        unit="epochs",
        low=0,
        high=100_000,
    )
    dropout: float = key(0.2, "probability of dropping a feature before the head's linear layer", low=0, below=1)
    backbone_lr_factor: float = key(
        0.1, "learning rate of the backbone's trained stages as a multiple of optimizer.lr", low=0, high=100
    )
    stage_lr_decay: float = key(
        1.0, "learning rate of a stage as a multiple of that of the stage after it", above=0, high=1
    )
    feature_cache: FeatureCache = key(
        "auto",
        "compute the output of the frozen stages once and use it in all epochs and runs; auto: where the results stay "
        "the same and it saves time",
    )
    feature_views: int = key(
        1,
        "augmented views of each training image that the feature cache holds, the plain one among them; each epoch "
        "draws one. Without augmentation 1 is taken, with a flip alone 2: both are exact",
        low=1,
        high=1000,
    )
    feature_dtype: FeatureDtype = key("float32", "type of the stored features; float16 takes half the space and rounds")

    @property
    def backbone(self) -> BackboneEntry:
        """What is known of the backbone.

        Raises:
            UserError: there is none of this name.
        """
        return BACKBONES[self.name]

    @property
    def trains_stages(self) -> bool:
        """Whether more than the head trains.

        Raises:
            UserError: as ``backbone``.
        """
        return self.freeze_depth + self.freeze_last < len(self.backbone.stages)

    @property
    def label(self) -> str:
        """The backbone's name, for messages."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class LibraryConfig(PretrainedConfig):
    """Part B with a classification model of a library, cut into stages as its forward pass allows."""

    name: str = key("timm", "the library", names=LIBRARIES)
    arch: str = key("", "the library's name of the architecture; `da6401 models PATTERN` lists them")

    @property
    def backbone(self) -> BackboneEntry:
        """As PretrainedConfig."""
        return LIBRARIES[self.name].backbone(self.arch)

    @property
    def label(self) -> str:
        """As PretrainedConfig."""
        return self.arch


ModelConfig = CnnConfig | PretrainedConfig | LibraryConfig  # and a NetworkConfig of a plugin
