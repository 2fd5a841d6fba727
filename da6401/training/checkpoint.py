"""Checkpoints: tensors and plain values only, written whole, their checksum within, read without running code."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from da6401.errors import RunError
from da6401.runs.atomic_files import write_atomic
from da6401.runs.run_folder import LAST, PREVIOUS

log = logging.getLogger(__name__)

Checkpoint = Mapping[str, Any]

# torch.save writes a zip, which may end in a comment: ours is the SHA-256 of all before it. The two bytes before the
# comment are its length, which torch writes as 0 and the checksum counts as 0.
LABEL = b"da6401 sha256 "
TRAILER = len(LABEL) + 64
CHUNK = 2**20
END = b"PK\x05\x06"  # of a zip's last record, 22 bytes long without a comment


class _Hashing:
    """A file that is hashed as it is written; remembers the machine's own error, which torch would hide."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(path: Path, content: Checkpoint, *, previous: Path | None = None) -> None:
    """Write tensors and plain values so that the file is the old one or the new one, never half of it.

    The new file is read again and its checksum compared before it takes the old one's place.

    Args:
        previous: the old file is kept under this name.

    Raises:
        WriteError: the disk does not take it; the old file is still there.
    """

    def write(file: BinaryIO) -> None:
        hashing = _Hashing(file)
        try:
            torch.save(dict(content), hashing)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise hashing.error or error from error
        file.seek(-2, 1)
        file.write(TRAILER.to_bytes(2, "little") + LABEL + hashing.digest.hexdigest().encode())

    write_atomic(path, write, verify=check_checksum, previous=previous)


def check_checksum(path: Path) -> None:
    """Read a checkpoint and compare its checksum; a plain file of torch.save, which has none, passes.

    Raises:
        OSError: it cannot be read.
        RunError: it is damaged.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(max(0, size - TRAILER - 2))
        trailer = file.read()
        if trailer[2:].startswith(LABEL):
            file.seek(0)
            left = size - TRAILER - 2
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            digest.update(b"\0\0")
            if trailer[2 + len(LABEL) :] != digest.hexdigest().encode():
                raise RunError(f"{path}: is damaged: its content does not have its checksum")
        elif trailer[-22:-18] != END:
            raise RunError(f"{path}: is damaged: cut off, or no checkpoint of da6401")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; a file that would run code is refused by torch's weights_only reader.

    Raises:
        RunError: missing, damaged, or not a checkpoint.
    """
    try:
        check_checksum(path)
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
    """last.pt, or the one before it where last.pt is missing or damaged, which is said aloud.

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
