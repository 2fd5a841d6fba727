"""What the processes of forked.py have imported when they start: each takes half a second or more."""

import alembic.command  # noqa: F401  by Optuna's databases
import pytest  # noqa: F401  by the module of a test that gives a function

import benchmarks.simulated  # noqa: F401  by the tests of studies that machines share
import da6401.commands.evaluate
import da6401.commands.reproduce
import da6401.data.synthetic
import da6401.sweep.dry_run
import da6401.sweep.end_of_time
import da6401.sweep.plugin
import da6401.sweep.scheduler
import da6401.training.follower  # noqa: F401  this and those above by commands
import tests.computed_once
import tests.sweep.sweeps  # noqa: F401  this for its functions; the one above changes libraries as it is imported
