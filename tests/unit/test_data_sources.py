"""Training data from every source: which files become which split, what is refused, and what is never opened."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from da6401.config.schema import DataConfig, DigitsConfig, FolderConfig, SyntheticConfig, ValRole
from da6401.data import image_sets
from da6401.data.decode import decode_files
from da6401.data.image_sets import ImageSet
from da6401.data.sources import load_test_data, load_training_data
from da6401.data.tree import list_split
from da6401.data.tree_check import check_tree
from da6401.errors import DataError

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing-small"


def tree(root: Path, **splits: dict[str, int]) -> Path:
    """A tree of small images, each of its own colour: tree(root, train={"cat": 3})."""
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                colour = tuple(np.random.default_rng(list(f"{split}/{name}/{number}".encode())).integers(0, 256, 3))
                Image.new("RGB", (9, 7), colour).save(root / split / name / f"{number}.png")
    return root


def config(root: Path, image_size: int = 4, val_role: ValRole = "auto", skip: bool = False) -> FolderConfig:
    return FolderConfig(root=str(root), image_size=image_size, val_role=val_role, bad_files="skip" if skip else "stop")


def pixels_of(images: ImageSet) -> torch.Tensor:
    return images.images_NCHW[torch.arange(len(images.names))]


def assert_sound(images: ImageSet, size: int) -> None:
    count = len(images.names)
    pixels = pixels_of(images)
    assert images.images_NCHW.shape == pixels.shape == (count, 3, size, size)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert images.labels_N.shape == (count,)
    assert images.labels_N.dtype == torch.int64


# ---- digits and synthetic ---------------------------------------------------------------------------------------


def test_digits_are_split_once_and_whole() -> None:
    data, test = load_training_data(DigitsConfig()), load_test_data(DigitsConfig(), [str(digit) for digit in range(10)])
    for images in (data.train, data.validation, test):
        assert_sound(images, 32)
    names = [*data.train.names, *data.validation.names, *test.names]
    assert sorted(names) == [f"digits/{row:04d}" for row in range(1797)]
    shares = np.bincount(data.validation.labels_N) / np.bincount(data.train.labels_N)
    assert shares == pytest.approx(np.full(10, 0.25), abs=0.02)
    assert pixels_of(data.train).max() == 255


def test_no_setting_moves_the_digits_test_split() -> None:
    classes = [str(digit) for digit in range(10)]
    plain, moved = DigitsConfig(), DigitsConfig(val_fraction=0.4, split_seed=5, image_size=8)
    assert load_test_data(plain, classes).names == load_test_data(moved, classes).names
    assert load_training_data(plain).validation.names != load_training_data(moved).validation.names


def test_synthetic_images_do_not_depend_on_the_counts_and_are_quick() -> None:
    start = time.perf_counter()
    small = load_training_data(SyntheticConfig(classes=10, images_per_class=40))
    assert time.perf_counter() - start < 2
    large = load_training_data(SyntheticConfig(classes=12, images_per_class=60))
    of_large = {
        name: image
        for part in (large.train, large.validation)
        for name, image in zip(part.names, pixels_of(part), strict=True)
    }
    assert len(small.train.names) == 320
    for name, image in zip(small.train.names, pixels_of(small.train), strict=True):
        assert torch.equal(image, of_large[name])
    test = load_test_data(SyntheticConfig(), small.class_names)
    assert_sound(test, 32)
    seen = {image.numpy().tobytes() for image in of_large.values()}
    assert not any(image.numpy().tobytes() in seen for image in pixels_of(test))


def test_synthetic_classes_can_be_told_apart() -> None:
    """The nearest class mean of the colour histogram is right more than half the time: there is something to learn."""
    data = load_training_data(SyntheticConfig(classes=5))

    def features(images: ImageSet) -> torch.Tensor:
        pixels = pixels_of(images).flatten(2).float() / 255
        return torch.cat([pixels.quantile(0.95, dim=2), pixels.quantile(0.05, dim=2)], dim=1)

    train, labels = features(data.train), data.train.labels_N
    means = torch.stack([train[labels == label].mean(0) for label in range(5)])
    guesses = torch.cdist(features(data.validation), means).argmin(1)
    assert (guesses == data.validation.labels_N).float().mean() > 0.5


@pytest.mark.parametrize("cfg", [DigitsConfig(), SyntheticConfig(classes=3)])
def test_a_model_of_other_classes_is_refused(cfg: DataConfig) -> None:
    with pytest.raises(DataError, match="classes"):
        load_test_data(cfg, ["cat", "dog"])


# ---- which folder is which split --------------------------------------------------------------------------------


def test_three_folders(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"b": 4, "a": 3}, validation={"a": 2, "b": 2}, test={"a": 1, "b": 2})
    data = load_training_data(config(root))
    assert data.class_names == ("a", "b")
    assert data.train.names == tuple(f"train/{name}.png" for name in ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2", "b/3"])
    assert data.train.labels_N.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.validation.names[0] == "validation/a/0.png"
    assert_sound(data.validation, 4)
    test = load_test_data(config(root), data.class_names)
    assert test.names == ("test/a/0.png", "test/b/0.png", "test/b/1.png")
    with Image.open(root / "test/b/1.png") as image:
        assert tuple(pixels_of(test)[2, :, 0, 0].tolist()) == image.getpixel((0, 0))


@pytest.mark.parametrize(
    ("folders", "val_role", "validation", "test"),
    [
        (["train"], "auto", "train", None),
        (["train", "test"], "auto", "train", "test"),
        (["train", "val"], "auto", "train", "val"),
        (["train", "val"], "test", "train", "val"),
        (["train", "val"], "validation", "val", None),
        (["train", "val", "test"], "auto", "val", "test"),
        (["train", "validation", "test"], "validation", "validation", "test"),
        (["train", "test"], "test", "train", "test"),
    ],
)
def test_val_role(tmp_path: Path, folders: list[str], val_role: ValRole, validation: str, test: str | None) -> None:
    cfg = config(tree(tmp_path, **{folder: {"a": 5, "b": 5} for folder in folders}), val_role=val_role)
    data = load_training_data(cfg)
    assert {name.split("/")[0] for name in data.validation.names} == {validation}
    assert not set(data.train.names) & set(data.validation.names)
    if test is None:
        with pytest.raises(DataError, match="no test split"):
            load_test_data(cfg, data.class_names)
    else:
        assert {name.split("/")[0] for name in load_test_data(cfg, data.class_names).names} == {test}
    if test == "val":
        assert "val/ is the test split" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Train", "Val", "Test"), ("training", "Validation", "testing"), ("TRAIN", "valid", "TEST"),
        ("train", "dev", "test"), ("Training", "VALID", "Testing"),
    ],
)  # fmt: skip
def test_folders_are_what_their_names_look_like(tmp_path: Path, train: str, validation: str, test: str) -> None:
    cfg = config(tree(tmp_path, **{name: {"a": 2, "b": 2} for name in (train, validation, test)}))
    data = load_training_data(cfg)
    assert {name.split("/")[0] for name in data.train.names} == {train}
    assert {name.split("/")[0] for name in data.validation.names} == {validation}
    assert {name.split("/")[0] for name in load_test_data(cfg, data.class_names).names} == {test}
    shutil.rmtree(tmp_path / test)
    alone = load_training_data(cfg)
    assert f"{validation}/ is the test split (data.val_role=auto, there is no test/)." in alone.notes
    assert {name.split("/")[0] for name in alone.validation.names} == {train}


@pytest.mark.parametrize(
    ("names", "role"),
    [(("Train", "train"), "train"), (("dev", "valid"), "validation"), (("Test", "testing"), "test")],
)
def test_two_folders_that_mean_the_same_are_refused(tmp_path: Path, names: tuple[str, str], role: str) -> None:
    tree(tmp_path, **{name: {"a": 2, "b": 2} for name in {"train", *names}})
    with pytest.raises(DataError, match=f"both {names[0]}/ and {names[1]}/ are in .*, and mean the {role} split"):
        load_training_data(config(tmp_path))


def test_what_is_not_used_beside_the_splits_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 1}, extra={"a": 1}, unlabeled={})
    (root / "unlabeled").mkdir()
    (root / "test").mkdir()
    Image.new("RGB", (8, 8)).save(root / "test/0001.png")  # no classes: as competitions hand it out
    data = load_training_data(config(root))
    assert {name.split("/")[0] for name in data.validation.names} == {"val"}
    assert "Not used, beside the splits: extra/, unlabeled/" in data.notes
    assert "test/ has no class folders, so its images have no labels: it is not used." in data.notes
    with pytest.raises(DataError, match="has no test split"):
        load_test_data(config(root), data.class_names)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train/ has one class alone, a: .* add another"):
        load_training_data(config(tree(tmp_path, train={"a": 5}, val={"a": 2}, test={"a": 1})))


def test_class_names_that_look_alike_are_told(tmp_path: Path) -> None:
    names = ["Cat", "cat", "dog", "dog ", "caf\u00e9", "cafe\u0301", "bird"]
    data = load_training_data(config(tree(tmp_path, train=dict.fromkeys(names, 2))))
    assert [note for note in data.notes if "look alike" in note] == [
        "Class names that look alike: 'Cat' and 'cat'. Is it one class?",
        r"Class names that look alike: 'cafe\u0301' and 'caf\xe9'. Is it one class?",
        "Class names that look alike: 'dog' and 'dog '. Is it one class?",
    ]


def test_one_class_spelt_in_two_ways_is_named(tmp_path: Path) -> None:
    tree(tmp_path, train={"a": 2, "caf\u00e9": 2}, validation={"a": 2, "cafe\u0301": 2}, test={"a": 1})
    with pytest.raises(DataError) as caught:
        load_training_data(config(tmp_path))
    words = r"validation/ and train/: 'cafe\u0301' and 'caf\xe9' are one class, spelt in two ways."
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "val_role", "message"),
    [
        (["train", "val", "validation"], "auto", "both val/ and validation/"),
        (["train", "val", "test"], "test", "val_role=test, but there is a test/"),
        (["train", "test"], "validation", "no val/ or validation/"),
        (["train"], "test", "no val/ or test/"),
        (["images", "test"], "auto", "has test but no train/"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, folders: list[str], val_role: ValRole, message: str) -> None:
    tree(tmp_path, **{folder: {"a": 2, "b": 2} for folder in folders})
    with pytest.raises(DataError, match=message):
        load_training_data(config(tmp_path, val_role=val_role))


def test_the_root_must_be_named_and_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root is empty"):
        load_training_data(FolderConfig())
    with pytest.raises(DataError, match="does not exist"):
        load_training_data(config(tmp_path / "nowhere"))


@pytest.mark.parametrize("inside", ["inaturalist_12K", "nature_12K/inaturalist_12K", "Data/nature_12K/inaturalist_12K"])
def test_a_nested_tree_is_found_and_its_place_leaves_the_fingerprint_alone(tmp_path: Path, inside: str) -> None:
    tree(tmp_path / "outer" / inside, train={"a": 5, "b": 5}, val={"a": 1, "b": 1})
    shutil.copytree(tmp_path / "outer" / inside, tmp_path / "plain")
    (tmp_path / "outer" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "outer" / "__MACOSX" / "train").mkdir(parents=True)
    nested, plain = load_training_data(config(tmp_path / "outer")), load_training_data(config(tmp_path / "plain"))
    assert nested.train.names == plain.train.names
    assert nested.fingerprint == plain.fingerprint


def test_two_nested_trees_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tree(tmp_path / name, train={"a": 2, "b": 2})
    with pytest.raises(DataError, match="several data sets"):
        load_training_data(config(tmp_path))


def test_splits_must_have_the_same_classes(tmp_path: Path) -> None:
    tree(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "c": 1}, test={"a": 1, "b": 1, "d": 1})
    with pytest.raises(DataError) as caught:
        load_training_data(config(tmp_path))
    assert "val/ has the class c, unknown to train/" in str(caught.value)
    assert "val/ lacks the class b" in str(caught.value)
    with pytest.raises(DataError, match="test/ has the class d"):
        load_test_data(config(tmp_path), ["a", "b"])
    with pytest.raises(DataError, match="test/ lacks the class e of the model"):
        load_test_data(config(tmp_path), ["a", "b", "d", "e"])


def test_an_empty_class_folder_is_fine_in_validation_and_not_in_train(tmp_path: Path) -> None:
    tree(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "b": 0}, test={"a": 1, "b": 0})
    assert "Validation has no image of b." in load_training_data(config(tmp_path)).notes
    for number in range(2):
        (tmp_path / f"train/b/{number}.png").unlink()
    with pytest.raises(DataError, match="no readable training image in the class b"):
        load_training_data(config(tmp_path))


# ---- the test split, the fingerprint, sharing -------------------------------------------------------------------


def test_training_never_opens_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, train={"a": 5, "b": 5}, val={"a": 2, "b": 2})
    read: list[str] = []
    real = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    for path in (tmp_path / "val").rglob("*.png"):
        path.write_bytes(b"broken")
    load_training_data(config(tmp_path))
    assert read
    assert not [path for path in read if "/val/" in path]
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").mkdir(mode=0)  # not even listed
    load_training_data(config(tmp_path, image_size=5))


def test_the_fingerprint_follows_the_content_and_the_split_not_the_size(tmp_path: Path) -> None:
    tree(tmp_path, train={"a": 5, "b": 5})
    first = load_training_data(config(tmp_path)).fingerprint
    assert load_training_data(config(tmp_path, image_size=6)).fingerprint == first
    other_split = FolderConfig(root=str(tmp_path), image_size=4, split_seed=1)
    assert load_training_data(other_split).fingerprint != first
    (tmp_path / "train/a/0.png").rename(tmp_path / "train/a/00.png")
    renamed = load_training_data(config(tmp_path)).fingerprint
    Image.new("RGB", (9, 7), "white").save(tmp_path / "train/a/00.png")
    assert len({first, renamed, load_training_data(config(tmp_path)).fingerprint}) == 3


def test_trials_of_one_process_share_one_decoding(tmp_path: Path) -> None:
    cfg = config(tree(tmp_path, train={"a": 5, "b": 5}))
    first = load_training_data(cfg)
    assert load_training_data(config(tmp_path)) is first
    os.utime(tmp_path / "train/a/0.png", ns=(1, 1))
    second = load_training_data(cfg)
    assert second is not first
    assert second.fingerprint == first.fingerprint
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "train/a/9.png")
    assert len(load_training_data(cfg).train.names) == len(first.train.names) + 1


def test_images_that_cannot_fit_into_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lower data\.image_size"):
        image_sets.empty_images(10**9, 512)


# ---- bad files --------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A tree with one of everything that can be wrong, in train."""
    root = tree(tmp_path / "root", train={"a": 6, "b": 6}, val={"a": 2, "b": 2})
    home = root / "train/a"
    (home / "empty.jpg").write_bytes(b"")
    (home / "notes.txt").write_text("not an image")
    (home / "truncated.png").write_bytes((home / "0.png").read_bytes()[:50])
    (home / "nested").mkdir()
    (home / "broken_link.png").symlink_to("nowhere.png")
    shutil.copy(home / "0.png", tmp_path / "outside.png")
    (home / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(home / "pipe.png")
    for hidden in (".DS_Store", "._0.png", "Thumbs.db"):
        (home / hidden).write_bytes(b"junk")
    (root / "train/.DS_Store").write_bytes(b"junk")
    return root


BAD = {
    "train/a/broken_link.png": "a link to nowhere.png, which does not exist: mend or remove it",
    "train/a/empty.jpg": "empty file",
    "train/a/link.png": "a link that leaves the data root, to ",
    "train/a/nested": "a folder inside a class folder",
    "train/a/notes.txt": "not an image",
    "train/a/pipe.png": "not a regular file",
    "train/a/truncated.png": "truncated",
}


def test_bad_files_stop_with_their_list_and_the_remedy(spoilt: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_training_data(config(spoilt))
    message = str(caught.value)
    assert message.startswith("7 unusable files")
    for name, reason in BAD.items():
        assert f"{name}: {reason}" in message
    assert f"da6401 data check {spoilt}" in message
    assert "data.bad_files=skip" in message
    odd = spoilt.rename(spoilt.parent / "it's (1)")
    with pytest.raises(DataError) as caught:
        load_training_data(config(odd, val_role="validation"))
    told = str(caught.value).split("`")[1]
    assert shlex.split(told) == ["da6401", "data", "check", str(odd), "--val-role", "validation"]


def test_bad_files_can_be_skipped_and_are_recorded(spoilt: Path) -> None:
    data = load_training_data(config(spoilt, skip=True))
    assert [file.name for file in data.skipped] == sorted(BAD)
    for file in data.skipped:
        assert BAD[file.name] in file.reason
    good = [*data.train.names, *data.validation.names]
    assert sorted(good) == [f"train/{name}/{number}.png" for name in "ab" for number in range(6)]
    for images in (data.train, data.validation):
        assert_sound(images, 4)
        for name, image, label in zip(images.names, pixels_of(images), images.labels_N, strict=True):
            with Image.open(spoilt / name) as stored:
                assert tuple(image[:, 0, 0].tolist()) == stored.getpixel((0, 0))
            assert data.class_names[int(label)] == name.split("/")[1]


def test_a_class_behind_a_link_that_leads_nowhere_is_not_called_missing(tmp_path: Path) -> None:
    for place, split in enumerate(("train", "val", "test")):
        root = tree(tmp_path / str(place), train={"a": 2, "b": 2}, val={"a": 1, "b": 1}, test={"a": 1, "b": 1})
        shutil.rmtree(root / split / "b")
        (root / split / "b").symlink_to("../gone")
        with pytest.raises(DataError) as caught:
            load_training_data(config(root)) if split != "test" else load_test_data(config(root), ["a", "b"])
        assert f"{split}/b is a link to ../gone, which does not exist: mend or remove it." in str(caught.value)
        report = check_tree(root)
        assert f"{split}/b is a link to ../gone, which does not exist: mend or remove it." in report.problems
        assert not [problem for problem in report.problems if "lacks" in problem or "unknown" in problem]


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 3, "b": 3})
    for number in range(25):
        (root / f"train/b/bad{number:02d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="and 5 more") as caught:
        load_training_data(config(root))
    assert str(caught.value).count("empty file") == 20


def test_skipping_does_not_hide_an_empty_class(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 3, "b": 3})
    for path in (root / "train/b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no readable training image in the class b"):
        load_training_data(config(root, skip=True))


def test_skipping_in_the_test_split_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path, train={"a": 3}, test={"a": 2})
    (root / "test/a/0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"test/a/0\.png: empty file"):
        load_test_data(config(root), ["a"])
    assert load_test_data(config(root, skip=True), ["a"]).names == ("test/a/1.png",)
    assert "test/a/0.png: empty file" in caplog.text


def test_a_single_image_names_its_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one image in class rare"):
        load_training_data(config(tree(tmp_path, train={"a": 3, "rare": 1})))


def test_leakage_from_train_into_validation_is_noted(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 3, "b": 3}, val={"a": 2, "b": 2}, test={"a": 1, "b": 1})
    shutil.copy(root / "train/a/0.png", root / "val/a/0.png")
    assert any(
        note.startswith("1 validation image is also in train") for note in load_training_data(config(root)).notes
    )


def test_names_of_any_bytes_and_classes_of_any_script(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"ação": 2, "[bold]": 2, "犬": 2})
    strange = os.fsdecode(os.fsencode(root / "train/犬") + b"/\xff\n.png")
    shutil.copy(root / "train/犬/0.png", strange)
    data = load_training_data(config(root))
    assert len(data.train.names) + len(data.validation.names) == 7
    Path(strange).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_training_data(config(root))
    assert r"\udcff\n.png: empty file" in str(caught.value)


def test_real_photographs() -> None:
    if not CLOTHING.is_dir():
        pytest.skip(f"{CLOTHING} is not on this machine")
    files = list_split(CLOTHING.resolve(), "train").files[::160][:20]
    assert len(files) == 20
    out = np.zeros((20, 3, 32, 32), dtype=np.uint8)
    decoded = decode_files(files, out, resize="crop", label="test")
    assert list(decoded.digests) == list(range(20))
    assert len(set(decoded.digests.values())) == 20
    assert out.std(axis=(1, 2, 3)).min() > 5
    assert Counter(file.class_name for file in files).total() == 20
