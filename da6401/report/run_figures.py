"""The charts of runs: curves, confusion matrix, calibration."""

# N images, K classes

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from da6401.metrics.calibration import BINS, at_temperature, calibration_error
from da6401.report.charts import Chart, axis, chart, epochs, label
from da6401.report.run_record import RunRecord
from da6401.runs.predictions import Predictions


def run_curves(run: RunRecord) -> list[Chart]:
    """Loss and accuracy on train and validation, and the learning rate, by epoch."""
    best = run.result.best_epoch if run.result else None
    mark = {"type": "line", "x0": best, "x1": best, "yref": "paper", "y0": 0, "y1": 1}
    shapes = [{**mark, "line": {"color": "@muted", "width": 1, "dash": "dot"}}] if best else []
    drawn = []
    wanted = (("Loss", ("train_loss", "val_loss")), ("Accuracy", ("train_accuracy", "val_accuracy")))
    for title, metrics in (*wanted, ("Learning rate", ("lr",))):
        traces = [
            {
                "type": "scatter", "mode": "lines+markers", "name": metric.replace("_", " "),
                "x": [line["epoch"] for line in run.epochs if metric in line],
                "y": [line[metric] for line in run.epochs if metric in line],
                "line": {"color": colour, "width": 2}, "marker": {"size": 4},
            }
            for metric, colour in zip(metrics, ("@muted", "@accent")[-len(metrics) :], strict=True)
        ]  # fmt: skip
        said = f" The dotted line is the best epoch, {best}." if best else ""
        drawn.append(
            chart(
                title, f"{title} over {len(run.epochs)} epochs.{said}", traces,
                {"xaxis": epochs([run.epochs]), "showlegend": len(metrics) > 1, "shapes": shapes, "height": 280},
                columns=["epoch", *metrics],
                rows=[[line["epoch"], *(line.get(m) for m in metrics)] for line in run.epochs],
            )
        )  # fmt: skip
    return drawn


def together(runs: Mapping[str, RunRecord], metric: str = "val_accuracy") -> Chart:
    """One number of several runs by epoch."""
    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    shades = ("@accent", "@strong", "@pruned", "@failed", "@running")
    title = metric.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
    lines = {
        name: [(line["epoch"], line[metric]) for line in run.epochs if metric in line] for name, run in runs.items()
    }
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": label(name), "x": [x for x, _ in points],
            "y": [y for _, y in points], "marker": {"size": 4},
            "line": {"color": shades[index % 5], "dash": dashes[index % 5], "width": 2},
        }
        for index, (name, points) in enumerate(lines.items()) if points
    ]  # fmt: skip
    return chart(
        title.capitalize(), f"The curves of {len(traces)} runs, of a sweep its winner's.", traces,
        {"xaxis": epochs(r.epochs for r in runs.values()), "yaxis": axis(title), "showlegend": True, "height": 320},
        columns=["run", "epoch", title], rows=[[name, *point] for name, points in lines.items() for point in points],
    )  # fmt: skip


def confusion(predictions: Predictions) -> Chart:
    """Counts of true against predicted classes, coloured by the share of the true class."""
    count = len(predictions.class_names)
    counts_KK = predictions.counts
    shares_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    names = [label(name) for name in predictions.class_names]
    places = list(range(count))
    ticks = {"tickvals": places, "ticktext": names, "showgrid": False, "zeroline": False}
    few = count <= 20
    heat = {
        "type": "heatmap", "z": shares_KK.round(4).tolist(), "x": places, "y": places, "zmin": 0, "zmax": 1,
        "colorscale": "@heat", "showscale": False, "text": counts_KK.tolist(), "xgap": 2, "ygap": 2,
        "texttemplate": "%{text}" if few else "",
        "hovertext": [[f"{t} taken for {p}: {counts_KK[i, j]}" for j, p in enumerate(names)]
                      for i, t in enumerate(names)],
        "hoverinfo": "text",
    }  # fmt: skip
    right = int(np.trace(counts_KK))
    return chart(
        "Confusion matrix",
        f"{right} of {counts_KK.sum()} images on the diagonal are right. Numbers are images, colour is the "
        "share of the true class.",
        [heat],
        {"xaxis": axis("predicted", **ticks, tickangle=-40 if count > 3 else 0),
         "yaxis": axis("true", **ticks, autorange="reversed"), "height": min(900, 190 + 34 * count),
         "width": 0 if count <= 6 else 190 + (46 if few else 14) * count},
        columns=["true class", *predictions.class_names],
        rows=[[name, *row] for name, row in zip(predictions.class_names, counts_KK.tolist(), strict=True)],
    )  # fmt: skip


def reliability(predictions: Predictions, temperature: float = 1.0) -> Chart:
    """Accuracy against confidence, with the expected calibration error; with a temperature, before and after it."""
    curves = {"this model": predictions}
    if temperature != 1:
        curves[f"at temperature {temperature:.3f}"] = at_temperature(predictions, temperature)
    total = len(predictions.labels_N)
    traces: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "name": "perfectly calibrated", "x": [0, 1], "y": [0, 1],
         "line": {"color": "@muted", "dash": "dot"}, "hoverinfo": "skip"},
    ]  # fmt: skip
    errors, rows = [], []
    for (name, answers), colour in zip(curves.items(), ("@accent", "@running"), strict=False):
        error, bins = calibration_error(answers)
        errors.append(error)
        rows += [[name, *each] for each in bins]
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": name, "x": [b[0] for b in bins],
             "y": [b[1] for b in bins], "line": {"color": colour, "width": 2},
             "marker": {"size": [6 + 22 * math.sqrt(b[2] / total) for b in bins], "color": colour},
             "text": [f"confidence {c:.3f}, accuracy {a:.3f}, {n} images" for c, a, n in bins], "hoverinfo": "text"}
        )  # fmt: skip
    after = f", and {errors[1]:.4f} at temperature {temperature:.3f}, fitted on validation" if errors[1:] else ""
    return chart(
        "Calibration",
        f"Expected calibration error {errors[0]:.4f} ({BINS} bins of equal width, n = {total} images){after}. Below "
        "the dotted line the model is surer than it is right. A larger point holds more images.",
        traces,
        {"xaxis": axis("confidence", range=[-0.02, 1.04]), "yaxis": axis("accuracy", range=[-0.04, 1.06]),
         "showlegend": True},
        columns=["answers", "confidence", "accuracy", "images"], rows=rows,
    )  # fmt: skip
