"""Fixtures that all tests share."""

from __future__ import annotations

import os

# Read when torch is first imported: tests measure outcomes, not speed, and two may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
