"""data=torchvision: the data sets of torchvision.datasets by name, with the splits that each of them has."""

# N images

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from da6401.config.schema import TorchvisionConfig
from da6401.config.splits import TEST, TRAIN, VALIDATION, SplitName
from da6401.data.labels import split_number
from da6401.data.listing import Listing
from da6401.data.tree import LabelledFile
from da6401.errors import ConfigError, DataError, UserError, did_you_mean
from da6401.redact import one_line

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """The arguments that give each split of a data set; without splits they are drawn."""

    splits: dict[SplitName, Arguments] | None


def _named(**splits: str) -> Kind:
    return Kind({role: {"split": splits[role]} for role in (TRAIN, VALIDATION, TEST) if role in splits})


FLAG = Kind({TRAIN: {"train": True}, TEST: {"train": False}})
TWO = _named(train="train", test="test")
THREE = _named(train="train", validation="val", test="test")
WHOLE = Kind(None)
EMNIST = Kind({role: {"split": "balanced", "train": role == TRAIN} for role in (TRAIN, TEST)})
# Of a set with a part that is both (trainval), that part is train. What is no classification of images is left out.
KINDS: dict[str, Kind] = {
    "CIFAR10": FLAG, "CIFAR100": FLAG, "MNIST": FLAG, "FashionMNIST": FLAG, "KMNIST": FLAG, "QMNIST": FLAG,
    "EMNIST": EMNIST, "USPS": FLAG, "SVHN": TWO, "STL10": TWO, "Food101": TWO, "GTSRB": TWO, "StanfordCars": TWO,
    "FGVCAircraft": THREE, "Flowers102": THREE, "DTD": THREE, "RenderedSST2": THREE, "PCAM": THREE,
    "Country211": _named(train="train", validation="valid", test="test"),
    "OxfordIIITPet": _named(train="trainval", test="test"), "Imagenette": _named(train="train", validation="val"),
    "EuroSAT": WHOLE, "Caltech101": WHOLE, "Caltech256": WHOLE, "SEMEION": WHOLE,
}  # fmt: skip
LABELS = ("targets", "_labels", "labels", "y")
FILES = ("_image_files", "_images", "imgs", "samples", "_samples")


def list_torchvision(cfg: TorchvisionConfig) -> Listing:
    """Every image of every split; of those that are files none is opened, others are in memory as torchvision has it.

    Raises:
        ConfigError: no such data set.
        DataError: it is not there, or cannot be fetched.
    """
    name = {known.lower(): known for known in KINDS}.get(cfg.name.lower())
    if name is None:
        known = ", ".join(KINDS)
        raise ConfigError([f"data.name={cfg.name}: must be one of {known}{did_you_mean(cfg.name, KINDS)}"])
    root = Path(cfg.root).expanduser().resolve()
    splits = KINDS[name].splits
    sets: dict[SplitName | None, Any] = {}
    if splits is None:
        sets[None] = _open(cfg, name, {})
    for given, arguments in (splits or {}).items():
        sets[given] = _open(cfg, name, arguments)
    names: list[str] = []
    labels: list[int] = []
    sides: list[int] = []
    places: list[tuple[Any, int]] = []
    for role, data in sets.items():
        found = _labels(data, name)
        names += [f"{name if role is None else role}/{row:07d}" for row in range(len(found))]
        labels += found
        sides += [split_number(role)] * len(found)
        places += [(data, row) for row in range(len(found))]
    class_names = _class_names(next(iter(sets.values())), max(labels) + 1)
    files = {id(data): _files(data) for data in sets.values()}
    folders = {id(data): str(_folder(data, root)) for data in sets.values()}

    def locate(row: int) -> LabelledFile:
        data, place = places[row]
        paths = files[id(data)]
        if paths is not None:
            return LabelledFile(names[row], str(paths[place]), class_names[labels[row]])
        content = functools.partial(_pixels, data, place)
        return LabelledFile(names[row], folders[id(data)], class_names[labels[row]], content, origin=name)

    told = ", ".join(str(role) for role in sets if role) or "none, so they are drawn"
    return Listing(
        root=root,
        found=f"Layout: torchvision.datasets.{name}; its splits: {told}.",
        class_names=class_names,
        names=names,
        labels_N=np.array(labels, dtype=np.int32),
        splits_N=np.array(sides, dtype=np.int8),
        locate=locate,
    )


def _open(cfg: TorchvisionConfig, name: str, arguments: Arguments) -> Any:
    """A split as torchvision opens it.

    Raises:
        DataError: it is not there, and may or can not be fetched.
    """
    import torchvision.datasets

    root = Path(cfg.root).expanduser().absolute()
    try:
        return getattr(torchvision.datasets, name)(str(root), download=cfg.download, **arguments)
    except ModuleNotFoundError as error:
        raise DataError(f"data.name={name} needs the package {error.name}: pip install {error.name}") from error
    except UserError:
        raise
    except (RuntimeError, OSError, URLError, ValueError) as error:
        fetch = "" if cfg.download else " Put it there, or have it fetched: data.download=true."
        raise DataError(f"torchvision's {name} cannot be read in {root}: {one_line(error)}.{fetch}") from error


def _labels(data: Any, name: str) -> list[int]:
    """The label of each image, without opening one."""
    for attribute in LABELS:
        found = getattr(data, attribute, None)
        if found is not None and len(found) == len(data):
            return [int(label) for label in found]
    for attribute in ("samples", "_samples", "imgs"):
        found = getattr(data, attribute, None)
        if found is not None and len(found) == len(data) and isinstance(found[0], tuple):
            return [int(label) for _, label in found]
    return [int(data[row][1]) for row in range(len(data))]  # PCAM alone: it tells a label with its image


def _class_names(data: Any, count: int) -> tuple[str, ...]:
    names = getattr(data, "classes", None) or getattr(data, "categories", None)
    if names is None or len(names) != count or len({str(name) for name in names}) != count:
        return tuple(str(label) for label in range(count))
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)


def _files(data: Any) -> Sequence[Path] | None:
    """The files of the images; None where they are in arrays."""
    for attribute in FILES:
        found = getattr(data, attribute, None)
        if not found or len(found) != len(data):
            continue
        paths = [
            Path(each[0] if isinstance(each, tuple) else each) for each in found if isinstance(each, (str, Path, tuple))
        ]
        if len(paths) == len(found) and paths[0].is_file():
            return paths
    return None


def _folder(data: Any, root: Path) -> Path:
    """The folder whose files hold the arrays: the set's own, or the root, in which the files of some sets lie."""
    places = ("raw_folder", "base_folder", "_base_folder")  # of MNIST and its kin, of CIFAR and STL10, of PCAM
    folders = [root / str(getattr(data, place)) for place in places if hasattr(data, place)]
    return next((folder for folder in folders if folder.is_dir()), root)


def _pixels(data: Any, row: int) -> bytes:
    """The image as a PPM or PGM file: its bytes are the pixels, so that its digest is theirs."""
    image = data[row][0]
    out = io.BytesIO()
    (image if image.mode == "L" else image.convert("RGB")).save(out, "PPM")
    return out.getvalue()
