"""What a trial is that the sampler did not choose: the default configuration, one written down before, or a race's."""

from __future__ import annotations

from optuna.trial import FrozenTrial

ENQUEUED = "fixed_params"  # Optuna's system attribute of a trial whose parameters were written down
ROLE = "role"  # user attribute of such a trial: one of the following
DEFAULT = "default"  # the configuration as it is without a search, which the whole space has
GIVEN = "given"  # of hydra.sweeper.first, or of another study's best trials
SAMPLED = ""  # by the sampler, or in part: the space does not have each of the defaults
# User attributes of a race's trial: its candidate, for how many epochs, whether to judge it, in how many seconds.
CANDIDATE, EPOCHS, PHASE, PLANNED = "candidate", "epochs", "phase", "planned_seconds"
OF_THE_RACE = (CANDIDATE, EPOCHS, PHASE, PLANNED, ROLE)  # what each of its trials has


def role_of(trial: FrozenTrial) -> str:
    """DEFAULT, GIVEN or SAMPLED; in a study of an older version the first trial is the default's if it was whole."""
    if ROLE in trial.user_attrs:
        return str(trial.user_attrs[ROLE])
    if ENQUEUED not in trial.system_attrs:
        return SAMPLED
    if trial.number:
        return GIVEN
    return DEFAULT if trial.params.keys() <= trial.system_attrs[ENQUEUED].keys() else SAMPLED
