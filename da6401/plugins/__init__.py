"""What a user's own file registers: public decorators, the loading of such files, and which a run folder needs.

See docs/plugins.md. Only ``--plugin FILE`` on the command line, ``load`` and ``train(..., plugins=[...])`` in Python,
and installed packages (entry-point group ``da6401.plugins``) load a plugin; nothing that is read from a file does.
"""

from da6401.config.rule import key
from da6401.plugins.kinds import (
    augmentation,
    backbone,
    block,
    callback,
    data_source,
    metric,
    model,
    optimizer,
    schedule,
)
from da6401.plugins.loading import load

__all__ = [
    "augmentation", "backbone", "block", "callback", "data_source", "key", "load", "metric", "model", "optimizer",
    "schedule",
]  # fmt: skip
