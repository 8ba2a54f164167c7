"""What a model costs by its file alone: parameters, bytes, multiply-accumulates, operators; whole and by layer."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from zc.errors import ZcError
from zc.ir.graph import Graph, Node, Tensor, describe
from zc.ir.model import Model
from zc.ir.shapes import static_shape
from zc.ir.spec import Dim
from zc.measure.bind import Dims, bind, measure_shapes, open_dims
from zc.measure.macs import counts, macs_of, place
from zc.measure.weights import Share, shares, total_bytes, total_params


@dataclass(frozen=True)
class LayerCost:
    """What one node costs: a node with weights or with multiply-accumulates."""

    name: str
    op: str
    params: int
    """Elements of the weights that belong to it (a shared weight belongs to the first node that uses it)."""
    bytes: int
    """Of its constants, as stored in a file; scales, zero points and shapes included."""
    macs: int | None
    """Of one run of the node, for a batch of 1; None where a size is not known."""
    output_shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class Cost:
    """What a model costs."""

    params: int
    """Elements of all float and quantised weights, each counted once; no scales, zero points, shapes or bounds."""
    bytes: int
    """Of all constants in the file, used or not."""
    macs: int | None
    """For a batch of 1; None where a layer's are not known: `known_macs` is then a lower bound."""
    nodes: int
    """In the graph, the bodies of its control flow, and its functions."""
    ops: dict[str, int]
    """Number of nodes of each operator, the most frequent first; `domain.Op` for operators of other domains."""
    layers: tuple[LayerCost, ...]
    """In the order of the graph; those of a body stand after their node's scope."""
    unknown: tuple[str, ...]
    """What could not be counted: node and reason."""
    open_dims: tuple[str, ...]
    """Dimensions of the inputs that were given no size, as `dims` takes them."""
    known_macs: int
    """What `macs` is without the layers of which they are not known."""


def count(model: Model, dims: Dims | None = None) -> Cost:
    """Count parameters, bytes, multiply-accumulates and operators.

    dims: sizes of open dimensions by their symbol, or by `input:axis`; the batch is 1 unless it is among them.
    The model is not changed. Where shape inference does not reach a convolution or matrix product, the model is run
    once on synthetic samples to see its shapes. Of an If the dearer branch counts; a Loop or Scan counts its body as
    often as it runs, where that can be told.

    Raises:
        ZcError: `dims` names a dimension that the inputs do not have.
    """
    bound = bind(model, dims)
    measure_shapes(bound, _missing(bound))
    owned = shares(bound)
    functions = {f.name: f for f in bound.graph.functions}
    tally = _Tally(owned, functions)  # type: ignore[arg-type]
    macs = tally.scope(bound.graph)
    for function in bound.graph.functions:
        tally.weights_of(function)  # type: ignore[arg-type]
    ops = Counter(_operator(node) for scope in bound.scopes() for node in scope.nodes)
    return Cost(
        params=total_params(bound),
        bytes=total_bytes(bound),
        macs=None if tally.unknown else macs,
        nodes=ops.total(),
        ops=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        layers=tuple(tally.layers),
        unknown=tuple(tally.unknown),
        open_dims=open_dims(bound),
        known_macs=macs,
    )


def _missing(model: Model) -> Iterator[Tensor]:
    """Values of the main graph whose shape a rule needs and inference did not find."""
    for node in model.nodes():
        if counts(node):
            yield from (t for t in (*node.inputs, *node.outputs) if t.name and static_shape(t) is None)


def _operator(node: object) -> str:
    assert isinstance(node, Node)
    return node.op if node.standard else f"{node.domain}.{node.op}"


class _Tally:
    """The layers of a model and what is not known of them, gathered in one walk."""

    def __init__(self, owned: dict[int, Share], functions: dict[str, Graph]) -> None:
        self.owned, self.functions = owned, functions
        self.layers: list[LayerCost] = []
        self.unknown: list[str] = []

    def scope(self, graph: Graph) -> int:
        """Known multiply-accumulates of one run of this scope and what it contains."""
        nodes = [n for n in graph.nodes if isinstance(n, Node)]
        total = sum(self._node(node) for node in nodes)
        return total + sum(
            self._bodies(node) for node in nodes if any(isinstance(v, Graph) for v in node.attrs.values())
        )

    def weights_of(self, function: Graph) -> None:
        """The layers of a function that hold weights; what they compute belongs to the nodes that call it."""
        for node in function.nodes:
            share = self.owned.get(id(node), Share())
            if share.params:
                self.layers.append(LayerCost(describe(node), node.op, share.params, share.bytes, 0, None))

    def _node(self, node: Node) -> int:
        share = self.owned.get(id(node), Share())
        try:
            macs: int | None = self._macs(node, share)
        except ZcError as err:
            macs = None
            self.unknown.append(f"{place(node)}: {err}")
        if macs != 0 or share.params:
            shape = None if not node.outputs or node.outputs[0].shape is None else tuple(node.outputs[0].shape)
            self.layers.append(LayerCost(describe(node), node.op, share.params, share.bytes, macs, shape))
        return macs or 0

    def _macs(self, node: Node, share: Share) -> int:
        if not node.standard and not counts(node):
            function = self.functions.get(node.op)
            if function is not None and any(isinstance(n, Node) and counts(n) for n in function.nodes):
                raise ZcError("the shapes inside a function are not known")
            if function is None and share.largest_rank >= 2:
                raise ZcError(f"no rule for this operator of domain '{node.domain}'")
        return macs_of(node)

    def _bodies(self, node: Node) -> int:
        bodies = [v for v in node.attrs.values() if isinstance(v, Graph)]
        sums = [self.scope(body) for body in bodies]
        if node.op == "If" or not any(sums):
            return max(sums, default=0)
        runs = _runs(node)
        if runs is None:
            self.unknown.append(f"{place(node)}: how often its body runs is not known; it is counted once")
        return sum(sums) * (1 if runs is None else runs)


def _runs(node: Node) -> int | None:
    """How often the body of a Scan runs; a Loop may always end early."""
    if node.op != "Scan" or any(node.attrs.get("scan_input_axes") or ()):
        return None
    shape = static_shape(node.inputs[-1]) if node.inputs else None
    return shape[0] if shape else None


__all__ = ["Cost", "LayerCost", "count"]
