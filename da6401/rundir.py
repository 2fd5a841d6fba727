"""What a run folder holds, and how it is written: whole or not at all.

``config.yaml receipt.json metrics.jsonl result.json train.log checkpoints/{best,last}.pt``; a folder without
``result.json`` is unfinished.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import yaml
from filelock import FileLock, Timeout

from da6401.errors import RunError

CONFIG = "config.yaml"
RECEIPT = "receipt.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
BEST = "checkpoints/best.pt"
LAST = "checkpoints/last.pt"
LOCK = ".lock"
# What may differ when a run is taken up: none of it moves a bit of the weights.
RESUME_IGNORES = frozenset({"study", "trainer.progress", "trainer.checkpoint_minutes", "trainer.resume"})

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


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of a run folder.

    Raises:
        RunError: missing, unreadable, or no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read as a saved config ({error}); name a run folder") from error
    if not isinstance(tree, dict):
        raise RunError(f"{path}: is no saved config (a mapping of keys is expected); name a run folder")
    return tree


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


def write_metrics(run: Path, lines: Sequence[Mapping[str, float]]) -> None:
    """Make metrics.jsonl hold these epochs and no other: a run that is taken up has no line twice and none missing."""
    write_text(run / METRICS, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


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


@contextmanager
def claimed(run: Path, config: Mapping[str, Any], *, resume: bool) -> Iterator[bool]:
    """Hold a run folder for a new run, or for going on with an unfinished one; nothing finished is ever overwritten.

    Yields whether the run goes on from its last checkpoint. Another process cannot claim the folder meanwhile.

    Args:
        config: the run's whole configuration, as config.yaml holds it.
        resume: an unfinished run of the same configuration may be taken up.

    Raises:
        RunError: the folder is in use, holds a finished run, or one of another configuration.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(
            f"{run}: another process is running in this folder; choose another (hydra.run.dir=...)"
        ) from error
    try:
        yield _taken_up(run, config, resume=resume)
    finally:
        lock.release()


def _taken_up(run: Path, config: Mapping[str, Any], *, resume: bool) -> bool:
    """Whether there is a checkpoint to go on from; a run that never got one starts anew."""
    elsewhere = "choose another folder (hydra.run.dir=...) or study name"
    used = any((run / name).exists() for name in (CONFIG, METRICS, RESULT))
    if used and not resume:
        raise RunError(f"{run}: holds a run already, and trainer.resume=never; {elsewhere}")
    if (run / RESULT).exists() and read_result(run).status != "interrupted":
        raise RunError(f"{run}: holds a run already, finished as {read_result(run).status}; {elsewhere}")
    if (run / CONFIG).exists():
        saved = read_yaml(run / CONFIG)
        changed = sorted(name for name, old, new in differences(saved, config) if name not in RESUME_IGNORES)
        if changed:
            raise RunError(f"{run}: holds an unfinished run of another config ({', '.join(changed)}); {elsewhere}")
    return (run / LAST).exists()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The dotted keys in which two trees differ, with both values; None stands for a key that one does not have."""
    before, after = flat(old), flat(new)
    names = dict.fromkeys([*before, *after])
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
