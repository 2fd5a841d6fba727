"""Biases that make up for the mean error of weights of 8 bits: without them the errors of many layers add up.

The method is that of Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction
(arXiv:1906.04721), section 4.2, with means that are measured on images.
"""

# B batch, N images, I and O input and output channels

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
LEVELS = 127  # of a symmetric scale of 8 bits, on each side of 0
MEAN = "_mean_over_pixels"


def correct_biases(path: Path, batches: Sequence[Array]) -> None:
    """Subtract from each bias of an ONNX file what rounding the weights adds to its output in the mean.

    Args:
        batches: images as the model takes them.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    values = {each.name: each for each in model.graph.initializer}
    layers: dict[tuple[str, str], list[Any]] = defaultdict(list)  # by weights and bias, which mirror images share
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) == 3 and set(node.input[1:]) <= values.keys():
            layers[node.input[1], node.input[2]].append(node)
    means = _means(model, sorted({node.input[0] for nodes in layers.values() for node in nodes}), batches)
    for (weights, bias), nodes in layers.items():
        mean_I = np.mean([means[node.input[0]] for node in nodes], axis=0)
        shift_O = _shift(nodes[0], numpy_helper.to_array(values[weights]), mean_I)
        corrected_O = numpy_helper.to_array(values[bias]) - shift_O
        values[bias].CopyFrom(numpy_helper.from_array(corrected_O.astype(np.float32), bias))
    onnx.save(model, path)


def _shift(node: Any, weights: Array, mean_I: Array) -> Array:
    """(O,): the mean of a layer's output with rounded weights, less that with its own."""
    given = {each.name: each.i for each in node.attribute}
    if node.op_type == "Gemm":
        weights = weights if given.get("transB") else weights.T
    groups, outputs = given.get("group", 1), len(weights)
    flat = weights.reshape(outputs, -1)
    scale_O1 = np.maximum(np.abs(flat).max(axis=1, keepdims=True), 1e-12) / LEVELS
    error_OI = (np.round(flat / scale_O1) * scale_O1 - flat).reshape(*weights.shape[:2], -1).sum(axis=2)
    inputs_OI = np.repeat(mean_I.reshape(groups, -1), outputs // groups, axis=0)
    shift_O: Array = (error_OI * inputs_OI).sum(axis=1)
    return shift_O


def _means(model: Any, names: Sequence[str], batches: Sequence[Array]) -> dict[str, Array]:
    """(I,) of each tensor: its mean over images and pixels."""
    import onnxruntime
    from onnx import ModelProto, TensorProto, helper

    widened = ModelProto()
    widened.CopyFrom(model)
    convolved = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    wanted = [name + MEAN if name in convolved else name for name in names]
    for name, mean in zip(names, wanted, strict=True):
        if mean != name:
            widened.graph.node.append(helper.make_node("GlobalAveragePool", [name], [mean]))
        widened.graph.output.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(widened.SerializeToString(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    found = [session.run(wanted, {entry.name: batch}) for batch in batches]
    return {
        name: np.concatenate([each[place].reshape(len(each[place]), -1) for each in found]).mean(axis=0)
        for place, name in enumerate(names)
    }
