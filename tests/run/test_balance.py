"""The balanced sampler in whole runs: kept features give what computed ones do, and the batches see the sample."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from da6401.data import batches as data_batches
from da6401.data.sources import load_training_data
from da6401.training import epoch_inputs, loop
from tests.outcomes import epochs
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose, typed

RESNET = (
    *SMALL_BACKBONE, "data.image_size=32", "data.images_per_class=5", "model=resnet18", "model.weights=none",
    "trainer.epochs=2", "optimizer=sgd", "model.freeze_depth=5", "trainer.sampler=balanced", "augmentation.flip=0.5",
)  # fmt: skip


def test_kept_features_of_a_balanced_sample_equal_computed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that comes twice in an epoch may be mirrored once and not the other time, with both."""
    monkeypatch.setenv("DA6401_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(loop, "balanced_rows", lambda labels_N, generator: torch.arange(len(labels_N)) // 2)
    found = []
    for cache in ("on", "off"):
        words = (*RESNET, f"model.feature_cache={cache}", f"hydra.run.dir={cache}")
        code, _, err = typed("train", *words, cwd=tmp_path)
        assert code == 0, err
        found.append(epochs(tmp_path / cache))
    assert found[0] == found[1]


def test_the_sampler_is_what_the_batches_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[int] = Counter()
    whole = data_batches.batches

    def watched(images, **named):  # type: ignore[no-untyped-def]
        for batch in whole(images, **named):
            if named["shuffle"] is not None:
                seen.update(batch.labels_B.tolist())
            yield batch

    monkeypatch.setattr(epoch_inputs, "batches", watched)
    cfg = compose(*SMALL)
    labels = load_training_data(cfg.data).train.labels_N
    labels_before = labels.clone()
    labels[: len(labels) // 2] = 0
    try:
        code, _, err = typed("train", *SMALL, "trainer.sampler=balanced", "hydra.run.dir=run", cwd=tmp_path)
        receipt = json.loads((tmp_path / "run/receipt.json").read_text())
        most, fewest = receipt["imbalance"]["most"], receipt["imbalance"]["fewest"]
    finally:
        labels.copy_(labels_before)
    assert code == 0, err
    assert most > 2 * fewest
    assert max(seen.values()) - min(seen.values()) <= 2
    assert "to 1" in (tmp_path / "run/train.log").read_text()
