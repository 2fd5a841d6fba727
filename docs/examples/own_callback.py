"""A callback of one's own: something that happens after each epoch, and after each run or trial.

Command: da6401 train --multirun --plugin docs/examples/own_callback.py callbacks=journal
    'optimizer.lr=choice(1e-3,1e-2)' data=synthetic data.image_size=16 data.classes=3 model.filters=4
    model.blocks=2 trainer.epochs=2 study=own_callback
"""

from dataclasses import dataclass
from pathlib import Path

from da6401.plugins import callback, key


@dataclass
class Journal:
    """The keys below callbacks.journal; there is also callbacks.journal.on, which the option journal sets."""

    file: str = key("journal.md", "its name in the run's folder")


@callback("journal", Journal)
class WriteJournal:
    """Made once for each run, and so for each trial of a sweep; each of the three methods may be left out."""

    def __init__(self, cfg: Journal, out: Path) -> None:
        self.file = out / cfg.file

    def run_begins(self) -> None:
        """Before the first epoch, and where a stopped run resumes."""
        self.file.touch()

    def epoch_done(self, epoch: int, values: dict[str, float]) -> None:
        """With the epoch's line of metrics.jsonl."""
        self._write(f"- epoch {epoch}: validation accuracy {values['val_accuracy']:.3f}")

    def run_done(self, result) -> None:
        """With result.json, also of a run that was pruned or diverged."""
        self._write(f"{result.status} after {result.epochs_run} epochs, best epoch {result.best_epoch}")

    def _write(self, line: str) -> None:
        with self.file.open("a") as file:
            file.write(line + "\n")
