"""Run folders: files are whole, results come back, damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from da6401.errors import RunError
from da6401.runs.atomic_files import WriteError, write_atomic, write_json, write_text, write_yaml
from da6401.runs.run_folder import (
    CONFIG,
    LAST,
    METRICS,
    RESULT,
    RunResult,
    append_metrics,
    read_metrics,
    read_result,
    write_result,
)
from da6401.runs.run_lock import lock_run
from da6401.training.checkpoint import load_checkpoint, save_checkpoint

RESULT_OF_RUN = RunResult(
    status="completed", val_accuracy=0.5, val_loss=1.0, best_epoch=1, epochs_run=2, test_accuracy=None, test_loss=None,
    parameters=10, macs=20, seconds=1.5, reason="",
)  # fmt: skip


def test_a_result_comes_back(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT_OF_RUN)
    assert read_result(tmp_path) == RESULT_OF_RUN


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"status": "great"}'])
def test_a_damaged_result_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RESULT).write_bytes(content)
    with pytest.raises(RunError, match=r"result\.json"):
        read_result(tmp_path)


def test_a_missing_result_says_that_the_run_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="finished run folder"):
        read_result(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail_half_way(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with pytest.raises(WriteError, match="disk full"):
        write_atomic(path, fail_half_way)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_json_refuses_nan_and_keeps_what_was_there(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": 1\n}\n'


def test_metrics_come_back_without_a_torn_last_line(tmp_path: Path) -> None:
    append_metrics(tmp_path, {"epoch": 1, "val_loss": 0.25})
    append_metrics(tmp_path, {"epoch": 2, "val_loss": 0.125})
    with open(tmp_path / METRICS, "ab") as file:
        file.write(b'{"epoch": 3, "val')
    assert [line["val_loss"] for line in read_metrics(tmp_path)] == [0.25, 0.125]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"epoch": 1}\nnonsense\n{"epoch": 3}\n')
    with pytest.raises(RunError, match="line 2"):
        read_metrics(tmp_path)


def test_a_folder_is_claimed_by_one_process_and_never_overwritten(tmp_path: Path) -> None:
    with lock_run(tmp_path, {"seed": 0}, resume=True) as resumes:
        assert not resumes
        with pytest.raises(RunError, match="another process"), lock_run(tmp_path, {"seed": 0}, resume=True):
            pass
    write_yaml(tmp_path / CONFIG, {"seed": 0, "study": "a"})
    save_checkpoint(tmp_path / LAST, {"model": {}})
    with lock_run(tmp_path, {"seed": 0, "study": "b"}, resume=True) as resumes:
        assert resumes
    with pytest.raises(RunError, match=r"another config \(seed\)"), lock_run(tmp_path, {"seed": 1}, resume=True):
        pass
    with pytest.raises(RunError, match=r"trainer\.resume=never"), lock_run(tmp_path, {"seed": 0}, resume=False):
        pass
    write_result(tmp_path, RESULT_OF_RUN)
    with pytest.raises(RunError, match="finished as completed"), lock_run(tmp_path, {"seed": 0}, resume=True):
        pass


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", {"model": {"w": torch.arange(3.0)}, "epoch": 2})
    content = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(content["model"]["w"], torch.arange(3.0))
    assert content["epoch"] == 2


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(RunError, match="not found"):
        load_checkpoint(path)
    save_checkpoint(path, {"model": {"w": torch.zeros(1000)}})
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"c\.pt"):
            load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(RunError, match="no checkpoint of da6401"):
        load_checkpoint(path)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "x": _Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(RunError, match="no readable checkpoint"):
        load_checkpoint(tmp_path / "bomb.pt")
