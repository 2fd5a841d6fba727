"""A training step never waits for the device, not for a number and not for a copy, and gives it little work of its own.

Without CUDA the device is "meta", whose tensors have no values: reading one, or choosing rows by one, raises, as
torch.cuda.set_sync_debug_mode("error") does on a GPU. Copies that wait are refused as well.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from da6401.data import resident
from da6401.data.augment.augmenter import Augmenter
from da6401.data.batches import batches, seeded
from da6401.data.resident import ChosenRows, bring
from da6401.data.sources import load_training_data
from da6401.models.build import build_model
from da6401.models.counts import count
from da6401.training import epoch_inputs, reading
from da6401.training.arithmetic import Arithmetic
from da6401.training.balance import ClassLoss
from da6401.training.checkpoint_writer import CheckpointWriter
from da6401.training.epoch_inputs import TrainingInputs
from da6401.training.learner import Learner
from da6401.training.loop import plan_epoch, train_epoch
from da6401.training.setup import TrainingSetup
from da6401.training.signals import StopFlag
from da6401.training.state import History
from da6401.training.validation import evaluate
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "meta")
HEAD = (
    *SMALL_BACKBONE, "data.image_size=32", "model=resnet18", "model.weights=none", "model.freeze_depth=5",
    "model.feature_cache=on",
)  # fmt: skip
RUNS = {
    "plain": SMALL,
    "augmented": (*SMALL, "augmentation=strong", "augmentation.trivial_augment=true", "augmentation.hue=0.1"),
    "mixed": (*SMALL, "augmentation.mixup=0.4", "augmentation.cutmix=1", "trainer.ema_decay=0.9"),
    "clipped": (*SMALL, "trainer.clip_norm=1", "trainer.label_smoothing=0.1"),
    "weighted": (*SMALL, "trainer.class_weights=true"),
    "unbalanced": (
        *SMALL,
        "trainer.class_weights=true",
        "trainer.class_weights_by=effective",
        "trainer.sampler=balanced",
        "trainer.logit_adjustment=1",
        "trainer.focal_gamma=2",
    ),
    "head": HEAD,
    **{f"by {name}": (*SMALL, f"optimizer={name}") for name in ("sgd", "adam", "adamw", "nadam", "rmsprop")},
}


class NoBlockingCopies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what waits between the host and the meta device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [value for value in args if isinstance(value, Tensor)]
        if func._schema.name == "aten::_to_copy" and kwargs.get("device", given[0].device) != given[0].device:
            assert kwargs.get("non_blocking"), "a copy to or from the device that waits"
        if func._schema.name == "aten::copy_" and given[0].device != given[1].device:
            assert (len(args) > 2 and args[2]) or kwargs.get("non_blocking"), "a copy that waits"
        return func(*args, **kwargs)


class NoTensorsOfLists(TorchFunctionMode):
    """Refuses torch.tensor(values, device=...), which copies and waits, unseen by the other mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor:
            assert torch.device(kwargs.get("device") or "cpu").type == "cpu", "a tensor of numbers, copied with a wait"
        return func(*args, **kwargs)


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    if not CUDA:
        with NoBlockingCopies(), NoTensorsOfLists():  # type: ignore[no-untyped-call]
            yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "a prototype feature"
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """CUDA, or meta: which has no autocast, no events, and no free memory."""
    if not CUDA:

        def host(values: Tensor) -> tuple[Tensor, None]:
            return torch.zeros(values.shape, dtype=values.dtype), None

        monkeypatch.setattr(reading, "copy_to_host", host)
        monkeypatch.setattr(Arithmetic, "autocast", lambda self: contextlib.nullcontext())
        monkeypatch.setattr(epoch_inputs, "room_on", lambda device: 10**9)
        monkeypatch.setattr(resident, "send", lambda values, device: values.to(device, non_blocking=True))
    return DEVICE


class Trained:
    """The parts of a run on the device, before its first step."""

    def __init__(self, words: tuple[str, ...], device: torch.device, out: Path) -> None:
        self.cfg = compose(*words, "trainer.deterministic=false")
        data = load_training_data(self.cfg.data)
        model = build_model(self.cfg.model, num_classes=len(data.class_names), image_size=self.cfg.data.image_size)
        counts = count(model, self.cfg.data.image_size)
        self.plan = plan_epoch(self.cfg, 1)
        model.apply_freeze_plan(self.plan.freeze)
        # The features are computed on the CPU where the device is not real, before the network moves.
        inputs = TrainingInputs(self.cfg, model, data, counts, device if CUDA else torch.device("cpu"))
        if not CUDA:
            inputs.device = device
        setup = TrainingSetup(self.cfg, device, data, model, counts, inputs)
        if CUDA:
            model.to(device)
        self.inputs = inputs.open(self.plan.freeze.depth, stop=StopFlag())
        self.setup, self.learner = setup, Learner(setup, History())
        self.checkpoints = CheckpointWriter(out, self.learner.state, about={}, trainable=self.learner.trainable_names)

    def epoch(self) -> None:
        train_epoch(
            self.learner, self.inputs, self.plan, self.setup, stop=StopFlag(), checkpoints=self.checkpoints
        )  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_training_step_does_not_wait_for_the_device(name: str, device: torch.device, tmp_path: Path) -> None:
    trained = Trained(RUNS[name], device, tmp_path)
    if CUDA:
        trained.epoch()  # cuDNN and the allocators warm up
        trained.learner.state.sums = type(trained.learner.state.sums)()
    with no_waits():
        trained.epoch()
    assert trained.learner.state.sums.batches > 1
    assert trained.learner.state.sums.images == trained.inputs.count


def test_the_evaluation_waits_once_at_its_end(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained(SMALL, device, tmp_path)
    waits = 0

    def read(values: Tensor) -> Tensor:
        nonlocal waits
        waits += 1
        return torch.zeros(values.shape)

    monkeypatch.setattr(Tensor, "cpu", read)
    with no_waits():
        answer = evaluate(trained.learner.model, trained.inputs.validation, trained.learner.arithmetic, batch_size=4)
    assert waits == 1
    assert len(answer.probabilities_NK) == len(trained.inputs.validation.names) > 4


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda loss: loss.item(),
    "float": float,
    "if": lambda loss: bool(loss > 0),
    "cpu": lambda loss: loss.cpu(),
    "nonzero": lambda loss: loss.reshape(1).nonzero(),
    "a mask as an index": lambda loss: loss.reshape(1)[loss.reshape(1) > 0],
    "a copy to the device": lambda loss: torch.ones(3).to(loss.device),
    "a tensor made of a list": lambda loss: torch.tensor([1.0, 2.0], device=loss.device),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_step_that_waits_is_noticed(
    name: str, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained(SMALL, device, tmp_path)
    own = ClassLoss.__call__

    def waiting(self: ClassLoss, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        loss = own(self, logits_BK, labels_B)
        WAITS[name](loss)
        return loss

    monkeypatch.setattr(ClassLoss, "__call__", waiting)
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), no_waits():
        trained.epoch()


class Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its decorator has no types
    """Counts the operations that compute something on the device: a view does not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        computes = isinstance(answer, Tensor) and answer.device.type == DEVICE.type and not func.is_view
        self.names.update([func.name()] if computes else [])
        return answer


@pytest.mark.parametrize("name", ["plain", "head", "by adam"])
def test_a_step_computes_little_besides_the_network_the_loss_and_the_optimizer(
    name: str, device: torch.device, tmp_path: Path
) -> None:
    learner = (trained := Trained(RUNS[name], device, tmp_path)).learner
    learner.model.train()
    first, optimizer = trained.inputs.first_stage, learner.state.optimizer
    rows_N = torch.arange(trained.inputs.count)
    augment = Augmenter(trained.plan.augmentation, count=len(rows_N), generator=seeded(1))
    images = trained.inputs.images_of(1, rows_N, augment, rows_N)
    batch = next(iter(batches(images, batch_size=4, device=device, shuffle=None)))
    x = learner.arithmetic.in_layout(trained.inputs.of_batch(batch, augment))
    learner.step(x, [(batch.labels_B, 1.0)], first_stage=first)  # the optimizer makes its state
    with Kernels() as ours:
        learner.step(x, [(batch.labels_B, 1.0)], first_stage=first)
    with Kernels() as bare:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(learner.model(x, first), batch.labels_B))
        optimizer.step()
    own = {"aten::argmax": 1, "aten::eq.Tensor": 1, "aten::sum": 1, "aten::stack": 1, "aten::_to_copy": 1}
    assert ours.names - bare.names == own, "how many answers are right; this and the loss, together in float64"


def test_rows_stay_on_the_device_where_there_is_room_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda" if CUDA else "cpu")
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    monkeypatch.setattr(resident, "CHUNK", 3 * 48)
    rows = bring(images, torch.uint8, device, room=images.numel())
    assert rows is not None
    assert torch.equal(rows.cpu(), images)
    assert bring(images, torch.uint8, device, room=images.numel() - 1) is None
    chosen = ChosenRows(rows, torch.tensor([7, 2, 5]), torch.float32)[torch.tensor([2, 0])]
    assert chosen.device.type == device.type
    assert torch.equal(chosen.cpu(), images[[5, 7]].float())
