"""The store of costly things: built once, whole or not at all, checked, bounded, and never taken from who uses it."""

from __future__ import annotations

import copy
import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from da6401.cli import main
from da6401.data.cache import store
from da6401.data.cache.cache_folder import FOLDER_VARIABLE, clear, in_use, list_entries, remove_entry
from da6401.data.cache.store import CacheEntry, Store
from da6401.errors import DataError

KB = 1000
BUILDER = """
import sys, time
from pathlib import Path
from da6401.data.cache.store import Store
def build(folder):
    (folder / "half").write_bytes(b"x" * 1000)
    with open(sys.argv[1], "a") as log:
        log.write("begun\\n")
    time.sleep(float(sys.argv[2]))
    (folder / "rest").write_bytes(b"y" * 1000)
    return {"n": 2}
store = Store("things", limit_bytes=10**9, off="data.cache=off")
held = store.open_or_build("k1", build, needed_bytes=2000, label="thing")
assert (held.folder / "rest").read_bytes() == b"y" * 1000 and held.about == {"n": 2}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def filled(size: int) -> Callable[[Path], Mapping[str, Any]]:
    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "content").write_bytes(os.urandom(size))
        return {"size": size}

    return build


def never(folder: Path) -> Mapping[str, Any]:
    raise AssertionError("built again")


def opened(key: str, size: int = KB, limit: int = 10**9, build: Callable[[Path], Any] | None = None) -> CacheEntry:
    return Store("things", limit_bytes=limit, off="data.cache=off").open_or_build(
        key, build or filled(size), needed_bytes=size, label=f"thing {key}"
    )


def keys() -> list[str]:
    return [entry.key for entry in list_entries()]


def test_what_is_built_is_opened_again_with_all_that_it_told() -> None:
    content = (opened("a", 300).folder / "content").read_bytes()
    again = opened("a", build=never)
    assert (again.folder / "content").read_bytes() == content
    assert again.about == {"size": 300}


def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", BUILDER, str(tmp_path / "log"), "0.5"]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "begun\n"


def test_a_killed_build_leaves_nothing_that_looks_finished(tmp_path: Path, cache: Path) -> None:
    words = [sys.executable, "-c", BUILDER, str(tmp_path / "log")]
    process = subprocess.Popen([*words, "60"])
    while not (tmp_path / "log").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert list((cache / "things").iterdir())  # half of it is there
    assert not keys()
    opened("another")  # whoever builds next tidies up
    assert [path.name for path in (cache / "things").iterdir()] == ["another"]
    assert subprocess.run([*words, "0"], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(cache: Path, error: BaseException) -> None:
    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_bytes(b"x")
        raise error

    with pytest.raises(type(error)):
        opened("a", build=build)
    assert not list((cache / "things").iterdir())


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: os.truncate(folder / "content", 100),
        lambda folder: flip(folder / "content", 777),
        lambda folder: (folder / "content").unlink(),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "meta.json").unlink(),
    ],
    ids=["truncated", "a bit flipped", "gone", "meta damaged", "meta gone"],
)
def test_damage_is_found_said_and_mended(spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture) -> None:
    spoil(opened("a").folder)
    with caplog.at_level(logging.WARNING):
        mended = opened("a")
    assert "is damaged and is built again" in caplog.text
    assert (mended.folder / "content").stat().st_size == KB


def test_of_a_large_file_a_sample_with_both_ends_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHECK_BLOCKS", 4)
    starts = list(store._block_starts(100 * store.CHECK_BLOCK + 1))
    assert len(starts) == 4
    assert starts[0] == 0
    assert starts[-1] == 100 * store.CHECK_BLOCK


def test_the_longest_unused_goes_first_and_what_is_used_stays() -> None:
    size = 400 * KB
    for age, key in enumerate(["new", "older", "oldest"]):
        folder = opened(key, size).folder
        os.utime(folder / "meta.json", (time.time() - 100 * (age + 1),) * 2)
    used = opened("used", size)
    os.utime(used.folder / "meta.json", (0, 0))  # the oldest of all, but held
    gc.collect()
    held = opened("incoming", size, limit=4 * size + 50 * KB)
    assert sorted(keys()) == ["incoming", "new", "older", "used"]
    del held
    opened("last", size, limit=3 * size + 50 * KB)
    assert "used" in keys()
    assert len(keys()) == 3


def test_a_copy_of_an_entry_closes_nothing_of_it() -> None:
    entry = opened("a")
    copy.deepcopy(entry)
    (info,) = list_entries()
    assert not remove_entry(info), "it is in use"
    del entry
    assert remove_entry(info)


def test_opening_counts_as_use() -> None:
    for key in ("a", "b"):
        folder = opened(key).folder
        os.utime(folder / "meta.json", (100, 100))
    opened("a", build=never)
    assert keys() == ["b", "a"]


def test_too_small_a_limit_or_disk_is_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"data\.cache_limit_gb=0\.0005.*data\.cache=off"):
        opened("a", 600 * KB, limit=500 * KB, build=never)
    used = opened("used", 400 * KB)
    with pytest.raises(DataError, match=r"in use by others"):
        opened("a", 300 * KB, limit=500 * KB, build=never)
    assert in_use(list_entries()[0])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(DataError, match=r"has 0\.0 MB free.*data\.cache=off"):
        opened("a", 300 * KB, build=never)
    assert used.folder.is_dir()


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(DataError, match=f"{FOLDER_VARIABLE}.*data.cache=off"):
        opened("a")


def test_data_cache_lists_and_clears(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert main(["data", "cache"]) == 0
    assert "0 entries" in capsys.readouterr().out
    for key in ("aa1", "ab2", "ac3"):
        opened(key)
    held = opened("ab2", build=never)
    assert main(["data", "cache"]) == 0
    shown = capsys.readouterr().out
    assert str(cache) in shown.replace("\n", "")
    assert all(key in shown for key in ("aa1", "ab2", "ac3", "thing aa1", "in use"))
    assert main(["data", "cache", "--clear", "a"]) == 2
    assert "3 entries have keys that begin" in capsys.readouterr().err
    assert main(["data", "cache", "--clear", "zz"]) == 2
    assert main(["data", "cache", "--clear", "aa"]) == 0
    assert sorted(keys()) == ["ab2", "ac3"]
    assert main(["data", "cache", "--clear", "all"]) == 0
    assert "in use, kept: ab2" in capsys.readouterr().out
    assert keys() == ["ab2"]
    del held
    assert [entry.key for entry in clear("all")[0]] == ["ab2"]
    assert not keys()
