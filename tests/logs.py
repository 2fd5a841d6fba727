"""Logging as a command found it: Hydra sets its own, once for each."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """The root logger has its handlers and its level again afterwards, and no logger is disabled."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            # A file's may have been there before: a fixture of a whole module ran a command.
            if handler not in handlers or type(handler) is logging.FileHandler:
                handler.close()
        root.handlers[:] = [handler for handler in handlers if type(handler) is not logging.FileHandler]
        root.setLevel(level)
        for logger in logging.Logger.manager.loggerDict.values():  # Optuna's migration of a database disables them all
            if isinstance(logger, logging.Logger):
                logger.disabled = False
