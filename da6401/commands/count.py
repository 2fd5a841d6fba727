"""`da6401 count`: parameters and multiply-accumulates of a configuration's network, layer by layer, as formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from torch import nn

from da6401.config.closed_form import closed_form_lines
from da6401.config.command_line import check_command_line
from da6401.config.schema import PretrainedConfig
from da6401.errors import UserError
from da6401.machine.terminal import table_console
from da6401.models.build import build_model
from da6401.models.counts import LayerCount, count

NORMS = (nn.BatchNorm2d, nn.LayerNorm)


def count_network(words: Sequence[str], *, classes: int) -> int:
    """Print the table of a network's layers with their formulas, and the totals.

    Args:
        words: KEY=VALUE as of `da6401 train`.
        classes: outputs of the network.

    Raises:
        UserError: a key or value is wrong, or there are fewer than two classes.
    """
    if classes < 2:
        raise UserError(f"--classes {classes}: a classifier has at least 2 classes")
    cfg = check_command_line(list(words), multirun=False).config
    if cfg is None:
        raise UserError("count takes one configuration; a sweep's trials print their own counts")
    network = cfg.model
    if isinstance(network, PretrainedConfig):
        network = dataclasses.replace(network, weights="none")  # numbers do not depend on them
    side = cfg.data.image_size
    model = build_model(network, num_classes=classes, image_size=side)
    modules = dict(model.named_modules())
    layers = count(model, side).layers
    table = Table(title=f"{cfg.model.name}, {side} x {side} px, {classes} classes", title_justify="left",
                  box=box.SIMPLE_HEAD)  # fmt: skip
    for heading in ("layer", "parameters", "multiply-accumulates"):
        table.add_column(heading, overflow="fold")
    for layer in layers:
        terms = terms_of(modules.get(layer.name), layer)
        numbers = (f"{layer.parameters:,}", f"{layer.macs:,}")
        cells = [f"{term} = {number}" if term else number for term, number in zip(terms, numbers, strict=True)]
        table.add_row(escape(layer.name.removeprefix("stages.")), *cells)
    console = table_console()
    console.print(table)
    parameters, macs = sum(layer.parameters for layer in layers), sum(layer.macs for layer in layers)
    console.print(f"{parameters:,} parameters; {macs:,} multiply-accumulates an image")
    for line in closed_form_lines(cfg, classes):
        console.print(escape(line))
    return 0


def terms_of(module: nn.Module | None, layer: LayerCount) -> tuple[str, str]:
    """A layer's parameters and MACs as products and sums of its sizes; "" where they have no such form here.

    Every text is arithmetic: with x read as times it gives the layer's numbers. A layer that runs twice, or never, or
    on parts of the image that are stacked as a batch, has other MACs than its output's shape says.
    """
    if isinstance(module, nn.Conv2d):
        high, wide = module.kernel_size
        kernel = f"{module.in_channels // module.groups} x {high} x {wide} x {module.out_channels}"
        bias = "" if module.bias is None else f" + {module.out_channels}"
        product = " x ".join([*map(str, layer.output_shape[1:]), kernel])
        once = layer.macs == math.prod(int(factor) for factor in product.split(" x "))
        return f"{kernel}{bias}", product if once else ""
    if isinstance(module, nn.Linear):
        product = f"{module.in_features} x {module.out_features}"
        if layer.macs != module.in_features * module.out_features:  # it runs for each token
            return product + ("" if module.bias is None else f" + {module.out_features}"), ""
        return product + ("" if module.bias is None else f" + {module.out_features}"), product
    if isinstance(module, NORMS) and layer.parameters:
        return f"2 x {layer.parameters // 2}", ""
    return "", ""
