"""Images inside other files: WebDataset shards, Hugging Face tables, torchvision's data sets."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from da6401.config.schema import FolderConfig, HuggingFaceConfig, ImageFiles, ShardsConfig, TorchvisionConfig
from da6401.data import decode, sources, torchvision_sets
from da6401.data.cache.image_cache import DECODER, decoder_of
from da6401.data.image_sets import ImageSet, TrainingData
from da6401.data.sources import load_test_data, load_training_data
from da6401.data.tree_check import check_data, describe_data
from da6401.errors import ConfigError, DataError


def pixels(seed: int, side: int = 8) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(seed)).save(out, "PNG")
    return out.getvalue()


def assert_pixels(part: ImageSet, seed_of: dict[str, int]) -> None:
    """Every image is the one of its name; the side is that of the file, so no pixel is resampled."""
    assert part.names
    for row, name in enumerate(part.names):
        image = part.images_NCHW[torch.tensor([row])][0].permute(1, 2, 0).numpy()
        assert np.array_equal(image, pixels(seed_of[name])), name


def parts_of(cfg: ImageFiles) -> tuple[TrainingData, ImageSet]:
    data = load_training_data(cfg)  # type: ignore[arg-type]
    return data, load_test_data(cfg, data.class_names)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cache of the test's own; counts the files that are decoded."""
    monkeypatch.setenv("DA6401_CACHE_DIR", str(tmp_path / "cache"))
    counts: list[int] = []
    plain = decode.decode_files

    def counted(files: Any, *arguments: Any, **keys: Any) -> Any:
        counts.append(len(files))
        return plain(files, *arguments, **keys)

    monkeypatch.setattr("da6401.data.cache.image_cache.decode_files", counted)
    return counts


def assert_decoded_once(cfg: ImageFiles, counts: list[int]) -> None:
    """A second, differently split training decodes nothing."""
    data = load_training_data(cfg)  # type: ignore[arg-type]
    assert counts == [len(data.train.names) + len(data.validation.names)]
    moved = load_training_data(dataclasses.replace(cfg, val_fraction=0.4))  # type: ignore[arg-type]
    assert len(counts) == 1
    assert len(moved.validation.names) > len(data.validation.names)


# ---- WebDataset -------------------------------------------------------------------------------------------------


def shard(path: Path, samples: list[dict[str, bytes]], start: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, sample in enumerate(samples, start=start):
            for ending, content in sample.items():
                member = tarfile.TarInfo(f"{number:04d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def test_shards_with_splits(tmp_path: Path, cache: list[int]) -> None:
    seeds: dict[str, int] = {}
    for name, chosen in (("train-000", range(12)), ("train-001", range(12, 24)), ("test-000", range(24, 30))):
        samples = [{"cls": str(seed % 2).encode(), "png": png(seed)} for seed in chosen]
        shard(tmp_path / "data" / f"{name}.tar", samples, start=chosen[0])
        seeds |= {f"{name}/{seed:04d}.png": seed for seed in chosen}
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\n")
    cfg = ShardsConfig(root=str(tmp_path / "data"), image_size=8, names="classes.txt")
    data, test = parts_of(cfg)
    assert data.class_names == ("cat", "dog")
    assert data.notes[0] == "Layout: 3 WebDataset shards; labels in cls (data.label), splits by the shards' names."
    assert {name.split("-")[0] for name in data.train.names} == {"train"}
    for part in (data.train, data.validation, test):
        assert_pixels(part, seeds)
        assert [seeds[name] % 2 for name in part.names] == part.labels_N.tolist()
    assert len(test.names) == 6
    cache.clear()
    (tmp_path / "cache").rename(tmp_path / "old")
    assert_decoded_once(dataclasses.replace(cfg, split_seed=7), cache)
    report = check_data(cfg)
    assert report.clean
    assert len(report.files) == 30
    assert len(describe_data(cfg).files) == 30


def test_shards_written_by_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "all.tar")) as sink:
        for seed in range(20):
            sink.write({"__key__": f"{seed:03d}", "png": png(seed), "cls": seed % 2})
    data, test = parts_of(ShardsConfig(root=str(tmp_path), image_size=8, cache="off"))
    assert_pixels(data.train, {f"all/{seed:03d}.png": seed for seed in range(20)})
    assert len(data.train.names) + len(data.validation.names) + len(test.names) == 20


@pytest.mark.parametrize(
    ("sample", "label", "message"),
    [
        ({"json": json.dumps({"kind": "a", "n": 1}).encode()}, "auto", r"data\.label=one of json:kind, json:n"),
        ({"json": b"0"}, "auto", r"a\.tar: a \.json without a key \(0\)"),
        ({"json": b"[" * 100_000}, "auto", r"a sample without a label \(json:KEY"),
        ({"bin": b"1"}, "auto", r"none of \.cls, \.txt, \.json"),
        ({"cls": b"1"}, "txt", "a sample without a label"),
    ],
)
def test_shards_whose_label_is_not_clear(sample: dict[str, bytes], label: str, message: str, tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", [{**sample, "png": png(s)} for s in range(12)])
    cfg = ShardsConfig(root=str(tmp_path), label=label, cache="off")
    with pytest.raises(DataError, match=message):
        load_training_data(cfg)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"mask.png": 0}, r"0000\.png and 0000\.mask\.png, .*one image and its label"),
        ({"JPG": 0}, r"0000\.png and 0000\.JPG"),
        ({"CLS": 0}, r"0000\.CLS twice"),
    ],
)
def test_members_that_mean_the_same_are_refused(extra: dict[str, int], message: str, tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", [{"png": png(s), "cls": b"0", **{name: png(s) for name in extra}} for s in range(12)])
    with pytest.raises(DataError, match=message):
        load_training_data(ShardsConfig(root=str(tmp_path), cache="off"))


def test_a_key_that_stands_twice_in_a_shard_is_refused(tmp_path: Path) -> None:
    samples = [{"png": png(s), "cls": str(s % 2).encode()} for s in range(12)]
    shard(tmp_path / "a.tar", samples)
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        member = tarfile.TarInfo("0003.png")
        member.size = len(png(50))
        archive.addfile(member, io.BytesIO(png(50)))
    with pytest.raises(DataError, match=r"a\.tar: members of one sample mean the same: 0003\.png and 0003\.png\. "):
        describe_data(ShardsConfig(root=str(tmp_path)))


def test_a_json_label_and_what_is_no_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.tar"):
        load_training_data(ShardsConfig(root=str(tmp_path)))
    shard(tmp_path / "a.tar", [{"json": json.dumps({"k": "ab"[s % 2]}).encode(), "png": png(s)} for s in range(12)])
    assert load_training_data(ShardsConfig(root=str(tmp_path), cache="off", image_size=8)).class_names == ("a", "b")
    (tmp_path / "b.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"b\.tar cannot be read as an uncompressed \.tar"):
        load_training_data(ShardsConfig(root=str(tmp_path), cache="off"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ndog\ncat\n", r"two labels have one name, cat \(2 times\)"),
        (b"cat\n\ndog\n", "the name of the labels 1 is empty"),
        (b"cat\ndog\n", r"it has 2 names, for the labels 0, 1, \.\.\., and none for 2\."),
        (b"\xd6l\nb\nc\n", r"names\.txt cannot be read as UTF-8 text"),
    ],
)
def test_names_of_classes_that_do_not_fit(content: bytes, message: str, tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", [{"png": png(s), "cls": str(s % 3).encode()} for s in range(12)])
    (tmp_path / "names.txt").write_bytes(content)
    cfg = ShardsConfig(root=str(tmp_path), cache="off", image_size=8, names="names.txt")
    with pytest.raises(DataError, match=message):
        load_training_data(cfg)
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n\n\n")  # lines of no label may be empty
    assert load_training_data(cfg).class_names == ("cat", "dog", "owl")


def test_two_shards_whose_images_have_one_name(tmp_path: Path) -> None:
    shard(tmp_path / "x" / "a.tar", [{"png": png(s), "cls": b"0"} for s in range(3)])
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in (("a/0001.png", png(9)), ("a/0001.cls", b"1")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"two images are called x/a/0001\.png: rename"):
        load_training_data(ShardsConfig(root=str(tmp_path), cache="off"))


# ---- Hugging Face -----------------------------------------------------------------------------------------------


def hub_dataset(seeds: range) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    rows = {"image": [{"bytes": png(s), "path": None} for s in seeds], "label": [s % 2 for s in seeds]}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_of_save_to_disk(tmp_path: Path, cache: list[int]) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict(train=hub_dataset(range(24)), test=hub_dataset(range(24, 30)))
    both.save_to_disk(str(tmp_path / "data"))
    cfg = HuggingFaceConfig(root=str(tmp_path / "data"), image_size=8)
    data, test = parts_of(cfg)
    assert data.class_names == ("cat", "dog")
    assert "a folder of save_to_disk: images in column image, labels in column label" in data.notes[0]
    seeds = {f"train/data-00000-of-00001/{s:07d}": s for s in range(24)}
    for part in (data.train, data.validation):
        assert_pixels(part, seeds)
        assert [seeds[name] % 2 for name in part.names] == part.labels_N.tolist()
    assert_pixels(test, {f"test/data-00000-of-00001/{s:07d}": 24 + s for s in range(6)})
    cache.clear()
    (tmp_path / "cache").rename(tmp_path / "old")
    assert_decoded_once(dataclasses.replace(cfg, split_seed=7), cache)
    assert check_data(cfg).clean


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parquet_with_images_in_it(tmp_path: Path) -> None:
    whole = hub_dataset(range(40))
    for number in range(2):
        part = whole.shard(2, number, contiguous=True)
        (tmp_path / "data").mkdir(exist_ok=True)
        part.to_parquet(str(tmp_path / "data" / f"train-{number:05d}-of-00002.parquet"), batch_size=7)
    cfg = HuggingFaceConfig(root=str(tmp_path), image_size=8, cache="off")
    data = load_training_data(cfg)
    seeds = {f"data/train-{s // 20:05d}-of-00002/{s % 20:07d}": s for s in range(40)}
    for part in (data.train, data.validation):
        assert_pixels(part, seeds)
        assert [seeds[name] % 2 for name in part.names] == part.labels_N.tolist()
    assert len(data.train.names) + len(data.validation.names) == 40
    assert check_data(cfg).clean


def test_each_column_of_images_has_its_own(tmp_path: Path, cache: list[int]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    for changed in (0, 100):  # the second time, the file is another: no row that is in memory is used again
        table = pyarrow.table({
            "left": [{"bytes": png(changed + s)} for s in range(30)],
            "right": [{"bytes": png(changed + 30 + s)} for s in range(30)],
            "label": [s % 2 for s in range(30)],
        })  # fmt: skip
        parquet.write_table(table, tmp_path / "all.parquet")
        older(tmp_path)
        for first, column in ((changed, "left"), (changed + 30, "right")):
            cfg = HuggingFaceConfig(root=str(tmp_path), image=column, image_size=8)
            data, test = parts_of(cfg)
            for part in (data.train, data.validation, test):
                assert_pixels(part, {f"all/{s:07d}": first + s for s in range(30)})
            assert_as_without_a_cache(cfg)


def parquet_file(path: Path, labels: list[Any] | None, names: list[str] | None = None, seed: int = 0) -> None:
    """Images, labels where there are some, and the names of the labels as `datasets` writes them."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows: dict[str, list[Any]] = {"image": [{"bytes": png(seed + s)} for s in range(len(labels or [0] * 12))]}
    table = pyarrow.table(rows if labels is None else {**rows, "label": labels})
    if names is not None:
        about = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


TWO = [0, 1] * 12
NAMES = ["cat", "dog"]


def test_a_test_file_without_labels_is_not_used(tmp_path: Path) -> None:
    parquet_file(tmp_path / "test-0.parquet", None)  # the first by name
    parquet_file(tmp_path / "train-0.parquet", TWO, NAMES, seed=100)
    cfg = HuggingFaceConfig(root=str(tmp_path), cache="off", image_size=8)
    data = load_training_data(cfg)
    assert data.class_names == ("cat", "dog")
    assert "12 images of the test split have no labels: they are not used." in data.notes
    parquet_file(tmp_path / "val-0.parquet", None)
    with pytest.raises(DataError, match=r"val-0\.parquet has no column label, as train-0\.parquet has; it has image"):
        load_training_data(cfg)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([*TWO, 2], NAMES, r"it has 2 names, for the labels 0, 1, \.\.\., and none for 2\."),
        ([*TWO, -2], NAMES, r"none for -2"),
        (TWO, ["cat", "cat"], r"two labels have one name, cat \(2 times\)"),
        (TWO, ["cat", " "], "the name of the labels 1 is empty"),
        ([*map(float, TWO), float("nan")], None, "all: 1 rows without a label"),
    ],
)
def test_labels_and_names_that_do_not_fit(
    labels: list[Any], names: list[str] | None, message: str, tmp_path: Path
) -> None:
    parquet_file(tmp_path / "a.parquet", labels, names)
    with pytest.raises(DataError, match=message):
        load_training_data(HuggingFaceConfig(root=str(tmp_path), cache="off", image_size=8))


def test_files_that_name_the_labels_in_another_order_are_refused(tmp_path: Path) -> None:
    parquet_file(tmp_path / "train-0.parquet", TWO, NAMES)
    parquet_file(tmp_path / "test-0.parquet", TWO, None, seed=100)
    cfg = HuggingFaceConfig(root=str(tmp_path), cache="off", image_size=8)
    assert parts_of(cfg)[0].class_names == ("cat", "dog"), "a file may have no names"
    parquet_file(tmp_path / "test-0.parquet", TWO, NAMES[::-1], seed=100)
    with pytest.raises(
        DataError, match=r"test-0\.parquet names the labels of label dog, cat, and another file cat, dog"
    ):
        load_training_data(cfg)


def test_damaged_files_and_foreign_metadata(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    cfg = HuggingFaceConfig(root=str(tmp_path), cache="off", image_size=8)
    parquet_file(tmp_path / "train" / "0.parquet", TWO)
    table = parquet.read_table(tmp_path / "train" / "0.parquet").replace_schema_metadata({"huggingface": "[1]"})
    parquet.write_table(table, tmp_path / "train" / "0.parquet")
    assert load_training_data(cfg).class_names == ("0", "1")
    with pytest.raises(DataError, match=r"the column label \(data\.image\) holds int64, no images"):
        load_training_data(dataclasses.replace(cfg, image="label", label="label"))
    with pyarrow.ipc.new_stream(str(tmp_path / "train" / "0.arrow"), table.schema) as out:
        out.write_table(table)
    with pytest.raises(DataError, match=r"two images are called train/0/0000000, .*rename one of the files"):
        load_training_data(cfg)
    (tmp_path / "train" / "0.arrow").unlink()
    (tmp_path / "train" / "1.parquet").write_bytes((tmp_path / "train" / "0.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train/1\.parquet cannot be read: Parquet magic bytes not found"):
        load_training_data(cfg)


def test_hugging_face_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    with pytest.raises(DataError, match=r"neither \.parquet files nor"):
        load_training_data(HuggingFaceConfig(root=str(tmp_path)))
    images = [{"bytes": png(s), "path": ""} for s in range(12)]
    table = pyarrow.table({"image": images, "fine": [s % 3 for s in range(12)], "coarse": [s % 2 for s in range(12)]})
    parquet.write_table(table, tmp_path / "all.parquet")
    with pytest.raises(DataError, match=r"data\.label=one of fine, coarse"):
        load_training_data(HuggingFaceConfig(root=str(tmp_path)))
    cfg = HuggingFaceConfig(root=str(tmp_path), label="coarse", cache="off", image_size=8)
    assert load_training_data(cfg).class_names == ("0", "1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'da6401\[tables\]'"):
        load_training_data(HuggingFaceConfig(root=str(tmp_path)))


# ---- torchvision ------------------------------------------------------------------------------------------------


def mnist(root: Path, kind: str, count: int, name: str = "MNIST", seed: int | None = None) -> npt.NDArray[np.uint8]:
    """Files as MNIST has them, of random images; the images (N, 28, 28)."""
    raw = root / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count if seed is None else seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    head = struct.pack(">IIII", 2051, count, 28, 28)
    (raw / f"{kind}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    (raw / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return images


def test_torchvision_by_name_without_a_network(tmp_path: Path, cache: list[int]) -> None:
    images = {"train": mnist(tmp_path / "tv", "train", 60), "test": mnist(tmp_path / "tv", "t10k", 20)}
    cfg = TorchvisionConfig(root=str(tmp_path / "tv"), name="mnist", image_size=28)
    data, test = parts_of(cfg)
    assert data.notes[0] == "Layout: torchvision.datasets.MNIST; its splits: train, test."
    assert data.class_names[3] == "3 - three"
    assert len(data.train.names) + len(data.validation.names) == 60
    for part in (data.train, data.validation, test):
        for row, name in enumerate(part.names):
            split, _, number = name.partition("/")
            image = part.images_NCHW[torch.tensor([row])][0]
            assert np.array_equal(image.numpy(), np.repeat(images[split][int(number)][None], 3, axis=0))
            assert int(part.labels_N[row]) == int(number) % 10
    cache.clear()
    (tmp_path / "cache").rename(tmp_path / "old")
    assert_decoded_once(dataclasses.replace(cfg, split_seed=7), cache)
    assert check_data(cfg).clean


def older(folder: Path) -> None:
    """Wait until the files are older than the grain of the time stamps: then their digests are remembered."""
    newest = max(path.stat().st_ctime for path in folder.rglob("*"))
    time.sleep(max(0.0, newest + 0.15 - time.time()))


def assert_as_without_a_cache(cfg: ImageFiles) -> None:
    """The splits have the images and the fingerprint of the files, twice; the second time by remembered digests."""
    for _ in range(2):
        plain, plain_test = parts_of(dataclasses.replace(cfg, cache="off"))
        cached, test = parts_of(cfg)
        assert cached.fingerprint == plain.fingerprint
        for one, other in ((cached.train, plain.train), (cached.validation, plain.validation), (test, plain_test)):
            rows = torch.arange(len(other.names))
            assert one.names == other.names
            assert torch.equal(one.labels_N, other.labels_N)
            assert torch.equal(one.images_NCHW[rows], other.images_NCHW[rows])


def test_entries_that_may_hold_another_data_sets_pixels_are_not_used() -> None:
    assert decoder_of(FolderConfig()) == decoder_of(ShardsConfig()) == DECODER
    for cfg in (TorchvisionConfig(), HuggingFaceConfig()):
        assert decoder_of(cfg) != DECODER


def test_two_torchvision_sets_under_one_root_have_their_own_images(tmp_path: Path, cache: list[int]) -> None:
    for name, seeds in (("MNIST", (60, 20)), ("FashionMNIST", (61, 21))):
        for kind, seed in zip(("train", "t10k"), seeds, strict=True):
            mnist(tmp_path / "tv", kind, seed, name)
    older(tmp_path / "tv")
    for name in ("MNIST", "FashionMNIST", "MNIST"):
        assert_as_without_a_cache(TorchvisionConfig(root=str(tmp_path / "tv"), name=name, image_size=8))


def test_a_torchvision_set_whose_smaller_files_changed_is_read_again(tmp_path: Path, cache: list[int]) -> None:
    mnist(tmp_path / "tv", "train", 60)
    mnist(tmp_path / "tv", "t10k", 20)
    older(tmp_path / "tv")
    cfg = TorchvisionConfig(root=str(tmp_path / "tv"), name="MNIST", image_size=8)
    assert_as_without_a_cache(cfg)
    mnist(tmp_path / "tv", "t10k", 20, seed=5)
    assert_as_without_a_cache(cfg)


def test_digests_of_a_torchvision_set_are_remembered(
    tmp_path: Path, cache: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path / "tv", "train", 60)
    mnist(tmp_path / "tv", "t10k", 20)
    older(tmp_path / "tv")
    monkeypatch.chdir(tmp_path)
    cfg = TorchvisionConfig(root="tv", name="MNIST", image_size=8)
    assert_as_without_a_cache(cfg)
    (tmp_path / "tv" / "a file of another set").write_bytes(b"1")
    monkeypatch.setattr(torchvision_sets, "_pixels", lambda *_: pytest.fail("an image was read again"))
    monkeypatch.setattr(sources, "_last", None)
    parts_of(cfg)


def test_torchvision_files_without_splits_are_drawn(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / "eurosat" / "2750" / ("Forest", "River")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    cfg = TorchvisionConfig(root=str(tmp_path), name="EuroSAT", image_size=8, cache="off")
    data, test = parts_of(cfg)
    assert data.class_names == ("Forest", "River")
    assert len(data.train.names) + len(data.validation.names) + len(test.names) == 20
    listed = [*range(0, 20, 2), *range(1, 20, 2)]  # a class after the other
    assert_pixels(data.train, {f"EuroSAT/{row:07d}": seed for row, seed in enumerate(listed)})


def test_torchvision_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean CIFAR10"):
        load_training_data(TorchvisionConfig(root=str(tmp_path), name="CIFAR-10"))
    with pytest.raises(DataError, match=r"cannot be read in .*data\.download=true"):
        load_training_data(TorchvisionConfig(root=str(tmp_path), name="CIFAR10"))
