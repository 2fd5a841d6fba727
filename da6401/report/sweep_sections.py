"""The page's sections on a sweep, in their order."""

from __future__ import annotations

from collections import Counter
from typing import Any

from da6401.config.metrics import Metric, word
from da6401.redact import duration, safe
from da6401.report.blocks import Block, cell, command, facts, section, table, text
from da6401.report.charts import number
from da6401.report.chosen_run import winner_of
from da6401.report.figures import STATES
from da6401.report.race_sections import race_sections
from da6401.report.sweep_charts import chart_sections
from da6401.report.sweep_record import SweepRecord, TrialRecord
from da6401.runs.looks import selection_warning, times
from da6401.runs.run_folder import NO_EFFECT_ON_WEIGHTS, differences
from da6401.study.gain import gain_words
from da6401.study.objective import Candidate
from da6401.study.roles import DEFAULT, GIVEN
from da6401.study.told_apart import MARK, ToldApart

CURVES = ("epoch", "train_accuracy", "val_accuracy", "train_loss", "val_loss")


def sweep_sections(sweep: SweepRecord) -> list[dict[str, Any]]:
    metric, winner = sweep.objective.metrics[0], winner_of(sweep)
    problems = [text(each, "warning") for each in sweep.problems]
    if not sweep.trials:
        return [section("Result", *problems, text("The study has no trials yet."))]
    result = [*_headline(sweep, metric), *_looks(sweep), command(winner) if winner else None]
    sections = [section("Result", *problems, *result), *race_sections(sweep)]
    sections += chart_sections(sweep)
    if sweep.best:
        sections.append(section("The winner's config", _changes(sweep, sweep.best[0])))
    told = sweep.told
    note = text(told.sentence) if told.sentence else None
    return [*sections, section("Trials", note, _trials(sweep, told))]


def _headline(sweep: SweepRecord, metric: Metric) -> list[Block]:
    counts = Counter(trial.state for trial in sweep.trials)
    others = [f"{counts[state]} {STATES[state]}" for state in ("pruned", "fail", "running") if counts[state]]
    ends = [t.end for t in sweep.trials if t.end]
    starts = [t.start for t in sweep.trials if t.start]
    busy = sum(t.run.result.seconds for t in sweep.trials if t.run.result)
    span = f"{duration((max(ends) - min(starts)).total_seconds())} from first to last" if ends and starts else ""
    tail = [("Completed trials", counts["complete"], ", ".join(others)), ("Training time", duration(busy), span)]
    if not sweep.best:
        return [facts(*tail), text("No trial was completed within the limits; the table below has the reasons.")]
    winner, default = sweep.winners[0], sweep.trained_default
    best, value = winner.trial, winner.values[metric.index]
    of_all = f"trial {best.number} of {len(sweep.trials)}"
    if winner.is_repeated:
        of_all = f"mean of n = {len(winner.trials)} seeds; trial {best.number} is the median"
    items: list[tuple[str, Any, str]] = [(f"Best {word(metric.name)}", number(value), of_all)]
    if sweep.objective.alone is None:
        items = [("On the Pareto front", len(sweep.best), f"of {len(sweep.complete)} completed trials")]
    notes = []
    if default is not None and default.values and default is not best:
        items.append(_against_default(sweep, winner, default, metric))
    elif default is best:
        notes.append(text("The default configuration itself is the best: no trial of the sampler improved on it."))
    else:
        notes.append(text("There is no completed trial of the default configuration to compare with."))
    rival = _other_part(sweep, best)
    if rival is not None:
        name = str(rival.trial.run.config["model"]["name"])
        theirs = rival.values[metric.index]
        sign = f"; {said}" if (said := metric.sign_word(value - theirs)) else ""
        items.append(("Against Part " + ("A" if name == "cnn" else "B"), f"{value - theirs:+.4g}",
                      f"{name}, trial {rival.trial.number}: {number(theirs)}{sign}"))  # fmt: skip
    confirmed = sweep.summary.get("confirmed") or []
    if confirmed:
        rows = [[c["trial"], c["value"], c["mean"], c["deviation"], c["mean"] - c["value"], len(c["values"])]
                for c in confirmed]  # fmt: skip
        columns = ["trial", "in the sweep", "mean", "deviation", "regression to the mean", "seeds"]
        notes.append(table("Confirmed: retrained with fresh seeds, ranked by the mean", columns, rows))
    elif _can_confirm(sweep, winner):
        notes.append(text(f"The best of {len(sweep.complete)} noisy trials is partly luck, and one seed each: "
                           "sweep.confirm_top=3 retrains the best with fresh seeds."))  # fmt: skip
    return [facts(*items, *tail), *notes]


def _can_confirm(sweep: SweepRecord, winner: Candidate[TrialRecord]) -> bool:
    """Whether more seeds would tell more; a race takes no confirmation."""
    is_race = "ledger" in sweep.summary
    return len(sweep.complete) >= 5 and sweep.objective.alone is not None and not (winner.is_repeated or is_race)


def _against_default(
    sweep: SweepRecord, winner: Candidate[TrialRecord], default: TrialRecord, metric: Metric
) -> tuple[str, str, str]:
    """The fact of what the sweep gained; with an interval where winner and default answered the same images."""
    assert default.values, "a completed trial has values"
    own = default.values[metric.index]
    note = f"trial {default.number}: {number(own)}"
    if sweep.objective.alone is None:
        note = f"{word(metric.name)}, trial {winner.trial.number} less {note}"
    if (found := sweep.told.gain) is None:
        gap = winner.values[metric.index] - own
        return "Against the default", f"{gap:+.4g}", "; ".join(filter(None, (note, metric.sign_word(gap))))
    return "Against the default", f"{found.value:+.4g}", f"{note}; {gain_words(found, metric)}"


def _looks(sweep: SweepRecord) -> list[Block]:
    """The looks at the test split, with a warning where the sweep went on after one."""
    if not sweep.looked:
        return [text("The test split has not been looked at for any run of this sweep.")]
    found = [(str(folder.relative_to(sweep.folder)), look) for folder, looks in sweep.looked.items() for look in looks]
    found.sort(key=lambda pair: pair[1].time)
    rows = [[name, look.time or "not recorded", look.verb, look.purpose] for name, look in found]
    title = f"The test split was looked at {times(len(rows))}"
    warnings = []
    if sweep.chose_after_look:
        group = f"sweep {sweep.folder.absolute().name}"
        warnings = [text(selection_warning(sweep.looked, group, within=sweep.folder), "warning")]
    return [*warnings, table(title, ["run", "time (UTC)", "by da6401", "purpose"], rows)]


def _other_part(sweep: SweepRecord, best: TrialRecord) -> Candidate[TrialRecord] | None:
    """The best of the other part: Part A is the CNN from scratch, Part B every pretrained backbone."""
    own = best.run.config.get("model", {}).get("name")
    rivals = [
        trial for trial in sweep.complete
        if (name := trial.run.config.get("model", {}).get("name")) and (name == "cnn") != (own == "cnn") and own
    ]  # fmt: skip
    return next(iter(sweep.objective.best(rivals)), None)


def _differences(sweep: SweepRecord, trial: TrialRecord) -> list[list[Any]]:
    """Where a trial's config differs from the default trial's; its parameters where there is none."""
    default = sweep.default
    if default is None or not default.run.config or not trial.run.config:
        return [[key, None, cell(value)] for key, value in trial.params.items()]
    found = differences(default.run.config, trial.run.config)
    return [[key, cell(old), cell(new)] for key, old, new in found if not NO_EFFECT_ON_WEIGHTS.fullmatch(key)]


def _changes(sweep: SweepRecord, winner: TrialRecord) -> Block:
    rows = _differences(sweep, winner)
    if not rows:
        return text(f"Trial {winner.number} is the default configuration itself.")
    against = "against the default configuration, trial 0" if sweep.default else "as searched"
    return table(f"Trial {winner.number} {against}", ["key", "default", "winner"], rows)


def _roles(sweep: SweepRecord) -> str:
    """What the badges in the table of trials mean; "" where there are none."""
    said = {
        DEFAULT: "default is the configuration as it is without a search",
        GIVEN: "given was written down before the sampler chose anything (hydra.sweeper.first, sweep.warm_start)",
    }
    found = {trial.role for trial in sweep.trials}
    words = "; ".join(text for role, text in said.items() if role in found)
    return f"{words[0].upper()}{words[1:]}. Their rows are tinted." if words else ""


def _trials(sweep: SweepRecord, told: ToldApart) -> Block:
    best, metrics = {trial.number for trial in sweep.best}, sweep.objective.metrics
    rows = []
    for trial in sweep.trials:
        result = trial.run.result
        if result:
            took: float | None = round(result.seconds, 2)
        else:
            took = round((trial.end - trial.start).total_seconds(), 2) if trial.start and trial.end else None
        curves = [name for name in CURVES if any(name in line for line in trial.run.epochs)]
        rows.append(
            {
                "number": trial.number, "state": trial.state, "values": [trial.reached(metric) for metric in metrics],
                "params": {key: cell(value) for key, value in trial.params.items()}, "best": trial.number in best,
                "badge": trial.role,
                "mark": f" {MARK}" if trial.number in told.same else "",
                "interval": told.cell(trial.number),
                "seconds": took,
                "epochs": trial.run.epochs_run, "parameters": result.parameters if result else None,
                "macs": result.macs if result else None, "reason": safe(trial.reason), "slot": trial.slot,
                "attempts": trial.attempts, "folder": safe(trial.run.folder), "changes": _differences(sweep, trial),
                "command": command(trial.run.folder)["text"] if trial.run.config else None,
                "curves": {name: [_short(line.get(name)) for line in trial.run.epochs] for name in curves},
                "same": "This is the default configuration." if trial.role == DEFAULT else "No key differs.",
            }
        )  # fmt: skip
    names, intervals = [word(metric.name) for metric in metrics], [told.heading] if told.heading else []
    return {
        "kind": "trials", "params": sweep.params, "goals": names, "trials": rows,
        "intervals": bool(told.heading), "legend": _roles(sweep),
        "columns": ["trial", "state", *names, *intervals, "seconds", "epochs", *sweep.params],
        "against": "Against the default configuration" if sweep.default else "Parameters", "before": "default",
    }  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
