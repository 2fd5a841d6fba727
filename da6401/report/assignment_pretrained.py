"""Part B of the assignment: a pretrained network, which of its stages are frozen, and Part A beside it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from da6401.metrics.paired import on_same_images
from da6401.redact import duration, safe
from da6401.report import run_figures
from da6401.report.assignment_part import (
    Part,
    Section,
    answers_of,
    members_blocks,
    needs,
    observations,
    picked,
    question,
    search_blocks,
    tested_blocks,
)
from da6401.report.blocks import Block, facts, table, text
from da6401.report.paired_lines import paired_lines
from da6401.report.parameter_figures import slices
from da6401.report.run_record import RunRecord
from da6401.report.sweep_record import SweepRecord, TrialRecord

SWEEP = "da6401 train --multirun sweep=part_b model=googlenet data=folder data.root=path/to/images"
DEPTHS = "da6401 train --multirun experiment=freeze_curve model={model} data=folder data.root=path/to/images"
STRATEGIES = 3  # that the assignment asks for, at least
TITLES = (
    "Question 1: the pretrained network, its input and its head",
    "Question 2: freezing strategies",
    "Question 3: fine-tuned against from scratch",
)


def pretrained_sections(part: Part | None, scratch: Part | None) -> list[Section]:
    """The three questions, each with what the folders hold; what they do not hold names its command."""
    if part is None:
        missing = needs("Neither folder is a sweep or a run of Part B (a pretrained backbone).", SWEEP)
        return [question(title, *missing) for title in TITLES]
    network, freezing, against = TITLES
    run = part.run
    if run is None:
        none = needs("There is no completed run here.", f"da6401 report {part.word}")
        return [question(title, *none) for title in TITLES]
    ours = part.sweep
    search = [*search_blocks(ours), *observations(ours)] if ours else []
    return [
        question(network, *_network(part, run)),
        question(freezing, *_strategies(part, run), *search),
        question(against, *tested_blocks(part, run), *_against(part, run, scratch)),
    ]


def _network(part: Part, run: RunRecord) -> list[Block]:
    model, data = _node(run, "model"), _node(run, "data")
    stages = [each for each in run.receipt.get("stages") or () if isinstance(each, Mapping)]
    classes = run.receipt.get("class_names") or ()
    head = next((each for each in stages if each.get("name") == "head"), None)
    name = safe(model.get("arch") or model.get("name"))
    items: list[tuple[str, Any, str]] = [
        ("Network", name, f"weights: {safe(model.get('weights'))}"),
        ("Images", f"{data.get('image_size')} x {data.get('image_size')} px", "each is resized to it"),
        ("Stages", len(stages) - (head is not None), "before the head"),
    ]
    if head is not None:
        items.append(("Head", f"{len(classes)} outputs", f"{head.get('parameters'):,} parameters, new: the 1000-way "
                      "head of ImageNet is replaced"))  # fmt: skip
    return [facts(*items), *members_blocks(part), *picked(part.run_sections, "Stages")]


def strategy_of(config: Mapping[str, Any], stages: int) -> str:
    """How a run froze, in words, from its config.

    Args:
        stages: of the backbone, without the head; 0 where that is not known.
    """
    model = config.get("model")
    model = model if isinstance(model, Mapping) else {}
    depth = model.get("freeze_depth", 0)
    words = ["all stages train"]
    if depth:
        of_all = f" of {stages}" if stages else ""
        words = ["the head alone trains" if depth == stages else f"the first {depth}{of_all} stages are frozen"]
    if model.get("freeze_last"):
        words.append(f"the last {model['freeze_last']} too")
    if model.get("train_only", "all") != "all":
        words.append(f"only {model['train_only']} layers train")
    if model.get("head_epochs"):
        words.append(f"the head first, for {model['head_epochs']} epochs")
    if model.get("unfreeze_every"):
        words.append(f"one more stage every {model['unfreeze_every']} epochs")
    if model.get("stage_lr_decay", 1.0) != 1.0:
        words.append(f"rates decay by {model['stage_lr_decay']} a stage")
    return ", ".join(words)


def _strategies(part: Part, run: RunRecord) -> list[Block]:
    """The completed trials by how they froze."""
    if part.sweep is None:
        own = strategy_of(run.config, _stages(run))
        return needs(f"This is one run with one strategy: {own}.", _depths(run))
    metric = part.sweep.objective.metrics[0]
    objective = part.sweep.objective.by(metric)
    groups: dict[str, list[TrialRecord]] = {}
    for trial in part.complete:
        if trial.run.config:
            groups.setdefault(strategy_of(trial.run.config, _stages(trial.run)), []).append(trial)
    rows: list[list[Any]] = []
    for name, trials in groups.items():
        reached = [value for trial in trials if (value := trial.reached(metric)) is not None]
        seconds = [trial.run.result.seconds for trial in trials if trial.run.result]
        trained = {sum(each.get("trainable_parameters", 0) for each in trial.run.receipt.get("stages") or ())
                   for trial in trials}  # fmt: skip
        best = next(iter(objective.order(reached, lambda value: [value])), None)
        rows.append([name, len(trials), None if not reached else statistics.fmean(reached), best,
                     " or ".join(f"{each:,}" for each in sorted(trained)),
                     round(statistics.fmean(seconds), 1) if seconds else None])  # fmt: skip
    unknown = [row for row in rows if row[3] is None]
    rows = [*objective.order((row for row in rows if row[3] is not None), lambda row: [row[3]]), *unknown]
    columns = ["strategy", "trials", "mean", "best", "trained parameters", "seconds of a run"]
    blocks: list[Block] = [table(f"{len(rows)} strategies, the best first", columns, rows)]
    blocks += [each for each in slices(part.sweep, metric) if each["title"] == "model.freeze_depth"]
    if len(rows) < STRATEGIES:
        said = f"The assignment asks for at least {STRATEGIES} strategies, and the completed trials have {len(rows)}."
        blocks += needs(said, _depths(run))
    return blocks


def _against(part: Part, run: RunRecord, scratch: Part | None) -> list[Block]:
    """Both winners side by side: accuracy, cost, budget, curves, and the paired test on the same images."""
    if scratch is None or scratch.run is None:
        from da6401.report.assignment_scratch import SWEEP as COMMAND

        return needs("There is no run from scratch to compare with.", COMMAND)
    rows = []
    for name, each, own in (("from scratch", scratch, scratch.run), ("fine-tuned", part, run)):
        result = own.result
        rows.append([
            name, safe(_node(own, "model").get("arch") or _node(own, "model").get("name")),
            answers_of(own, "validation") or None, answers_of(own, "test") or f"da6401 evaluate {each.word}",
            result and result.parameters, result and result.macs, each.seconds and duration(each.seconds),
            *_budget(each.sweep, own),
        ])  # fmt: skip
    names = (
        *("network", "validation accuracy", "test accuracy", "parameters", "multiply-accumulates", "time of the run"),
        *("trials", "epochs in all", "training time in all"),
    )
    sides = list(zip(names, *(row[1:] for row in rows), strict=True))
    both = {"from scratch": scratch.run, "fine-tuned": run}
    blocks: list[Block] = [table("Both winners", ["", *(row[0] for row in rows)], sides), run_figures.together(both)]
    splits = set(scratch.run.predictions) & set(run.predictions)
    same = [split for split in splits if on_same_images(scratch.run.predictions[split], run.predictions[split])]
    if same:
        blocks += [text(line) for line in paired_lines("AB", [scratch.run, run])]
        blocks.append(text("A is the run from scratch, B the fine-tuned one."))
    else:
        blocks.append(text("The two were not asked about the same images, so there is no paired test."))
    return blocks


def _budget(sweep: SweepRecord | None, run: RunRecord) -> list[Any]:
    runs = [trial.run for trial in sweep.trials] if sweep else [run]
    seconds = sum(each.result.seconds for each in runs if each.result)
    return [len(runs), sum(each.epochs_run for each in runs), duration(seconds)]


def _depths(run: RunRecord) -> str:
    return DEPTHS.format(model=safe(_node(run, "model").get("name")))


def _stages(run: RunRecord) -> int:
    stages = [each for each in run.receipt.get("stages") or () if isinstance(each, Mapping)]
    return sum(each.get("name") != "head" for each in stages)


def _node(run: RunRecord, name: str) -> Mapping[str, Any]:
    found = run.config.get(name)
    return found if isinstance(found, Mapping) else {}
