"""Pictures of concurrent requests, given to the model together."""

# B batch, K classes, S side in px

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # (3, S, S)
Row = npt.NDArray[np.float32]  # (K,)
Model = Callable[[Sequence[Pixels]], npt.NDArray[np.float32]]  # B pictures -> (B, K)


@dataclass(frozen=True)
class Waiting:
    pixels: Pixels
    answer: asyncio.Future[Row]


class Batcher:
    """Takes what waits, up to ``size`` pictures, as soon as the model is free.

    Args:
        model: called in one thread of its own, one batch at a time.
        size: most pictures of a batch.
        wait: seconds that the first picture of a batch waits for others, where the model is idle.
        done: told of each batch: its pictures, and the model's seconds.
    """

    def __init__(self, model: Model, *, size: int, wait: float, done: Callable[[int, float], None]) -> None:
        self.model, self.size, self.wait, self.done = model, size, wait, done
        self.queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def ask(self, pixels: Pixels) -> Row:
        """The probabilities of a picture. Raises what the model raises."""
        waiting = Waiting(pixels, asyncio.get_running_loop().create_future())
        self.queue.put_nowait(waiting)
        return await waiting.answer

    async def run(self) -> None:
        """Answer, until this is cancelled; run it as a task."""
        try:
            while True:
                await self._answer(await self._gather())
        finally:
            self.thread.shutdown()

    async def _gather(self) -> list[Waiting]:
        found = [await self.queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.wait):
                while len(found) < self.size:
                    found.append(self.queue.get_nowait() if not self.queue.empty() else await self.queue.get())
        return [each for each in found if not each.answer.done()]  # whoever has left is not computed

    async def _answer(self, batch: Sequence[Waiting]) -> None:
        if not batch:
            return
        began = time.perf_counter()
        pixels = [each.pixels for each in batch]
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self.thread, self.model, pixels)
        except Exception as error:  # each request says so, and the next batch may go well
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        self.done(len(batch), time.perf_counter() - began)
        for each, row in zip(batch, rows, strict=True):
            if not each.answer.done():
                each.answer.set_result(row)
