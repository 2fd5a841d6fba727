"""Several runs and sweeps side by side: what they reached, their curves, and where two of them differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from da6401.redact import safe
from da6401.report import figures, optuna_figures, run_figures
from da6401.report.blocks import Block, section, table, text
from da6401.report.chosen_run import winner_of
from da6401.report.disagreements import Pictures, pictures_of_files
from da6401.report.paired_lines import paired_lines
from da6401.report.run_record import RunRecord, read_run
from da6401.report.sweep_record import SweepRecord
from da6401.report.versus import versus
from da6401.runs.looks import comparison_warnings
from da6401.runs.run_folder import NO_EFFECT_ON_WEIGHTS, differences

MOST_PAIRS = 3  # of the best with another: each has a matrix and pictures
COLUMNS = (
    *("name", "folder", "trials", "status", "model", "validation accuracy", "test accuracy", "test looks"),
    *("parameters", "multiply-accumulates", "seconds"),
)

Record = RunRecord | SweepRecord


def compared_sections(
    read: Sequence[Record], pictures: Callable[[RunRecord], Pictures] = lambda run: pictures_of_files(run.config)
) -> list[dict[str, Any]]:
    """The sections of a comparison.

    Args:
        read: runs with their predictions, and sweeps, which stand for their winners.
        pictures: how the images of a run are had.
    """
    names = short_names([each.folder for each in read])
    runs: dict[str, RunRecord] = {}
    rows: list[list[Any]] = []
    for name, each in zip(names, read, strict=True):
        run = _run_of(each)
        trials = len(each.trials) if isinstance(each, SweepRecord) else 1
        if run is None:
            rows.append([name, safe(each.folder), trials, "no completed trial", *[None] * 7])
            continue
        runs[name] = run
        result = run.result
        rows.append([
            name, safe(each.folder), trials, run.status, run.config.get("model", {}).get("name"),
            result and result.val_accuracy, result and result.test_accuracy, len(run.looks),
            result and result.parameters, result and result.macs, result and round(result.seconds, 1),
        ])  # fmt: skip
    warnings = [text(each, "warning") for each in comparison_warnings([run.folder for run in runs.values()])]
    told = [text(line) for line in paired_lines(list(runs), list(runs.values()))] if len(runs) > 1 else []
    listed = table("Runs, and the winners of sweeps", COLUMNS, rows)
    sweeps = {name: each for name, each in zip(names, read, strict=True) if isinstance(each, SweepRecord)}
    return [
        section("Result", *warnings, listed, *told),
        section("Curves", _curves(runs)),
        *_sweeps(sweeps),
        *_pairs(runs, pictures),
        section("Differences", _differences(runs)),
    ]


def short_names(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells it from the others."""
    parts = [folder.absolute().parts for folder in folders]
    length = next((n for n in range(1, 9) if len({each[-n:] for each in parts}) == len(set(parts))), 9)
    return [safe("/".join(each[-length:])) for each in parts]


def _run_of(each: Record) -> RunRecord | None:
    """A run itself, or a sweep's winner."""
    if isinstance(each, RunRecord):
        return each
    winner = winner_of(each)
    return None if winner is None else read_run(winner, predictions=True)


def _curves(runs: Mapping[str, RunRecord]) -> Block:
    drawn = [run_figures.together(runs, name) for name in ("val_accuracy", "val_loss", "train_accuracy", "train_loss")]
    found = [each for each in drawn if each["traces"]]
    return {"kind": "charts", "items": found} if found else text("None yet.")


def _differences(runs: Mapping[str, RunRecord]) -> Block:
    found = differences(*(run.config for run in runs.values()))
    rows = [row for row in found if not NO_EFFECT_ON_WEIGHTS.fullmatch(row[0])]
    if not rows:
        return text("No key of their configs differs.")
    return table("Keys of the config that differ", ["key", *runs], rows)


def _sweeps(sweeps: Mapping[str, SweepRecord]) -> list[dict[str, Any]]:
    """Several sweeps with one objective: the best so far of each, and the distribution of all."""
    objectives = {each.objective.metrics[0] for each in sweeps.values()}
    if len(sweeps) < 2 or len(objectives) > 1:
        return []
    (metric,) = objectives
    sections = [section("Searches", figures.histories(sweeps, metric))]
    drawn = optuna_figures.distribution({name: each for name, each in sweeps.items() if each.frozen}, metric)
    return [*sections, section("Distribution", *drawn)] if drawn else sections


def _pairs(runs: Mapping[str, RunRecord], pictures: Callable[[RunRecord], Pictures]) -> list[dict[str, Any]]:
    """The best run against each of some others, on the images that both have answered."""
    if len(runs) < 2:
        return []
    reached = {name: (run.result and run.result.val_accuracy) or 0.0 for name, run in runs.items()}
    best = max(reached, key=lambda name: reached[name])
    others = [name for name in runs if name != best][:MOST_PAIRS]
    source, sections = pictures(runs[best]), []
    for other in others:
        blocks = versus(runs[best], runs[other], (best, other), source)
        note = text(f"{best} and {other} have not answered the same images.")
        sections.append(section(f"{best} against {other}", *(blocks or [note])))
    return sections
