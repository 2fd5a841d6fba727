"""The folder that an export goes into: what of it is ours to write over, and what is of another model."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from da6401.commands.exporting.int8 import INT8
from da6401.commands.exporting.onnx_files import ABOUT, ONNX, PT2
from da6401.commands.exporting.shipped import FILES, FIRST_FILES, PARITY, PREPROCESS
from da6401.commands.exporting.weights_files import SAFETENSORS, TORCHSCRIPT
from da6401.errors import RunError, UserError
from da6401.redact import json_text, safe
from da6401.runs.run_folder import read_json
from da6401.training.checkpoint import weights_sha256

OTHER_TARGET = "name another folder (--out DIR)"
DIGEST = "digest"  # in ABOUT: of the weights and SETTINGS; a folder of an older version has none
SETTINGS = ("class_names", "image_size", "resize", "model", "mirror_images", "temperature")
FILES_OF = {  # by format; a folder may lack some
    "onnx": (ONNX, PT2, INT8, *FILES),
    "safetensors": (SAFETENSORS,),
    "torchscript": (TORCHSCRIPT,),
}


def digest_of(weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """One hash of a model's weights and of what else its answers depend on."""
    settings = json_text({name: about.get(name) for name in SETTINGS})
    return hashlib.sha256(f"{weights_sha256(weights)} {settings}".encode()).hexdigest()


def check_target(target: Path, formats: Iterable[str]) -> None:
    """Refuse a folder in which files would be lost that no export wrote.

    Raises:
        UserError: it names those files, or that the target is no folder.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{safe(target)}: is a file; {OTHER_TARGET}")
    replaced = [ABOUT, *(name for each in formats for name in FILES_OF[each])]
    own = _own_files(target)
    lost = [name for name in replaced if name not in own and (target / name).exists()]
    if lost:
        raise UserError(
            f"{safe(target)}: has files of these names that da6401 export did not write: {', '.join(lost)}; "
            f"{OTHER_TARGET}. Nothing was written"
        )


def files_of_another(target: Path, formats: Sequence[str], about: Mapping[str, Any]) -> dict[str, list[Path]]:
    """By format that is not exported now: its files in the folder, where they are of another model or other settings.

    A folder of an older version does not say of which weights it is: equal settings count as the same model.

    Args:
        about: of the model that is exported now.
    """
    before = about_of(target)
    names = (DIGEST,) if DIGEST in before else tuple(name for name in SETTINGS if name in before)
    if names and all(before[name] == about.get(name) for name in names):
        return {}
    own = _own_files(target)
    others = {name: files for name, files in FILES_OF.items() if name not in formats}
    found = {name: [target / file for file in files if file in own] for name, files in others.items()}
    return {name: files for name, files in found.items() if files}


def removed(found: Mapping[str, Sequence[Path]], *, known: bool) -> str:
    """The line that says so of ``files_of_another``.

    Args:
        known: the folder had a digest.
    """
    why = "they were of another model or other settings" if known else "their version does not say of which model"
    names = ", ".join(safe(file) for files in found.values() for file in files)
    has_int8 = any(file.name == INT8 for files in found.values() for file in files)
    again = shlex.join([*(word for name in found for word in ("--to", name)), *(["--int8"] if has_int8 else [])])
    return f"removed, for {why}: {names}; {again} writes them of this one"


def about_of(target: Path) -> dict[str, Any]:
    """What a folder's ABOUT says; {} where there is none of ours."""
    return _json(target / ABOUT)


def _own_files(target: Path) -> set[str]:
    """The names of the files there that an export wrote; each version wrote its groups of them together."""
    names = {ONNX, PT2, INT8, SAFETENSORS, TORCHSCRIPT, ABOUT} if about_of(target) else set()
    if _json(target / PREPROCESS):
        names |= set(FILES if (target / PARITY).exists() else FIRST_FILES)
    return {name for name in names if (target / name).exists()}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except RunError:
        return {}
    return content if {"class_names", "image_size"} <= content.keys() else {}
