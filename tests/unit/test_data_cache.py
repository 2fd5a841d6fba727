"""The cache of decoded images: the same pixels as without it, decoded once, and never out of date."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from da6401.config.schema import FolderConfig
from da6401.data import sources
from da6401.data.batches import batches, seeded
from da6401.data.cache import image_cache as cache_module
from da6401.data.cache.cache_folder import FOLDER_VARIABLE, list_entries
from da6401.data.image_sets import ImageSet, TrainingData
from da6401.data.sources import load_test_data, load_training_data
from da6401.errors import DataError

CPU = torch.device("cpu")
CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing-small"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_last", None)
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train (2 classes of 6) and test (2 of 2): textured JPEGs and PNGs of several sizes."""
    generator = np.random.default_rng(0)
    for split, each in (("train", 6), ("test", 2)):
        for name in "ab":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                coarse = generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((90 + 30 * number, 70 + 20 * number), Image.Resampling.BICUBIC)
                image.save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
    return tmp_path / "data"


def config(root: Path, **values: object) -> FolderConfig:
    return dataclasses.replace(FolderConfig(root=str(root), image_size=16), **values)  # type: ignore[arg-type]


def fresh(cfg: FolderConfig, monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    """As another process would load it."""
    monkeypatch.setattr(sources, "_last", None)
    return load_training_data(cfg)


def pixels_of(images: ImageSet) -> torch.Tensor:
    return images.images_NCHW[torch.arange(len(images.names))]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_module, "decode_files", refuse)


def assert_equal(one: TrainingData, other: TrainingData) -> None:
    assert (one.fingerprint, one.skipped, one.notes) == (other.fingerprint, other.skipped, other.notes)
    for part in ("train", "validation"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.names == b.names
        assert torch.equal(a.labels_N, b.labels_N)
        assert torch.equal(pixels_of(a), pixels_of(b))


# ---- the same answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("image_size", [7, 40])
def test_cached_and_uncached_are_equal_to_the_bit(
    root: Path, monkeypatch: pytest.MonkeyPatch, resize: str, image_size: int
) -> None:
    cached = fresh(config(root, resize=resize, image_size=image_size), monkeypatch)
    again = fresh(config(root, resize=resize, image_size=image_size), monkeypatch)
    plain = fresh(config(root, resize=resize, image_size=image_size, cache="off"), monkeypatch)
    assert isinstance(plain.train.images_NCHW, torch.Tensor)
    assert_equal(cached, plain)
    assert_equal(again, plain)
    orders = [
        [batch.images_BCHW for batch in batches(data.train, batch_size=3, device=CPU, shuffle=seeded(1))]
        for data in (cached, plain)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*orders, strict=True))
    test = [load_test_data(config(root, cache=which), ["a", "b"]) for which in ("on", "off")]
    assert torch.equal(pixels_of(test[0]), pixels_of(test[1]))


def test_real_photographs_are_equal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CLOTHING.is_dir():
        pytest.skip(f"{CLOTHING} is not on this machine")
    for folder in sorted((CLOTHING / "train").iterdir())[:2]:
        (tmp_path / "few/train" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:5]:
            shutil.copy(file, tmp_path / "few/train" / folder.name)
    cached = fresh(config(tmp_path / "few", image_size=64), monkeypatch)
    assert_equal(cached, fresh(config(tmp_path / "few", image_size=64, cache="off"), monkeypatch))


def test_bad_files_are_judged_alike_by_a_cache_that_knows_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train/a/bad.jpg").write_bytes((root / "train/a/1.jpg").read_bytes()[:300])
    (root / "train/b/empty.png").write_bytes(b"")
    plain = fresh(config(root, bad_files="skip", cache="off"), monkeypatch)
    assert_equal(fresh(config(root, bad_files="skip"), monkeypatch), plain)
    forbid_decoding(monkeypatch)
    assert_equal(fresh(config(root, bad_files="skip"), monkeypatch), plain)
    with pytest.raises(DataError, match="2 unusable files") as caught:
        fresh(config(root), monkeypatch)
    assert "train/b/empty.png: empty file" in str(caught.value)


# ---- decoded once, never out of date ----------------------------------------------------------------------------


def test_later_processes_and_other_splits_decode_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fresh(config(root), monkeypatch)
    forbid_decoding(monkeypatch)
    other = fresh(config(root, split_seed=3), monkeypatch)
    assert other.validation.names != first.validation.names
    os.utime(root / "train/a/0.png")
    shutil.copytree(root, root.parent / "elsewhere")
    assert_equal(fresh(config(root), monkeypatch), first)
    assert_equal(fresh(config(root.parent / "elsewhere"), monkeypatch), first)
    assert len(list_entries()) == 1


def test_what_changes_the_pixels_makes_another_entry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = {fresh(config(root), monkeypatch).fingerprint}
    (root / "train/a/2.png").unlink()
    prints.add(fresh(config(root), monkeypatch).fingerprint)
    shutil.copy(root / "train/b/2.png", root / "train/b/9.png")
    prints.add(fresh(config(root), monkeypatch).fingerprint)
    Image.new("RGB", (50, 50), "red").save(root / "train/b/9.png")
    changed = fresh(config(root), monkeypatch)
    prints.add(changed.fingerprint)
    assert len(prints) == len(list_entries()) == 4
    assert_equal(changed, fresh(config(root, cache="off"), monkeypatch))
    fresh(config(root, image_size=17), monkeypatch)
    fresh(config(root, resize="crop"), monkeypatch)
    monkeypatch.setattr(cache_module, "DECODER", "another")
    fresh(config(root), monkeypatch)
    assert len(list_entries()) == 7


def test_a_change_shows_though_size_and_modification_time_are_put_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(0.15)  # older than the grain of the time stamps
    before = fresh(config(root), monkeypatch)
    path = root / "train/a/0.png"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1  # of the end chunk's neighbourhood: the same size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fresh(config(root, bad_files="skip"), monkeypatch).fingerprint != before.fingerprint


def test_an_unchanged_tree_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(0.15)
    fresh(config(root), monkeypatch)
    read: list[Path] = []
    real = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    forbid_decoding(monkeypatch)
    fresh(config(root), monkeypatch)
    assert read == []
    os.utime(root / "train/a/0.png")
    fresh(config(root), monkeypatch)
    assert read == [root / "train/a/0.png"]


def test_a_damaged_index_costs_a_reading_and_no_more(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(0.15)
    before = fresh(config(root), monkeypatch)
    (index,) = (cache / "index").iterdir()
    index.write_text('{"train/a/0.png": [')
    forbid_decoding(monkeypatch)
    assert_equal(fresh(config(root), monkeypatch), before)


def test_an_unusable_cache_folder_is_the_users_to_mend(root: Path, cache: Path) -> None:
    time.sleep(0.15)
    cache.write_text("a file")
    with pytest.raises(DataError, match=r"DA6401_CACHE_DIR, or switch the cache off"):
        load_training_data(config(root))
    assert len(load_training_data(config(root, cache="off")).train.names) > 0


def test_positions_come_in_any_order_and_number(root: Path) -> None:
    images = load_training_data(config(root)).train.images_NCHW
    whole = images[torch.arange(images.shape[0])]
    for positions in ([], [3], [5, 4, 4, 0], [0, 1, 2, 7, 8, 1]):
        chosen = torch.tensor(positions, dtype=torch.int64)
        assert torch.equal(images[chosen], whole[chosen])


def test_training_leaves_the_test_split_out_of_the_cache(root: Path, cache: Path) -> None:
    time.sleep(0.15)
    load_training_data(config(root))
    assert [entry.label.split(", ")[1:3] for entry in list_entries()] == [["train and validation: 12 images", "16 px"]]
    assert all("test/" not in index.read_text() for index in (cache / "index").iterdir())
    load_test_data(config(root), ["a", "b"])
    assert len(list_entries()) == 2


# ---- batches ----------------------------------------------------------------------------------------------------


def gathering_threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def test_the_gathering_thread_ends_with_the_iteration_however_it_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("da6401.data.batches.SMALL", 0)
    images = load_training_data(config(root)).train
    seen = [gathering_threads() for _ in batches(images, batch_size=2, device=CPU, shuffle=seeded(0))]
    assert seen[0] == max(seen) == 1
    assert gathering_threads() == 0
    stream = batches(images, batch_size=2, device=CPU, shuffle=None)
    next(stream)
    del stream
    assert gathering_threads() == 0

    def interrupted() -> None:
        for _ in batches(images, batch_size=2, device=CPU, shuffle=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gathering_threads() == 0


@pytest.mark.parametrize("small", [0, 10**6])
def test_an_error_of_the_gathering_thread_reaches_the_loop(monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    monkeypatch.setattr("da6401.data.batches.SMALL", small)

    class Broken:
        shape = torch.Size((4, 3, 2, 2))

        def __getitem__(self, positions_B: torch.Tensor, /) -> torch.Tensor:
            raise OSError("the disk is gone")

    images = ImageSet(Broken(), torch.zeros(4, dtype=torch.int64), ("a", "b", "c", "d"))
    with pytest.raises(OSError, match="the disk is gone"):
        list(batches(images, batch_size=2, device=CPU, shuffle=None))
    assert gathering_threads() == 0


LEAVES = """
import numpy as np, torch
from da6401.data import batches
from da6401.data.cache.image_cache import CachedRows
from da6401.data.cache.store import Store
from da6401.data.image_sets import ImageSet

def build(folder):
    (folder / "rows").write_bytes(bytes(64 * 48))
    return {}

batches.SMALL = 0
entry = Store("images", limit_bytes=10**6, off="").open_or_build("a", build, needed_bytes=64 * 48, label="x")
rows = CachedRows(entry, "rows", np.arange(64), (3, 4, 4), torch.uint8)
images = ImageSet(rows, torch.zeros(64, dtype=torch.int64), ("x",) * 64)
stream = batches.batches(images, batch_size=2, device=torch.device("cpu"), shuffle=None)
next(stream)
raise SystemExit(7)
"""


def test_a_process_that_leaves_in_mid_epoch_does_not_hang_and_says_nothing() -> None:
    """The thread, the entry's lock and its file outlive Python's modules there."""
    left = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, check=False, timeout=120)
    assert (left.returncode, left.stderr) == (7, "")


MEMORY = """
import os, sys
import numpy as np, torch
from da6401.data.batches import batches, seeded
from da6401.data.cache.image_cache import CachedRows
from da6401.data.image_sets import ImageSet
from da6401.data.cache.store import Store

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))

SIDE, COUNT = 256, 2000  # 375 MiB
def build(folder):
    with open(folder / "images.bin", "wb") as file:
        for row in range(COUNT):
            file.write(bytes([row % 251]) * (3 * SIDE * SIDE))
    return {"bad": []}
held = Store("images", limit_bytes=10**9, off="data.cache=off").open_or_build("k", build, needed_bytes=1, label="large")
rows = CachedRows(held, "images.bin", np.arange(COUNT), (3, SIDE, SIDE), torch.uint8)
images = ImageSet(rows, torch.arange(COUNT), ("",) * COUNT)
before, early = peak(), 0
for shuffle in (seeded(0), None):
    for number, batch in enumerate(batches(images, batch_size=32, device=torch.device("cpu"), shuffle=shuffle)):
        assert torch.equal(batch.images_BCHW[:, 0, 0, 0], (batch.labels_B % 251).to(torch.uint8))
        early = early or number == 20 and peak()
print(early - before, peak() - early)
"""


def test_resident_memory_grows_with_the_batch_and_not_with_the_data() -> None:
    """The peak of the whole resident set (VmHWM: anonymous and file pages), 375 MiB of images, 6 MiB a batch."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the peak of a process's memory in /proc")
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, timeout=120, capture_output=True, text=True)
    first_batches, all_others = map(int, done.stdout.split())
    assert first_batches < 128
    assert all_others < 128  # a few buffers, as the threads' timing has it, of the 630 MiB that went through
