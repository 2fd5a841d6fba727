"""Biases that make up for rounded weights: the mean output of each layer is that of its own weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402  after the skip

from da6401.commands.exporting.bias_correction import LEVELS, correct_biases  # noqa: E402

Array = npt.NDArray[np.float32]
PIXELS = np.random.default_rng(0).random((7, 4, 5, 6), dtype=np.float32)


def drawn(*shape: int, seed: int) -> Array:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    values[0] = 0  # a channel that is off has no scale
    return values


def file(path: Path, *, transposed: bool) -> None:
    """A convolution in two groups, used on the images and on their squares, the mean over pixels, a linear layer."""
    weights, linear = drawn(6, 2, 1, 1, seed=1), drawn(3, 6, seed=2)
    constants = {"w": weights, "b": drawn(6, seed=3), "v": linear if transposed else linear.T, "c": drawn(3, seed=4)}
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("Conv", ["x", "w", "b"], ["one"], group=2),
        helper.make_node("Conv", ["squares", "w", "b"], ["two"], group=2),
        helper.make_node("Add", ["one", "two"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], ["y"], transB=int(transposed)),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 5, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "sum")],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def means(path: Path, *, rounded: tuple[str, ...]) -> tuple[Array, Array]:
    """(3,) and (6,): the mean outputs of the linear layer and of both convolutions, with these weights rounded."""
    import onnxruntime

    model = onnx.load(path)
    for each in model.graph.initializer:
        if each.name in rounded:
            values = numpy_helper.to_array(each)
            output = 1 if each.name == "v" and values.shape == (6, 3) else 0
            others = tuple(axis for axis in range(values.ndim) if axis != output)
            scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / LEVELS
            each.CopyFrom(numpy_helper.from_array((np.round(values / scale) * scale).astype(np.float32), each.name))
    y, both = onnxruntime.InferenceSession(model.SerializeToString()).run(["y", "sum"], {"x": PIXELS})
    return y.mean(axis=0), both.mean(axis=(0, 2, 3))


@pytest.mark.parametrize("transposed", [True, False])
def test_the_mean_output_is_that_of_the_weights_before_they_are_rounded(transposed: bool, tmp_path: Path) -> None:
    path, before = tmp_path / "a.onnx", tmp_path / "before.onnx"
    for each in (path, before):
        file(each, transposed=transposed)
    correct_biases(path, [PIXELS[:5], PIXELS[5:]])  # the last batch is smaller
    exact_y, exact_sum = means(before, rounded=())
    assert means(path, rounded=("w",))[1] == pytest.approx(exact_sum, abs=1e-5)
    assert means(before, rounded=("w",))[1] != pytest.approx(exact_sum, abs=1e-4), "rounding does move it"
    assert means(path, rounded=("w", "v"))[0] == pytest.approx(exact_y, abs=1e-5)
    assert means(before, rounded=("w", "v"))[0] != pytest.approx(exact_y, abs=1e-4)
