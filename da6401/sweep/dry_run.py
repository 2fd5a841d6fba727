"""sweep.dry_run: prints the first trials of a sweep and its expected time; changes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from optuna.samplers import QMCSampler, RandomSampler
from optuna.trial import TrialState

from da6401.config.search_space import Point
from da6401.sweep.leases import FINISHED, WORKERS, Worker
from da6401.sweep.prepare import Sweep

SHOWN = 5  # trials


def print_dry_run(sweep: Sweep) -> None:
    """Print the first trials that the sweep would run, and the expected time.

    Args:
        sweep: works on a copy of the study in memory, whose trials are claimed and suggested as in a real sweep.
    """
    if sweep.race is not None:
        _print_candidates(sweep)
        return
    finished = sweep.study.get_trials(deepcopy=False, states=FINISHED)
    with tempfile.TemporaryDirectory() as empty:
        # The locks of other workers show which trials are running.
        place = sweep.folder if (sweep.folder / WORKERS).is_dir() else Path(empty)
        worker = Worker(sweep.study, place, retries=sweep.settings.retries, lease_seconds=sweep.lease_seconds)
        try:
            printed = _print_first(sweep, worker)
        finally:
            worker.close()
    startup = sweep.composer.config.hydra.sweeper.sampler.get("n_startup_trials", 0)  # TPE draws this many at random
    adapts = not sweep.suggester.in_order and not isinstance(sweep.study.sampler, (RandomSampler, QMCSampler))
    if adapts and printed > 1 and len(finished) + printed > startup:
        print("the first is what comes next; the others depend on its result")
    seconds = [trial.duration.total_seconds() for trial in finished
               if trial.state is TrialState.COMPLETE and trial.duration]  # fmt: skip
    left = sweep.total - len(finished)
    if seconds:
        minutes = left * sum(seconds) / len(seconds) / 60
        print(f"{left} trials are left, about {minutes:.1f} minutes by those that are done")
    else:
        print(f"{sweep.total} trials; the time of one is known after the first")


def _print_candidates(sweep: Sweep) -> None:
    """The first candidates of a race, whose trainings follow from a speed that is not known yet."""
    assert sweep.race is not None, "only a race has candidates"
    for number, point in enumerate(sweep.race.points[:SHOWN]):
        print(f"candidate {number}: {_typed(sweep, point)}")
    print(
        f"{len(sweep.race.points)} candidates; the race times the first one, prints its plan, and ends with "
        f"sweep.minutes={sweep.settings.minutes:g}"
    )


def _typed(sweep: Sweep, point: Point) -> str:
    typed = [text.removeprefix("++") for text in sweep.space.overrides(point)]
    return " ".join(text for text in typed if not text.startswith("sweep.dry_run="))


def _print_first(sweep: Sweep, worker: Worker) -> int:
    """Returns how many were printed."""
    for number in range(SHOWN):
        claimed = worker.claim(sweep.total)
        found = None if claimed is None else sweep.suggester.point(claimed)
        if claimed is None or found is None:
            return number
        print(f"trial {claimed.number}: {_typed(sweep, found[1])}")
    return SHOWN
