"""python -m benchmarks.replays [--seeds 50] [--only NAME ...]: searches on the table of benchmarks.curves.

Our race and other tools, each by its own code (benchmarks/peers.py), choose trainings of which the table has the
numbers; a simulated clock counts what they cost. A tool that is not installed here is left out, with the reason. What
is done is kept under outputs/bench/, so that the command can be given again, also by the Python of another environment.
The page is benchmarks/replays.md, of the data sets on which the race's constants were chosen; with --data NAME ...,
which takes others of the table, it is benchmarks/replays_on_NAMES.md.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from benchmarks.curves import FIRST, FULL, IMAGES, LENGTHS, RUNS, SIDE, read_table, seconds_of_epoch, tune_space, unpack
from benchmarks.judges import final_of
from da6401.config.domains import Interval
from da6401.config.search_space import Parameter, Point
from da6401.runs.atomic_files import write_json
from da6401.tune.race import Candidate, Losses, Race, Tried

OUT, PAGE = Path("outputs/bench").absolute(), Path(__file__)
CHOSEN_ON = ("clothing-small", "eurosat-small", "trashnet-small")  # the race's constants
BUDGET = 12.0  # full trainings of the recipe
LENGTH = RUNS[FULL].epochs
PARTS = 24  # of the budget, after which the regret is noted
SHOWN = {"1/4": PARTS // 4, "1/2": PARTS // 2, "all": PARTS}
MOST_ASKED = 5000  # trainings and epochs in a replay: a tool that asks for what it knows pays nothing
OURS = "da6401 race"

Numbers = npt.NDArray[np.float64]


class OverBudgetError(Exception):
    """The simulated time is over."""


@dataclass(frozen=True)
class Curves:
    """The table of one data set. E epochs of a full training, C configurations."""

    points: Sequence[Point]
    given: int  # the first ones are a race's: so many, the recipe first
    near: Sequence[int]  # those that were drawn near the recipe
    accuracy_CE: Numbers  # on the validation images
    final_C: Numbers  # of the full training, on validation and test images
    cost_C: Numbers  # of an epoch, in full trainings of the recipe
    losses: Mapping[int, Sequence[Losses]]  # of complete trainings of so many epochs, by configuration

    @property
    def best(self) -> float:
        return float(self.final_C.max())


@dataclass
class Clock:
    """Counts what a search trains, and notes its incumbent: by default what had the best validation accuracy."""

    curves: Curves
    budget: float = BUDGET
    spent: float = 0.0
    asked: int = 0
    trained: dict[int, int] = field(default_factory=dict)  # epochs of each full training so far
    incumbents: list[tuple[float, int]] = field(default_factory=list)  # when, and which configuration
    _best: float = -math.inf

    def follow(self, config: int, epoch: int) -> float:
        """The accuracy after an epoch of the full training, which begins or goes on; only new epochs are paid."""
        self.pay(config, 0)
        for each in range(self.trained.get(config, 0) + 1, epoch + 1):
            self.pay(config, 1)
            self.trained[config] = each
            if (accuracy := float(self.curves.accuracy_CE[config, each - 1])) > self._best:
                self._best = accuracy
                self.choose(config)
        return float(self.curves.accuracy_CE[config, epoch - 1])

    def choose(self, config: int) -> None:
        """From now on this is the search's answer."""
        self.incumbents.append((self.spent, config))

    def pay(self, config: int, epochs: int) -> None:
        """Let the time pass that these epochs take.

        Raises:
            OverBudgetError: they do not fit into the budget.
        """
        self.asked += 1
        cost = epochs * self.curves.cost_C[config]
        if self.spent + cost > self.budget + 1e-9 or self.asked > MOST_ASKED:
            raise OverBudgetError
        self.spent += cost

    def regrets(self) -> list[float]:
        """After each part of the budget, in points; before the first answer it is the worst configuration's."""
        found = []
        for part in range(1, PARTS + 1):
            until = self.budget * part / PARTS + 1e-9
            chosen = [config for when, config in self.incumbents if when <= until]
            final = self.curves.final_C[chosen[-1]] if chosen else self.curves.final_C.min()
            found.append(round(100 * (self.curves.best - float(final)), 2))
        return found


@dataclass(frozen=True)
class Task:
    """What a search gets: the space, and the pool that stands for it."""

    parameters: Sequence[Parameter]
    clock: Clock
    taken: dict[str, int] = field(default_factory=dict)

    @property
    def recipe(self) -> Point:
        return self.clock.curves.points[0]

    def nearest(self, point: Mapping[str, Any], key: str = "") -> int:
        """The configuration of the pool that stands for a point: the nearest that stands for no other.

        Args:
            key: the tool's own name of the point: under the same name it is the same configuration.
        """
        if key not in self.taken:
            points = self.clock.curves.points
            distances = [_distance(self.parameters, point, each) for each in points]
            order = sorted(range(len(points)), key=lambda config: distances[config])
            used = set(self.taken.values())
            chosen = next((config for config in order if config not in used), order[0])
            self.taken[key or f"{len(self.taken)}"] = chosen
            return chosen
        return self.taken[key]


def _distance(parameters: Sequence[Parameter], first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Squared; a key's largest difference counts 1, and so do two values without an order that differ."""
    total = 0.0
    for each in parameters:
        a, b, domain = first[each.name], second[each.name], each.domain
        if isinstance(domain, Interval):
            scale = math.log if domain.log else float
            total += ((scale(a) - scale(b)) / (scale(domain.high) - scale(domain.low))) ** 2
        else:
            total += float(a) != float(b)
    return total


def curves_of(table: Sequence[Mapping[str, Any]], *, given: int) -> dict[str, Curves]:
    """The data sets' tables, of the configurations that have all complete trainings.

    Args:
        given: so many configurations, the first ones, are the recipe and hydra.sweeper.first.
    """
    found = {}
    fixed, slope = seconds_of_epoch([line for line in table if line["run"] == FULL])
    for name in sorted({line["data"] for line in table}):
        runs: dict[int, dict[str, Mapping[str, Any]]] = {}
        for line in table:
            if line["data"] == name:
                runs.setdefault(line["config"], {})[line["run"]] = line
        numbers = [number for number in sorted(runs) if all(run in runs[number] for run in FIRST)]
        full = [runs[number][FULL] for number in numbers]
        seconds_C = np.array([fixed + slope * line["macs"] * line["images"] for line in full])
        found[name] = Curves(
            points=[line["point"] for line in full], given=sum(number < given for number in numbers),
            near=[row for row, number in enumerate(numbers) if number >= given and number % 2 == 0],
            accuracy_CE=np.array([line["accuracy"] for line in full]),
            final_C=np.array([final_of(line) for line in full]), cost_C=seconds_C / seconds_C[0] / LENGTH,
            losses={
                epochs: [unpack(runs[number][run]["losses"]) for number in numbers] for epochs, run in LENGTHS.items()
            },
        )  # fmt: skip
    return found


def race(task: Task, seed: int) -> None:
    """Our own, with the decisions of da6401/tune/race.py; a training has the table's next shorter length."""
    clock, curves = task.clock, task.clock.curves
    rng = np.random.default_rng(seed)
    near = rng.permutation(curves.near)
    others = rng.permutation(sorted({*range(curves.given, len(curves.points))} - {*curves.near}))
    drawn = itertools.chain.from_iterable(itertools.zip_longest(near, others))
    order = [*range(curves.given), *(int(config) for config in drawn if config is not None)]

    def candidate(number: int) -> Candidate:
        return Candidate(0.0, float(curves.cost_C[order[number]]), min(LENGTHS), max(LENGTHS))

    search = Race([""] * len(order), candidate, clock.budget)
    tried: list[Tried] = []
    while (step := search.next_step(tried, clock.budget - clock.spent)) is not None:
        config = order[step.candidate]
        epochs = max((length for length in LENGTHS if length <= step.epochs), default=min(LENGTHS))
        clock.pay(config, epochs)
        tried.append(Tried(step.candidate, epochs, curves.losses[epochs][config]))
        clock.choose(order[search.ranked(tried)[0]])


def random_search(task: Task, seed: int) -> None:
    """Full trainings of the pool in random order."""
    for config in np.random.default_rng(seed).permutation(len(task.clock.curves.points)):
        task.clock.follow(int(config), LENGTH)


Search = Callable[[Task, int], None]


def replay(search: Search, curves: Curves, parameters: Sequence[Parameter], seed: int) -> list[float]:
    """The regrets of a search with a seed, after each part of the budget."""
    clock = Clock(curves)
    with contextlib.suppress(OverBudgetError):
        search(Task(parameters, clock), seed)
    return clock.regrets()


def ranks(regrets: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], part: int) -> dict[str, Numbers]:
    """Of each search, its rank among all, best is 1, for each seed: the mean over the data sets.

    Args:
        regrets: by search and data set, one list for each seed.
        part: after how many parts of the budget.
    """
    names = list(regrets)
    sets = list(regrets[names[0]])
    values = np.array([[[runs[part - 1] for runs in regrets[name][each]] for each in sets] for name in names])
    places = rankdata(values, axis=0).mean(axis=1)
    return dict(zip(names, places, strict=True))


def page(regrets: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> list[str]:
    """The table: mean rank with its 95% interval, and mean regret, after parts of the budget."""
    heads = [f"rank, {words}" for words in SHOWN] + [f"regret, {words}" for words in SHOWN]
    lines = [f"| search | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    by_part = {part: ranks(regrets, part) for part in SHOWN.values()}
    for name in sorted(regrets, key=lambda name: sum(by_part[part][name].mean() for part in by_part)):
        cells = []
        for places in (by_part[part][name] for part in SHOWN.values()):
            half = 1.96 * places.std(ddof=1) / math.sqrt(len(places)) if len(places) > 1 else math.nan
            cells.append(f"{places.mean():.2f} ± {half:.2f}")
        runs = regrets[name].values()
        cells += [f"{np.mean([[run[part - 1] for run in each] for each in runs]):.2f}" for part in SHOWN.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Replay what is missing, then write the page."""
    from benchmarks.peers import PEERS  # (which needs the classes of this module)

    logging.disable(logging.WARNING)  # of the tools
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=50)
    searches: dict[str, Search] = {OURS: race, "random search": random_search, **PEERS}
    arguments.add_argument("--only", nargs="*", choices=searches)
    arguments.add_argument("--data", nargs="+", default=CHOSEN_ON, help="of the table, by name")
    given = arguments.parse_args()
    stem = PAGE.stem if tuple(given.data) == CHOSEN_ON else "_".join([PAGE.stem, "on", *given.data])
    page_file, kept_file = PAGE.with_name(f"{stem}.md"), OUT / f"{stem}.json"
    space = tune_space()
    table = [line for line in read_table() if line["data"] in given.data]
    sets = curves_of(table, given=len(space.given_points()))
    counts = {name: len(curves.points) for name, curves in sets.items()}
    kept = json.loads(kept_file.read_text()) if kept_file.exists() else {}
    if kept.get("counts") != counts:  # of an older table
        kept = {"counts": counts, "regrets": {}, "missing": {}}
    for name in given.only or searches:
        runs = kept["regrets"].setdefault(name, {})
        if name == OURS:  # whose rule may have changed
            runs.clear()
        try:
            for data, curves in sets.items():
                done = runs.setdefault(data, [])
                for seed in range(len(done), given.seeds):
                    done.append(replay(searches[name], curves, space.parameters, seed))
            kept["missing"].pop(name, None)
        except ImportError as error:
            kept["missing"][name] = f"{error}"
            kept["regrets"].pop(name)
        write_json(kept_file, kept)
        print(name, kept["missing"].get(name, "done"), flush=True)
    whole = {name: runs for name, runs in kept["regrets"].items() if all(len(runs.get(data, [])) for data in sets)}
    seeds = min(len(each) for runs in whole.values() for each in runs.values())
    regrets = {name: {data: each[:seeds] for data, each in runs.items()} for name, runs in whole.items()}
    chosen_on = [name for name in sets if name in CHOSEN_ON]
    said = f"The race's constants were chosen on {', '.join(chosen_on) or 'none of these sets'}."
    page_file.write_text(
        "# Searches on recorded trainings\n\nWritten by `python -m benchmarks.replays` from the table of `python -m "
        f"benchmarks.curves`: n={', '.join(f'{count} ({name})' for name, count in counts.items())} configurations of "
        f"`sweep=tune_a`, {IMAGES} training images, {SIDE} px, {LENGTH} epochs, one seed a training, bf16 on one thread"
        f" of an x86 CPU; {seeds} seeds a search. Budget: {BUDGET:g} full trainings of the recipe; an epoch costs what "
        "its arithmetic takes, by processor seconds of the table. Rank: among these searches, mean over seeds and data "
        "sets ± 95% interval over the seeds. Regret: points of accuracy on validation and test images together that the"
        " full training of the best configuration has more than that of the search's answer, mean. "
        f"{said}\n\n"
        + "\n".join(page(regrets)) + "\n\n"
        "Each tool runs by its own code with one worker and its defaults. Its suggestion stands for the nearest "
        "configuration of the pool that it has not had. It sees the validation accuracy in the middle of full "
        "trainings, at 2, 6 and 18 epochs or after each; trainings go on where they stopped, at no cost. Its answer is "
        "what had the best validation accuracy so far. The race sees complete trainings of 2, 6 and 18 epochs, each "
        "paid from its start, of the given configurations and then in turn of one near the recipe and of another, in "
        "random order, and its answer is the first of its own ranking.\n"
        + "".join(f"\nNot replayed: {name}: {reason}.\n" for name, reason in kept["missing"].items())
    )  # fmt: skip
    print(page_file.read_text())


if __name__ == "__main__":
    main()
