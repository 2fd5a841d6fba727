"""Batches in a seeded order, gathered and copied to the device while the batch before is computed."""

# B batch, N images, C = 3 channels, H = W side

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from da6401.data.cache.image_cache import CachedRows
from da6401.data.image_sets import ImageSet
from da6401.data.resident import ChosenRows

AHEAD = 2  # batches that the thread gathers in advance
SMALL = 2**18  # values in a batch: gathering fewer costs less than passing them between threads
AT_ONCE = 16  # most batches that a GPU gathers and augments together
MEMORY = 1 / 128  # of the GPU's memory, for the float32 images of such a group


@dataclass(frozen=True)
class Batch:
    """Images (uint8, on the device) or features, their labels, and their positions in the epoch: of one step, or of
    several that are gathered at once."""

    images_BCHW: Tensor
    labels_B: Tensor
    rows_B: Tensor
    sizes: tuple[int, ...]  # images of each step

    def steps(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Each step's rows of ``x``, which has a row for each image, and their labels."""
        sizes = list(self.sizes)
        return zip(torch.split(x, sizes), torch.split(self.labels_B, sizes), strict=True)


def batches_at_once(values: int, batch_size: int, device: torch.device) -> int:
    """How many batches of images of so many values a device gathers and augments together.

    A GPU augments a group of batches as fast as the host starts the work for one. The number follows from the shape
    and the card alone: a resumed epoch has the same groups, and so the same bits.
    """
    if device.type != "cuda":
        return 1
    room = MEMORY * torch.cuda.get_device_properties(device).total_memory
    return max(1, min(AT_ONCE, int(room / (4 * values * batch_size))))


def seeded(*parts: int) -> torch.Generator:
    """A CPU generator for one purpose, such as (seed, purpose, epoch); no other generator's draws change its own."""
    state = 0
    for part in parts:  # a small mixing function: neighbouring epochs and purposes share nothing
        state = (state * 6364136223846793005 + part + 1442695040888963407) % 2**64
        state ^= state >> 29
    return torch.Generator().manual_seed(state % 2**63)


def batch_rows(count: int, batch_size: int, *, training: bool) -> list[Tensor]:
    """The positions of each batch of an epoch; the last batch may be smaller.

    In training a last batch of one joins the batch before it: batch norm has no variance of one value.
    """
    rows = [torch.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if training and len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [torch.cat(rows[-2:])]
    return rows


def batches(
    images: ImageSet, *, batch_size: int, device: torch.device, shuffle: torch.Generator | None, at_once: int = 1,
    first: int = 0, part: Callable[[int], slice] | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """All images once, in a random order for training, or in the set's order where ``shuffle`` is None.

    Args:
        at_once: steps in each batch that is given.
        first: the batches before it are left out.
        part: of a step of so many images the rows that are given; None: all.

    A thread gathers the next batches unless they are small; it ends when the iteration ends, for whatever reason. For
    CUDA they are pinned and copied without waiting. The order is drawn before, so it does not depend on the thread.
    """
    count = len(images.labels_N)
    order_N = torch.arange(count) if shuffle is None else torch.randperm(count, generator=shuffle)
    steps = batch_rows(count, batch_size, training=shuffle is not None)
    if part is not None:
        steps = [rows[part(len(rows))] for rows in steps]
    groups = [steps[start : start + at_once] for start in range(first * at_once, len(steps), at_once)]
    ahead: Batch | None = None
    with closing(_gathered(images, order_N, groups, pinned=device.type == "cuda")) as gathered:
        for batch in gathered:
            # Copied by this thread, on the CUDA stream that will read it, one batch early.
            images_BCHW = batch.images_BCHW.to(device, non_blocking=True)
            labels_B = batch.labels_B.to(device, non_blocking=True)
            if ahead is not None:
                yield ahead
            ahead = Batch(images_BCHW, labels_B, batch.rows_B, batch.sizes)
        if ahead is not None:
            yield ahead


def _gathered(
    images: ImageSet, order_N: Tensor, groups: Sequence[Sequence[Tensor]], *, pinned: bool
) -> Generator[Batch, None, None]:
    """The batches on the CPU, at most AHEAD of them gathered in advance."""

    chosen = images.images_NCHW
    resident = isinstance(chosen, ChosenRows) and chosen.is_resident  # nothing to wait for: the device gathers them

    def gather(steps: Sequence[Tensor]) -> Batch:
        rows_B = torch.cat(list(steps)) if len(steps) > 1 else steps[0]
        chosen_B = order_N[rows_B]
        labels_B = images.labels_N[chosen_B]
        if isinstance(images.images_NCHW, CachedRows):
            pixels_BCHW = images.images_NCHW.gather(chosen_B, pinned=pinned)
        else:
            pixels_BCHW = images.images_NCHW[chosen_B]
            pixels_BCHW = pixels_BCHW.pin_memory() if pinned and not resident else pixels_BCHW
        return Batch(pixels_BCHW, labels_B.pin_memory() if pinned else labels_B, rows_B, tuple(map(len, steps)))

    largest = sum(map(len, groups[0])) if groups else 0
    if resident or (groups and largest * images.images_NCHW.shape[1:].numel() <= SMALL):
        yield from map(gather, groups)
        return
    waiting: deque[Future[Batch]] = deque()
    at_end = sys.is_finalizing  # of Python, which has ended the thread, and emptied the modules, by then
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        for steps in groups:
            waiting.append(pool.submit(gather, steps))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if not at_end():
            pool.shutdown(wait=True, cancel_futures=True)


def equal_parts(size: int, parts: int) -> list[slice]:
    """``parts`` slices of 0..size (at most ``size`` of them) whose lengths differ by at most one."""
    parts = min(parts, size)
    ends = [size // parts * number + min(number, size % parts) for number in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]
