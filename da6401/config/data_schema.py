"""The keys of `data`: where the images come from, which of them are classes, splits and groups, and how they are read.

What every source of files shares stands in ``ImageFiles``; each source adds its own keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from da6401.config.rule import key
from da6401.config.splits import ValRole

Resize = Literal["stretch", "crop"]
FolderLayout = Literal["auto", "splits", "flat"]
Separator = Literal["auto", "comma", "semicolon", "tab", "pipe", "space"]


@dataclass(frozen=True, kw_only=True)
class OwnDataConfig:
    """What every source without a folder has: a plugin's besides its own keys, and the two below."""

    source: str = key("", "where the images come from")
    image_size: int = key(32, "side of the square image that the model sees", unit="px", low=1, high=4096)
    val_fraction: float = key(0.2, "share of train held out as validation, every class alike", above=0, below=1)
    split_seed: int = key(0, "seed of the held-out part; `seed` does not move it", low=0, high=2**32 - 1)
    fold: str = key(
        "", "I/K: train and validation together are divided into K parts, every class alike, and the I-th is "
        "validation (sweep.folds does it); empty: the ordinary split", pattern=r"(?:[1-9]\d{0,2}/[1-9]\d{0,2})?",
        shape="such as 2/5, or empty",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(OwnDataConfig):
    """scikit-learn's 1,797 handwritten digits, 8 x 8, embedded in the package."""

    source: Literal["digits"] = key("digits", "where the images come from")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(OwnDataConfig):
    """Deterministic coloured shapes, for tests and benchmarks."""

    source: Literal["synthetic"] = key("synthetic", "where the images come from")
    classes: int = key(10, "number of classes", low=2, high=1000)
    images_per_class: int = key(40, "training images of each class; test has a quarter of it", low=2, high=1_000_000)


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """What every source that reads images from the disk shares."""

    source: str = key("folder", "where the images come from")
    root: str = key("", "the data set's folder", pattern="(?s:.+)", shape="the path of a folder", path=True)
    image_size: int = key(128, "side of the square image that the model sees", unit="px", low=1, high=4096)
    resize: Resize = key("stretch", "stretch keeps the whole picture, crop keeps its proportions (central square)")
    val_fraction: float = key(
        0.2, "share of train held out as validation, every class alike, where no split is given", above=0, below=1
    )
    test_fraction: float = key(
        0.2, "share of all drawn as the test split, every class alike, where no split is given at all; 0 is none",
        low=0, below=1,
    )  # fmt: skip
    split_seed: int = key(0, "seed of the drawn splits; `seed` does not move them", low=0, high=2**32 - 1)
    fold: str = key(
        "", "I/K: train and validation together are divided into K parts, every class alike, and the I-th is "
        "validation (sweep.folds does it); empty: the ordinary split", pattern=r"(?:[1-9]\d{0,2}/[1-9]\d{0,2})?",
        shape="such as 2/5, or empty",
    )  # fmt: skip
    group_by: str = key(
        "", "what must stay on one side of a split (patient, plant, burst): a column of the table, or a regular "
        "expression on the image's name, whose groups () are the group; empty: none",
    )  # fmt: skip
    exclude: str = key(
        "", "a text file of image names, one a line, that are left out (`da6401 data check --near --write FILE`)",
        path=True,
    )  # fmt: skip
    bad_files: Literal["stop", "skip"] = key("stop", "unreadable files: stop with their list, or skip and record them")
    cache: Literal["on", "off"] = key(
        "on", "on decodes each file once for all runs, into a folder of caches; off decodes into memory in every run"
    )
    cache_limit_gb: float = key(
        20.0, "room for the caches; the longest unused goes first", unit="GB", above=0, high=1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class FolderConfig(ImageFiles):
    """Folders of images: root/{train,val|validation,test}/<class>/*, or root/<class>/* without splits."""

    source: Literal["folder"] = key("folder", "where the images come from")
    root: str = key(
        "", "the folder that holds train/ and val/, validation/ or test/, or one folder a class", pattern="(?s:.+)",
        shape="the path of a folder", path=True,
    )  # fmt: skip
    val_role: ValRole = key("auto", "what val/ is; auto: the test split where there is no test/, else validation")
    layout: FolderLayout = key(
        "auto", "splits: train/ and its neighbours hold the classes; flat: the root does; auto looks for train/"
    )
    class_depth: str = key(
        "auto", "which folder is the class: the first, the first two (Fruit/Apple), ... or leaf, every folder that "
        "holds images; auto takes the first and refuses what is deeper",
        pattern="auto|leaf|[1-9]", shape="auto, leaf or a number from 1 to 9",
    )  # fmt: skip
    follow_links: bool = key(False, "follow symbolic links that leave the root; else they are refused")


@dataclass(frozen=True, kw_only=True)
class TableKeys:
    """How a table names images and labels. A column is given by its name, or by its number from 1."""

    files: str = key(
        "auto", "the table below data.root, or one for each split with commas (train.txt,val.txt,test.txt); auto: "
        "those named as splits, else the only .csv, .tsv or .parquet",
    )  # fmt: skip
    separator: Separator = key("auto", "what stands between two columns; auto: what divides every line alike")
    header: Literal["auto", "yes", "no"] = key("auto", "whether the first line names the columns")
    path: str = key("auto", "the column of paths; auto: the one whose values end as images do (.jpg, .png, ...)")
    label: str = key(
        "auto", "the column of labels; auto: one named label, class, category or target, or the only other"
    )
    split: str = key(
        "auto", "the column of splits, whose values are as data=folder's folder names; none: there is none"
    )
    images: str = key("auto", "the folder below data.root that the paths start from; auto: data.root, or one in it")
    suffix: str = key("", "added to each path, where the table leaves it out (.jpg)")
    names: str = key("", "a table below data.root that gives each label its name; empty: labels are their own names")
    names_label: str = key("auto", "the column of labels in data.table.names; auto: the one with the same values")
    names_name: str = key("auto", "the column of names there; auto: the one called name, with a name for each label")


@dataclass(frozen=True, kw_only=True)
class TableConfig(ImageFiles):
    """A table of paths and labels: CSV, TSV, text lists, Parquet; splits and groups may be columns."""

    source: Literal["table"] = key("table", "where the images come from")
    root: str = key("", "the folder of the table, or the table itself", pattern="(?s:.+)", shape="a path", path=True)
    follow_links: bool = key(False, "read images whose paths leave the root (../, /home); else they are refused")
    table: TableKeys = field(default_factory=TableKeys)


@dataclass(frozen=True, kw_only=True)
class ShardsConfig(ImageFiles):
    """WebDataset shards: .tar files whose members of one name are a sample (000.jpg, 000.cls)."""

    source: Literal["shards"] = key("shards", "where the images come from")
    root: str = key("", "the folder of the .tar files", pattern="(?s:.+)", shape="the path of a folder", path=True)
    label: str = key("auto", "the member that holds the label: its ending (cls, txt), or json:KEY; auto: the only one")
    names: str = key("", "a file below data.root with the name of class 0, 1, ... on its lines; empty: no names")


@dataclass(frozen=True, kw_only=True)
class HuggingFaceConfig(ImageFiles):
    """A Hugging Face data set on the disk: a folder of `save_to_disk`, or Parquet files with the images in them."""

    source: Literal["huggingface"] = key("huggingface", "where the images come from")
    root: str = key(
        "", "the folder of `save_to_disk`, or of the .parquet files", pattern="(?s:.+)", shape="the path of a folder",
        path=True,
    )  # fmt: skip
    image: str = key("auto", "the column of images; auto: the only one")
    label: str = key("auto", "the column of labels; auto: the only ClassLabel, or one named label or class")


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig(ImageFiles):
    """A data set of torchvision.datasets by its name, with the splits that it has."""

    source: Literal["torchvision"] = key("torchvision", "where the images come from")
    root: str = key(
        "", "the folder that torchvision.datasets is given as root", pattern="(?s:.+)", shape="the path of a folder",
        path=True,
    )  # fmt: skip
    name: str = key(
        "CIFAR10", "its name in torchvision.datasets: CIFAR10, MNIST, Flowers102, Food101, EuroSAT or another"
    )
    download: bool = key(False, "fetch what is not there; else it is an error, and nothing needs a network")


DataConfig = (
    DigitsConfig | FolderConfig | SyntheticConfig | TableConfig | ShardsConfig | HuggingFaceConfig | TorchvisionConfig
)
