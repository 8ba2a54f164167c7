"""Find the weights that can be stored as codes, and how each splits into rows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Constant, Graph, Node, Tensor, attribute, describe
from zc.ir.model import Model
from zc.passes.quantize.weight_rows import Layout

KeepFloat = Callable[[Node], str | None]


@dataclass(frozen=True, eq=False)
class WeightSite:
    """A constant weight with all that reads it."""

    weight: Constant
    scope: Graph
    """The scope of its readers."""
    layout: Layout
    uses: tuple[tuple[Node, int], ...]
    """Nodes and the positions of the weight among their inputs."""

    @property
    def where(self) -> str:
        """How messages name it: by the first node that reads it."""
        return describe(self.uses[0][0])

    @property
    def is_product(self) -> bool:
        """Is every reader a MatMul, or a Gemm without factors, whose second input it is?"""
        return all(position == 1 and _is_product(node) for node, position in self.uses)

    def positions(self) -> int | None:
        """Rows of activations that a run multiplies with it, a batch of open size counted as one; None: not known."""
        counts = []
        for node, _ in self.uses:
            shape = node.inputs[0].shape
            if shape is None or any(not isinstance(d, int) for d in shape[1:-1]):
                return None
            counts.append(math.prod(d if isinstance(d, int) else 1 for d in shape[:-1]))
        return max(counts)


@dataclass
class Sites:
    """What was found, and what was not taken, with the reason."""

    sites: list[WeightSite]
    declined: list[tuple[str, str]]


def find_weights(model: Model, scopes: list[Graph], keep_float: KeepFloat, smallest: int) -> Sites:
    """The weights of the scopes, in the order of their first readers.

    smallest: elements below which a weight is not worth it (not told of). ZcError for NaN or infinite weights.
    """
    fed = {id(t) for scope in model.scopes() for t in (*scope.inputs, *scope.outputs)}
    owner = {id(node): scope for scope in scopes for node in scope.nodes}
    found, seen = Sites([], []), set[int]()
    for scope in scopes:
        for node in [cast(Node, n) for n in scope.nodes]:
            for position, layout in _weights_of(node):
                tensor = cast(Constant, node.inputs[position])
                if id(tensor) in seen or tensor.size < smallest:
                    continue
                seen.add(id(tensor))
                readers = {id(n): cast(Node, n) for n in tensor.outputs}.values()
                why = next((w for n in readers if (w := keep_float(n)) is not None), None)
                site = _match(tensor, layout, list(readers), owner, scope, fed) if why is None else why
                if isinstance(site, str):
                    found.declined.append((describe(node), f"weight '{tensor.name}' stays float: {site}"))
                else:
                    found.sites.append(site)
    return found


def _weights_of(node: Node) -> Iterator[tuple[int, Layout]]:
    """The positions of a node's constant weights, with their layouts."""
    if not node.standard:
        return
    if node.op in {"LSTM", "GRU", "RNN"}:
        wanted = [(1, 0), (2, 0)]
    elif node.op in {"Conv", "ConvTranspose"}:
        wanted = [(1, int(node.op == "ConvTranspose"))]
    elif node.op == "Gemm":
        wanted = [(1, 0 if attribute(node, "transB", 0) else 1)]
    elif node.op == "MatMul":
        wanted = [(0, 0), (1, 1)]
    elif node.op == "Gather" and attribute(node, "axis", 0) == 0:
        wanted = [(0, 0)]
    else:
        return
    for position, axis in wanted:
        tensor = node.inputs[position] if len(node.inputs) > position else None
        if not isinstance(tensor, Constant):
            continue
        shape = tuple(int(d) for d in tensor.shape)
        if len(shape) < 2 or (node.op == "MatMul" and len(shape) > 2):
            continue
        yield position, Layout(shape, axis, 2 if node.op in {"LSTM", "GRU", "RNN"} else 1)


def _match(
    weight: Constant, layout: Layout, readers: list[Node], owner: dict[int, Graph], scope: Graph, fed: set[int]
) -> WeightSite | str:
    if id(weight) in fed:
        return "it is an input or output of the graph, so it can be another at run time; make it an initializer"
    if np.dtype(weight.dtype) != np.float32:
        return f"it is {np.dtype(weight.dtype).name}, not float32"
    uses: list[tuple[Node, int]] = []
    for node in readers:
        if owner.get(id(node)) is not scope:
            return f"{node.op} '{describe(node)}' reads it in another scope"
        mine = [(position, layout) for position, layout in _weights_of(node) if node.inputs[position] is weight]
        if sum(t is weight for t in node.inputs) != len(mine) or any(other != layout for _, other in mine):
            return f"{node.op} '{describe(node)}' reads it in another way"
        uses += [(node, position) for position, _ in mine]
    if not np.isfinite(weight.values).all():
        raise ZcError(
            f"node '{describe(readers[0])}': weight '{weight.name}' holds NaN or infinite numbers; mend the model, or "
            f"leave the node in float with quantize-weights:skip={describe(readers[0])}"
        )
    return WeightSite(weight, scope, layout, tuple(uses))


def _is_product(node: Node) -> bool:
    if node.op == "MatMul":
        return not isinstance(node.inputs[0], Constant)
    plain = all(attribute(node, key, 1.0) == 1 for key in ("alpha", "beta"))
    bias: Tensor | None = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    one_each = bias is None or (bias.shape is not None and len(bias.shape) == 1 and bias.shape == [_outputs(node)])
    return node.op == "Gemm" and plain and one_each and not attribute(node, "transA", 0)


def _outputs(node: Node) -> int:
    return int(node.inputs[1].shape[0 if attribute(node, "transB", 0) else 1])
