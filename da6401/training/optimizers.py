"""The optimizers, by name. Each takes groups of parameters, which carry their own rate and weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from da6401.config.schema import OptimizerConfig
from da6401.registry import optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]


def fused(groups: Groups) -> bool | None:
    """On CUDA one kernel for all parameters, which alone learns there whether fp16's gradients are finite."""
    return True if groups and all(each.is_cuda for group in groups for each in group["params"]) else None


@optimizer("sgd", lr=0.05, weight_decay=5e-4)
def sgd(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """With Nesterov's momentum."""
    from torch.optim import SGD

    return SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.momentum > 0, fused=fused(groups))


@optimizer("adam")
def adam(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """arXiv 1412.6980; weight decay is L2."""
    from torch.optim import Adam

    return Adam(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999), fused=fused(groups))


@optimizer("adamw", lr=1e-3, weight_decay=0.01)
def adamw(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101)."""
    from torch.optim import AdamW

    return AdamW(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999), fused=fused(groups))


@optimizer("nadam")
def nadam(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """Adam with Nesterov's momentum."""
    from torch.optim import NAdam

    return NAdam(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999))


@optimizer("rmsprop", lr=3e-4)
def rmsprop(groups: Groups, cfg: OptimizerConfig) -> Optimizer:
    """Gradients divided by the root of their mean square."""
    from torch.optim import RMSprop

    return RMSprop(groups, lr=cfg.lr, momentum=cfg.momentum)
