"""The listing of every source of files, by its configuration."""

from __future__ import annotations

from da6401.config.schema import FolderConfig, ImageFiles
from da6401.data.flat import list_flat
from da6401.data.listing import Listing


def list_images(cfg: ImageFiles) -> Listing:
    """Every image of a data set without folders of splits.

    Raises:
        DataError: there is none, or what it holds is ambiguous.
    """
    assert isinstance(cfg, FolderConfig), cfg.source
    return list_flat(cfg)
