"""What torchrun tells the processes that it starts."""

from __future__ import annotations

import os

RANK, COUNT, ADDRESS, PORT = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"  # its variables
STARTED_BY = "TORCHELASTIC_RUN_ID"


def rank_of_torchrun() -> int | None:
    """This process's rank where torchrun has started it, as one of several."""
    return int(os.environ[RANK]) if STARTED_BY in os.environ and os.environ.get(COUNT, "1") != "1" else None
