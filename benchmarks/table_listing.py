"""Memory and time of a table of a million rows: what a training does before it opens the first image.

    python -m benchmarks.table_listing [--rows 1000000] [--parquet]

The table is synthetic (paths that are not there, 1,000 classes, groups of ten images); it is written to a temporary
folder and removed. Reading, finding the splits, and making the list of files are timed in a process of their own.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from da6401.config.schema import TableConfig, TableKeys
from da6401.config.splits import TRAIN, VALIDATION


def write_table(folder: Path, rows: int, *, parquet: bool) -> None:
    """labels.csv or labels.parquet: path, label, group."""
    paths = [f"images/{row // 1000:04d}/photograph_{row:08d}.jpg" for row in range(rows)]
    labels = [f"class {row * 7919 % 1000:04d}" for row in range(rows)]
    groups = [f"patient {row // 10:06d}" for row in range(rows)]
    if parquet:
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.table({"path": paths, "label": labels, "group": groups}), folder / "labels.parquet")
        return
    with (folder / "labels.csv").open("w", encoding="utf-8") as file:
        file.write("path,label,group\n")
        file.writelines(f"{path},{label},{group}\n" for path, label, group in zip(paths, labels, groups, strict=True))


def measure(folder: Path, group_by: str) -> None:
    """Print seconds and the peak of the resident memory after each step."""
    from da6401.data.plan import make_plan
    from da6401.data.table_listing import list_table

    def told(step: str) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # Linux has the line, in KiB
        print(f"  {step}: {time.perf_counter() - started:6.1f} s, peak {peak:6.0f} MiB", flush=True)

    started = time.perf_counter()
    told("imports            ")
    cfg = TableConfig(root=str(folder), group_by=group_by, table=TableKeys(path="path", label="label"))
    listing = list_table(cfg)
    told("read the table     ")
    plan = make_plan(listing, cfg)
    told("draw the splits    ")
    files = [*plan.files(TRAIN), *plan.files(VALIDATION)]
    told("list the files     ")
    print(f"  {len(listing.names):,} rows, {len(listing.class_names):,} classes, {len(files):,} to train on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--group-by", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure, options.group_by)
        return
    with tempfile.TemporaryDirectory() as name:
        write_table(Path(name), options.rows, parquet=options.parquet)
        (size,) = (path.stat().st_size for path in Path(name).iterdir())
        for group_by in ("", "group"):
            print(f"{options.rows:,} rows, {size / 2**20:.0f} MiB{f', data.group_by={group_by}' if group_by else ''}:")
            words = ["--measure", name, "--group-by", group_by]
            subprocess.run([sys.executable, "-m", "benchmarks.table_listing", *words], check=True)


if __name__ == "__main__":
    main()
