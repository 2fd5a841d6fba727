"""data=shards: WebDataset shards. The images are read at their places in the .tar files, in any order.

An uncompressed .tar has its members one after another, so that a place and a length are enough to read one; neither
the webdataset package nor unpacking is needed.
"""

# N images

from __future__ import annotations

import functools
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from da6401.config.schema import ShardsConfig
from da6401.data.labels import names_of_numbers, numbered, refuse_doubled, role_of, split_number
from da6401.data.layout import given_folder
from da6401.data.listing import Listing
from da6401.data.table import SUFFIXES
from da6401.data.tree import BadFile, LabelledFile
from da6401.errors import DataError
from da6401.redact import listed, one_line

LABELS = ("cls", "txt", "json")
MOST_LABEL_BYTES = 2**20
Place = tuple[int, int]  # offset and length in bytes


@dataclass
class _Sample:
    """The members of one key: the image's place, and the texts of the others by their endings."""

    image: Place | None = None
    ending: str = ""
    texts: dict[str, str] = field(default_factory=dict)


def list_shards(cfg: ShardsConfig) -> Listing:
    """Every sample of the shards; their headers and labels are read, no image.

    Raises:
        DataError: no shards, a damaged or compressed one, or a sample with no label or several, or several images.
    """
    root = given_folder(cfg.root).resolve()
    paths = sorted(path for path in root.rglob("*.tar") if path.is_file())
    if not paths:
        packed = sorted(path.name for path in root.rglob("*.tar.*"))
        found = f"; {listed(packed, most=3)}: unpack to .tar, so that images can be read in any order" if packed else ""
        raise DataError(f"{root} holds no .tar file{found}.")
    roles = {path: role_of(path.relative_to(root)) for path in paths}
    if None in roles.values() and any(roles.values()):
        unknown = [path.name for path, role in roles.items() if role is None]
        raise DataError(
            f"{root}: which split is {listed(unknown, most=5)}? Name shards train-..., val-... and test-..."
        )
    names, labels, sides, places, bad = [], [], [], [], list[BadFile]()
    member = cfg.label
    for path in paths:
        shard = str(path.relative_to(root).with_suffix("").as_posix())
        for key, sample in _samples(path).items():
            name = f"{shard}/{key}{sample.ending}"
            if sample.image is None:
                bad.append(BadFile(f"{shard}/{key}", "a sample without an image"))
                continue
            member = _label_member(sample.texts, path) if member == "auto" else member
            label = _label(sample.texts, member)
            if label is None:
                bad.append(BadFile(name, f"a sample without a label ({member}; data.label says which member it is)"))
                continue
            names.append(name)
            labels.append(label)
            sides.append(split_number(roles[path]))
            places.append((path, sample.image))
    refuse_doubled(names, root)
    ordered, labels_N = numbered(labels)
    class_names = _class_names(cfg, root, ordered)

    def locate(row: int) -> LabelledFile:
        path, place = places[row]
        return LabelledFile(names[row], str(path), class_names[labels_N[row]], functools.partial(_read, path, place))

    split = "splits by the shards' names" if any(roles.values()) else "no splits"
    return Listing(
        root=root,
        found=f"Layout: {len(paths)} WebDataset shards; labels in {member} (data.label), {split}.",
        class_names=class_names,
        names=names,
        labels_N=labels_N,
        splits_N=np.array(sides, dtype=np.int8),
        locate=locate,
        bad=tuple(bad),
    )


def _samples(path: Path) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    doubled: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                base, _, ending = name.partition(".")
                if not member.isfile() or not base or not ending:
                    continue
                key = f"{folder}/{base}" if folder else base
                sample = samples.setdefault(key, _Sample())
                if f".{ending.lower()}".endswith(SUFFIXES):
                    if sample.image is not None:
                        doubled.append(f"{key}{sample.ending} and {key}.{ending}")
                    sample.image, sample.ending = (member.offset_data, member.size), f".{ending}"
                elif member.size <= MOST_LABEL_BYTES and ending.lower() in LABELS:
                    if ending.lower() in sample.texts:
                        doubled.append(f"{key}.{ending} twice")
                    content = archive.extractfile(member)
                    assert content is not None, "a regular file"
                    sample.texts[ending.lower()] = content.read().decode("utf-8", "replace").strip()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path} cannot be read as an uncompressed .tar: {error}.") from error
    if doubled:
        raise DataError(
            f"{path}: members of one sample mean the same: {listed(doubled, most=5)}. A sample is one image and its "
            "label, and its key stands once in a shard: leave the others out, or give them keys of their own."
        )
    return samples


def _label_member(texts: Mapping[str, str], path: Path) -> str:
    """The member that holds labels, by the first sample."""
    if "cls" in texts:
        return "cls"
    if len(texts) == 1 and "txt" in texts:
        return "txt"
    choices = [name for name in texts if name != "json"]
    if "json" in texts:
        try:
            value = json.loads(texts["json"])
        except (ValueError, RecursionError):
            choices.append("json:KEY")
        else:
            choices += [f"json:{key}" for key in value] if isinstance(value, dict) else []
            if not choices:
                found = one_line(texts["json"][:50])
                raise DataError(f'{path}: a .json without a key ({found}): write {{"label": ...}}, or .cls members.')
    if len(choices) == 1:
        return choices[0]
    have = f"data.label=one of {listed(choices)}" if choices else "its samples have none of .cls, .txt, .json"
    raise DataError(f"{path}: which member holds the label is not clear: {have}.")


def _label(texts: Mapping[str, str], member: str) -> str | None:
    ending, _, key = member.partition(":")
    text = texts.get(ending)
    if text is None or not key:
        return text or None
    try:
        value = json.loads(text)[key]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(value) if isinstance(value, (str, int)) else None


def _class_names(cfg: ShardsConfig, root: Path, labels: list[str]) -> tuple[str, ...]:
    if not cfg.names:
        return tuple(labels)
    try:
        names = (root / cfg.names).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.names={cfg.names}: {root / cfg.names} cannot be read as UTF-8 text: {error}.") from error
    return names_of_numbers(labels, names, f"data.names={cfg.names}")


def _read(path: Path, place: Place) -> bytes:
    offset, length = place
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
