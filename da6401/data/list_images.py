"""The listing of every source of files, by its configuration."""

from __future__ import annotations

import importlib

from da6401.config.schema import (
    FolderConfig,
    HuggingFaceConfig,
    ImageFiles,
    ShardsConfig,
    TableConfig,
    TorchvisionConfig,
)
from da6401.data.listing import Listing

# "module:function" that lists a data set; imported when it is asked for, since some import torch or pyarrow.
LISTS: dict[type[ImageFiles], str] = {
    FolderConfig: "da6401.data.flat:list_flat",
    TableConfig: "da6401.data.table_listing:list_table",
    ShardsConfig: "da6401.data.shards:list_shards",
    HuggingFaceConfig: "da6401.data.huggingface:list_huggingface",
    TorchvisionConfig: "da6401.data.torchvision_sets:list_torchvision",
}


def list_images(cfg: ImageFiles) -> Listing:
    """Every image of a data set without folders of splits.

    Raises:
        DataError: there is none, or what it holds is ambiguous.
    """
    module, _, name = LISTS[type(cfg)].partition(":")
    listing: Listing = getattr(importlib.import_module(module), name)(cfg)
    return listing
