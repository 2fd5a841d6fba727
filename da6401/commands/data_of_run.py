"""What to do where the images of a run are not where its configuration says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.config.schema import DataConfig
from da6401.data.sources import reads_files
from da6401.errors import DataError
from da6401.redact import one_line, safe


@contextmanager
def data_of_run(run: Path, cfg: DataConfig, *, else_try: str = "") -> Iterator[None]:
    """Within the block, an error about a data.root that is not there says whose it is, and what to do.

    Args:
        else_try: another remedy of this verb, the end of "or ...".

    Raises:
        DataError: as the block.
    """
    try:
        yield
    except DataError as error:
        if not reads_files(cfg) or not cfg.root:
            raise
        root = Path(cfg.root).expanduser()
        if root.exists() or str(root.absolute()) not in str(error):
            raise
        raise DataError(f"{error} {_remedy(run, cfg.root)}{else_try and f', or {else_try}'}.") from error


def _remedy(run: Path, root: str) -> str:
    link = f"ln -s PATH {shlex.quote(root)}"
    if Path(root).expanduser().is_absolute():
        return safe(
            f"{one_line(run)} was trained on the images there: put them back, or link to where they are ({link})"
        )
    return safe(
        f"{one_line(run)} was trained with data.root={one_line(root)}, relative to the folder of that command: "
        f"type this one in that folder too, with the path of the run, or link to the images from here ({link})"
    )
