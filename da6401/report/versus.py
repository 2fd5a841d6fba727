"""Two runs on the same validation images, in charts and pictures."""

from __future__ import annotations

from da6401.config.splits import VALIDATION
from da6401.metrics.paired import on_same_images
from da6401.report.blocks import Block
from da6401.report.disagreements import Pictures, disagreements
from da6401.report.run_record import RunRecord
from da6401.report.versus_figures import class_change, confusion_change


def versus(one: RunRecord, other: RunRecord, names: tuple[str, str], pictures: Pictures) -> list[Block]:
    """What changed for each class, in the confusion matrix, and the images on which the two disagree.

    Args:
        one, other: read with their predictions.
        names: what the two are called.

    Returns:
        [] where the two have not answered the same images.
    """
    answers, others = (run.predictions.get(VALIDATION) for run in (one, other))
    same = on_same_images(answers, others) if answers is not None and others is not None else None
    if answers is None or same is None:
        return []
    return [
        class_change(answers, same, names), confusion_change(answers, same, names),
        *disagreements(answers, same, names, pictures),
    ]  # fmt: skip
