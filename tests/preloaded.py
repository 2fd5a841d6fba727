"""What the processes of forked.py have imported when they start: each takes half a second or more."""

import alembic.command  # noqa: F401  by Optuna's databases
import pytest  # noqa: F401  by the module of a test that gives a function

import da6401.commands.evaluate
import da6401.commands.reproduce
import da6401.sweep.run_trials
import da6401.training.run  # noqa: F401
