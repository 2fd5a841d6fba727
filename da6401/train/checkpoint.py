"""Checkpoints: tensors and plain values only, written whole, read without running code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from da6401.errors import RunError
from da6401.rundir import write_whole

Checkpoint = Mapping[str, Any]


def save_checkpoint(path: Path, content: Checkpoint) -> None:
    """Write tensors and plain values so that the file is the old one or the new one, never half of it."""
    write_whole(path, lambda file: torch.save(dict(content), file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; a file that would run code is refused by torch's weights_only reader.

    Raises:
        RunError: missing, damaged, or not a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found; did the run end its first epoch?") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path}: is no readable checkpoint ({reason}); run the training again") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise RunError(f"{path}: is no checkpoint of da6401")
    return content


def model_state(content: Checkpoint) -> dict[str, Tensor]:
    """The weights of a checkpoint."""
    state: dict[str, Tensor] = content["model"]
    return state
