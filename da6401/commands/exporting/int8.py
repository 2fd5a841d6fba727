"""model.int8.onnx: weights and activations of 8 bits, calibrated on training images, measured on validation."""

# B batch, N images, K classes

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from da6401.commands.exporting.bias_correction import correct_biases
from da6401.commands.exporting.deployed import Answer
from da6401.commands.exporting.onnx_files import INPUT, ONNX, onnx_answer
from da6401.commands.exporting.shipped import accuracy_on
from da6401.config.schema import RunConfig
from da6401.config.splits import TRAIN, VALIDATION
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_training_data
from da6401.errors import DataError
from da6401.metrics.intervals import span, wilson

INT8 = "model.int8.onnx"
CALIBRATION = 256  # training images, drawn by the run's seed: more hardly move the ranges of the activations
WEIGHTED = ("Conv", "Gemm", "MatMul")
BATCH = 32  # images that are computed at once


@dataclass(frozen=True)
class Measured:
    """What 8 bits cost on the validation images."""

    images: int  # of validation
    accuracy: float
    accuracy_fp32: float
    differ: int  # images that get another class
    calibration_images: int  # of train
    split: str  # validation; train where the model was trained on them, too (trainer.train_on=all)

    def about(self) -> dict[str, Any]:
        """For model.json."""
        return {"file": INT8, **vars(self)}

    def __str__(self) -> str:
        # An interval is about new images, and none of these is new to a model that was trained on them.
        interval = f" ({span(wilson(self.accuracy, self.images))})" if self.split == VALIDATION else ""
        return (
            f"{accuracy_on(self.split)} {self.accuracy:.4f}{interval} beside fp32's "
            f"{self.accuracy_fp32:.4f}; {self.differ} of {self.images} images get another class (calibrated on "
            f"{self.calibration_images} training images)"
        )


@dataclass(frozen=True)
class Images:
    """What int8 needs of the run's data."""

    calibration_NCHW: torch.Tensor  # uint8
    validation: ImageSet
    split: str  # of Measured

    @classmethod
    def of(cls, cfg: RunConfig, class_names: Sequence[str]) -> Images:
        """Raises DataError where the run's data are not here, or have other classes."""
        data = load_training_data(cfg.data)
        if list(data.class_names) != list(class_names):
            raise DataError(
                f"data={cfg.data.source} has other classes than the model: --int8 needs the run's own data."
            )
        generator = torch.Generator().manual_seed(cfg.seed)
        chosen = torch.randperm(len(data.train.labels_N), generator=generator)[:CALIBRATION].sort().values
        split = TRAIN if cfg.trainer.train_on == "all" else VALIDATION
        return cls(data.train.images_NCHW[chosen], data.validation, split)


def write_int8(folder: Path, images: Images) -> None:
    """Make INT8 of the folder's model.onnx."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix=".int8-", dir=folder) as name:
        prepared = Path(name, "prepared.onnx")
        quant_pre_process(folder / ONNX, prepared, skip_symbolic_shape=True)
        pieces = torch.split(images.calibration_NCHW, BATCH)
        correct_biases(prepared, [piece.float().div_(255).numpy() for piece in pieces])
        quantize_static(
            prepared, folder / INT8, _Reader(images.calibration_NCHW), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_exclude=_outside(prepared),
            # The logits keep their digits: at 8 bits many classes would be equally probable.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )  # fmt: skip


def measure(folder: Path, images: Images, threads: int) -> Measured:
    """Both models on the whole validation split."""
    labels_N = images.validation.labels_N
    fp32_N, int8_N = (_classes(onnx_answer(folder / name, threads), images.validation) for name in (ONNX, INT8))
    count = len(labels_N)
    return Measured(
        images=count,
        accuracy=int((int8_N == labels_N).sum()) / count,
        accuracy_fp32=int((fp32_N == labels_N).sum()) / count,
        differ=int((int8_N != fp32_N).sum()),
        calibration_images=len(images.calibration_NCHW),
        split=images.split,
    )


def _classes(answer: Answer, images: ImageSet) -> torch.Tensor:
    places_N = torch.arange(len(images.labels_N))
    pieces = (images.images_NCHW[some].float().div_(255) for some in torch.split(places_N, BATCH))
    return torch.cat([answer(piece)[0].argmax(1) for piece in pieces])


class _Reader:
    """The calibration images, one at a time, as onnxruntime asks for them."""

    def __init__(self, images_NCHW: torch.Tensor) -> None:
        self.images_NCHW = images_NCHW
        self.rest = self._each()

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self.rest, None)

    def _each(self) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        for image in torch.split(self.images_NCHW, 1):
            yield {INPUT: image.float().div_(255).numpy()}


def _outside(path: Path) -> list[str]:
    """The nodes before the first layer with weights and after the last: normalisation, and means of probabilities."""
    import onnx

    nodes = list(onnx.load(path).graph.node)
    makers = {output: node.name for node in nodes for output in node.output}
    before = {node.name: {makers[each] for each in node.input if each in makers} for node in nodes}
    after: dict[str, set[str]] = {node.name: set() for node in nodes}
    for name, earlier in before.items():
        for each in earlier:
            after[each].add(name)
    weighted = {node.name for node in nodes if node.op_type in WEIGHTED}
    return sorted(set(before) - (_reached(weighted, before) & _reached(weighted, after)))


def _reached(start: set[str], edges: dict[str, set[str]]) -> set[str]:
    """The nodes of ``start``, and all that follow them along the edges."""
    found, rest = set(start), list(start)
    while rest:
        new = edges[rest.pop()] - found
        found |= new
        rest += new
    return found
