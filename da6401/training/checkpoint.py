"""Checkpoints: tensors and plain values only, written atomically, verified, read without running code."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch
from torch import Tensor

from da6401.errors import RunError
from da6401.runs.atomic_files import write_atomic
from da6401.runs.run_folder import LAST, PREVIOUS

log = logging.getLogger(__name__)

Checkpoint = Mapping[str, Any]


def save_checkpoint(path: Path, content: Checkpoint, *, previous: Path | None = None) -> None:
    """Write tensors and plain values atomically; the new file's checksums are verified before it replaces the old one.

    Args:
        previous: the old file is kept under this name.

    Raises:
        WriteError: it cannot be written; the old file is still there.
    """

    def write(file: BinaryIO) -> None:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:  # torch's own; what the operating system said is behind it
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    write_atomic(path, write, verify=verify_checksums, previous=previous)


def verify_checksums(path: Path) -> None:
    """Read a checkpoint, which is a zip file, and compare the CRC-32 of each of its entries.

    Raises:
        OSError: it cannot be read.
        RunError: it is damaged.
    """
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged zip file makes the reader raise nearly anything
        raise RunError(f"{path}: is damaged: cut off, or no checkpoint of da6401 ({error})") from error
    if damaged is not None:
        raise RunError(f"{path}: is damaged: the content of {damaged} does not have its checksum")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; a file that would run code is refused by torch's weights_only reader.

    Raises:
        RunError: missing, damaged, or not a checkpoint.
    """
    try:
        verify_checksums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found; did the run end its first epoch?") from error
    except RunError:
        raise
    except pickle.UnpicklingError as error:  # torch's own text advises to read it the unsafe way
        raise RunError(
            f"{path}: is no readable checkpoint (it holds more than tensors, which could run code)"
        ) from error
    except Exception as error:  # a foreign file can make the unpickler raise nearly anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunError(f"{path}: is no readable checkpoint ({reason}); run the training again") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise RunError(f"{path}: is no checkpoint of da6401")
    return content


def load_last(run: Path) -> dict[str, Any]:
    """last.pt, or the one before it where last.pt is missing or damaged, with a warning.

    Raises:
        RunError: neither can be read.
    """
    try:
        return load_checkpoint(run / LAST)
    except RunError as error:
        if not (run / PREVIOUS).exists():
            raise RunError(f"{error}. To start the run anew, remove {run / 'checkpoints'}") from error
        log.warning("%s. Going on from the one before it, %s", error, run / PREVIOUS)
    return load_checkpoint(run / PREVIOUS)


def model_state(content: Checkpoint) -> dict[str, Tensor]:
    """The weights of a checkpoint."""
    state: dict[str, Tensor] = content["model"]
    return state


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """One hash of all tensors: names, types, shapes and bits, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
