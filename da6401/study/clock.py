"""A study's clock, for sweep.minutes: it counts the time in which any process worked on the study, and stops between.

What is spent is kept in the study, so that a sweep that was killed goes on with what is left, and so does a machine
that joins later.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from da6401.errors import UserError

if TYPE_CHECKING:
    import optuna

BEGAN = "DA6401_SWEEP_BEGAN"  # environment variable: when the sweep's command began, in seconds since 1970
SPENT = "seconds_spent"  # user attribute of a study
SAVE_SECONDS = 5.0  # at most so much is forgotten when a process is killed


class Clock:
    """Counts from the command's start; with ``minutes`` = 0 nothing is ever late.

    Args:
        spent: seconds that earlier commands have worked on the study.
        began: when this command began, by ``now``.
    """

    def __init__(
        self, minutes: float, *, began: float, spent: float = 0.0, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.limit = 60 * minutes or math.inf
        self._began = began - spent
        self._now = now

    @property
    def spent(self) -> float:
        """Seconds, over all commands."""
        return self._now() - self._began

    @property
    def left(self) -> float:
        """Seconds; negative when the time is over, infinite without a limit."""
        return self.limit - self.spent

    def save(self, study: optuna.Study) -> None:
        """Write what is spent into the study; of several processes the one that says most is right."""
        study.set_user_attr(SPENT, max(self.spent, spent_of(study)))

    @contextmanager
    def saving(self, study: optuna.Study) -> Iterator[None]:
        """Save every few seconds within the block, and at its end; without a limit nothing is written."""
        if self.limit == math.inf:
            yield
            return
        closed = threading.Event()

        def save() -> None:
            while not closed.wait(SAVE_SECONDS):
                try:
                    self.save(study)
                except UserError:  # the storage is away; the main thread, which waits for it too, reports that
                    return

        thread = threading.Thread(target=save, daemon=True)
        thread.start()
        try:
            yield
        finally:
            closed.set()
            thread.join()
            self.save(study)


def spent_of(study: optuna.Study) -> float:
    """The seconds that a study's user attributes say; 0 where they say none."""
    spent = study.user_attrs.get(SPENT, 0.0)
    return float(spent) if isinstance(spent, (int, float)) and spent > 0 else 0.0
