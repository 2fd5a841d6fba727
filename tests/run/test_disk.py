"""Disks that refuse, files that are damaged: a clear error, exit 2, and what was there still loads."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from da6401.errors import RunError
from da6401.runs import atomic_files, run_folder
from da6401.runs.atomic_files import WriteError
from da6401.runs.run_folder import BEST, LAST, METRICS, PREVIOUS, RESULT, read_metrics, read_result
from da6401.training import checkpoint_writer, loop
from da6401.training.checkpoint import load_checkpoint, save_checkpoint
from da6401.training.run import run
from tests import forked
from tests.image_trees import image_tree
from tests.outcomes import outcome
from tests.run.test_resume import HARD
from tests.tiny_runs import SMALL, compose, typed

LIMIT = 40_000  # bytes: enough for config and receipt, too little for a checkpoint of ours


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(compose(*HARD), folder)
    return folder


def _stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, *, epoch: int) -> None:
    """A run whose disk is full from the given epoch on."""
    original = run_folder.append_metrics

    def full(where: Path, line: Any) -> None:
        if line["epoch"] >= epoch:
            with atomic_files.explain_write_errors(where / METRICS):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(where, line)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "append_metrics", full)
        patch.setattr(checkpoint_writer, "PATIENCE", 0)  # every epoch is written at once, as in runs of real length
        with pytest.raises(WriteError, match="No space left on device"):
            run(compose(*HARD), folder)


def test_a_run_on_a_full_disk_stays_unfinished_and_goes_on(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    _stopped(folder, monkeypatch, epoch=3)
    assert not (folder / RESULT).exists()
    assert len(read_metrics(folder)) == 2
    load_checkpoint(folder / LAST)
    load_checkpoint(folder / PREVIOUS)
    run(compose(*HARD), folder)
    assert outcome(folder) == outcome(whole)
    assert not (folder / PREVIOUS).exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path,
    whole: Path,
    damage: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "run"
    _stopped(folder, monkeypatch, epoch=3)
    damage(folder / LAST)
    with caplog.at_level(logging.WARNING):
        run(compose(*HARD), folder)
    assert "Going on from the one before it" in caplog.text
    assert outcome(folder) == outcome(whole)


def test_where_nothing_can_be_read_the_run_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    _stopped(folder, monkeypatch, epoch=3)
    shutil.copytree(folder, tmp_path / "other")
    _flip(folder / LAST)
    _cut(folder / PREVIOUS)
    with pytest.raises(RunError, match=r"last\.prev\.pt: is damaged"):
        run(compose(*HARD), folder)
    _flip(tmp_path / "other" / BEST)
    with pytest.raises(RunError, match=r"best\.pt: cannot be read .*to start the run anew"):
        run(compose(*HARD), tmp_path / "other")


def test_no_flipped_bit_and_no_cut_changes_what_is_read(tmp_path: Path) -> None:
    """Bits that nobody reads may flip, such as padding and dates; all others are found."""
    import torch

    path = tmp_path / "c.pt"
    weights = torch.arange(50.0)
    save_checkpoint(path, {"model": {"w": weights}})
    content = path.read_bytes()
    found = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            read = load_checkpoint(path)
        except RunError:
            found += 1
        else:
            assert list(read) == ["model"]
            assert torch.equal(read["model"]["w"], weights)
        path.write_bytes(content[:place])
        with pytest.raises(RunError, match=r"c\.pt"):
            load_checkpoint(path)
    assert found > len(content) / 7 / 2


def test_a_checkpoint_that_cannot_be_proven_does_not_replace_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    path = tmp_path / "c.pt"
    save_checkpoint(path, {"model": {"w": torch.zeros(3)}})
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 100))  # a disk that loses data
    with pytest.raises(RunError, match="is damaged"):
        save_checkpoint(path, {"model": {"w": torch.ones(3)}})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.zeros(3))
    assert [item.name for item in tmp_path.iterdir()] == ["c.pt"]


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))


def _permissions_count() -> None:
    """Give up root's right to read and write where the permissions say no (CAP_DAC_*); others never had it."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 1 | 1 << 2)
    assert libc.capset(header, sets) == 0


def _refused(words: list[str], cwd: Path, before: Callable[[], None] | None = None) -> str:
    code, _, errors = forked.command(words, cwd=cwd, before=before) if before else typed(*words, cwd=cwd)
    assert code == 2, errors
    assert "Traceback" not in errors
    assert errors.startswith("da6401: "), errors
    assert errors.count("\n") == 1
    return errors


BIG = (*SMALL, "model.dense_width=512", "hydra.run.dir=run")


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    errors = _refused(["train", *BIG], tmp_path, _small_files)
    assert "File too large" in errors
    assert "ulimit -f" in errors
    assert typed("train", *BIG, cwd=tmp_path)[0] == 0
    assert read_result(tmp_path / "run").status == "completed"


def test_evaluating_in_a_folder_that_takes_nothing_keeps_its_result(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    before = (tmp_path / "run" / RESULT).read_bytes()
    (tmp_path / "run").chmod(0o555)
    errors = _refused(["evaluate", "run"], tmp_path, _permissions_count)
    assert "Permission denied" in errors
    assert "hydra.run.dir" not in errors
    assert (tmp_path / "run" / RESULT).read_bytes() == before


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    errors = _refused(["train", *SMALL, "hydra.run.dir=closed/run"], tmp_path, _permissions_count)
    assert "Permission denied" in errors
    assert "closed/run" in errors
    assert "or choose another folder (hydra.run.dir=...). What was there before is untouched, and the same" in errors
    assert list((tmp_path / "closed").iterdir()) == []


def test_data_that_may_not_be_read(tmp_path: Path) -> None:
    image_tree(tmp_path / "data", splits=["."])
    (tmp_path / "data" / "cat").chmod(0o644)  # its files have names, and nothing more
    own = [word for word in SMALL if not word.startswith("data")]
    for words in (
        ["data", "check", "data"],
        ["data", "info", "data"],
        ["train", *own, "data=folder", "data.root=data"],
    ):
        errors = _refused(words, tmp_path, _permissions_count)
        assert "data/cat/0.png: cannot be read (Permission denied): change the permissions" in errors
        assert "written" not in errors
        assert "this machine failed" not in errors
    (tmp_path / "data" / "cat").chmod(0o755)


def test_a_list_is_not_written_over_a_folder(tmp_path: Path) -> None:
    image_tree(tmp_path / "data", splits=["."])
    errors = _refused(["data", "check", "data", "--near", "--write", "data"], tmp_path)
    assert "data: is a folder; name another file (--write" in errors


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/run"):
        for words in ((f"hydra.run.dir={place}",), ("--multirun", "seed=1,2", f"hydra.sweep.dir={place}")):
            errors = _refused(["train", *SMALL, *words], tmp_path)
            key = words[-1].partition("=")[0]
            assert "cannot be written (" in errors
            assert (
                f"; a file is in the way: move it, or choose another folder ({key}=...). What was there before"
                in errors
            )


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting a small disk takes root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_and_a_read_only_one(tiny_disk: Path) -> None:
    words = ["train", *SMALL, "model.dense_width=256", f"hydra.run.dir={tiny_disk / 'run'}", "trainer.epochs=3"]
    errors = _refused(words, tiny_disk.parent)
    assert "No space left on device" in errors
    assert "make room" in errors
    assert not (tiny_disk / "run" / RESULT).exists()
    for path in (tiny_disk / "run").glob("checkpoints/*.pt"):
        load_checkpoint(path)
    subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
    assert typed(*words, cwd=tiny_disk.parent)[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    before = (tiny_disk / "run" / RESULT).read_bytes()
    errors = _refused(["evaluate", str(tiny_disk / "run")], tiny_disk.parent)
    assert "Read-only file system" in errors
    assert (tiny_disk / "run" / RESULT).read_bytes() == before
