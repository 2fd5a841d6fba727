"""The progress of a run: a bar on a terminal, and one line for each epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from da6401.config.metrics import Metric
from da6401.metrics.intervals import wilson


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("   - images/s" if task.speed is None else f"{task.speed:4.0f} images/s")


class EpochProgress:
    """A bar over one epoch's images: loss, accuracy, images/s, time left. Silent where stderr is no terminal."""

    def __init__(self, epoch: int, epochs: int, count: int, *, show: bool) -> None:
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f} "),
            _ImagesPerSecond(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        console = Console(file=sys.stderr)
        self._progress = Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal))
        self._task = self._progress.add_task("", total=count, epoch=f"{epoch}/{epochs}", loss=0.0, accuracy=0.0)

    def __enter__(self) -> EpochProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, done: int, *, loss: float, accuracy: float) -> None:
        """Show the number of images done; loss and accuracy are the epoch's means so far."""
        self._progress.update(self._task, completed=done, loss=loss, accuracy=accuracy)


def epoch_line(line: Mapping[str, float], metric: Metric, *, epochs: int, images: int, better: bool) -> str:
    """One epoch in one line, for the terminal and train.log; in brackets the 95% interval on so many images."""
    validated = ""
    if "val_loss" in line:
        low, high = wilson(line["val_accuracy"], images)
        shown = ("val_accuracy", "val_loss")
        chosen = "" if metric.name in shown else f" {metric.name[4:]} {metric.text(line[metric.name])}"
        accuracy = f"accuracy {line['val_accuracy']:.4f} [{low:.2f}, {high:.2f}]{chosen}"
        validated = f"  validation loss {line['val_loss']:.4f} {accuracy}"
    return (
        f"epoch {int(line['epoch']):>{len(str(epochs))}}/{epochs}"
        f"  train loss {line['train_loss']:.4f} accuracy {line['train_accuracy']:.4f}"
        f"{validated}  {line['images_per_second']:5.0f} images/s {line['seconds']:6.1f} s"
        + ("  best" if better and validated else "")
    )
