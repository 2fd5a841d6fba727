"""The listing of every source of files, by its configuration."""

from __future__ import annotations

from da6401.config.schema import FolderConfig, ImageFiles, TableConfig
from da6401.data.flat import list_flat
from da6401.data.listing import Listing
from da6401.data.table_listing import list_table


def list_images(cfg: ImageFiles) -> Listing:
    """Every image of a data set without folders of splits.

    Raises:
        DataError: there is none, or what it holds is ambiguous.
    """
    if isinstance(cfg, TableConfig):
        return list_table(cfg)
    assert isinstance(cfg, FolderConfig), cfg.source
    return list_flat(cfg)
