"""Multiply-accumulates (MACs) of one of torch's operations, from the shapes of its tensors."""

# T tokens, E width of a token, N rows, K columns

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def operation_macs(operation: str, arguments: tuple[Any, ...], result: Any) -> int:
    """MACs of one of torch's operations; 0 of one that is neither a convolution nor a product of matrices."""
    if operation.startswith(ATTENTION):
        queries, keys, values = arguments[:3]  # (..., T, E) each
        return int(queries.shape[:-1].numel() * keys.shape[-2] * (keys.shape[-1] + values.shape[-1]))
    formula = _MACS.get(operation.partition(".")[0])
    return formula(arguments, result) if formula else 0


def _convolution_macs(arguments: tuple[Any, ...], result: Tensor) -> int:
    """Each value takes part in one column of the weights: of the output, or of the input if it is transposed."""
    x, weight, transposed = arguments[0], arguments[1], arguments[6]
    places = x if transposed else result
    return int(places.numel() // places.shape[1] * weight.numel())


def _product_macs(first: int) -> Callable[[tuple[Any, ...], Tensor], int]:
    """Of a product of matrices (..., N, T) and (..., T, K), of which the first stands at that place."""
    return lambda arguments, result: int(result.numel() * arguments[first].shape[-1])


# Fused. The first one's name goes on with the device's kernel.
ATTENTION = ("aten::_scaled_dot_product_", "flex_attention")
_MACS: dict[str, Callable[[tuple[Any, ...], Any], int]] = {
    "aten::convolution": _convolution_macs,
    "aten::_convolution": _convolution_macs,
    "aten::mm": _product_macs(0),
    "aten::bmm": _product_macs(0),
    "aten::addmm": _product_macs(1),
    "aten::baddbmm": _product_macs(1),
}
