"""A study's trials in its storage, by number."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from da6401.study.optuna_internals import storage_of


class TrialStore:
    """Reads and writes single trials of a study, whoever runs them.

    optuna.Trial would ask the sampler anew each time that one is made, and only for a trial that runs.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.storage = storage_of(study)
        self.study_id = self.storage.get_study_id_from_name(study.study_name)
        self._ids: dict[int, int] = {}

    def id_of(self, number: int) -> int:
        """The storage's own name of a trial; it never changes, and is asked for once."""
        if number not in self._ids:
            self._ids[number] = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        return self._ids[number]

    def create(self, template: FrozenTrial) -> FrozenTrial:
        """A new trial like this one."""
        return self.storage.get_trial(self.storage.create_new_trial(self.study_id, template))

    def read(self, number: int) -> FrozenTrial:
        """A trial as it is now."""
        return self.storage.get_trial(self.id_of(number))

    def set_state(self, number: int, state: TrialState) -> bool:
        """Whether the state was set; one caller alone sets RUNNING.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: the trial is finished.
        """
        return self.storage.set_trial_state_values(self.id_of(number), state=state)

    def set_user_attr(self, number: int, name: str, value: object) -> None:
        """Write a user attribute; raises as ``set_state``."""
        self.storage.set_trial_user_attr(self.id_of(number), name, value)
