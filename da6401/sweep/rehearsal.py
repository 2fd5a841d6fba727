"""sweep.dry_run: what a sweep would run first, and for how long."""

from __future__ import annotations

import dataclasses

import optuna
from optuna.trial import TrialState

from da6401.sweep.claims import FINISHED
from da6401.sweep.prepare import Sweep


def rehearse(sweep: Sweep) -> None:
    """Print the first configurations and the expected time."""
    rehearsal = optuna.create_study(sampler=sweep.study.sampler, directions=sweep.study.directions)
    suggester = dataclasses.replace(sweep.suggester, study=rehearsal)
    for number in range(min(5, sweep.total)):
        rehearsal.ask()
        found = suggester.point(rehearsal.trials[number])
        if found is not None:
            print(f"trial {number}: {' '.join(sweep.space.overrides(found[1]))}")
    done = sweep.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seconds = [trial.duration.total_seconds() for trial in done if trial.duration]
    if seconds:
        left = sweep.total - len(sweep.study.get_trials(deepcopy=False, states=FINISHED))
        minutes = left * sum(seconds) / len(seconds) / 60
        print(f"{left} trials are left, about {minutes:.1f} minutes by those that are done")
    else:
        print(f"{sweep.total} trials; the time of one is known after the first")
