"""The random numbers of one epoch's augmentation: a table with a row for each position of the epoch.

It is made in blocks as they are needed. So an image's numbers do not depend on the batch size, and a run that resumes
in the middle of an epoch has the same ones.
"""

# B batch

from __future__ import annotations

import torch
from torch import Tensor

from da6401.data.batches import seeded

BLOCK = 4096  # rows that are made together
TRIES = 10  # of a random box

# The columns. Their order and number decide every number in the table: new ones need a table of their own.
FLIP, ANGLE = 0, 1
FACTORS, ORDER = slice(2, 6), slice(6, 10)
ERASE, ERASE_PLACE, CROP_PLACE = 10, slice(11, 13), slice(13, 15)
TRIVIAL = slice(15, 18)
CROP, ERASE_SIZE = slice(18, 18 + 2 * TRIES), slice(18 + 2 * TRIES, 18 + 4 * TRIES)
COLUMNS = 18 + 4 * TRIES


class RandomTable:
    """Rows of uniform random numbers in 0..1, on the CPU."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        """A table of ``count`` rows; ``generator`` gives its seed."""
        self._count = count
        self._seed = int(torch.randint(2**62, (), generator=generator))
        self._last: tuple[int, Tensor] | None = None  # number and content of the block that was used last

    def rows(self, rows_B: Tensor) -> Tensor:
        """The rows at these positions of the epoch: (B, COLUMNS)."""
        draws = torch.empty(len(rows_B), COLUMNS)
        for block in sorted(set((rows_B // BLOCK).tolist())):
            if self._last is None or self._last[0] != block:
                rows = min(BLOCK, self._count - block * BLOCK)
                self._last = block, torch.rand(rows, COLUMNS, generator=seeded(self._seed, block))
            inside = rows_B // BLOCK == block
            draws[inside] = self._last[1][rows_B[inside] % BLOCK]
        return draws
