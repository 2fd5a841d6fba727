"""Fixtures that all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Read when torch is first imported: tests measure outcomes, not speed, and two may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# A cache of the tests' own; the programs that they start inherit it.
os.environ["DA6401_CACHE_DIR"] = tempfile.mkdtemp(prefix="da6401-tests-")
atexit.register(shutil.rmtree, os.environ["DA6401_CACHE_DIR"], ignore_errors=True)
