"""Parameters and multiply-accumulates of the plain CNN as formulas: plain arithmetic, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from da6401.config.cnn_shapes import convolutions_of, filters_of, kernels_of
from da6401.config.schema import CnnConfig, RunConfig

HALVINGS = 5  # blocks of the assignment's network: its maps end at H/32 x W/32
PARAMETERS = "m k^2 (3 + 4 m) + 5 m + n (S m + 1) + K (n + 1)"
BATCH_NORM = " + 10 m"  # of PARAMETERS, with batch norm
MACS = "H W m k^2 (3 + 85/256 m) + S m n + K n"
SYMBOLS = (
    "m filters of k x k px in each of five blocks, n neurons in the dense layer, K classes, images of H x W px, both "
    "multiples of 32, and S = (H/32)(W/32)"
)


@dataclass(frozen=True)
class LayerFormula:
    """A block or a dense layer; the texts are arithmetic whose value is the number beside them."""

    name: str
    parameters_text: str
    parameters: int
    macs_text: str
    macs: int


def by_formula(m: int, k: int, n: int, *, side: int, classes: int, batch_norm: bool) -> tuple[int, int]:
    """Parameters and MACs of the assignment's network by PARAMETERS and MACS; ``side`` is a multiple of 32."""
    cells = (side // 2**HALVINGS) ** 2
    norm = 10 * m if batch_norm else 0
    parameters = m * k**2 * (3 + 4 * m) + 5 * m + n * (cells * m + 1) + classes * (n + 1) + norm
    return parameters, side**2 * m * k**2 * (3 * 256 + 85 * m) // 256 + cells * m * n + classes * n


def closed_form_lines(cfg: RunConfig, classes: int) -> list[str]:
    """The assignment's formula with this network's numbers; [] for a network that it does not describe."""
    net, side = cfg.model, cfg.data.image_size
    if not is_plain(net) or net.global_pool or not net.dense_width:
        return []
    filters, kernels = set(filters_of(net)), set(kernels_of(net))
    if len(filters_of(net)) != HALVINGS or side % 2**HALVINGS or len(filters) > 1 or len(kernels) > 1:
        return []
    (m,), (k,), n, cells = filters, kernels, net.dense_width, (side // 2**HALVINGS) ** 2
    parameters, macs = by_formula(m, k, n, side=side, classes=classes, batch_norm=net.batch_norm)
    return [
        f"in closed form, with m={m} filters of k={k} px in five blocks, n={n} neurons, K={classes} classes, "
        f"H=W={side} px, S=(H/32)(W/32)={cells}:",
        f"  parameters = {PARAMETERS}{BATCH_NORM if net.batch_norm else ''} = {parameters:,}",
        f"  multiply-accumulates = {MACS} = {macs:,}",
    ]


def is_plain(net: object) -> TypeGuard[CnnConfig]:
    """Whether a network is blocks of one convolution and a pool, and nothing besides."""
    return type(net) is CnnConfig and net.name == "cnn" and not net.residual and set(convolutions_of(net)) == {1}


def layer_formulas(cfg: RunConfig, classes: int) -> list[LayerFormula]:
    """Each block and dense layer of a plain network of any filters and sizes; [] for another network."""
    net, side = cfg.model, cfg.data.image_size
    if not is_plain(net):
        return []
    layers, channels = [], 3
    for number, (count, kernel) in enumerate(zip(filters_of(net), kernels_of(net), strict=True), start=1):
        weights, product = channels * kernel**2 * count, f"{channels} x {kernel} x {kernel} x {count}"
        norm = f" + 2 x {count}" if net.batch_norm else ""
        parameters = weights + count * (3 if net.batch_norm else 1)
        text = f"{product} + {count}{norm}"
        layers.append(
            LayerFormula(f"block {number}", text, parameters, f"{side} x {side} x {product}", side**2 * weights)
        )
        channels, side = count, side // 2
    features = channels if net.global_pool else channels * side**2
    widths = {"dense": net.dense_width, "output": classes} if net.dense_width else {"output": classes}
    for name, width in widths.items():
        product = f"{features} x {width}"
        layers.append(LayerFormula(name, f"{product} + {width}", features * width + width, product, features * width))
        features = width
    return layers
