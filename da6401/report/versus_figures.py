"""Two models on the same images: what changed for each class, and which classes are confused more or less often."""

# K classes

from __future__ import annotations

from typing import Any

import numpy as np

from da6401.report.charts import Chart, axis, chart, label
from da6401.runs.predictions import Predictions

FEW = 20  # classes whose numbers have room in a matrix


def class_change(one: Predictions, other: Predictions, names: tuple[str, str]) -> Chart:
    """The recall of each class by the first model less that by the other, the largest gain first."""
    first, second = names
    rows: list[list[Any]] = [
        [a.name, b.right / b.images, a.right / a.images, (a.right - b.right) / a.images, a.images]
        for a, b in zip(one.by_class(), other.by_class(), strict=True)
        if a.images
    ]
    rows.sort(key=lambda row: -row[3])
    better, worse = sum(row[3] > 0 for row in rows), sum(row[3] < 0 for row in rows)
    trace = {
        "type": "bar", "orientation": "h", "y": [label(row[0]) for row in rows], "x": [row[3] for row in rows],
        "marker": {"color": [float(np.sign(row[3])) for row in rows], "colorscale": "@change", "cmin": -1, "cmax": 1},
        "text": [f"{row[3]:+.3f}" for row in rows], "textposition": "auto", "cliponaxis": False,
        "hovertext": [f"{label(n)}: {b:.3f} to {a:.3f}, {images} images" for n, b, a, _, images in rows],
        "hoverinfo": "text",
    }  # fmt: skip
    return chart(
        "Change of each class",
        f"Recall by {first} less that by {second}: {better} of {len(rows)} classes gained and {worse} lost.",
        [trace],
        {"xaxis": axis("change of recall", zeroline=True), "yaxis": {"type": "category", "autorange": "reversed"},
         "height": 120 + 26 * len(rows)},
        columns=["class", f"recall, {second}", f"recall, {first}", "change", "images"], rows=rows,
    )  # fmt: skip


def confusion_change(one: Predictions, other: Predictions, names: tuple[str, str]) -> Chart:
    """Images by true and predicted class: those of the first model less those of the other."""
    first, second = names
    change_KK = one.counts - other.counts
    count = len(one.class_names)
    good_KK = np.where(np.eye(count, dtype=bool), change_KK, -change_KK)  # fewer mistakes are better
    most = max(1, int(np.abs(change_KK).max()))
    shown = [label(name) for name in one.class_names]
    ticks = {"tickvals": list(range(count)), "ticktext": shown, "showgrid": False, "zeroline": False}
    few = count <= FEW
    heat = {
        "type": "heatmap", "z": good_KK.tolist(), "x": list(range(count)), "y": list(range(count)), "xgap": 2,
        "ygap": 2, "zmin": -most, "zmax": most, "colorscale": "@change", "showscale": False,
        "text": [[f"{value:+d}" if value else "" for value in row] for row in change_KK.tolist()],
        "texttemplate": "%{text}" if few else "", "hoverinfo": "text",
        "hovertext": [[f"{true} taken for {said}: {change_KK[i, j]:+d}" for j, said in enumerate(shown)]
                      for i, true in enumerate(shown)],
    }  # fmt: skip
    return chart(
        "Change of the confusion matrix",
        f"Images by {first} less those by {second}. On the diagonal more are better, elsewhere fewer: the accent's "
        "colour is the better, red the worse.",
        [heat],
        {"xaxis": axis("predicted", **ticks, tickangle=-40 if count > 3 else 0),
         "yaxis": axis("true", **ticks, autorange="reversed"), "height": min(900, 190 + 34 * count),
         "width": 0 if count <= 6 else 190 + (46 if few else 14) * count},
        columns=["true class", *one.class_names],
        rows=[[name, *row] for name, row in zip(one.class_names, change_KK.tolist(), strict=True)],
    )  # fmt: skip
