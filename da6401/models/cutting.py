"""Any network cut into stages: its forward pass is traced, and cut where one tensor alone is handed on.

A library's network (timm's, torchvision's) says nothing of stages. torch.fx records the calls of its forward pass;
after a call whose result is all that the calls to come read, the pass can stop and go on from that tensor. Such a
result ends a stage, so the stages in their order are the network's own calls, whatever its code does between modules.
A network that cannot be traced, or that hands several tensors on everywhere, is one stage.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from da6401.models.torch_internals import watch_operations

BATCH = 3  # images on the meta device: a number that is no usual count of channels or tokens
OPENINGS = 5  # parts that are looked into, one after the other
ENOUGH = 4  # parts; with fewer, the part that has the most parameters is looked into


class Tracer(fx.Tracer):
    """Records the calls of a network down to its direct parts, and into those that are named."""

    def __init__(self, opened: Collection[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a part stays whole."""
        return module_qualified_name not in self.opened


@dataclass(frozen=True)
class Cuts:
    """Where a network is cut: found once on the meta device, and the same for every network of its architecture."""

    opened: frozenset[str]  # the modules whose own calls are recorded
    after: tuple[str, ...]  # the calls that end a stage, the last stage's not among them
    names: tuple[str, ...]  # of the stages, first to last
    features: int  # numbers an image
    whole: str = ""  # why the network is one stage; empty where it is cut


def find_cuts(network: nn.Module, image_size: int, *, hints: Sequence[str] = ()) -> Cuts:
    """Where to cut a network without its classifier: images (B, 3, H, W) -> features (B, F).

    A stage is named after its first part that has weights; norms, activations and pools belong to the stage before
    them.

    Args:
        network: in eval mode, on the meta device.
        image_size: side of the images in px.
        hints: names of modules within the network after which it is known to be cut (timm's feature_info).

    Raises:
        ValueError: the network gives no vector of features an image.
        Exception: whatever the network itself raises for images of this size.
    """
    with torch.no_grad():
        out = network(_images(image_size))
    if not (isinstance(out, Tensor) and out.dim() == 2 and len(out) == BATCH):
        raise ValueError("it gives no vector of features an image")
    best = Cuts(frozenset(), (), ("body",), out.shape[1], "more than one tensor is handed on between its parts")
    opened = frozenset(name for hint in hints for name in _parents(hint))
    for _ in range(OPENINGS):
        try:
            graph = _traced(network, opened)
            found = _cuts(network, graph, image_size)
        except Exception as error:  # tracing runs a network's own code with stand-ins, which may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if best.whole:
                best = replace(best, whole=f"its forward pass cannot be traced: {reason}")
            if not (opened and best.whole):
                break
            opened = frozenset()  # perhaps without the hints
            continue
        if found and len(found) >= len(best.after):
            groups = _groups(graph, found)
            best = Cuts(opened, tuple(node.name for node in found), _names(network, groups), out.shape[1])
        if len(found) + 1 >= ENOUGH or (part := _largest(network, graph, opened)) is None:
            break
        opened = opened | {part}
    if not best.whole and not same_operations(network, split(network, best), image_size):
        return Cuts(frozenset(), (), ("body",), out.shape[1], "its parts do not repeat its own forward pass")
    return best


def split(network: nn.Module, cuts: Cuts) -> list[nn.Module]:
    """The stages, which hold the network's own modules and parameters."""
    if cuts.whole:
        return [network]
    graph = _traced(network, cuts.opened)
    calls, constant = _calls(graph), _constants(graph)
    ends = {node.name: node for node in calls}
    found = [ends[name] for name in cuts.after]
    (images,) = (node for node in graph.nodes if node.op == "placeholder" and node.users)
    (end,) = graph.find_nodes(op="output")
    stages = []
    for group, start, result in zip(_groups(graph, found), [images, *found], [*found, end.args[0]], strict=True):
        needed = [node for node in calls if node in constant and node not in group]
        stages.append(_stage(network, [*needed, *group], start, result))
    return stages


def same_operations(network: nn.Module, stages: Sequence[nn.Module], image_size: int) -> bool:
    """Whether the stages run exactly the network's own operations, in its order, on tensors of the same shapes.

    Both run on the meta device, so that nothing is computed; in eval mode.
    """
    images = _images(image_size)
    return _operations([network], images) == _operations(stages, images)


def _images(image_size: int) -> Tensor:
    return torch.empty(BATCH, 3, image_size, image_size, device="meta")


def _operations(modules: Sequence[nn.Module], x: Tensor) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    done: list[tuple[str, tuple[tuple[int, ...], ...]]] = []

    def record(operation: Any, arguments: tuple[Any, ...], result: Any) -> None:
        name = str(operation).replace("_.", ".")  # the tracer writes x += y as x = x + y: the same numbers
        done.append((name, tuple(tuple(each.shape) for each in arguments if isinstance(each, Tensor))))

    with torch.no_grad(), watch_operations(record):
        for module in modules:
            x = module(x)
    return done


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _traced(network: nn.Module, opened: Collection[str]) -> fx.Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tracer's stand-ins: the network runs as it is when it trains
        graph = Tracer(opened).trace(network, concrete_args=_defaults(network))
    _drop_unused(graph)
    return graph


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Whatever a forward pass takes besides the images, at its default."""
    _, *others = inspect.signature(network.forward).parameters.values()
    return {each.name: each.default for each in others if each.default is not each.empty}


def _drop_unused(graph: fx.Graph) -> None:
    """Drop calls whose results nobody reads."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op not in ("placeholder", "output")]


def _has_weights(network: nn.Module, node: fx.Node) -> bool:
    """Whether a call is of a part with matrices or kernels: norms have vectors alone."""
    if node.op != "call_module":
        return False
    return any(parameter.dim() > 1 for parameter in network.get_submodule(str(node.target)).parameters())


def _largest(network: nn.Module, graph: fx.Graph, opened: Collection[str]) -> str | None:
    """The part with the most parameters that has parts itself and is called once."""
    targets = [str(node.target) for node in _calls(graph) if node.op == "call_module"]
    sizes = {
        name: sum(parameter.numel() for parameter in network.get_submodule(name).parameters())
        for name in targets
        if targets.count(name) == 1 and name not in opened and len(list(network.get_submodule(name).children())) > 1
    }
    return max(sizes, key=lambda name: sizes[name]) if any(sizes.values()) else None


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the results that are one tensor with a row for each image."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph, garbage_collect_values=False)
        self.rows: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.dim() > 1 and len(result) == BATCH and result.is_floating_point():
            self.rows.add(n)
        return result


def _cuts(network: nn.Module, graph: fx.Graph, image_size: int) -> list[fx.Node]:
    """The calls after which the pass can stop: the result of each is all that later calls read."""
    shapes = _Shapes(network, graph)
    with torch.no_grad():
        shapes.run(_images(image_size))
    calls = _calls(graph)
    place = {node: number for number, node in enumerate(calls)}
    constant = _constants(graph)
    shared = _shared_spans(network, calls)
    last_use = {
        node: max((place.get(user, len(calls)) for user in node.users), default=-1)
        for node in graph.nodes
        if node.op != "output" and node not in constant
    }
    starts = [number for number, node in enumerate(calls) if _has_weights(network, node)]
    cuts = []
    for start in starts[1:]:  # a stage begins with weights: the cut is the last one before them that can be
        before = starts[starts.index(start) - 1]
        for number in range(start - 1, before - 1, -1):
            alive = [node for node, last in last_use.items() if place.get(node, -1) <= number < last]
            is_inside = any(first <= number < last for first, last in shared)
            if alive == [calls[number]] and calls[number] in shapes.rows and not is_inside:
                cuts.append(calls[number])
                break
    return cuts


def _constants(graph: fx.Graph) -> set[fx.Node]:
    """What does not depend on the images: parameters, and what is made of them alone. A stage makes its own."""
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and set(node.all_input_nodes) <= constant):
            constant.add(node)
    return constant


def _shared_spans(network: nn.Module, calls: Sequence[fx.Node]) -> list[tuple[int, int]]:
    """First and last call of whatever has parameters and is used more than once: it stays within one stage."""
    used: dict[int, list[int]] = {}
    for number, node in enumerate(calls):
        for tensor in _tensors_of(network, node):
            used.setdefault(id(tensor), []).append(number)
    spans = {(numbers[0], numbers[-1]) for numbers in used.values() if numbers[-1] > numbers[0]}
    return sorted(spans)


def _tensors_of(network: nn.Module, node: fx.Node) -> Iterator[Tensor]:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        yield from module.parameters()
        yield from module.buffers()
    elif node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(network.get_submodule(owner), name)
        if isinstance(value, Tensor):
            yield value


def _groups(graph: fx.Graph, cuts: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """The calls of each stage."""
    calls = _calls(graph)
    borders = [calls.index(cut) + 1 for cut in cuts]
    return [calls[first:last] for first, last in zip([0, *borders], [*borders, len(calls)], strict=True)]


def _names(network: nn.Module, groups: Sequence[Sequence[fx.Node]]) -> tuple[str, ...]:
    names: list[str] = []
    for group in groups:
        parts = [str(node.target) for node in group if _has_weights(network, node)]
        names.append(_free_name((parts[0] if parts else "stage").replace(".", "_"), names))
    return tuple(names)


def _free_name(name: str, taken: Collection[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _stage(network: nn.Module, group: Sequence[fx.Node], start: fx.Node, result: fx.Node) -> nn.Module:
    """Some calls as a module: a Sequential where each reads the result of the one before it alone."""
    chain = [node for node in group if node is result or any(user in group for user in node.users)]
    is_chain = all(
        node.op == "call_module" and node.args == (before,) and not node.kwargs
        for node, before in zip(chain, [start, *chain], strict=False)
    )
    if is_chain and chain and chain[-1] is result:
        modules = [network.get_submodule(str(node.target)) for node in chain]
        return modules[0] if len(modules) == 1 else nn.Sequential(*modules)
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    for node in group:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
    graph.output(copies[result])
    _drop_unused(graph)
    return fx.GraphModule(network, graph)
