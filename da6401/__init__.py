"""Hydra-configured hyperparameter sweeps for image classification.

The command line's twin for notebooks::

    from da6401 import load_run, load_sweep, train

    run = train("experiment=part_a", "trainer.epochs=3")
    sweep = train("sweep=part_a", "hydra.sweeper.n_trials=8", multirun=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da6401.api import Run, Sweep, load_run, load_sweep, train

__all__ = ["Run", "Sweep", "__version__", "load_run", "load_sweep", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The functions of api.py on first use: importing the package costs neither torch nor Hydra."""
    if name in __all__:
        from da6401 import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
