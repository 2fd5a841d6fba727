"""data=table: what is detected, what is refused, and that rows become the right splits, classes and groups."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from da6401.config.schema import TableConfig, TableKeys
from da6401.data.remarks import check_command
from da6401.data.sources import load_test_data, load_training_data
from da6401.data.tree_check import check_data, describe_data
from da6401.errors import ConfigError, DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
Rows = list[tuple[str, ...]]


def pictures(root: Path, count: int, folder: str = "", ending: str = ".png") -> list[str]:
    """Images 000.png, ... of colours of their own; the names."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{folder}{'/' if folder else ''}{number:03d}{ending}" for number in range(count)]
    for number, name in enumerate(names):
        colour = tuple(np.random.default_rng(number).integers(0, 256, 3))
        Image.new("RGB", (9, 7), colour).save(root / name)
    return names


def write(path: Path, rows: Rows, separator: str = ",") -> None:
    path.write_text("".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")


def config(root: Path, group_by: str = "", exclude: str = "", follow: bool = False, **keys: Any) -> TableConfig:
    return TableConfig(
        root=str(root), image_size=4, cache="off", group_by=group_by, exclude=exclude, follow_links=follow,
        table=TableKeys(**keys),
    )  # fmt: skip


def labelled(root: Path, count: int = 30, folder: str = "") -> Rows:
    return [(name, ("cat", "dog")[place % 2]) for place, name in enumerate(pictures(root, count, folder))]


@pytest.mark.parametrize(
    ("separator", "word"),
    [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "pipe"), (" ", "space"), (", ", "comma")],
)
@pytest.mark.parametrize("header", [True, False])
def test_separator_and_header_are_found_and_told(separator: str, word: str, header: bool, tmp_path: Path) -> None:
    rows = labelled(tmp_path)
    write(tmp_path / "labels.csv", [("file", "kind"), *rows] if header else rows, separator)
    data = load_training_data(config(tmp_path))
    columns = ("file", "kind") if header else ("1", "2")
    assert data.notes[0] == (
        f"Layout: a table, labels.csv: separator {word}, {'with a header' if header else 'no header'}; paths in column "
        f"{columns[0]}, labels in column {columns[1]}, no splits (data.table.* says otherwise)."
    )
    assert data.class_names == ("cat", "dog")
    test = load_test_data(config(tmp_path), data.class_names)
    label = {row[0]: row[1] for row in rows}
    for part in (data.train, data.validation, test):
        for row, name in enumerate(part.names):
            assert data.class_names[int(part.labels_N[row])] == label[name]
            with Image.open(tmp_path / name) as image:
                assert tuple(part.images_NCHW[torch.tensor([row])][0, :, 0, 0].tolist()) == image.getpixel((0, 0))
    assert len(data.train.names) + len(data.validation.names) + len(test.names) == 30


def test_the_order_of_the_rows_moves_no_split(tmp_path: Path) -> None:
    rows = labelled(tmp_path)
    write(tmp_path / "labels.csv", rows)
    first = load_training_data(config(tmp_path))
    write(tmp_path / "labels.csv", rows[::-1])
    other = load_training_data(config(tmp_path))
    assert (first.train.names, first.validation.names) == (other.train.names, other.validation.names)
    assert first.fingerprint == other.fingerprint


def test_a_column_of_splits_and_one_of_groups(tmp_path: Path) -> None:
    names = pictures(tmp_path, 60)
    split = ["train"] * 40 + ["test"] * 20
    rows = [(name, "ab"[n % 2], split[n], f"patient {n // 4}") for n, name in enumerate(names)]
    write(tmp_path / "all.csv", [("path", "label", "split", "patient"), *rows])
    cfg = config(tmp_path, group_by="patient")
    data = load_training_data(cfg)
    assert set(load_test_data(cfg, data.class_names).names) == set(names[40:])
    patient = {row[0]: row[3] for row in rows}
    assert not {patient[name] for name in data.train.names} & {patient[name] for name in data.validation.names}
    assert len(data.validation.names) == 8


def test_a_planted_group_leak_is_refused_and_found(tmp_path: Path) -> None:
    names = pictures(tmp_path, 40)
    rows = [(name, "ab"[n % 2], "train" if n < 30 else "test", f"p{n // 5}") for n, name in enumerate(names)]
    rows[35] = (*rows[35][:3], "p2")
    write(tmp_path / "all.csv", [("path", "label", "split", "patient"), *rows])
    cfg = config(tmp_path, group_by="patient")
    report = check_data(cfg)
    assert not report.clean
    assert "1 group of data.group_by=patient stands in more than one split (p2 in " in report.problems[0]
    with pytest.raises(DataError, match=r"1 group of data\.group_by=patient"):
        load_training_data(cfg)
    assert check_data(config(tmp_path)).clean


def test_a_group_that_is_no_column(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", [("path", "label", "patient"), *((n, c, "1") for n, c in labelled(tmp_path))])
    with pytest.raises(ConfigError, match=r"no such column; columns: path, label, patient"):
        load_training_data(config(tmp_path, group_by="patience", label="label"))


def test_tables_named_as_splits(tmp_path: Path) -> None:
    names = pictures(tmp_path, 30)
    for file, part in (("train.txt", names[:16]), ("val.txt", names[16:20]), ("test.txt", names[20:])):
        write(tmp_path / file, [(name, str(9 + int(name[:3]) % 2)) for name in part], ", ")
    write(tmp_path / "names.csv", [("id", "name"), ("9", "nine"), ("10", "ten"), ])  # fmt: skip
    cfg = config(tmp_path, names="names.csv")
    data = load_training_data(cfg)
    assert data.class_names == ("nine", "ten")  # by number, not by text
    assert data.train.names == tuple(names[:16])
    assert data.validation.names == tuple(names[16:20])
    assert load_test_data(cfg, data.class_names).names == tuple(names[20:])
    assert data.notes[0].endswith("Names from names.csv: id to name.")


def test_paths_start_from_a_folder_and_leave_their_ending_out(tmp_path: Path) -> None:
    pictures(tmp_path / "images", 30)
    (tmp_path / "other").mkdir()
    rows = [(f"{number:03d}", ("cat", "dog")[number % 2]) for number in range(30)]
    write(tmp_path / "labels.csv", [("id", "breed"), *rows])
    with pytest.raises(DataError, match=r"data\.table\.suffix=\.jpg"):
        load_training_data(config(tmp_path))
    data = load_training_data(config(tmp_path, suffix=".png"))
    assert "paths in column id, below images/, labels in column breed" in data.notes[0]
    assert set(data.train.names) < {f"{number:03d}.png" for number in range(30)}
    given = load_training_data(config(tmp_path, suffix=".png", images="images", path="id", label="breed"))
    assert given.fingerprint == data.fingerprint
    assert load_training_data(config(tmp_path / "labels.csv", suffix=".png")).fingerprint == data.fingerprint


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = labelled(tmp_path)
    write(tmp_path / "labels.csv", rows)
    expected = load_training_data(config(tmp_path))
    (tmp_path / "labels.csv").unlink()
    table = pyarrow.table({"path": [row[0] for row in rows], "label": [row[1] for row in rows]})
    parquet.write_table(table, tmp_path / "labels.parquet")
    assert load_training_data(config(tmp_path)).fingerprint == expected.fingerprint
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'da6401\[tables\]'"):
        load_training_data(config(tmp_path))


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("path", "fine", "coarse"), ("0.png", "a", "x"), ("1.png", "b", "y")], r"label=fine \(a, b\) or coarse"),
        ([("a", "b"), ("c", "d")], r"data\.table\.header=yes or no"),
        ([("0.png", "a"), ("1.png", "")], "1 rows have no label .*rows 2"),
        ([("0.png", "a"), ("1.png", "b", "c")], r"which separator .* data\.table\.separator="),
        ([("path", "label", "split"), ("0.png", "a", "holdout"), ("1.png", "b", "train")], "and holdout is none"),
        ([("0.png", "a"), ("0.png", "b")], r"more than once, .*0\.png \(a, b\)"),
        ([("0.png",), ("1.png",)], r"which separator"),
        ([("0.png", "1.png", "a"), ("2.png", "3.png", "b")], r"data\.table\.path=1 \(0\.png, 2\.png\) or 2"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_names_its_key(rows: Rows, message: str, tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=message):
        load_training_data(config(tmp_path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            '0.png,"a\n1.png,b\n2.png,b"',
            r"1 rows have a line break .* their label \(column label; rows 13; the first: a",
        ),
        ("0\0.png,a", r"1 rows have .* a NUL character in their path \(column path; rows 13; "),
        ("0.png," + "a" * 140_000, "field larger than field limit .* A quotation mark that opens"),
    ],
)
def test_a_cell_that_is_broken_names_its_row(row: str, message: str, tmp_path: Path) -> None:
    rows = "".join(f"{name},{label}\n" for name, label in labelled(tmp_path, 11))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}{row}\n", encoding="utf-8")
    for separator in ("auto", "comma"):
        with pytest.raises(DataError, match=message):
            describe_data(config(tmp_path, separator=separator))


def test_labels_that_only_look_like_numbers(tmp_path: Path) -> None:
    rows = [(name, ("--1", "10", "9", "1" * 5000)[place % 4]) for place, name in enumerate(pictures(tmp_path, 40))]
    write(tmp_path / "labels.csv", [("path", "label"), *rows])
    assert load_training_data(config(tmp_path)).class_names == ("--1", "10", "1" * 5000, "9"), "as texts"


def test_parquet_without_a_label_and_damaged(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    names = pictures(tmp_path, 12)
    table = pyarrow.table({"path": names, "label": [float("nan"), *(float(n % 2) for n in range(11))]})
    parquet.write_table(table, tmp_path / "labels.parquet", compression="none", use_dictionary=False)
    with pytest.raises(DataError, match=r"1 rows have no label \(column label; rows 2\)"):
        load_training_data(config(tmp_path))
    table = pyarrow.table({"path": names, "label": [0, 1] * 6, "plant": [float("nan"), *map(float, range(11))]})
    parquet.write_table(table, tmp_path / "labels.parquet", compression="none", use_dictionary=False)
    with pytest.raises(DataError, match=r"data\.group_by=plant: the column is empty for 1 of 12 images"):
        load_training_data(config(tmp_path, group_by="plant"))
    content = bytearray((tmp_path / "labels.parquet").read_bytes())
    content[4:40] = b"\xff" * 36  # the header of the first page
    (tmp_path / "labels.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.parquet cannot be read as Parquet"):
        load_training_data(config(tmp_path))


def test_which_table(tmp_path: Path) -> None:
    rows = labelled(tmp_path)
    with pytest.raises(DataError, match=r"holds no \.csv, \.tsv or \.parquet: name it, data\.table\.files=NAME"):
        load_training_data(config(tmp_path))
    write(tmp_path / "one.csv", rows)
    write(tmp_path / "two.csv", rows)
    with pytest.raises(DataError, match=r"several tables \(one\.csv, two\.csv\)"):
        load_training_data(config(tmp_path))
    load_training_data(config(tmp_path, files="two.csv"))


def test_missing_and_foreign_files_are_bad(tmp_path: Path) -> None:
    rows = labelled(tmp_path / "data")
    pictures(tmp_path, 1)
    write(tmp_path / "data" / "labels.csv", [*rows, ("lost.png", "cat"), ("../000.png", "dog")])
    report = describe_data(config(tmp_path / "data"))
    found = {file.name: file.reason.partition(":")[0] for file in report.bad}
    assert found == {
        "lost.png": "cannot be read",
        str(tmp_path / "000.png"): "its path leaves the folder of the images",
    }
    with pytest.raises(DataError, match="unusable file"):
        load_training_data(config(tmp_path / "data"))
    (tmp_path / "data" / "lost.png").write_bytes((tmp_path / "000.png").read_bytes())
    followed = describe_data(config(tmp_path / "data", follow=True))
    assert (len(followed.files), followed.bad) == (32, ())


def test_rows_that_stand_twice_count_once(tmp_path: Path) -> None:
    rows = labelled(tmp_path)
    write(tmp_path / "labels.csv", [*rows, *rows[:3]])
    data = load_training_data(config(tmp_path))
    assert "3 rows stand twice, and count once." in data.notes
    assert len(describe_data(config(tmp_path)).files) == 30


def test_a_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    names = pictures(tmp_path, 12)
    rows = [(name, "ab"[n % 2] if n < 10 else "c", "train" if n < 10 else "test") for n, name in enumerate(names)]
    write(tmp_path / "all.csv", [("path", "label", "split"), *rows])
    with pytest.raises(DataError, match="no readable training image in the class c"):
        load_training_data(config(tmp_path))


@pytest.mark.skipif(not (SHARED / "grocery-small").is_dir(), reason="grocery-small is not beside this checkout")
@pytest.mark.parametrize(("label", "classes", "first"), [("2", 81, "Golden-Delicious"), ("3", 43, "Apple")])
def test_grocery_as_it_is_published(label: str, classes: int, first: str) -> None:
    report = describe_data(config(SHARED / "grocery-small", label=label, names="classes.csv"))
    assert (len(report.class_names), report.class_names[0]) == (classes, first)
    assert Counter(file.split for file in report.files) == {"train": 2640, "validation": 296, "test": 2485}
    assert report.clean
    with pytest.raises(DataError, match=r"data\.table\.label=2 \(0, 1, 2, \.\.\.\) or 3"):
        describe_data(config(SHARED / "grocery-small"))


@pytest.mark.skipif(not (SHARED / "sign-digits").is_dir(), reason="sign-digits is not beside this checkout")
def test_sign_digits_by_person(tmp_path: Path) -> None:
    """A person's pictures are taken one after the other, from 0 to 9: the numbers say who, and no pattern does."""
    root = (SHARED / "sign-digits" / "Dataset").resolve()
    found = sorted((int(path.stem.removeprefix("IMG_")), int(path.parent.name), path) for path in root.glob("*/*.JPG"))
    rows: Rows = [("path", "digit", "person")]
    person, last = 0, (0, 9)
    for number, digit, path in found:
        person += digit <= last[1] or number - last[0] > 3
        last = number, digit
        rows.append((str(path.relative_to(root)), str(digit), str(person)))
    write(tmp_path / "persons.csv", rows)
    who = {row[0]: row[2] for row in rows}
    for group_by in ("", "person"):
        report = describe_data(config(tmp_path, group_by, label="digit", images=str(root)))
        assert report.clean
        sides: dict[str, set[str]] = {}
        for file in report.files:
            sides.setdefault(who[file.name], set()).add(file.split)
        assert all(len(where) == 1 for where in sides.values()) == bool(group_by)
        assert len(report.files) == 2062
        for split, count in (("test", 41), ("validation", 33)):
            assert all(abs(report.counts(split)[name] - count) <= 2 for name in report.class_names)


def test_the_suggested_check_has_the_keys_of_the_table(tmp_path: Path) -> None:
    cfg = config(tmp_path, group_by="person", path="file", names="kinds of.csv", separator="comma")
    assert check_command(cfg) == (
        f"da6401 data check {tmp_path} data=table data.group_by=person data.table.separator=comma data.table.path=file "
        "'data.table.names=kinds of.csv'"
    )


@pytest.mark.parametrize("encoding", ["latin1", "utf-16"])
@pytest.mark.parametrize("place", [0, 2990])
def test_a_table_in_another_encoding_says_how_to_save_it(encoding: str, place: int, tmp_path: Path) -> None:
    rows = [(f"{number}.png", "Café" if number == place else "tea") for number in range(3000)]
    text = "".join(",".join(row) + "\n" for row in [("path", "label"), *rows])
    (tmp_path / "labels.csv").write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=rf"UTF-8.*Save it as UTF-8, such as with `iconv -f {encoding} -t utf-8`\."):
        check_data(config(tmp_path))


def test_a_group_is_a_column_by_its_number_too(tmp_path: Path) -> None:
    rows = [(*row, f"p{place // 5}") for place, row in enumerate(labelled(tmp_path, 60))]
    write(tmp_path / "labels.csv", [("path", "kind", "patient"), *rows])
    by_name, by_number = (load_training_data(config(tmp_path, group_by=name)) for name in ("patient", "3"))
    assert by_number.groups == by_name.groups
    assert by_number.fingerprint == by_name.fingerprint
    for wrong in ("0", "4"):
        with pytest.raises(ConfigError, match=rf"data\.group_by={wrong}: no such column; columns: path, kind, patient"):
            load_training_data(config(tmp_path, group_by=wrong, label="kind"))


def forbid(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file below a folder of this name may be looked at, as where a user lacks x on the folder."""
    stat = os.stat

    def refusing(path: Any, *words: Any, **named: Any) -> os.stat_result:
        if f"/{part}/" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *words, **named)

    monkeypatch.setattr(os, "stat", refusing)


def test_a_folder_beside_the_images_that_may_not_be_searched_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "labels.csv", labelled(tmp_path))
    (tmp_path / "lost+found").mkdir()
    forbid("lost+found", monkeypatch)
    assert check_data(config(tmp_path)).clean
    assert len(load_training_data(config(tmp_path)).train.names) > 0
