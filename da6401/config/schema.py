"""Every configuration key: its type, default, unit and range. Defaults are stated only here; YAML states what differs.

Plain dataclasses: importing this module needs neither torch nor Hydra, so builders take these values and tests make
them by hand. The keys of the models are in ``model_schema.py``. ``validate.py`` turns a composed tree into these types;
``docs/configuration.md`` is generated from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from da6401.config.data_schema import (
    DataConfig,
    DigitsConfig,
    FolderConfig,
    FolderLayout,
    HuggingFaceConfig,
    ImageFiles,
    OwnDataConfig,
    Resize,
    ShardsConfig,
    SyntheticConfig,
    TableConfig,
    TableKeys,
    TorchvisionConfig,
)
from da6401.config.model_schema import (
    Activation,
    CnnConfig,
    FeatureDtype,
    LibraryConfig,
    ModelConfig,
    NetworkConfig,
    Organisation,
    Pooling,
    PretrainedConfig,
)
from da6401.config.rule import key
from da6401.config.splits import ValRole
from da6401.config.sweep_schema import SweepConfig
from da6401.registry import DATA_SOURCES, OPTIMIZERS, SCHEDULES, SCORES

__all__ = [  # of other modules; what is defined below needs no mention
    "Activation",
    "CnnConfig",
    "DataConfig",
    "DigitsConfig",
    "FeatureDtype",
    "FolderConfig",
    "FolderLayout",
    "HuggingFaceConfig",
    "ImageFiles",
    "LibraryConfig",
    "ModelConfig",
    "NetworkConfig",
    "Organisation",
    "OwnDataConfig",
    "Pooling",
    "PretrainedConfig",
    "Resize",
    "ShardsConfig",
    "SweepConfig",
    "SyntheticConfig",
    "TableConfig",
    "TableKeys",
    "TorchvisionConfig",
    "ValRole",
]

Precision = Literal["fp32", "bf16", "fp16"]


# ---- augmentation, optimizer, schedule, trainer, tracking ---------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes of the training images, drawn anew for each image; validation and test images stay unchanged."""

    flip: float = key(0.0, "probability of a horizontal flip", low=0, high=1)
    crop_scale: float = key(
        1.0, "least share of the area that a random resized crop keeps; 1 crops nothing", above=0, high=1
    )
    crop_ratio: float = key(1.0, "largest aspect ratio of that crop (and its inverse the smallest)", low=1, high=4)
    rotate: float = key(0.0, "largest rotation to either side", unit="degrees", low=0, high=180)
    brightness: float = key(0.0, "largest relative change of brightness", low=0, high=1)
    contrast: float = key(0.0, "largest relative change of contrast", low=0, high=1)
    saturation: float = key(0.0, "largest relative change of saturation", low=0, high=1)
    hue: float = key(0.0, "largest shift of the hue", unit="turns of the colour circle", low=0, high=0.5)
    trivial_augment: bool = key(
        False, "TrivialAugment Wide: one random change of fourteen, shear to equalize, at a random strength"
    )
    erase: float = key(0.0, "probability of erasing a random rectangle (2 to 33% of the area)", low=0, high=1)
    mixup: float = key(0.0, "alpha of mixup's Beta distribution; 0 is off", low=0, high=10)
    cutmix: float = key(
        0.0, "alpha of CutMix's Beta distribution; 0 is off; with mixup, each batch draws one", low=0, high=10
    )
    plain_end: float = key(
        0.0,
        "share of the epochs, the last ones, in which only the flip is left: a crop magnifies, and the network "
        "ends on images like those it is evaluated on (arXiv 1906.06423)",
        low=0,
        high=1,
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How the weights are updated."""

    name: str = key("adamw", "the optimizer", names=OPTIMIZERS)
    lr: float = key(1e-3, "learning rate, the schedule's highest", unit="per step", above=0, high=100)
    weight_decay: float = key(
        0.0, "weight decay: decoupled for adamw, L2 for the others; biases and norms have none", low=0, high=10
    )
    momentum: float = key(0.9, "momentum of sgd (Nesterov) and rmsprop; beta 1 of the Adam family", low=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, computed for each step."""

    name: str = key("constant", "the shape", names=SCHEDULES)
    warmup: float = key(
        0.0, "share of the run in which the rate rises before the shape starts", unit="of all steps", low=0, below=1
    )
    final_factor: float = key(
        0.0,
        "what the rate of cosine and onecycle falls to by the end of the last step, as a share of the highest",
        low=0,
        high=1,
    )
    step_epochs: int = key(10, "step: epochs between two drops", unit="epochs", low=1, high=10_000)
    step_factor: float = key(0.1, "step: what a drop multiplies the rate by", above=0, high=1)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The training loop."""

    epochs: int = key(10, "passes over the training images", unit="epochs", low=1, high=100_000)
    batch_size: int = key(
        64, "images in a step; the last, smaller batch of an epoch is kept", unit="images", low=1, high=65536
    )
    threads: int = key(
        0, "CPU threads of torch; 0 takes all cores that this process may use (affinity, a container's limit), or one "
        "beside a GPU",
        low=0, high=1024,
    )  # fmt: skip
    devices: int = key(
        1, "GPUs (on a CPU: processes) that train the run together, each on its part of every batch, with the same "
        "order, augmentation and steps", low=1, high=64,
    )  # fmt: skip
    precision: Precision = key("fp32", "autocast of the forward pass; fp16 needs CUDA (its gradients are scaled)")
    channels_last: bool = key(True, "NHWC memory layout: faster convolutions on CPU and GPU")
    compile: bool = key(False, "torch.compile the model: minutes of start-up, for long runs")
    deterministic: bool = key(
        True, "the same bits each time; free on CPU; on CUDA it costs speed (no search for the fastest convolution)"
    )
    label_smoothing: float = key(0.0, "share of the target spread over all classes", low=0, below=1)
    clip_norm: float = key(0.0, "largest norm of the gradient; 0 is off", low=0, high=1e6)
    class_weights: bool = key(False, "weight each class by the inverse of its count in train")
    class_weights_by: Literal["inverse", "effective"] = key(
        "inverse", "of class_weights: the inverse of the count, or of the effective number (arXiv 1901.05555)"
    )
    effective_beta: float = key(
        0.999, "of the effective number: 0 weighs all classes alike, towards 1 they are inverse to the counts",
        low=0, below=1,
    )  # fmt: skip
    sampler: Literal["shuffle", "balanced"] = key(
        "shuffle", "balanced draws each class as often as any other, and so some images several times in an epoch"
    )
    logit_adjustment: float = key(
        0.0, "tau of logit adjustment: in training tau log(share of the class) is added (arXiv 2007.07314); 0 is off",
        low=0, high=10,
    )  # fmt: skip
    focal_gamma: float = key(
        0.0, "gamma of focal loss: images that are predicted well count less (arXiv 1708.02002); 0 is off",
        low=0, high=10,
    )  # fmt: skip
    ema_decay: float = key(
        0.0, "decay of the weights' moving average, used for validation and kept; 0 is off", low=0, below=1
    )
    average_end: float = key(
        0.0, "share of the epochs, the last ones, whose weights are also averaged, into checkpoints/average.pt: a race "
        "hands them over where the validation images show a gain; 0 is off",
        low=0, high=1,
    )  # fmt: skip
    metric: str = key(
        "accuracy", "of validation, by which the best epoch, early stopping, pruning and a sweep's winner are chosen",
        names=SCORES,
    )  # fmt: skip
    train_on: Literal["train", "all"] = key(
        "train", "all trains on the validation images too: the last epoch is kept, and the test split alone can tell "
        "how good it is"
    )  # fmt: skip
    patience: int = key(
        0,
        "stop after so many epochs without a better trainer.metric; 0 is off",
        unit="epochs",
        low=0,
        high=100_000,
    )
    on_oom: Literal["accumulate", "fail"] = key(
        "accumulate", "where a batch does not fit into the GPU's memory: compute it in parts and add up the gradients "
        "(batch norm sees each part alone), or end the run"
    )  # fmt: skip
    checkpoint_minutes: float = key(
        10.0, "time between writes of last.pt in an epoch; 0: only at its end", unit="minutes", low=0, high=10_000
    )
    resume: Literal["auto", "never"] = key(
        "auto", "auto continues an unfinished run of the same config; never starts again, in a new folder"
    )
    progress: bool = key(True, "show a progress bar where the output is a terminal")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where metrics are sent, besides the run folder."""

    backend: Literal["local", "wandb"] = key("local", "local: the run folder alone; wandb: Weights & Biases as well")
    project: str = key(
        "da6401",
        "W&B project",
        pattern=r"[^/\\#?%:]{1,128}",
        shape="a name of 1 to 128 characters without / \\ # ? % :",
    )
    entity: str = key("", "W&B user or team; empty takes the account's own")
    mode: Literal["offline", "online"] = key("offline", "offline writes files for `wandb sync`; online needs a login")
    timeout: float = key(
        30.0,
        "how long a tracker that does not answer may delay the run, in total, before it is switched off",
        unit="s",
        above=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """The keys of the metrics that plugins bring, each below its name."""


@dataclass(frozen=True, kw_only=True)
class CallbacksConfig:
    """The keys of the callbacks that plugins bring, each below its name; `callbacks=NAME` switches one on."""


# ---- the whole ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    seed: int = key(0, "seed of initial weights, batch order, augmentation and dropout", low=0, high=2**32 - 1)
    device: str = key(
        "auto",
        "auto takes CUDA where it is found",
        pattern=r"auto|cpu|cuda(:\d+)?",
        shape="auto, cpu, cuda or cuda:<number>",
    )
    study: str = key(
        "default", "a sweep's name: its folder under outputs/sweeps", pattern=r"[A-Za-z0-9][\w.+-]{0,99}",
        shape="letters, digits and _ . + -, at most 100, starting with a letter or digit",
    )  # fmt: skip
    model: ModelConfig = field(default_factory=CnnConfig)
    data: DataConfig = field(default_factory=DigitsConfig, metadata={"variants": DATA_SOURCES})
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
