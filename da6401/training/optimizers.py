"""The optimizers, by name. Each takes groups of parameters, which carry their own rate and weight decay."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from da6401.config.schema import OptimizerConfig
from da6401.registry import optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]
WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def fused(groups: Groups) -> bool | None:
    """On CUDA one kernel for all parameters, which alone learns there whether fp16's gradients are finite."""
    return True if groups and all(each.is_cuda for group in groups for each in group["params"]) else None


@functools.cache
def without_compiler(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """The same optimizer, whose use does not import torch.compile, which takes seconds.

    torch wraps these methods so that torch.compile leaves them alone; only the network is compiled here.
    """
    import torch

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    made: type[Optimizer] = type(
        kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))}
    )
    return made


@optimizer("sgd", lr=0.05, weight_decay=5e-4)
def sgd(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """With Nesterov's momentum."""
    from torch.optim import SGD

    return without_compiler(SGD)(
        groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.momentum > 0, fused=fused(groups)
    )


@optimizer("adam")
def adam(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """arXiv 1412.6980; weight decay is L2."""
    from torch.optim import Adam

    return without_compiler(Adam)(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999), fused=fused(groups))


@optimizer("adamw", lr=1e-3, weight_decay=0.01)
def adamw(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101)."""
    from torch.optim import AdamW

    return without_compiler(AdamW)(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999), fused=fused(groups))


@optimizer("nadam")
def nadam(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """Adam with Nesterov's momentum."""
    from torch.optim import NAdam

    return without_compiler(NAdam)(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999))


@optimizer("rmsprop", lr=3e-4)
def rmsprop(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """Gradients divided by the root of their mean square."""
    from torch.optim import RMSprop

    return without_compiler(RMSprop)(groups, lr=cfg.lr, momentum=cfg.momentum)
