"""The cores that a process may use: its affinity, and its container's limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from da6401.machine import cores
from da6401.machine.cores import available_cores, cpu_limit

# Name, lines of /proc/self/cgroup, files under /sys/fs/cgroup, cores.
V1 = "3:cpu,cpuacct:/docker/1\n1:name=systemd:/x\n"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
GROUPS: list[tuple[str, str, dict[str, str], float | None]] = [
    ("docker --cpus=1.5, version 2", "0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    ("no limit", "0::/\n", {"cpu.max": "max 100000\n"}, None),
    ("the root of version 2 has no such file", "0::/\n", {}, None),
    ("a group within", "0::/a/b\n", {"a/b/cpu.max": "400000 100000\n"}, 4.0),
    ("the one above is narrower", "0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2.0),
    ("the one itself is narrower", "0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "max 100000"}, 0.5),
    ("its own group is out of sight", "0::/../elsewhere\n", {"cpu.max": "300000 100000\n"}, 3.0),
    ("version 1", V1, {f"cpu,cpuacct/docker/1/{QUOTA}": "250000\n", f"cpu,cpuacct/docker/1/{PERIOD}": "100000\n"}, 2.5),
    ("version 1, its group at the top", V1, {f"cpu/{QUOTA}": "50000\n", f"cpu/{PERIOD}": "50000\n"}, 1.0),
    ("version 1 without a limit", "1:cpu:/\n", {f"cpu/{QUOTA}": "-1\n", f"cpu/{PERIOD}": "100000\n"}, None),
    (
        "both versions", "1:cpu:/\n0::/a\n",
        {f"cpu/{QUOTA}": "600000", f"cpu/{PERIOD}": "100000", "unified/a/cpu.max": "max 100000"}, 6.0,
    ),
    ("another controller's limit is no limit", "1:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000\n"}, None),
    ("a damaged file", "0::/\n", {"cpu.max": "\n"}, None),
]  # fmt: skip


def tree(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Control groups as Linux shows them, and the file that says which of them are this process's."""
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return folder / "groups", folder / "own"


@pytest.mark.parametrize(("own", "files", "limit"), [row[1:] for row in GROUPS], ids=[row[0] for row in GROUPS])
def test_the_containers_limit(tmp_path: Path, own: str, files: dict[str, str], limit: float | None) -> None:
    assert cpu_limit(*tree(tmp_path, own, files)) == limit


@pytest.mark.parametrize(
    ("quota", "expected"), [(50_000, 1), (100_000, 1), (150_000, 2), (300_000, 3), (6_400_000, 4), (None, 4)]
)
def test_the_least_of_affinity_and_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int | None, expected: int
) -> None:
    groups, own = tree(tmp_path, "0::/\n", {"cpu.max": f"{quota or 'max'} 100000\n"})
    monkeypatch.setattr(cores, "CGROUPS", groups)
    monkeypatch.setattr(cores, "OWN_GROUPS", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cores() == expected


def test_no_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "missing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cores() == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
def test_a_process_bound_to_one_core_trains_and_decodes_with_one_thread() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import torch\n"
        "from da6401.data import decode\n"
        "from da6401.training.device import prepare\n"
        "from da6401.sweep.worker_pool import _own_cores\n"
        "made = []\n"
        "plain = decode.ThreadPoolExecutor\n"
        "decode.ThreadPoolExecutor = lambda max_workers: made.append(max_workers) or plain(max_workers)\n"
        "assert list(decode.in_threads(abs, [-1, -2], label='')) == [1, 2]\n"
        "prepare(seed=0, threads=0, deterministic=True)\n"
        "print(torch.get_num_threads(), *made, _own_cores())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS",)}
    environment["SLURM_CPUS_PER_TASK"] = "16"  # of a job's script that was started by hand on a smaller machine
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1", "1"]


def test_slots_share_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from da6401.sweep import worker_pool

    started: list[list[str]] = []

    def worker(words: list[str], **_: object) -> None:
        started.append(words)

    monkeypatch.setattr(worker_pool, "available_cores", lambda: 6)
    monkeypatch.setattr(worker_pool, "WorkerProcess", worker)
    worker_pool._start(1, tmp_path, 4, [])
    worker_pool._start(1, tmp_path, 2, [])
    assert [words[-1] for words in started] == ["trainer.threads=1", "trainer.threads=3"]
