"""What a trial is apart from the sampler's own: the default configuration, or one that was written down before."""

from __future__ import annotations

from optuna.trial import FrozenTrial

ENQUEUED = "fixed_params"  # Optuna's system attribute of a trial whose parameters were written down
DEFAULT = "default"  # the configuration as it is without a search
GIVEN = "given"  # of hydra.sweeper.first, or of another study's best trials


def role_of(trial: FrozenTrial) -> str:
    """DEFAULT, GIVEN, or "" of a trial that the sampler chose."""
    if ENQUEUED not in trial.system_attrs:
        return ""
    return GIVEN if trial.number else DEFAULT
