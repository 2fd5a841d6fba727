"""What a trial is apart from the sampler's own: the default configuration, or one that was written down before."""

from __future__ import annotations

from optuna.trial import FrozenTrial

ENQUEUED = "fixed_params"  # Optuna's system attribute of a trial whose parameters were written down
ROLE = "role"  # user attribute of such a trial: one of the following
DEFAULT = "default"  # the configuration as it is without a search, which the whole space has
GIVEN = "given"  # of hydra.sweeper.first, or of another study's best trials
CHOSEN = ""  # by the sampler, or in part: the space does not have each of the defaults


def role_of(trial: FrozenTrial) -> str:
    """DEFAULT, GIVEN or CHOSEN; in a study of an older version the first trial is the default's if it was whole."""
    if ROLE in trial.user_attrs:
        return str(trial.user_attrs[ROLE])
    if ENQUEUED not in trial.system_attrs:
        return CHOSEN
    if trial.number:
        return GIVEN
    return DEFAULT if trial.params.keys() <= trial.system_attrs[ENQUEUED].keys() else CHOSEN
