"""The page's sections on a run, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from da6401.metrics.intervals import interval_of, span, wilson
from da6401.metrics.scores import scores_of
from da6401.redact import duration, safe
from da6401.registry import SCORES
from da6401.report import run_figures
from da6401.report.blocks import Block, command, facts, section, table, text
from da6401.report.charts import number
from da6401.report.explanations import pictures
from da6401.report.run_record import RunRecord
from da6401.runs.looks import choice_warnings, times
from da6401.runs.predictions import Predictions
from da6401.runs.run_folder import flat

MISTAKES = 15  # rows of the table, the most confident ones


def run_sections(run: RunRecord) -> list[dict[str, Any]]:
    result = run.result
    notes = []
    if result is None:
        notes.append(text("This run is unfinished: there is no result.json yet.", "warning"))
    elif result.status != "completed":
        notes.append(text(f"This run did not complete ({result.status}): {safe(result.reason)}", "warning"))
    if run.folds:
        notes.append(text(f"A trial of {len(run.folds)} folds, with no network of its own: its metrics are means over "
                          "the folds. The tables below are of the answers of all folds together, whose metrics can "
                          "differ from the means."))  # fmt: skip
    if run.looks:
        notes += [text(each, "warning") for each in choice_warnings(run.folder)]
    sections = [section("Result", *notes, _reached(run), command(run.folder) if run.config else None, _looks(run))]
    if run.epochs:
        charts = run_figures.run_curves(run)
        sections.append(section("Curves", {"kind": "charts", "items": charts}))
    if run.predictions:
        sections.append(section("Metrics", _metrics(run)))
    split = next(iter(run.predictions), None)
    if split is None:
        remedy = "da6401 evaluate writes those of the test split" if result else "they come with the end of the run"
        sections.append(section("Predictions", text(f"There are no predictions in this folder yet; {remedy}.")))
    else:
        found = run.predictions[split]
        where = "The answers of all folds together" if run.folds else f"On the {split} split"
        which = text(f"{where}, n = {len(found.labels_N)} images.")
        sections += [
            section("Confusion matrix", which, run_figures.confusion(found)),
            section("Classes", which, _classes(found)),
            section("Calibration", which, run_figures.reliability(found, run.temperature)),
            section("Confident mistakes", which, _mistakes(found)),
        ]
    sections.append(section("Stages", _stages(run)))
    if explanations := pictures(run.folder):
        sections.append(section("Explanations", *explanations))
    receipt = {key: value for key, value in run.receipt.items() if key not in ("stages", "class_names")}
    if receipt:
        rows = list(flat(receipt).items())
        sections.append(section("Receipt", table("What the numbers depend on", ["entry", "value"], rows)))
    if run.config:
        whole = table("config.yaml", ["key", "value"], list(flat(run.config).items()))
        sections.append(section("Config", {**whole, "folded": True}))
    return sections


def _reached(run: RunRecord) -> Block:
    result = run.result
    if result is None:
        last = run.epochs[-1] if run.epochs else {}
        value = last.get("val_accuracy")
        return facts(("Validation accuracy so far", number(value), f"epoch {len(run.epochs)}"))
    epoch = f"epoch {result.best_epoch}" if result.best_epoch else "mean over folds"
    shares: list[tuple[str, Any, str]] = []
    for split, value, note in (("Test", result.test_accuracy, f"looked at {times(len(run.looks))}"),
                               ("Validation", result.val_accuracy, epoch)):  # fmt: skip
        if value is not None:
            if found := run.predictions.get(split.lower()):
                count = len(found.labels_N)
                note += f", {span(wilson(value, count))}, n = {count}"
            shares.append((f"{split} accuracy", number(value), note))
    speed = [line["images_per_second"] for line in run.epochs if "images_per_second" in line]
    fast = f"{result.epochs_run} epochs, {max(speed):,.0f} images/s" if speed else f"{result.epochs_run} epochs"
    name = str(run.config.get("model", {}).get("name", ""))
    return facts(*shares, ("Parameters", result.parameters, name),
                  ("Multiply-accumulates", result.macs, "of one image"),
                  ("Time", duration(result.seconds), fast))  # fmt: skip


def _looks(run: RunRecord) -> Block:
    """The looks at the test split."""
    if not run.looks:
        return text("The test split has not been looked at for this run.")
    rows = [[look.time or "not recorded", look.verb, look.purpose] for look in run.looks]
    title = f"The test split was looked at {times(len(rows))}"
    return {**table(title, ["time (UTC)", "by da6401", "purpose"], rows), "folded": True}


def _metrics(run: RunRecord) -> Block:
    """Every metric of the answers, with its interval; what has no value says why."""
    rows = []
    scored = {split: scores_of(found) for split, found in run.predictions.items()}
    chosen = (run.config.get("trainer") or {}).get("metric", "accuracy")
    for name, entry in SCORES.items():
        row: list[Any] = [entry.words.removeprefix("validation ") + (" (trainer.metric)" if name == chosen else "")]
        for split, found in run.predictions.items():
            value = scored[split].values[name]
            interval = None if value is None else interval_of(name, found)
            row += [scored[split].undefined.get(name, "") if value is None else number(value),
                    "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"]  # fmt: skip
        rows.append(row)
    heads = [head for split, found in run.predictions.items()
             for head in (f"{'all folds together' if run.folds else split}, n = {len(found.labels_N)}",
                          "95% interval")]  # fmt: skip
    return table("Metrics (intervals: Wilson's for shares of images, else the bootstrap's)", ["metric", *heads], rows)


def _classes(predictions: Predictions) -> Block:
    rows = [[c.name, c.precision, c.recall, c.f1, c.images, c.predicted] for c in predictions.by_class()]
    columns = ["class", "precision", "recall", "F1", "images (support)", "predicted"]
    return table("Precision and recall of each class", columns, rows)


def _mistakes(predictions: Predictions) -> Block:
    wrong = predictions.mistakes()
    if not wrong:
        return text("There is none: every image is right.")
    rows = [mistake[1:] for mistake in wrong[:MISTAKES]]
    columns = ["image", "true class", "predicted", "confidence", "probability of the true class"]
    return table(f"The {len(rows)} surest of {len(wrong)} mistakes", columns, rows)


def _stages(run: RunRecord) -> Block:
    stages = run.receipt.get("stages")
    if not isinstance(stages, list) or not all(isinstance(each, Mapping) for each in stages) or not stages:
        return text("The receipt of this run does not list the model's stages.")
    keys = {"name": "stage", "frozen": "frozen", "parameters": "parameters", "trainable_parameters": "trained",
            "macs_share": "share of multiply-accumulates"}  # fmt: skip
    rows = [[{True: "frozen", False: "trained"}.get(stage.get("frozen")) if key == "frozen" else stage.get(key)
             for key in keys] for stage in stages]  # fmt: skip
    return table("The model's stages, from the image to the head", list(keys.values()), rows)
