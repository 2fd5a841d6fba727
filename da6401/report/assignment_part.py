"""What answers one part of the assignment, and what both parts say in the same way."""

from __future__ import annotations

import functools
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from da6401.config.metrics import Metric, word
from da6401.metrics.intervals import span, wilson
from da6401.redact import safe
from da6401.report import figures
from da6401.report.blocks import Block, section, table, text
from da6401.report.charts import number
from da6401.report.importance import correlation, importance
from da6401.report.parallel import parallel
from da6401.report.run_record import RunRecord, read_run
from da6401.report.run_sections import run_sections
from da6401.report.sweep_record import SweepRecord, TrialRecord, is_numeric
from da6401.runs.members import Members, read_members

FEW_VALUES = 8  # of a parameter: more, or more than half as many as trials, are a range
FEWEST = 3  # which are named whatever the number of trials
Section = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A sweep and the run that it stands for, or a run by itself."""

    sweep: SweepRecord | None
    run: RunRecord | None  # None: no trial was completed, or its folder is not here
    is_winner: bool = True  # the verbs take this run where they are given the sweep

    @property
    def word(self) -> str:
        """What the verbs take for its run, as the shell takes it, for the commands that the page names."""
        if self.sweep and (self.is_winner or not self.run):
            return shlex.quote(str(self.sweep.folder))
        return shlex.quote(str(self.run.folder if self.run else ""))

    @functools.cached_property
    def members(self) -> Members | None:
        """What its model is made of, where a sweep hands it over; None of a run, which is its own."""
        return read_members(self.run.folder) if self.run else None

    @functools.cached_property
    def networks(self) -> list[RunRecord]:
        """The runs that trained its networks; the layers that the page shows are the first one's."""
        if self.run is None or self.members is None:
            return [self.run] if self.run else []
        return [read_run(self.run.folder.parent / name) for name in self.members.runs]

    @property
    def seconds(self) -> float | None:
        """The time that training its networks took."""
        results = [each.result for each in self.networks if each.result]
        return sum(result.seconds for result in results) if results else None

    @functools.cached_property
    def run_sections(self) -> list[Section]:
        """Those of the usual report on the run."""
        return run_sections(self.run) if self.run else []

    @property
    def complete(self) -> list[TrialRecord]:
        return self.sweep.complete if self.sweep else []


def needs(what: str, command: str) -> list[Block]:
    """A question that the folders cannot answer, and the command that would."""
    return [text(what, "warning"), {"kind": "command", "text": command}]


def picked(sections: Sequence[Section], title: str) -> list[Block]:
    """The blocks of a section of the usual report; [] where it is not there."""
    return next((list(each["blocks"]) for each in sections if each["title"] == title), [])


def answers_of(run: RunRecord, split: str) -> str:
    """The accuracy on a split in words, with its interval; "" without the answers."""
    result, found = run.result, run.predictions.get(split)
    value = None if result is None else result.test_accuracy if split == "test" else result.val_accuracy
    if value is None:
        return ""
    if found is None:
        return number(value)
    count = len(found.labels_N)
    return f"{number(value)} ({span(wilson(value, count))}, n = {count} images)"


def members_blocks(part: Part) -> list[Block]:
    """How several networks answer together, or one on mirror images, too, and which is shown; [] of one alone."""
    members, result = part.members, part.run and part.run.result
    if members is None or not result or (len(members.runs) == 1 and not members.flips):
        return []
    what = "one network" if len(members.runs) == 1 else f"the mean of {len(members.runs)} networks"
    views = ", each asked about the image and its mirror image" if members.flips else ""
    return [text(safe(
        f"The model that the sweep hands over is {what} ({', '.join(members.runs)}){views}: {result.parameters:,} "
        f"parameters and {result.macs:,} multiply-accumulates an image in all. What is shown here is {members.runs[0]}."
    ))]  # fmt: skip


def search_blocks(sweep: SweepRecord) -> list[Block]:
    """What was searched, how it was saved on, and the plots that the assignment names."""
    metric = sweep.objective.metrics[0]
    blocks: list[Block] = [_space(sweep), text(_saved_on(sweep)), _by_time(sweep, metric)]
    if len(sweep.complete) > 1 and sweep.params:
        blocks.append(parallel(sweep, metric))
        if (summary := correlation(sweep, metric)) is not None:
            blocks.append(summary)
        blocks += importance(sweep, metric)[0]
    return blocks


def observations(sweep: SweepRecord) -> list[Block]:
    """What the plots show, as sentences whose every number is computed from the folders."""
    if not sweep.winners:
        return needs("No trial was completed within the limits, so there is nothing to observe.",
                     f"da6401 report {shlex.quote(str(sweep.folder))}")  # fmt: skip
    metric, winner = sweep.objective.metrics[0], sweep.winners[0]
    value, name = winner.values[metric.index], word(metric.name)
    said = [f"The best {name} of {len(sweep.trials)} trials is {number(value)}, by trial {winner.trial.number}."]
    default = sweep.trained_default
    if default is winner.trial:
        said.append("The default configuration itself is the best.")
    elif default is not None and default.values:
        start = default.values[metric.index]
        said.append(f"The default configuration, trial {default.number}, has {number(start)}: the search gained "
                    f"{metric.cost(start) - metric.cost(value):+.4g}.")  # fmt: skip
    if (summary := correlation(sweep, metric)) is not None:
        key, rank = summary["rows"][0]
        said.append(f"The strongest rank correlation with {name} is that of {key}: {rank:+.2f} over "
                    f"{len(sweep.complete)} completed trials.")  # fmt: skip
    charts, doubts = importance(sweep, metric)
    if charts:
        first = {each: max(charts[0]["rows"], key=lambda row: row[at])[0]
                 for at, each in enumerate(charts[0]["columns"]) if at}  # fmt: skip
        said.append(
            "The most important parameter: " + ", ".join(f"{key} by {each}" for each, key in first.items()) + "."
        )
    told = sweep.told.sentence
    return [*(text(each) for each in [*said, *doubts, told] if each), *_by_value(sweep, metric)]


def tested_blocks(part: Part, run: RunRecord) -> list[Block]:
    """The accuracy on the test split, and what the model makes of its images."""
    if not (reached := answers_of(run, "test")):
        return needs("The best model has not been evaluated on the test split yet.", f"da6401 evaluate {part.word}")
    blocks: list[Block] = [text(f"The best model, {safe(run.folder)}, has a test accuracy of {reached}.")]
    result = picked(part.run_sections, "Result")
    blocks += [each for each in result if each["kind"] == "facts" or each.get("tone") == "warning"]
    return [*blocks, *(each for each in picked(part.run_sections, "Confusion matrix") if each["kind"] == "chart")]


def picture_blocks(part: Part, run: RunRecord, *starts: str) -> list[Block]:
    """Those of the pictures of `da6401 explain` whose titles begin so, in this order; of test's images, if of any."""
    remedy = f"da6401 explain {part.word} --split test"
    blocks = picked(part.run_sections, "Explanations")
    items = [each for block in blocks if block["kind"] == "pictures" for each in block["items"]]
    chosen = [each for start in starts for each in items if each["title"].startswith(start)]
    notes = [block for block in blocks if block["kind"] == "text"]
    if not chosen:
        return [*notes, *needs("The pictures of this question are not in the run's folder yet.", remedy)]
    of_test = any(look.verb == "explain" for look in run.looks)
    if not of_test:
        notes += needs("These images are of the validation split; the assignment asks for the test split's.", remedy)
    return [{"kind": "pictures", "items": chosen}, *notes]


def question(title: str, *blocks: Block | None) -> Section:
    return section(title, *blocks)


def _space(sweep: SweepRecord) -> Block:
    rows = []
    for key in sweep.params:
        values = [trial.params[key] for trial in sweep.trials if key in trial.params]
        distinct = sorted(set(values), key=lambda each: (str(type(each)), each))
        if _is_range(values):
            scale = ", logarithmic" if key in sweep.logarithmic else ""
            tried = f"{len(distinct)} values from {number(distinct[0])} to {number(distinct[-1])}{scale}"
        else:
            tried = ", ".join(str(_shown(each)) for each in distinct)
        rows.append([key, tried, len(values)])
    return table("What was tried", ["key", "values", "trials"], rows)


def _is_range(values: Sequence[Any]) -> bool:
    """Whether a parameter's values are better said by their ends than one by one."""
    return is_numeric(values) and len(set(values)) > max(FEWEST, min(FEW_VALUES, len(values) // 2))


def _shown(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _saved_on(sweep: SweepRecord) -> str:
    """How many epochs and seconds the search took, and how many epochs it was spared."""
    run = sum(trial.run.epochs_run for trial in sweep.trials)
    planned = sum(
        int(_node(trial, "trainer").get("epochs") or 0) * int(_node(trial, "sweep").get("folds") or 1)
        for trial in sweep.trials
    )
    pruned = sum(trial.state == "pruned" for trial in sweep.trials)
    failed = sum(trial.state == "fail" for trial in sweep.trials)
    busy = sum(trial.run.result.seconds for trial in sweep.trials if trial.run.result)
    said = (
        f"{len(sweep.trials)} trials, of which {pruned} were pruned and {failed} failed; {run} epochs in {busy:.0f} s"
    )
    said += f" of training. All trials in full would have been {planned} epochs" if planned > run else " of training"
    return said + (f": {planned - run} were saved." if planned > run else ".")


def _node(trial: TrialRecord, name: str) -> Mapping[str, Any]:
    found = trial.run.config.get(name)
    return found if isinstance(found, Mapping) else {}


def _by_time(sweep: SweepRecord, metric: Metric) -> Block:
    """The history with the time of creation first, as the assignment asks."""
    drawn = dict(figures.history(sweep, metric))
    views = drawn.get("views")
    if not views:
        return drawn
    name, times = list(views.items())[-1]
    traces = [{**trace, "x": x} for trace, x in zip(drawn["traces"], times, strict=True)]
    layout = {**drawn["layout"], "xaxis": {"title": {"text": "time of creation"}}}
    others = {each: x for each, x in views.items() if each != name}
    title = f"{word(metric.name).capitalize()} against time of creation"
    return {**drawn, "title": title, "traces": traces, "layout": layout, "views": {name: times, **others}}


def _by_value(sweep: SweepRecord, metric: Metric) -> list[Block]:
    """The objective of the completed trials by the values of each parameter."""
    rows = []
    for key in sweep.params:
        found = [(trial.params[key], value) for trial in sweep.complete
                 if key in trial.params and (value := trial.reached(metric)) is not None]  # fmt: skip
        values = [value for value, _ in found]
        if len({str(value) for value in values}) < 2:
            continue
        groups: dict[str, list[float]] = {}
        middle = statistics.median(values) if _is_range(values) else None
        for value, reached in sorted(found, key=lambda pair: (str(type(pair[0])), pair[0])):
            side = None if middle is None else ("up to " if value <= middle else "above ") + number(middle)
            groups.setdefault(side or str(_shown(value)), []).append(reached)
        best = max if metric.maximise else min
        rows += [[key, name, len(group), statistics.fmean(group), best(group)] for name, group in groups.items()]
    if not rows:
        return []
    name = word(metric.name)
    return [table(f"{name.capitalize()} of the completed trials by the values of each key",
                  ["key", "value", "trials", "mean", "best"], rows)]  # fmt: skip
