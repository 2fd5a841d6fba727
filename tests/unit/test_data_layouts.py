"""Folders without splits, nested classes, links, data.group_by and data.exclude: what is read as what, and refused."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from da6401.config.schema import FolderConfig
from da6401.data import tree
from da6401.data.near import NearPair, write_exclude
from da6401.data.sources import load_test_data, load_training_data
from da6401.data.tree_check import check_data, describe_data
from da6401.errors import ConfigError, DataError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(np.random.default_rng(list(str(path)[-40:].encode())).integers(0, 256, 3))
    Image.new("RGB", (9, 7), colour).save(path)


def images(root: Path, **counts: int) -> Path:
    """ROOT/<class>/<number>.png; two underscores in a class are a folder deeper."""
    for name, count in counts.items():
        for number in range(count):
            picture(root / name.replace("__", "/") / f"{number:03d}.png")
    return root


def config(root: Path, **keys: Any) -> FolderConfig:
    return FolderConfig(root=str(root), image_size=4, cache="off", **keys)


def splits_of(cfg: FolderConfig) -> dict[str, set[str]]:
    data = load_training_data(cfg)
    test = load_test_data(cfg, data.class_names)
    return {"train": set(data.train.names), "validation": set(data.validation.names), "test": set(test.names)}


def test_a_flat_folder_is_split_in_three_every_class_alike(tmp_path: Path) -> None:
    cfg = config(images(tmp_path, cat=50, dog=20))
    parts = splits_of(cfg)
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 70
    counts = {split: Counter(name.split("/")[0] for name in names) for split, names in parts.items()}
    assert counts == {
        "train": {"cat": 32, "dog": 13},
        "validation": {"cat": 8, "dog": 3},
        "test": {"cat": 10, "dog": 4},
    }
    data, test = load_training_data(cfg), load_test_data(cfg, ["cat", "dog"])
    for part in (data.train, data.validation, test):
        for row, name in enumerate(part.names):
            assert data.class_names[int(part.labels_N[row])] == name.split("/")[0]
            with Image.open(tmp_path / name) as image:
                assert tuple(part.images_NCHW[torch.tensor([row])][0, :, 0, 0].tolist()) == image.getpixel((0, 0))
    assert data.notes[0] == "Layout: one folder a class, without splits, because there is no train/."


def test_the_drawn_split_does_not_depend_on_place_order_or_val_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "a", cat=30, dog=30)
    shutil.copytree(tmp_path / "a", tmp_path / "wrapped" / "Dataset" / "inner")
    (tmp_path / "wrapped" / "README.md").write_text("beside the folder")
    first = splits_of(config(tmp_path / "a"))
    assert splits_of(config(tmp_path / "wrapped")) == first
    assert (
        load_training_data(config(tmp_path / "wrapped")).fingerprint
        == load_training_data(config(tmp_path / "a")).fingerprint
    )
    visible = tree.visible
    monkeypatch.setattr(tree, "visible", lambda folder: visible(folder)[::-1])
    assert splits_of(config(tmp_path / "a")) == first
    other = splits_of(config(tmp_path / "a", val_fraction=0.5))
    assert other["test"] == first["test"]
    assert other["validation"] > first["validation"]
    moved = splits_of(config(tmp_path / "a", split_seed=1))
    assert moved["test"] != first["test"]
    assert "test" not in {part.split("/")[0] for part in first["test"]}


def test_an_image_more_moves_few(tmp_path: Path) -> None:
    before = splits_of(config(images(tmp_path, cat=50, dog=50)))
    picture(tmp_path / "cat" / "new.png")
    after = splits_of(config(tmp_path))
    assert sum(len(before[split] - after[split]) for split in before) <= 2


def test_no_test_split_where_none_is_wanted(tmp_path: Path) -> None:
    cfg = config(images(tmp_path, cat=10, dog=10), test_fraction=0.0)
    data = load_training_data(cfg)
    assert len(data.train.names) + len(data.validation.names) == 20
    assert any("There is no test split" in note for note in data.notes)
    with pytest.raises(DataError, match="no test split"):
        load_test_data(cfg, data.class_names)


def test_classes_with_too_few_images_are_named(tmp_path: Path) -> None:
    images(tmp_path, cat=10, newt=2, dog=3)
    with pytest.raises(DataError, match=r"every class needs 3, and these have fewer: newt"):
        load_training_data(config(tmp_path))
    assert load_training_data(config(tmp_path, test_fraction=0.0)).class_names == ("cat", "dog", "newt")


def test_a_test_split_is_never_opened_in_training(tmp_path: Path) -> None:
    cfg = config(images(tmp_path, cat=10, dog=10))
    for name in splits_of(cfg)["test"]:
        (tmp_path / name).write_bytes(b"no image")
    load_training_data(cfg)
    with pytest.raises(DataError, match="4 unusable files"):
        load_test_data(cfg, ["cat", "dog"])


# ---- what is ambiguous ------------------------------------------------------------------------------------------


def test_splits_without_train_are_refused_with_the_key(tmp_path: Path) -> None:
    images(tmp_path, val__cat=3, val__dog=3, test__cat=3, test__dog=3)
    with pytest.raises(DataError, match=r"has test, val but no train/.*data\.layout=flat"):
        load_training_data(config(tmp_path))


def test_a_class_named_train(tmp_path: Path) -> None:
    """Pictures of vehicles: train/ holds images and no classes."""
    images(tmp_path, train=5, car=5, plane=5)
    with pytest.raises(DataError, match=r"no class folders.*data\.layout=flat"):
        load_training_data(config(tmp_path))
    assert load_training_data(config(tmp_path, layout="flat")).class_names == ("car", "plane", "train")


def nested(root: Path) -> Path:
    return images(root, Fruit__Apple__Green=4, Fruit__Apple__Red=4, Fruit__Kiwi=4, Milk__Oat=4)


def test_nested_classes_are_refused_with_what_each_depth_gives(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_training_data(config(nested(tmp_path)))
    text = str(caught.value)
    assert "data.class_depth=1 (2 classes: Fruit, Milk)" in text
    assert "data.class_depth=2 (3 classes: Fruit/Apple, Fruit/Kiwi, Milk/Oat)" in text
    assert "data.class_depth=leaf (4 classes: Fruit/Apple/Green, Fruit/Apple/Red, Fruit/Kiwi, ...)" in text


@pytest.mark.parametrize(
    ("depth", "classes"),
    [
        ("1", {"Fruit": 12, "Milk": 4}),
        ("2", {"Fruit/Apple": 8, "Fruit/Kiwi": 4, "Milk/Oat": 4}),
        ("leaf", {"Fruit/Apple/Green": 4, "Fruit/Apple/Red": 4, "Fruit/Kiwi": 4, "Milk/Oat": 4}),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_class_depth(depth: str, classes: dict[str, int], split: bool, tmp_path: Path) -> None:
    for part in ("train", "val", "test") if split else ("",):
        nested(tmp_path / part)
    cfg = config(tmp_path, class_depth=depth)
    data = load_training_data(cfg)
    assert data.class_names == tuple(classes)
    report = check_data(cfg)
    assert report.clean, (report.problems, report.bad)
    found = Counter(file.class_name for file in report.files if not split or file.split == "train")
    assert found == classes


def test_an_image_above_the_class_depth_is_bad(tmp_path: Path) -> None:
    nested(tmp_path)
    picture(tmp_path / "Milk" / "lost.png")
    with pytest.raises(DataError, match=r"Milk/lost.png: only 1 folders deep, where data.class_depth=2"):
        load_training_data(config(tmp_path, class_depth="2"))
    assert len(describe_data(config(tmp_path, class_depth="1")).files) == 17


# ---- links ------------------------------------------------------------------------------------------------------


def test_links_are_followed_when_asked(tmp_path: Path) -> None:
    images(tmp_path / "store", a=12)
    images(tmp_path / "data", dog=6)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "store" / "a")
    for number in range(6):
        (tmp_path / "data" / "dog" / f"link{number}.png").symlink_to(tmp_path / "store" / "a" / f"{number:03d}.png")
    with pytest.raises(DataError, match=r"leaves the data root.*data\.follow_links=true"):
        load_training_data(config(tmp_path / "data"))
    data = load_training_data(config(tmp_path / "data", follow_links=True))
    assert data.class_names == ("cat", "dog")
    assert len(describe_data(config(tmp_path / "data", follow_links=True)).files) == 24


def test_a_link_that_leads_back_is_bad_and_ends(tmp_path: Path) -> None:
    nested(tmp_path)
    (tmp_path / "Milk" / "again").symlink_to(tmp_path / "Milk")
    report = describe_data(config(tmp_path, follow_links=True, class_depth="leaf"))
    assert [(file.name, file.reason.partition(":")[0]) for file in report.bad] == [
        ("Milk/again", "a link that leads back to a folder above it")
    ]


# ---- groups and exclusions --------------------------------------------------------------------------------------


def patients(root: Path, *, count: int = 40, each: int = 5) -> Path:
    """ROOT/<class>/p<patient>_<number>.png: a patient has images of one class, or every fifth of both."""
    for patient in range(count):
        for number in range(each):
            name = ("ill", "well")[(patient + (number if patient % 5 == 0 else 0)) % 2]
            picture(root / name / f"p{patient:02d}_{number}.png")
    return root


def patient_of(name: str) -> str:
    return name.rsplit("/", 1)[1].split("_")[0]


def test_groups_stay_on_one_side_and_classes_near_their_share(tmp_path: Path) -> None:
    parts = splits_of(config(patients(tmp_path), group_by=r"/(p\d+)_"))
    seen = {split: {patient_of(name) for name in names} for split, names in parts.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]
    assert sum(map(len, parts.values())) == 200
    for split, share in (("test", 0.2), ("validation", 0.16), ("train", 0.64)):
        for name in ("ill", "well"):
            assert sum(each.startswith(name) for each in parts[split]) == pytest.approx(100 * share, abs=4)


def test_a_split_without_groups_leaks_them_and_a_planted_one_is_found(tmp_path: Path) -> None:
    patients(tmp_path / "train", count=8)
    patients(tmp_path / "test", count=1)  # p00, which train has too
    cfg = config(tmp_path, group_by=r"/([^/_]+)[^/]*$")
    report = check_data(cfg)
    assert not report.clean
    assert "1 group of data.group_by" in report.problems[0]
    assert "p00 in train and test" in report.problems[0]
    load_training_data(cfg)  # train and validation are drawn from train/, with groups kept together
    (tmp_path / "test").rename(tmp_path / "validation")
    with pytest.raises(DataError, match="p00 in train and validation"):
        load_training_data(replace(cfg, val_role="validation"))


def test_validation_is_held_out_by_groups(tmp_path: Path) -> None:
    patients(tmp_path / "train")
    data = load_training_data(config(tmp_path, group_by=r"/(p\d+)_"))
    assert not set(map(patient_of, data.train.names)) & set(map(patient_of, data.validation.names))
    assert len(data.validation.names) == pytest.approx(40, abs=5)


@pytest.mark.parametrize(
    ("group_by", "error", "message"),
    [
        ("([", ConfigError, "no regular expression"),
        (r"patient(\d+)", DataError, "finds nothing in 60 of 60 images"),
        (r"/(\d)", DataError, "2 groups?, too few|1 group, too few"),
    ],
)
def test_patterns_that_do_not_fit(group_by: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        load_training_data(config(images(tmp_path, cat=30, dog=30), group_by=group_by))


def test_excluded_images_are_left_out_of_every_split(tmp_path: Path) -> None:
    images(tmp_path / "data", cat=20, dog=20)
    whole = splits_of(config(tmp_path / "data"))
    gone = [sorted(names)[0] for names in whole.values()]
    listing = tmp_path / "exclude.txt"
    listing.write_text("# near-duplicates\n" + "\n".join(gone) + "\nnot/here.png\n")
    cfg = config(tmp_path / "data", exclude=str(listing))
    parts = splits_of(cfg)
    assert not set.union(*parts.values()) & set(gone)
    assert sum(map(len, parts.values())) == 37
    note = f"3 images are left out (data.exclude={listing}); 1 of its names are not here."
    assert note in load_training_data(cfg).notes
    listing.write_text("nothing/like/it.png\n")
    with pytest.raises(DataError, match=r"none of its 1 names .* look like cat/"):
        load_training_data(cfg)


def test_a_list_of_other_names_is_refused_by_check_too(tmp_path: Path) -> None:
    images(tmp_path / "data", train__cat=6, train__dog=6)
    listing = tmp_path / "exclude.txt"
    listing.write_text("cat/000.png\n")
    with pytest.raises(DataError, match=r"none of its 1 names \(cat/000\.png\) .* look like train/cat/000\.png"):
        check_data(config(tmp_path / "data", exclude=str(listing)))


def test_a_list_of_no_name_in_the_splits_of_a_tree_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "data", train__cat=6, train__dog=6, test__cat=2, test__dog=2)
    listing = tmp_path / "exclude.txt"
    cfg = config(tmp_path / "data", exclude=str(listing))
    listing.write_text("cat/000.png\n")
    with pytest.raises(DataError, match=r"none of its 1 names \(cat/000\.png\) .* look like train/cat/000\.png"):
        load_training_data(cfg)
    listing.write_text("test/cat/000.png\n")
    assert f"0 images are left out (data.exclude={listing})." in load_training_data(cfg).notes
    listing.write_text("train/cat/000.png\ntrain/cat/999.png\n")
    assert (
        f"1 images are left out (data.exclude={listing}); 1 of its names are not here." in load_training_data(cfg).notes
    )


def test_lists_of_other_programs_and_names_like_comments(tmp_path: Path) -> None:
    images(tmp_path / "data", **{"#cat": 20, " dog": 20, "dog": 20})
    listing = tmp_path / "exclude.txt"
    gone = ["#cat/000.png", "#cat/001.png", " dog/001.png"]
    pairs = [NearPair(name, "dog/009.png", "train", "test", 3) for name in gone]
    assert write_exclude(listing, pairs, distance=40) == sorted(gone)
    listing.write_text("dog/000.png\n" + listing.read_text(), encoding="utf-8-sig")
    cfg = config(tmp_path / "data", exclude=str(listing))
    assert not set.union(*splits_of(cfg).values()) & {*gone, "dog/000.png"}
    assert f"4 images are left out (data.exclude={listing})." in load_training_data(cfg).notes
    listing.write_text("#cat/000.png\n", encoding="utf-16")
    with pytest.raises(DataError, match="is no UTF-8 text: save it as UTF-8"):
        load_training_data(cfg)


def test_a_changed_exclude_file_is_read_again(tmp_path: Path) -> None:
    images(tmp_path / "data", train__cat=6, train__dog=6)
    listing = tmp_path / "exclude.txt"
    listing.write_text("train/cat/000.png\n")
    cfg = config(tmp_path / "data", exclude=str(listing))
    assert len(load_training_data(cfg).train.names) + len(load_training_data(cfg).validation.names) == 11
    listing.write_text("train/cat/000.png\ntrain/dog/000.png\n")
    assert len(load_training_data(cfg).train.names) + len(load_training_data(cfg).validation.names) == 10
