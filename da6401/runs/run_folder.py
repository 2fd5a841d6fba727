"""What a run folder holds: the names of its files, its result, its metrics; how they are read and checked.

``config.yaml receipt.json metrics.jsonl result.json calibration.json looks.jsonl train.log`` and
``checkpoints/{best,last}.pt``; a folder without ``result.json`` is unfinished. A file of unknown origin is either read
whole or refused with a RunError.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from da6401.errors import RunError
from da6401.redact import json_text
from da6401.runs.atomic_files import append_line, write_json, write_text
from da6401.runs.renamed_keys import renamed_tree

CONFIG = "config.yaml"
RECEIPT = "receipt.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
VALIDATION_CSV = "validation.csv"  # of a completed run: the best epoch's answers
TEST_CSV = "test.csv"  # of an evaluated run
CALIBRATION = "calibration.json"  # beside them: the temperature that was fitted on validation
LOOKS = "looks.jsonl"  # of a run whose test split was looked at: one line for each look
BEST = "checkpoints/best.pt"
AVERAGE = "checkpoints/average.pt"  # the mean of the last epochs' weights, with trainer.average_end
LAST = "checkpoints/last.pt"
PREVIOUS = "checkpoints/last.prev.pt"  # the last.pt before, as a backup until the run ends
PREVIOUS_BEST = "checkpoints/best.prev.pt"  # the best.pt that belongs to the last.pt before
ENSEMBLE = "ensemble.json"  # of a folder whose model is made of the runs beside it: their names, and flips or not
PLUGINS = "plugins"  # of a run with plugins: the folder of their texts, which are never run from there
PLUGIN_FILES = "plugin_files"  # in the receipt: where they were on the machine of then, for printed commands alone
LOCK = ".lock"
SUMMARY = "sweep.json"  # of a sweep's folder, from its first end on
DATABASE = "study.db"  # beside it, where the study is in no other storage
# Keys that have no effect on the weights.
NO_EFFECT_ON_WEIGHTS = re.compile(r"study|sweep\..*|trainer\.(progress|checkpoint_minutes|resume|average_end)")
# Keys that may change when a run or a study resumes; they do not change what a result means. (Another device or number
# of threads can change the last bits of the weights.)
MAY_CHANGE_ON_RESUME = re.compile(
    rf"{NO_EFFECT_ON_WEIGHTS.pattern}|device|trainer\.threads|tracking\..*|data\.cache(_limit_gb)?"
)

LARGEST = 16 * 2**20  # bytes of a text file that is read; ours have some kilobytes
DEEPEST = 20  # levels of a saved config: ours has three

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
    weights_sha256: str | None = None  # of the weights after the last epoch; None where the run did not complete
    best_weights_sha256: str | None = None  # of those in best.pt
    trainable_parameters: int = 0  # of those that some epoch trains; 0 in folders of before it was kept
    # By the names of trainer.metric; None where one is undefined; {} in folders of before they were kept.
    val_metrics: dict[str, float | None] = field(default_factory=dict)  # of validation.csv
    test_metrics: dict[str, float | None] = field(default_factory=dict)  # of test.csv; {} until `da6401 evaluate`
    undefined_metrics: dict[str, str] = field(default_factory=dict)  # "val_metrics.macro_auroc": why
    peak_memory_mb: float = 0.0  # of the device on CUDA, else of the process; 0 in folders of before it was kept
    batch_parts: int = 1  # so many parts a batch was computed in: more than 1 after the device ran out of memory


def read_yaml(path: Path) -> dict[str, Any]:
    """A saved config; the keys have today's names, whatever version wrote it.

    Raises:
        RunError: missing, unreadable, no mapping, or with YAML aliases, which could expand to gigabytes.
    """
    try:
        text = _read_text(path)
        # Checked before anything is built: a few nested aliases can expand to more than the memory holds.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("an alias (*name), and a saved config has none")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} levels")
        tree = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found; name a run folder") from error
    except (OSError, ValueError, TypeError, RecursionError, OverflowError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{path}: cannot be read as a saved config ({reason}); name a run folder") from error
    if not isinstance(tree, dict):
        raise RunError(f"{path}: is no saved config (a mapping of keys is expected); name a run folder")
    return renamed_tree(tree, where=path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder.

    Raises:
        RunError: missing, unreadable, or no JSON object.
    """
    try:
        value = _json(_read_text(path))
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found; is {path.parent} a finished run folder?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); the file is damaged, run the training again") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds no JSON object; the file is damaged, run the training again")
    return value


def data_fingerprint(run: Path) -> str | None:
    """Which images a run was trained on, as its receipt says; None where there is none, or no readable one."""
    try:
        found = read_json(run / RECEIPT).get("data_fingerprint")
    except RunError:
        return None
    return found if isinstance(found, str) else None


def _read_text(path: Path) -> str:
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"larger than {LARGEST:,} bytes")
    return content.decode("utf-8")


def _json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON number")

    return json.loads(text, parse_constant=refuse)


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return any((folder / name).exists() for name in (CONFIG, METRICS, RESULT))


def write_result(run: Path, result: RunResult) -> None:
    """Write result.json: from now on the run is finished."""
    write_json(run / RESULT, dataclasses.asdict(result))


def read_result(run: Path) -> RunResult:
    """The result of a finished run.

    Raises:
        RunError: no such run, unfinished, or damaged.
    """
    value = read_json(run / RESULT)
    fields = dataclasses.fields(RunResult)
    names = {item.name for item in fields}
    needed = {item.name for item in fields if item.default is MISSING and item.default_factory is MISSING}
    if not needed <= set(value) <= names:
        raise RunError(
            f"{run / RESULT}: is not a result of this version (expected the keys {', '.join(sorted(names))})"
        )
    if wrong := wrong_fields(RunResult, value):
        raise RunError(f"{run / RESULT}: holds no valid {', '.join(wrong)}; the file is damaged")
    return RunResult(**value)


def wrong_fields(kind: type, values: Mapping[str, Any]) -> list[str]:
    """The names of values that do not have the type of a dataclass's field of that name."""
    hints = get_type_hints(kind)
    return [name for name, value in values.items() if not _has_type(hints[name], value)]


def _has_type(hint: Any, value: Any) -> bool:
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is UnionType:
        return any(_has_type(member, value) for member in inner)
    if kind is list:
        return isinstance(value, list) and all(_has_type(inner[0], item) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_has_type(inner[1], item) for item in value.values())
    if hint is float:
        return _is_number(value)
    return isinstance(value, hint) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def write_metrics(run: Path, lines: Sequence[Mapping[str, float]]) -> None:
    """Write exactly these epochs: after a resume no line is there twice and none is missing."""
    write_text(run / METRICS, "".join(json_text(line) + "\n" for line in lines))


def append_metrics(run: Path, line: Mapping[str, float]) -> None:
    """Add one epoch to metrics.jsonl; ``write_metrics`` syncs all of them at the end."""
    append_line(run / METRICS, json_text(line), sync=False)  # a checkpoint holds all lines, too


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The epochs of metrics.jsonl, in order; an incomplete last line, of a process that was killed, is left out.

    Raises:
        RunError: missing, or a line before the last is damaged.
    """
    path = run / METRICS
    try:
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); name a run folder") from error
    lines = text.removesuffix("\n").split("\n") if text else []
    epochs = []
    for number, line in enumerate(lines, start=1):
        try:
            values = _json(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and not text.endswith("\n"):
                break
            raise RunError(f"{path}, line {number}: no JSON; the file is damaged") from error
        if not _has_type(dict[str, float], values):
            raise RunError(f"{path}, line {number}: no epoch's numbers; the file is damaged")
        epochs.append(values)
    return epochs


def differences(*trees: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The dotted keys in which trees differ, each with its value in every tree; None: the tree has no such key."""
    leaves = [flat(tree) for tree in trees]
    names = dict.fromkeys(name for each in leaves for name in each)
    rows = [(name, *(each.get(name) for each in leaves)) for name in names]
    return [row for row in rows if any(value != row[1] for value in row[2:])]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
