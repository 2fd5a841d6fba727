"""python -m benchmarks.families: what running a library's network in stages costs, and that it computes the same.

For one small architecture of each family of timm and torchvision: the stages found, whether features and answers from a
cut before the last stage are the library's own to the bit, and the time of a forward pass through the stages as a ratio
to the library's own, both in turn in the same process. The page is benchmarks/families.md.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from da6401.registry import LIBRARIES
from tests.library_families import CASES, enliven

PAGE = Path(__file__).with_suffix(".md")
ROUNDS = 15
SECONDS = 0.25  # of a measurement at least


def row(library: str, arch: str, side: int) -> tuple[list[str], float]:
    """The page's row of an architecture, and its ratio."""
    entry = LIBRARIES[library].backbone(arch)
    torch.manual_seed(0)
    network = entry.make(side)
    enliven(network)
    stages = nn.ModuleList(entry.cut(network.eval()))
    images = torch.rand(1, 3, side, side)

    def whole() -> torch.Tensor:
        features: torch.Tensor = network(images)
        return features

    def staged() -> torch.Tensor:
        x = images
        for stage in stages:
            x = stage(x)
        return x

    with torch.inference_mode():
        same = torch.equal(whole(), staged())
        calls = max(1, round(SECONDS / _seconds(whole, 3)))
        ratios = [_seconds(staged, calls) / _seconds(whole, calls) for _ in range(ROUNDS)]
        x = images
        for stage in stages[:-1]:
            x = stage(x)
        cached = torch.equal(stages[-1](x.clone()), whole())
    ratio = statistics.median(ratios)
    low, *_, high = statistics.quantiles(ratios, n=4)
    answers = [str(len(stages)), *("yes" if each else "NO" for each in (same, cached))]
    return [library, arch, f"{side}", *answers, f"{ratio:.3f} ({low:.3f} to {high:.3f})"], ratio


def _seconds(call: object, calls: int) -> float:
    assert callable(call)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def main() -> None:
    """Measure all, then write the page."""
    torch.set_num_threads(1)
    found = [row(library, arch, side) for library, arch, side, _ in CASES]
    middle = statistics.median(ratio for _, ratio in found)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm"))
    lines = [
        "# Networks of timm and torchvision in stages", "",
        f"Written by `python -m benchmarks.families`: {len(found)} families, {versions}, one image, one thread of "
        f"{os.cpu_count()} {platform.machine()} cores, {ROUNDS} rounds; the ratio's median and quartiles. Over all "
        f"families the median ratio is {middle:.3f}. That frozen stages stay the same to the bit in training is tested "
        "for each of them in tests/unit/test_models_libraries.py.", "",
        "| library | architecture | px | stages | features the same | from a cached feature the same "
        "| time against the library's |", "|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells, _ in found),
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
