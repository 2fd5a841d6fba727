"""What a sweep gained: its winner against the default configuration, on the same validation images."""

from __future__ import annotations

from pathlib import Path

from da6401.errors import RunError, UndefinedMetricError
from da6401.metrics.paired import Difference, difference, on_same_images
from da6401.runs.predictions import read_predictions
from da6401.runs.run_folder import VALIDATION_CSV
from da6401.study.objective import Objective
from da6401.study.told_apart import score_name


def gain(winner: Path, default: Path, objective: Objective) -> Difference | None:
    """The winner's metric less the default's, with its interval; None where the two were not asked the same images.

    Args:
        winner, default: the run folders of two trials.
    """
    name = score_name(objective.alone)
    if name is None or winner == default:
        return None
    try:
        one, other = (read_predictions(folder / VALIDATION_CSV) for folder in (winner, default))
        same = on_same_images(one, other)
        return None if same is None else difference(name, one, same)
    except (RunError, UndefinedMetricError):  # of an older version, removed, or a class that has no image
        return None


def gain_words(found: Difference) -> str:
    """Its interval in words, and whether it shows anything."""
    low, high = found.interval
    verdict = "" if found.is_shown else ", no difference shown"
    return f"95% interval {low:+.3f} to {high:+.3f}, n = {found.images}{verdict}"
