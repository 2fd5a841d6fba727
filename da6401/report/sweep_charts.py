"""Which charts a sweep's page has, in their order, and when each has something to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from da6401.config.metrics import Metric
from da6401.report import budget_figures, figures, optuna_figures, parameter_figures
from da6401.report.blocks import Block, section, text
from da6401.report.disagreements import pictures_of_files
from da6401.report.importance import correlation, importance
from da6401.report.parallel import parallel
from da6401.report.run_record import read_run
from da6401.report.sweep_record import SweepRecord
from da6401.report.versus import versus

Blocks = Sequence[Block | None]


@dataclass(frozen=True)
class Entry:
    """A section of charts."""

    title: str
    draw: Callable[[SweepRecord, Metric], Blocks]  # without blocks there is no section
    fewest: int = 0  # completed trials
    is_shown: Callable[[SweepRecord], object] = lambda sweep: True


def chart_sections(sweep: SweepRecord) -> list[dict[str, Any]]:
    """The sections of charts that this sweep has something to show in."""
    metric = sweep.objective.metrics[0]
    found = []
    for entry in CHARTS:
        if len(sweep.complete) >= entry.fewest and entry.is_shown(sweep):
            blocks = [block for block in entry.draw(sweep, metric) if block]
            found += [section(entry.title, *blocks)] if blocks else []
    return found


def _grid(draw: Callable[[SweepRecord, Metric], Sequence[Block]]) -> Callable[[SweepRecord, Metric], Blocks]:
    """The charts of a function side by side."""

    def side_by_side(sweep: SweepRecord, metric: Metric) -> Blocks:
        items = list(draw(sweep, metric))
        return [{"kind": "charts", "items": items}] if items else []

    return side_by_side


def _history(sweep: SweepRecord, _: Metric) -> Blocks:
    return [figures.history(sweep, each) for each in sweep.objective.metrics]


def _front(sweep: SweepRecord, metric: Metric) -> Blocks:
    others = [figures.pareto(sweep, metric, other) for other in sweep.objective.metrics[1:]]
    return [*others, *(optuna_figures.hypervolume(sweep, metric) if sweep.frozen else [])]


def _curves(sweep: SweepRecord, metric: Metric) -> Blocks:
    return [figures.learning_curves(sweep, metric), *budget_figures.epoch_table(sweep, metric)]


def _importance(sweep: SweepRecord, metric: Metric) -> Blocks:
    charts, doubts = importance(sweep, metric)
    return [*(text(each, "warning") for each in doubts), *charts, correlation(sweep, metric)]


def _versus(sweep: SweepRecord, _: Metric) -> Blocks:
    """The winner and the default on the same validation images."""
    best, default = sweep.best[0], sweep.default
    assert default is not None, "is_shown asks for it"
    one, other = (read_run(trial.run.folder, predictions=True) for trial in (best, default))
    return versus(one, other, (f"trial {best.number}", "the default"), pictures_of_files(one.config))


def _default_lost(sweep: SweepRecord) -> bool:
    return bool(sweep.best and sweep.default and sweep.default.values and sweep.default is not sweep.best[0])


CHARTS = (
    Entry("History", _history),
    Entry("Pareto front", _front, 1, lambda sweep: len(sweep.objective.metrics) > 1),
    Entry("Learning curves", _curves, 0, lambda sweep: any(trial.run.epochs for trial in sweep.trials)),
    Entry("Early epochs", budget_figures.budget_correlation, 5),
    Entry("Parallel coordinates", lambda *both: [parallel(*both)], 2, lambda sweep: sweep.params),
    Entry("Importance and correlation", _importance, 2, lambda sweep: sweep.params),
    Entry("Slices", _grid(parameter_figures.slices), 2, lambda sweep: sweep.params),
    Entry("Partial dependence", _grid(parameter_figures.partial_dependence), 15, lambda sweep: sweep.params),
    Entry("Two keys at once", _grid(optuna_figures.pairs_of_keys), 10, lambda sweep: sweep.frozen and sweep.params),
    Entry("Curves by value", _grid(parameter_figures.curves_by_value), 4),
    Entry("Distribution", lambda sweep, metric: optuna_figures.distribution({sweep.name: sweep}, metric), 10,
          lambda sweep: sweep.frozen),
    Entry("Cost", _grid(budget_figures.cost_against_value), 3),
    Entry("Winner against default", _versus, 2, _default_lost),
    Entry("Timeline", lambda sweep, _: [figures.timeline(sweep)], 0,
          lambda sweep: any(trial.start for trial in sweep.trials)),
)  # fmt: skip
