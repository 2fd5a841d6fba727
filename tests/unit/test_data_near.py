"""`da6401 data check --near`: planted near-duplicates are found, others are not, and data.exclude takes the list."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from da6401.commands.data import NEAR
from da6401.config.schema import FolderConfig
from da6401.data.near import BITS, near_pairs, perceptual_hash
from da6401.data.sources import load_test_data, load_training_data
from da6401.data.tree_check import check_data
from da6401.errors import UserError
from tests.data_verb import data_verb as run


def picture(seed: int, side: int = 96) -> Image.Image:
    """Smooth blobs of random colours: as photographs are, most of it is low frequencies."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]


def tree(root: Path) -> Path:
    seed = 0
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("cat", "dog"):
            for number in range(count):
                seed += 1
                save(root / split / name / f"{number}.png", picture(seed))
    return root


def test_a_planted_near_duplicate_is_found_written_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, exclude = tree(tmp_path / "data"), tmp_path / "exclude.txt"
    assert run("check", root, "--near") == 0
    assert f"No near-duplicates in two splits (at most {NEAR} of {BITS} bits differ)." in capsys.readouterr().out
    with Image.open(root / "test/cat/2.png") as image:
        brighter = ImageEnhance.Brightness(image).enhance(1.2).resize((60, 60))
    save(root / "train/cat/planted.jpg", brighter, quality=60)  # other bytes, other size
    save(root / "val/dog/twin.jpg", picture(3), quality=50)  # of train/cat/2.png
    assert run("check", root) == 0  # no two files are the same
    capsys.readouterr()
    assert run("check", root, "--near", "--write", exclude) == 2
    out = capsys.readouterr().out
    assert "train/cat/planted.jpg (train) ~ test/cat/2.png (test)" in out
    assert "train/cat/2.png (train) ~ val/dog/twin.jpg (val)" in out
    assert "2 pairs of near-duplicates in two splits" in out
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(UserError, match=r"README\.md: is there already, and is no list of data check --near"):
        run("check", root, "--near", "--write", tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == "# Mine"
    assert run("check", root, "--near", "--write", exclude) == 2  # as above: onto its own list
    names = [line for line in exclude.read_text().splitlines() if not line.startswith("#")]
    assert names == ["train/cat/2.png", "train/cat/planted.jpg"]
    assert run("check", root, f"data.exclude={exclude}", "--near") == 0
    data = load_training_data(FolderConfig(root=str(root), image_size=4, cache="off", exclude=str(exclude)))
    assert not set(names) & set(data.train.names)
    assert len(data.train.names) == 23


def test_near_duplicates_of_drawn_splits_and_of_a_drawn_validation(tmp_path: Path) -> None:
    for folder in ("flat", "tree/train"):
        for number in range(15):
            for name in ("cat", "dog"):
                save(tmp_path / folder / name / f"{number}.png", picture(number + 100 * (name == "dog")))
    for root in (tmp_path / "flat", tmp_path / "tree"):
        cfg = FolderConfig(root=str(root), image_size=4, cache="off")
        data = load_training_data(cfg)
        pair = (data.train.names[0], data.validation.names[0])  # an image more might move others
        with Image.open(root / pair[1]) as image:
            save(root / pair[0], ImageEnhance.Contrast(image).enhance(0.8).resize((70, 70)))
        assert load_training_data(cfg).train.names == data.train.names
        found = check_data(cfg, near=NEAR).near
        assert [(each.first, each.second) for each in found] == [pair]
        assert (found[0].first_split, found[0].second_split) == ("train", "validation")


def test_exclude_moves_no_other_image(tmp_path: Path) -> None:
    for folder in ("flat", "tree/train"):
        for number in range(20):
            for name in ("cat", "dog"):
                save(tmp_path / folder / name / f"{number:02d}.png", picture(number, side=12))
    for root in (tmp_path / "flat", tmp_path / "tree"):
        plain = FolderConfig(root=str(root), image_size=4, cache="off")
        before = load_training_data(plain)
        gone = {before.train.names[0], before.train.names[-1], before.validation.names[0]}
        (tmp_path / "gone.txt").write_text("\n".join(gone))
        cfg = FolderConfig(root=str(root), image_size=4, cache="off", exclude=str(tmp_path / "gone.txt"))
        after = load_training_data(cfg)
        assert set(after.train.names) == set(before.train.names) - gone
        assert set(after.validation.names) == set(before.validation.names) - gone
    flat = FolderConfig(root=str(tmp_path / "flat"), image_size=4, cache="off")
    assert len(load_test_data(flat, ["cat", "dog"]).names) == 8


def test_a_class_that_is_left_out_as_a_whole_is_no_class(tmp_path: Path) -> None:
    for name, count in (("cat", 6), ("dog", 6), ("newt", 1)):
        for number in range(count):
            save(tmp_path / "flat" / name / f"{number}.png", picture(number, side=12))
            save(tmp_path / "tree" / "train" / name / f"{number}.png", picture(number, side=12))
    (tmp_path / "gone.txt").write_text("newt/0.png\ntrain/newt/0.png\n")
    for root in ("flat", "tree"):
        cfg = FolderConfig(root=str(tmp_path / root), image_size=4, cache="off", exclude=str(tmp_path / "gone.txt"))
        assert load_training_data(cfg).class_names == ("cat", "dog")


def test_the_hash_counts_what_it_says() -> None:
    def encoded(image: Image.Image) -> bytes:
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()

    hashes = [perceptual_hash(encoded(picture(seed))) for seed in range(40)]
    bits = [np.unpackbits(np.frombuffer(each, dtype=np.uint8), count=BITS) for each in hashes]
    splits = [seed % 3 for seed in range(40)]
    expected = {
        (a, b, int((bits[a] != bits[b]).sum()))
        for a in range(40)
        for b in range(40)
        if splits[a] < splits[b] and (bits[a] != bits[b]).sum() <= 110
    }
    found = near_pairs(hashes, splits, 110)
    assert len(expected) > 5
    assert set(found) == expected
    assert [pair[2] for pair in found] == sorted(pair[2] for pair in found)


def test_blocks_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hashes = [np.packbits(rng.integers(0, 2, BITS, dtype=np.uint8)).tobytes() for _ in range(50)]
    splits = rng.integers(0, 3, 50).tolist()
    whole = near_pairs(hashes, splits, 120)
    monkeypatch.setattr("da6401.data.near.BLOCK", 7)
    assert near_pairs(hashes, splits, 120) == whole
    assert len(whole) > 20
