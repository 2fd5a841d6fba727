"""The rows of the GPU benchmark as a page and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch

TEMPLATE = Path(__file__).parent / "gpu_template.md"


@dataclass(frozen=True)
class Measured:
    """One comparison: images a second of both in each round; or why there is none."""

    text: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    bound: float | None = None  # the ratio should be at least this
    first_step: float | None = None  # seconds
    peak_mb: float | None = None
    note: str = ""
    why: str = ""  # why there are no numbers

    @property
    def verdict(self) -> str:
        if self.bound is None or not self.ratios:
            return ""
        met = statistics.median(self.ratios) >= self.bound
        return f"at least {self.bound:g}: {'ok' if met else '**missed**'}"


def line(row: Measured) -> str:
    """One row of the table."""
    if row.why:
        return f"| {row.text} | - | - | - | | | | {row.why} |"
    middle = statistics.median(row.ratios)
    ratio = f"{middle:.3g} ({min(row.ratios):.3g} to {max(row.ratios):.3g})"
    first = "" if row.first_step is None else f"{row.first_step:.1f} s"
    peak = "" if row.peak_mb is None else f"{row.peak_mb:,.0f} MB"
    rates = f"{statistics.median(row.ours):,.0f} | {statistics.median(row.theirs):,.0f}"
    return f"| {row.text} | {rates} | {ratio} | {row.verdict} | {first} | {peak} | {row.note} |"


def write(
    rows: Sequence[Measured], *, images: int, rounds: int, tiny: bool, why: str, page: Path, record: Path
) -> None:
    """Both files, and the table on stdout."""
    about = {
        "date": str(date.today()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": driver(),
        "cuda": torch.version.cuda,
        # torch gives this function no types
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,  # type: ignore[no-untyped-call]
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "images": images,
        "rounds": rounds,
        "rehearsal": tiny,
        "why": why,
    }
    gpu = f"{about['device']}, driver {about['driver']}, CUDA {about['cuda']}, cuDNN {about['cudnn']}"
    head = (
        f"{about['date']}, {gpu if about['device'] else 'no GPU'}, {about['cores']} cores ({platform.machine()}, "
        f"{platform.system()}), Python {about['python']}, torch {about['torch']}. {images:,} JPEGs of 800 x 600 px, "
        f"n={rounds} rounds."
    )
    head += f"\n\n**{why[0].upper()}{why[1:]}.**" if why else ""
    titles = "| row | images/s | of the other | ratio (lowest to highest) | goal | first step | peak memory | |"
    table = "\n".join([titles, "|---|---|---|---|---|---|---|---|", *map(line, rows)])
    text = TEMPLATE.read_text(encoding="utf-8").replace("{head}", head).replace("{table}", table)
    for path, content in (
        (page, text),
        (record, json.dumps({"about": about, "rows": [dataclasses.asdict(row) for row in rows]}, indent=2) + "\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    print(f"{head}\n\n{table}")


def driver() -> str | None:
    """The NVIDIA driver's version, where Linux shows it."""
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip()
    except OSError:
        return None
