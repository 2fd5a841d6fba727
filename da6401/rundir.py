"""What a run folder holds, and how it is written: whole or not at all.

``config.yaml receipt.json metrics.jsonl result.json train.log checkpoints/{best,last}.pt``; a folder without
``result.json`` is unfinished.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import yaml

from da6401.errors import RunError

CONFIG = "config.yaml"
RECEIPT = "receipt.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
BEST = "checkpoints/best.pt"
LAST = "checkpoints/last.pt"

Status = Literal["completed", "pruned", "diverged", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """result.json: how the run ended and what it reached. Metrics are None where no epoch was finished."""

    status: Status
    val_accuracy: float | None  # of the best epoch, 0..1
    val_loss: float | None  # of the best epoch, nats
    best_epoch: int | None  # from 1
    epochs_run: int
    test_accuracy: float | None  # None until `da6401 evaluate`
    test_loss: float | None
    parameters: int
    macs: int  # multiply-accumulates of one image
    seconds: float
    reason: str  # why it did not complete, "" where it did


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader, or a machine that lost power, finds the old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk, where folders can be synced
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """write_whole for UTF-8 text."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """write_whole for a JSON object, indented for people; NaN and infinity are refused, as JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path, tree: Mapping[str, Any]) -> None:
    """write_whole for nested plain values, keys in their own order."""
    write_text(path, yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder.

    Raises:
        RunError: missing, unreadable, or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found; is {path.parent} a finished run folder?") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); the file is damaged, run the training again") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds no JSON object; the file is damaged, run the training again")
    return value


def write_result(run: Path, result: RunResult) -> None:
    """Write result.json: from now on the run is finished."""
    write_json(run / RESULT, dataclasses.asdict(result))


def read_result(run: Path) -> RunResult:
    """The result of a finished run.

    Raises:
        RunError: no such run, unfinished, or damaged.
    """
    value = read_json(run / RESULT)
    names = {item.name for item in dataclasses.fields(RunResult)}
    if set(value) != names or value["status"] not in get_args(Status):
        raise RunError(
            f"{run / RESULT}: is not a result of this version (expected the keys {', '.join(sorted(names))})"
        )
    return RunResult(**value)


def append_metrics(run: Path, line: Mapping[str, float]) -> None:
    """Add one epoch to metrics.jsonl and sync it: a line is there whole, or not."""
    with open(run / METRICS, "ab") as file:
        file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The epochs of metrics.jsonl, in order; a torn last line (a kill in mid-write) is left out.

    Raises:
        RunError: missing, or a line before the last is damaged.
    """
    path = run / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); name a run folder") from error
    epochs = []
    for number, text in enumerate(lines, start=1):
        try:
            epochs.append(json.loads(text))
        except ValueError as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, line {number}: no JSON; the file is damaged") from error
    return epochs


def claim(run: Path) -> None:
    """Take a folder for a new run; nothing that an earlier run left is ever overwritten.

    Raises:
        RunError: a run has been here.
    """
    run.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(run / METRICS, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError as error:
        raise RunError(
            f"{run}: holds a run already; choose another folder (hydra.run.dir=...) or study name"
        ) from error
