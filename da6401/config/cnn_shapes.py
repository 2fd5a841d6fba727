"""The blocks that a CnnConfig describes, and whether they fit the image: plain arithmetic, without torch."""

from __future__ import annotations

from da6401.config.schema import CnnConfig

MAX_FILTERS = 8192  # the upper bound of model.filters; doubling must not exceed it either


def filters_of(cfg: CnnConfig) -> list[int]:
    """Filters of each block, first to last; halving rounds down and may reach 0, which shape_problems refuses."""
    if isinstance(cfg.filters, list):
        return list(cfg.filters)
    base = cfg.filters
    match cfg.organisation:
        case "same":
            return [base] * cfg.blocks
        case "double":
            return [base << block for block in range(cfg.blocks)]
        case "halve":
            return [base >> block for block in range(cfg.blocks)]


def kernels_of(cfg: CnnConfig) -> list[int]:
    """Side of each block's kernels, first to last."""
    if isinstance(cfg.kernel_size, list):
        return list(cfg.kernel_size)
    return [cfg.kernel_size] * len(filters_of(cfg))


def convolutions_of(cfg: CnnConfig) -> list[int]:
    """Convolutions of each block, first to last."""
    if isinstance(cfg.convolutions, list):
        return list(cfg.convolutions)
    return [1 if block == 0 else cfg.convolutions for block in range(len(filters_of(cfg)))]


def shape_problems(cfg: CnnConfig, image_size: int) -> list[str]:
    """Why this network cannot be built for square images of this side; empty if it can.

    The schema checks the range of each value; here values are checked against each other.
    """
    return [*_filter_problems(cfg), *_list_problems(cfg), *_pool_problems(cfg, image_size)]


def _filter_problems(cfg: CnnConfig) -> list[str]:
    filters = filters_of(cfg)
    if not filters:
        return ["model.filters=[]: a network has at least one block; name its filters, such as [32,64]"]
    if isinstance(cfg.filters, list) or cfg.filters < 1:
        return []
    where = f"model.filters={cfg.filters} with model.blocks={cfg.blocks} and model.organisation={cfg.organisation}"
    last = len(filters)
    if filters[-1] < 1:
        first_empty = filters.index(0) + 1
        return [
            f"{where}: halving leaves block{first_empty} no filters; "
            f"use model.filters>={2 ** (last - 1)} or model.blocks<={first_empty - 1}"
        ]
    if filters[-1] > MAX_FILTERS:
        return [
            f"{where}: doubling gives block{last} {filters[-1]} filters, and a block may have {MAX_FILTERS}; "
            f"use fewer filters, fewer blocks or model.organisation=same"
        ]
    return []


def _list_problems(cfg: CnnConfig) -> list[str]:
    problems = []
    blocks, kernels = len(filters_of(cfg)), kernels_of(cfg)
    shown = f"model.kernel_size={_shown(cfg.kernel_size)}"
    if len(kernels) != blocks:
        problems.append(
            f"{shown}: {len(kernels)} kernel sizes for {blocks} blocks; give one number for all, or one for each block"
        )
    depths = convolutions_of(cfg)
    if len(depths) != blocks:
        problems.append(
            f"model.convolutions={_shown(cfg.convolutions)}: {len(depths)} numbers for {blocks} blocks; "
            "give one number for all, or one for each block"
        )
    even = [kernel for kernel in dict.fromkeys(kernels) if kernel % 2 == 0]
    if even:
        problems.append(
            f"{shown}: a kernel of side {even[0]} has no centre, so its output cannot keep the image's size; "
            f"use an odd side, such as {even[0] + 1}"
        )
    return problems


def _pool_problems(cfg: CnnConfig, image_size: int) -> list[str]:
    blocks = len(filters_of(cfg))
    fitting = max(image_size, 1).bit_length() - 1  # each pool halves the side, rounding down
    if blocks <= fitting:
        return []
    left = max(image_size, 1) >> fitting  # 1: the side after all the pools that fit
    listed = isinstance(cfg.filters, list)
    shown = f"model.filters={_shown(cfg.filters)}" if listed else f"model.blocks={cfg.blocks}"
    fewer = f"at most {fitting} entries in model.filters" if listed else f"model.blocks<={fitting}"
    remedy = f"use data.image_size>={2**blocks}" + (f" or {fewer}" if fitting else "")
    return [
        f"{shown}: block{fitting + 1} receives a {left} x {left} map (data.image_size={image_size}) "
        f"and its 2 x 2 pool needs at least 2 x 2; {remedy}"
    ]


def _shown(value: int | list[int]) -> str:
    """The value as one writes it on the command line."""
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
