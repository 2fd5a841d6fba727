"""A network in training and one step of its optimizer, the same for every model and precision."""

# B batch, C = 3 channels, H = W side, K classes, P parts

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from da6401.data.batches import equal_parts
from da6401.models.freezing import FreezePlan, freeze_plan, rate_factors
from da6401.training.arithmetic import Arithmetic
from da6401.training.balance import ClassLoss
from da6401.training.device import check_precision
from da6401.training.optim import EndAverage, MovingAverage, build_optimizer
from da6401.training.reading import LATE, Reading
from da6401.training.setup import TrainingSetup
from da6401.training.state import History, TrainingState

log = logging.getLogger(__name__)

Targets = Sequence[tuple[Tensor, float]]  # labels (B,) and their share of the loss; the shares sum to 1


class Learner:
    """The network of a run with its optimizer, loss, precision and averages of its weights."""

    def __init__(self, setup: TrainingSetup, history: History) -> None:
        """Move the network to the device and build the rest.

        Raises:
            ConfigError: a precision that the device does not have.
        """
        cfg, trainer, device = setup.cfg, setup.cfg.trainer, setup.device
        check_precision(trainer.precision, device)
        self.arithmetic = Arithmetic(device, trainer.precision, trainer.channels_last)
        self._ranks = setup.ranks
        if setup.ranks is not None and device.type == "cuda":  # on a CPU there is no such thing
            nn.SyncBatchNorm.convert_sync_batchnorm(setup.model)  # type: ignore[no-untyped-call]
        # torch's types have no overload of Module.to with both.
        self.model = setup.model.to(device, memory_format=self.arithmetic.memory_format)  # type: ignore[call-overload]
        # The optimizer is built once, for all that any epoch trains: under the plan of the last epoch.
        self.model.apply_freeze_plan(freeze_plan(cfg.model, trainer.epochs))
        if trainer.compile:
            torch.use_deterministic_algorithms(trainer.deterministic)  # sets the compiler, too: see device.prepare
        self._forward: nn.Module = torch.compile(self.model) if trainer.compile else self.model  # type: ignore[assignment]
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._clip_norm, self._on_oom = trainer.clip_norm, trainer.on_oom
        self.labels_N = setup.data.train.labels_N
        self._loss = ClassLoss(trainer, self.labels_N, len(setup.data.class_names), device)
        groups = self.model.parameter_groups()
        rates = rate_factors(cfg.model, len(groups.stages))
        optimizer = build_optimizer(
            cfg.optimizer,
            stages=[(group.values(), rate) for group, rate in zip(groups.stages, rates, strict=True)],
            head=groups.head.values(),
        )
        trainable = self.model.trainable_state()
        self.trainable_names = frozenset(trainable)
        average = MovingAverage(self.model, trainable, decay=trainer.ema_decay) if trainer.ema_decay > 0 else None
        validated = average.model if average else self.model
        averages = trainer.average_end > 0 and trainer.train_on == "train"  # else no image is left to judge it
        end_average = EndAverage(validated, trainable) if averages else None
        scaler = torch.amp.GradScaler(device.type, enabled=trainer.precision == "fp16")
        self.state = TrainingState(
            self.model, optimizer, scaler, average, end_average, history, device, mixing=torch.Generator()
        )
        self._pending: deque[Reading] = deque()  # steps that are not in the sums yet

    def freeze(self, plan: FreezePlan) -> None:
        """Let what the plan says train from now on."""
        self.model.apply_freeze_plan(plan)
        if self._ranks is not None:  # which exchange the gradients of exactly these parameters
            self._forward = self._ranks.wrapped(self.model, self.arithmetic.device)

    def step(self, inputs: Tensor, targets: Targets, *, first_stage: int, size: int | None = None) -> None:
        """One step of the optimizer, counted in the state's sums: on the CPU at once, else at most LATE steps later.

        With trainer.on_oom=accumulate a batch that does not fit into the device's memory is computed in parts, and so
        are all that follow.

        Args:
            inputs: augmented images (B, C, H, W), 0..1, or what stage ``first_stage`` is fed with where that is > 0.
            size: images of the whole batch, where other ranks have the rest of it.

        Raises:
            DivergedError: the loss is not finite. On the CPU it is raised before the optimizer changes the weights; on
                another device when it is read, and no checkpoint is written before that.
        """
        history = self.state.history
        while True:
            try:
                reading = self._step(inputs, targets, first_stage, size or len(inputs))
                break
            except torch.OutOfMemoryError:
                if self._on_oom == "fail" or self._ranks is not None or history.parts >= len(inputs):
                    raise
                history.parts *= 2
                torch.cuda.empty_cache()
                log.warning("out of memory: from now on each batch is computed in %d parts", history.parts)
        self._pending.append(reading)
        self.settle(keep=LATE if reading.late else 0)

    def settle(self, *, keep: int = 0) -> None:
        """Bring all steps but the last ``keep`` into the state's sums; before a checkpoint, and at an epoch's end, all.

        Raises:
            DivergedError: the loss of one of them is not finite.
        """
        while len(self._pending) > keep:
            reading = self._pending.popleft()
            loss, correct = reading.values()
            self.state.sums.add(images=reading.images, loss=loss, correct=correct)

    def _step(self, inputs: Tensor, targets: Targets, first_stage: int, whole: int) -> Reading:
        """The batch's mean loss, and how many of its first labels are predicted."""
        state, size, ranks = self.state, len(inputs), self._ranks
        share, count = (1.0, 1) if ranks is None else (ranks.share(whole), ranks.count)
        state.optimizer.zero_grad(set_to_none=True)
        parts_loss, parts_correct = [], []
        for part in equal_parts(size, state.history.parts):
            with self.arithmetic.autocast():
                x = self.arithmetic.in_layout(inputs[part])
                logits_BK = self._forward(x, first_stage) if first_stage else self._forward(x)
                losses = [_times(self._loss(logits_BK, labels_B[part]), share) for labels_B, share in targets]
                loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
                loss = _times(loss, share * ((part.stop - part.start) / size))
            torch.autograd.backward(state.scaler.scale(_times(loss, count)))  # of which the ranks take the mean
            parts_loss.append(loss.detach())
            parts_correct.append(_times((logits_BK.argmax(1) == targets[0][0][part]).sum(), int(share > 0)))
        values_2P = torch.stack([*parts_loss, *parts_correct]).double().view(2, -1)
        if ranks is not None:
            ranks.add_up(values_2P)
        where = f"epoch {state.history.epochs_run + 1}, step {state.sums.batches + len(self._pending) + 1}"
        reading = Reading(values_2P, images=whole, where=where)
        if not reading.late:
            reading.values()  # raises before the weights change
        if self._clip_norm > 0:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update()
        return reading


def _times(value: Tensor, factor: float) -> Tensor:
    """Their product; by 1 nothing is computed: a kernel takes a GPU as long as a step of a small head does."""
    return value if factor == 1 else value * factor
