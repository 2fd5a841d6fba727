"""torchvision's data sets with real, tiny files in the layouts of their authors: check, info, and an epoch of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from da6401.runs.run_folder import read_json, read_result
from tests.tiny_runs import typed

CLASSES = ("ant", "bee")
SPLITS = {"train": 8, "val": 4, "test": 4}  # images of each class


def picture(path: Path, seed: int) -> Path:
    """A picture of its own; JPEG, PNG or PPM by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return path


def rows(*splits: str) -> Iterator[tuple[int, str, str, int]]:
    """A seed, the split, the class and the label of each image."""
    seed = 0
    for split in splits:
        for label, name in enumerate(CLASSES):
            for _ in range(SPLITS[split]):
                seed += 1
                yield seed, split, name, label


def gtsrb(root: Path) -> None:
    table = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for seed, split, _, label in rows("train", "test"):
        if split == "train":
            picture(root / f"gtsrb/GTSRB/Training/{label:05d}/{seed:05d}.ppm", seed)
        else:
            picture(root / f"gtsrb/GTSRB/Final_Test/Images/{seed:05d}.ppm", seed)
            table.append(f"{seed:05d}.ppm;10;12;0;0;9;11;{label}")
    (root / "gtsrb/GT-final_test.csv").write_text("\n".join(table) + "\n")


def dtd(root: Path) -> None:
    lists: dict[str, list[str]] = {}
    for seed, split, name, _ in rows("train", "val", "test"):
        picture(root / f"dtd/dtd/images/{name}/{name}_{seed:04d}.jpg", seed)
        lists.setdefault(split, []).append(f"{name}/{name}_{seed:04d}.jpg\n")
    (root / "dtd/dtd/labels").mkdir()
    for split, lines in lists.items():
        (root / f"dtd/dtd/labels/{split}1.txt").write_text("".join(lines))


def aircraft(root: Path) -> None:
    place = root / "fgvc-aircraft-2013b" / "data"
    lists: dict[str, list[str]] = {}
    for seed, split, name, _ in rows("train", "val", "test"):
        picture(place / "images" / f"{seed:07d}.jpg", seed)
        lists.setdefault(split, []).append(f"{seed:07d} {name}\n")
    (place / "variants.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for split, lines in lists.items():
        (place / f"images_variant_{split}.txt").write_text("".join(lines))


def food(root: Path) -> None:
    lists: dict[str, dict[str, list[str]]] = {}
    for seed, split, name, _ in rows("train", "test"):
        picture(root / f"food-101/images/{name}/{seed}.jpg", seed)
        lists.setdefault(split, {}).setdefault(name, []).append(f"{name}/{seed}")
    (root / "food-101/meta").mkdir()
    for split, content in lists.items():
        (root / f"food-101/meta/{split}.json").write_text(json.dumps(content))


def pets(root: Path) -> None:
    place = root / "oxford-iiit-pet"
    lists: dict[str, list[str]] = {}
    for seed, split, name, label in rows("train", "test"):
        picture(place / "images" / f"{name}_{seed}.jpg", seed)
        lists.setdefault(split, []).append(f"{name}_{seed} {label + 1} 1 {label + 1}\n")
    (place / "annotations").mkdir()
    for split, file in (("train", "trainval"), ("test", "test")):
        (place / "annotations" / f"{file}.txt").write_text("".join(lists[split]))


def imagenette(root: Path) -> None:
    for seed, split, name, _ in rows("train", "val"):
        wnid = {"ant": "n01440764", "bee": "n02102040"}[name]
        made = picture(root / f"imagenette2/{split}/{wnid}/{wnid}_{seed}.jpg", seed)
        made.rename(made.with_suffix(".JPEG"))


def country(root: Path) -> None:
    for seed, split, name, _ in rows("train", "val", "test"):
        picture(root / f"country211/{'valid' if split == 'val' else split}/{name}/{seed}.jpg", seed)


Make = Callable[[Path], None]
# Of each: how it is made, whether it has validation and test, its class names.
SETS: dict[str, tuple[Make, bool, bool, tuple[str, ...]]] = {
    "GTSRB": (gtsrb, False, True, ("0", "1")),
    "DTD": (dtd, True, True, CLASSES),
    "FGVCAircraft": (aircraft, True, True, CLASSES),
    "Food101": (food, False, True, CLASSES),
    "OxfordIIITPet": (pets, False, True, ("Ant", "Bee")),
    "Imagenette": (imagenette, True, False, ("tench, Tinca tinca", "English springer, English springer spaniel")),
    "Country211": (country, True, True, CLASSES),
}


@pytest.mark.parametrize("name", SETS)
def test_check_info_and_an_epoch(tmp_path: Path, name: str) -> None:
    make, has_validation, has_test, class_names = SETS[name]
    make(tmp_path / "sets")
    data = ("data=torchvision", f"data.name={name}")
    for verb in ("check", "info"):
        code, out, err = typed("data", verb, "sets", *data, cwd=tmp_path)
        assert code == 0, f"{verb}: {out}{err}"
        assert f"torchvision.datasets.{name}" in out
    code, out, err = typed(
        "train", *data, "data.root=sets", "data.image_size=8", "model.filters=4", "model.blocks=2", "trainer.epochs=1",
        "trainer.batch_size=8", "trainer.threads=1", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, out + err
    assert tuple(read_json(tmp_path / "run/receipt.json")["class_names"]) == class_names
    answers = (tmp_path / "run/validation.csv").read_text().splitlines()[1:]
    if has_validation:
        assert len(answers) == 2 * SPLITS["val"], "the set's own"
    code, out, err = typed("evaluate", "run", cwd=tmp_path)
    if not has_test:
        assert code == 2
        assert "has no test split" in err
        return
    assert code == 0, out + err
    assert read_result(tmp_path / "run").test_accuracy is not None
    assert f"on {2 * SPLITS['test']} images" in out
