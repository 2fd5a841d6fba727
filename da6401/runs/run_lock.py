"""The lock of a run folder: one process at a time may write into it, to start a run or to resume it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from da6401.errors import BusyError, ChangedDataError, RunError
from da6401.redact import listed
from da6401.runs.atomic_files import OTHER_RUN, explain_write_errors
from da6401.runs.renamed_keys import ADDED
from da6401.runs.run_folder import (
    AVERAGE,
    BEST,
    CALIBRATION,
    CONFIG,
    LAST,
    LOCK,
    LOOKS,
    MAY_CHANGE_ON_RESUME,
    METRICS,
    PLUGINS,
    PREVIOUS,
    PREVIOUS_BEST,
    RECEIPT,
    RESULT,
    TEST_CSV,
    VALIDATION_CSV,
    data_fingerprint,
    differences,
    holds_run,
    read_json,
    read_result,
    read_yaml,
)

FILES = (
    CONFIG,
    RECEIPT,
    METRICS,
    RESULT,
    LOCK,
    AVERAGE,
    BEST,
    LAST,
    PREVIOUS,
    PREVIOUS_BEST,
    TEST_CSV,
    VALIDATION_CSV,
    CALIBRATION,
    LOOKS,
)
OTHER_PLACE = f"{OTHER_RUN} or study name"


@contextmanager
def lock_run(run: Path, config: Mapping[str, Any], *, resume: bool) -> Iterator[bool]:
    """Lock a run folder for a new run or to resume an unfinished one; a finished run is never overwritten.

    Yields whether the run resumes from its last checkpoint.

    Args:
        config: the run's whole configuration, as config.yaml holds it.
        resume: an unfinished run of the same configuration may be resumed.

    Raises:
        BusyError: another process runs in the folder. RunError: it holds a finished run, or one of another
            configuration.
    """
    refuse_links(run)
    with explain_write_errors(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"{run}: another process is running in this folder; choose another (hydra.run.dir=...)"
            ) from error
    try:
        resumes = can_resume(run, config, resume=resume)
        for folder in (run, run / "checkpoints", run / ".hydra"):
            for leftover in folder.glob(".*.tmp"):  # of a process that was killed
                leftover.unlink()
        yield resumes
    finally:
        lock.release()


def refuse_links(run: Path) -> None:
    """Check that a run can only write into its own folder, whoever made it.

    Raises:
        RunError: something that a run writes is a symbolic link.
    """
    for name in (*FILES, "train.log", ".hydra", "wandb", "checkpoints", PLUGINS):
        if (run / name).is_symlink():
            raise RunError(f"{run / name}: is a symbolic link, and could lead out of the run folder; remove it")


def new_beside(run: Path) -> Path:
    """The first of RUN-2, RUN-3, ... that holds no run."""
    number = 2
    while holds_run(run.with_name(f"{run.name}-{number}")):
        number += 1
    return run.with_name(f"{run.name}-{number}")


def changed_keys(run: Path, config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The keys that matter to a result in which a run's config.yaml differs from a configuration, with both values.

    Raises:
        RunError: config.yaml is not there, or damaged.
    """
    found = differences(read_yaml(run / CONFIG), config)
    newer = [(key, None, value) for key, value in ADDED.items()]  # the run is of a version without them
    return sorted(
        (each for each in found if each not in newer and not MAY_CHANGE_ON_RESUME.fullmatch(each[0])),
        key=lambda each: each[0],
    )


def can_resume(run: Path, config: Mapping[str, Any], *, resume: bool) -> bool:
    """Whether there is a checkpoint to resume from; a run that has none yet starts from the beginning.

    Raises:
        RunError: the folder holds a finished run, or one of another configuration.
    """
    if holds_run(run) and not resume:
        raise RunError(f"{run}: holds a run already, and trainer.resume=never; {OTHER_PLACE}")
    if (run / RESULT).exists() and read_result(run).status != "interrupted":
        raise RunError(f"{run}: holds a run already, finished as {read_result(run).status}; {OTHER_PLACE}")
    if (run / CONFIG).exists():
        names = [name for name, _, _ in changed_keys(run, config)]
        if names:
            raise RunError(f"{run}: holds an unfinished run of another config ({', '.join(names)}); {OTHER_PLACE}")
    return (run / LAST).exists() or (run / PREVIOUS).exists()


def refuse_other_data(run: Path, fingerprint: str, class_names: Sequence[str]) -> None:
    """Check that a run resumes on the images that it began on; a run of a version without fingerprints may.

    Raises:
        ChangedDataError: the images are others, or their classes are.
    """
    before = data_fingerprint(run)
    if before in (None, fingerprint):
        return
    classes = read_json(run / RECEIPT).get("class_names")
    what = "images were added, removed, renamed or changed"
    if isinstance(classes, list) and classes != list(class_names):
        what = f"the classes were {listed(classes)}, and are {listed(class_names)}"
    raise ChangedDataError(
        f"{run}: the data has changed since this run began: {what}. Put the images back to resume it (a trial with "
        f"sweep.retry_failed=true), start anew with trainer.resume=never, or {OTHER_PLACE}"
    )
