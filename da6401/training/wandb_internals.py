"""Private names of wandb, behind a function that says why no public name would do."""

from __future__ import annotations

import atexit
import sys
from typing import Any

from da6401.config.private_names import Package

WANDB = Package("wandb", ">=0.31", last="0.31.0")


def leave_service() -> None:
    """Let this process end, however long wandb's service process hangs.

    wandb's own exit hook waits for that process without a limit, as wandb.teardown does; and the process holds our
    stdout open, so a pipe behind the program would wait as well.

    Raises:
        UserError: wandb has other names now.
    """
    setup: Any = sys.modules.get("wandb.sdk.wandb_setup")
    with WANDB.names():
        singleton = setup and setup._singleton
        connection = singleton and singleton._connection
        service = connection and connection._proc
        if not service:
            return
        forget_hook, kill = connection._cleanup, service._process.kill
    if forget_hook is not None:
        forget_hook()
        atexit.register(kill)  # at the exit: later runs of this process may still find it well
