"""Part A of the assignment: its questions on a CNN that is trained from scratch."""

from __future__ import annotations

import dataclasses

from da6401.config.closed_form import (
    BATCH_NORM,
    HALVINGS,
    MACS,
    PARAMETERS,
    SYMBOLS,
    by_formula,
    closed_form_lines,
    layer_formulas,
)
from da6401.config.compose import saved_config
from da6401.config.schema import CnnConfig, RunConfig
from da6401.errors import UserError
from da6401.redact import safe
from da6401.report.assignment_part import (
    Part,
    Section,
    members_blocks,
    needs,
    observations,
    picture_blocks,
    question,
    search_blocks,
    tested_blocks,
)
from da6401.report.blocks import Block, table, text
from da6401.report.run_record import RunRecord
from da6401.report.sweep_record import SweepRecord
from da6401.runs.run_folder import CONFIG

SWEEP = "da6401 train --multirun sweep=part_a data=folder data.root=path/to/images"
TITLES = (
    "Question 1: the network and its cost",
    "Question 2: the search",
    "Question 3: what the search shows",
    "Question 4: the best model on the test split",
)


def scratch_sections(part: Part | None) -> list[Section]:
    """The four questions, each with what the folders hold; what they do not hold names its command."""
    if part is None:
        missing = needs("Neither folder is a sweep or a run of Part A (model=cnn).", SWEEP)
        return [question(title, *missing) for title in TITLES]
    cost, search, seen, best = TITLES
    one = needs("This is one run, and the question asks for a search.", SWEEP)
    sweep, run = part.sweep, part.run
    if run is None:
        none = needs("There is no completed run here.", f"da6401 report {part.word}")
        ends = [question(cost, *none)], [question(best, *none)]
    else:
        looks = ("Predictions", "Filters", "Feature maps", "Guided backpropagation", "Gradient x input (")
        ends = (
            [question(cost, *_cost(part, run))],
            [question(best, *tested_blocks(part, run), *picture_blocks(part, run, *looks))],
        )
    middle = [
        question(search, *_split(run), *(search_blocks(sweep) if sweep else one)),
        question(seen, *(observations(sweep) if sweep else one)),
    ]
    return [*ends[0], *middle, *ends[1]]


def _cost(part: Part, run: RunRecord) -> list[Block]:
    """The closed form, its values over the searched filters, and the best network layer by layer."""
    blocks: list[Block] = [
        text(f"Parameters: {PARAMETERS}, and with batch norm{BATCH_NORM}. Multiply-accumulates: {MACS}. Here there are "
             f"{SYMBOLS}."),
    ]  # fmt: skip
    try:
        cfg = saved_config(run.folder / CONFIG)
    except UserError as error:
        return [*blocks, text(safe(error), "warning")]
    classes = len(run.receipt.get("class_names") or ()) or 10
    blocks += _over_filters(part.sweep, cfg, classes)
    lines = closed_form_lines(cfg, classes)
    if lines:
        blocks.append(text("The best network " + " ".join(line.strip() for line in lines)))
    blocks += [*members_blocks(part), *_layers(part.networks[0], cfg, classes)]
    return [*blocks, {"kind": "command", "text": _count_command(cfg, classes)}]


def _layers(run: RunRecord, cfg: RunConfig, classes: int) -> list[Block]:
    """The formulas of the best network's layers, and whether their sum is what training counted."""
    layers = layer_formulas(cfg, classes)
    if not layers or run.result is None:
        return []
    parameters, macs = sum(each.parameters for each in layers), sum(each.macs for each in layers)
    rows = [[each.name, each.parameters_text, each.parameters, each.macs_text, each.macs] for each in layers]
    rows.append(["sum", "", parameters, "", macs])
    agree = (parameters, macs) == (run.result.parameters, run.result.macs)
    said = (
        f"The network that was trained was counted to have {run.result.parameters:,} parameters and "
        f"{run.result.macs:,} multiply-accumulates an image{': the same.' if agree else ', which is not this sum.'}"
    )
    columns = ["layer", "parameters", "=", "multiply-accumulates", "="]
    return [table("The best network, layer by layer", columns, rows), text(said, "note" if agree else "warning")]


def _over_filters(sweep: SweepRecord | None, cfg: RunConfig, classes: int) -> list[Block]:
    """The formula's values at each number of filters that was tried."""
    net, side = cfg.model, cfg.data.image_size
    if type(net) is not CnnConfig or side % 2**HALVINGS or not net.dense_width or not isinstance(net.kernel_size, int):
        return []
    tried = [trial.params.get("model.filters") for trial in sweep.trials] if sweep else []
    own = [net.filters] if isinstance(net.filters, int) else []
    counts = sorted({each for each in [*tried, *own] if isinstance(each, int)})
    rows = [
        [m, net.kernel_size, net.dense_width, *by_formula(m, net.kernel_size, net.dense_width, side=side,
                                                         classes=classes, batch_norm=net.batch_norm)]
        for m in counts
    ]  # fmt: skip
    caption = f"The closed form at the filters that were tried: five equal blocks, {side} px, {classes} classes"
    columns = ["m filters", "k px", "n neurons", "parameters", "multiply-accumulates"]
    return [table(caption + (", batch norm" if net.batch_norm else ""), columns, rows)] if rows else []


def _count_command(cfg: RunConfig, classes: int) -> str:
    net = cfg.model
    words = [f"data.image_size={cfg.data.image_size}", f"--classes {classes}"]
    if type(net) is CnnConfig:
        no_effect = ("name", "activation", "pooling", "dropout", "block_dropout")
        names = [each.name for each in dataclasses.fields(net) if each.name not in no_effect]
        values = {name: getattr(net, name) for name in names}
        words = [f"model.{name}={str(value).lower().replace(' ', '')}" for name, value in values.items()] + words
    return "da6401 count " + " ".join(words)


def _split(run: RunRecord | None) -> list[Block]:
    """How many images validation has, of how many classes, and where they come from."""
    if run is None:
        return []
    said = []
    if found := run.predictions.get("validation"):
        counts = found.counts.sum(axis=1).tolist()
        said.append(f"Validation has n = {sum(counts)} images: {min(counts)} to {max(counts)} of each of "
                    f"{len(counts)} classes.")  # fmt: skip
    data = run.config.get("data")
    if isinstance(data, dict) and "val_fraction" in data:
        said.append(f"data.val_fraction={data['val_fraction']}, data.split_seed={data.get('split_seed')}.")
    said += [safe(note) for note in run.receipt.get("notes") or () if isinstance(note, str)]
    looks = len(run.looks)
    said.append(f"The best run's test split was looked at {looks} times." if looks != 1 else
                "The best run's test split was looked at once.")  # fmt: skip
    return [text(" ".join(said))]
