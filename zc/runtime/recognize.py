"""From a graph to operations: which nodes run on codes, which in float islands, and in which order.

A node between DequantizeLinear and QuantizeLinear becomes one operation with them, where onnxruntime's default level
fuses it into an integer operator (or where its result is the same to the bit). What is left is float: grouped into as
few islands as the order allows, each with the Q and DQ around it, so that onnxruntime sees what it would see in the
whole.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zc.errors import ZcError
from zc.ir.edit import needs, sort_nodes
from zc.ir.graph import Node, Tensor, describe
from zc.ir.model import Model
from zc.runtime import elementary, moving, pairwise, weighted
from zc.runtime.islands import table_of
from zc.runtime.ops import Coding, Island, LookUp, Op
from zc.runtime.quantum import MICROSOFT, Declined, Scope, coding, given, maker, node_coding, read, written
from zc.runtime.valid import fault

Matcher = Callable[[Scope, Node], Op]

STANDARD: dict[str, Matcher] = {
    "Conv": weighted.conv,
    "Gemm": weighted.gemm,
    "MatMul": weighted.matmul,
    "QLinearConv": weighted.qlinear_conv,
    "QLinearMatMul": weighted.qlinear_matmul,
    "AveragePool": elementary.pool,
    "GlobalAveragePool": elementary.global_average,
    "Softmax": elementary.softmax,
    "Concat": elementary.concat,
    "MaxPool": moving.max_pool,
    "GlobalMaxPool": moving.global_max,
    "ReduceMax": moving.global_max,
    "Split": moving.split,
    "Pad": moving.pad,
    "Slice": moving.slices,
    "Transpose": moving.transpose,
    "DepthToSpace": moving.blocks,
    "SpaceToDepth": moving.blocks,
    "Gather": moving.gather,
    "Expand": moving.expand,
    "Tile": moving.tile,
    "Resize": moving.resize,
    "Upsample": moving.resize,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"), moving.reshape),
}

CONTRIBUTED: dict[str, Matcher] = {
    "QLinearConv": weighted.qlinear_conv,
    "QGemm": weighted.qgemm,
    "QLinearAdd": elementary.qlinear_binary,
    "QLinearMul": elementary.qlinear_binary,
    "QLinearAveragePool": elementary.qlinear_pool,
    "QLinearGlobalAveragePool": elementary.qlinear_global_average,
    "QLinearSoftmax": elementary.qlinear_softmax,
    "QLinearConcat": elementary.qlinear_concat,
}

TABLED = frozenset(
    {"Abs", "Asin", "Asinh", "Atan", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"}
    | {"HardSwish", "LeakyRelu", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin"}
    | {"Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"}
)
"""Operators of one argument that become a table between DQ and Q."""

UNREPEATABLE = dict.fromkeys(
    ("ConvTranspose", "ReduceMean", "ReduceSum", "Einsum"),
    "onnxruntime computes it in float, and a sum of integers would round otherwise",
)
"""Operators that stay in float between DQ and Q, so that no kernel on codes can repeat their results to the bit."""

TABLED_CODES = frozenset({"QLinearSigmoid", "QLinearLeakyRelu"})


@dataclass(frozen=True)
class Recognized:
    """Operations in an order in which they can run."""

    ops: tuple[Op, ...]

    @property
    def islands(self) -> tuple[Island, ...]:
        """Those in float."""
        return tuple(op for op in self.ops if isinstance(op, Island))


def recognize(model: Model) -> Recognized:
    """What a model computes. ZcError where a scale is unusable or nothing is quantised. Sorts the graph's nodes."""
    graph = model.graph
    sort_nodes(graph)
    scope = Scope(graph, model.name, model.opset, frozenset(map(id, graph.outputs)), frozenset(map(id, graph.inputs)))
    if not any("QuantizeLinear" in n.op or n.op.startswith("QLinear") or n.op in INTEGER for n in graph.nodes):
        raise ZcError(
            f"{model.name}: it is not quantised, so there is nothing to run in integers; quantise it with "
            f"`zc opt {model.name} -p quantize --calib DATA -o int8.onnx`"
        )
    return _Recognizer(model, scope).run()


INTEGER = ("DequantizeLinear", "QGemm")


class _Recognizer:
    def __init__(self, model: Model, scope: Scope) -> None:
        self.model, self.scope = model, scope
        self.nodes: list[Node] = [n for n in model.graph.nodes if isinstance(n, Node)]
        self.main = set(map(id, self.nodes))
        self.ops: dict[int, Op] = {}  # by id of each node that it stands for
        self.reasons: dict[int, str] = {}

    def run(self) -> Recognized:
        for node in self.nodes:
            why = fault(node)
            if why is not None:
                raise ZcError(f"{self.model.name}: node '{describe(node)}': {why}")
        for node in self.nodes:
            if id(node) not in self.ops and node.op not in ("DequantizeLinear", "QuantizeLinear", "Constant"):
                self._try(node, self._match)
        for node in self.nodes:
            if node.op == "QuantizeLinear" and id(node) not in self.ops:
                self._requantizer(node)
        for node in self.nodes:
            if node.op == "DequantizeLinear" and id(node.outputs[0]) in self.scope.ends:
                self._try(node, elementary.dequantizer)
        return Recognized(tuple(self._schedule()))

    def _try(self, node: Node, matcher: Matcher) -> None:
        try:
            op = matcher(self.scope, node)
        except Declined as why:
            self.reasons[id(node)] = str(why)
            return
        for member in op.nodes:
            self.ops[id(member)] = op

    def _match(self, scope: Scope, node: Node) -> Op:
        if node.domain == MICROSOFT and node.op in TABLED_CODES:
            x, y = (coding(scope, node, node.inputs[i], given(node, i + 1)) for i in (1, 3))
            return self._table(node, [node], node.inputs[0], node.outputs[0], x, y)
        if node.domain == MICROSOFT and node.op in CONTRIBUTED:
            return CONTRIBUTED[node.op](scope, node)
        if not node.standard:
            raise Declined(f"{node.domain}.{node.op} has no kernel on codes")
        if node.op == "Clip" and node.inputs[0].dtype in elementary.CODES:
            return elementary.clip_codes(scope, node)
        if node.op in TABLED and all(scope.constant(t) is not None for t in node.inputs[1:] if t.name):
            source, x = read(scope, given(node, 0))
            target, y, passed = written(scope, node.outputs[0])
            dequantizer = maker(node.inputs[0], "DequantizeLinear")
            assert dequantizer is not None
            return self._table(node, [dequantizer, node, *passed], source, target, x, y)
        if node.op in pairwise.OPERATORS:
            return pairwise.pairwise(self.model, scope, node)
        if node.op not in STANDARD:
            raise Declined(UNREPEATABLE.get(node.op, f"{node.op} has no kernel on codes"))
        return STANDARD[node.op](scope, node)

    def _table(self, node: Node, nodes: list[Node], source: Tensor, target: Tensor, x: Coding, y: Coding) -> Op:
        table = table_of(self.model, nodes, source, target)
        mine = tuple(n for n in nodes if n.op != "DequantizeLinear")
        return LookUp(mine, (source.name,), (target.name,), table=table, x=x, y=y)

    def _requantizer(self, node: Node) -> None:
        """A QuantizeLinear that belongs to no operation: of an input, of codes in another scale, or of an island."""
        source = node.inputs[0]
        dequantizer = maker(source, "DequantizeLinear")
        if dequantizer is not None and dequantizer.inputs[0].dtype in elementary.CODES:
            try:
                _, x = read(self.scope, source)
                y = node_coding(self.scope, node)
                op = self._table(node, [dequantizer, node], dequantizer.inputs[0], node.outputs[0], x, y)
            except Declined as why:
                self.reasons[id(node)] = str(why)
                return
            self.ops[id(node)] = op
        elif not source.inputs and id(source) in self.scope.fed:
            self._try(node, elementary.quantizer)

    # ---- order

    def _schedule(self) -> list[Op]:
        """Operations as soon as they can run; islands when nothing else can."""
        known = {id(t) for t in self.scope.graph.inputs}
        free = [n for n in self.nodes if n.op == "DequantizeLinear" and id(n) not in self.ops]
        todo = [n for n in self.nodes if n not in set(free)]
        result: list[Op] = []
        done: set[int] = set()
        while todo:
            later: list[Node] = []
            for node in todo:
                op = self.ops.get(id(node))
                if op is None or not self._ready_op(op, known):
                    if id(node) not in done:
                        later.append(node)
                elif id(op) not in done:
                    done.update((id(op), *map(id, op.nodes)))
                    known.update(id(t) for n in op.nodes for t in n.outputs)
                    result += [op] if op.first is None else [op.first, op]
            todo = [n for n in later if id(n) not in done]
            island = self._island(todo, known)
            if island:
                inside = set(map(id, island))
                todo = [n for n in todo if id(n) not in inside]
                known.update(id(t) for n in island for t in n.outputs)
                result += self._make_island(island)
            elif todo:
                raise ZcError(f"{self.model.name}: node '{describe(todo[0])}' waits for values that nothing makes")
        return result

    def _ready_op(self, op: Op, known: set[int]) -> bool:
        inside = {id(t) for n in op.nodes for t in n.outputs}
        return all(self._available(t, known | inside) for n in op.nodes for t in n.inputs)

    def _available(self, tensor: Tensor, known: set[int]) -> bool:
        if not tensor.name or id(tensor) in known or self.scope.constant(tensor) is not None or self._of_body(tensor):
            return True
        dequantizer = maker(tensor, "DequantizeLinear")
        if dequantizer is not None and id(dequantizer) not in self.ops:
            return all(self._available(t, known) for t in dequantizer.inputs)
        if dequantizer is not None:
            return self._available(dequantizer.inputs[0], known)
        return not tensor.inputs and not isinstance(tensor, Node)

    def _of_body(self, tensor: Tensor) -> bool:
        """Is a value made inside the body of a node?"""
        return bool(tensor.inputs) and id(tensor.inputs[0]) not in self.main

    def _island(self, todo: list[Node], known: set[int]) -> list[Node]:
        """All nodes without an operation that can run now, one after another."""
        found, inside = [], set(known)
        for node in todo:
            if id(node) not in self.ops and all(self._available(t, inside) for t in needs(node)):
                found.append(node)
                inside.update(id(t) for t in node.outputs)
        return found

    def _make_island(self, nodes: list[Node]) -> list[Op]:
        """The nodes with the DQ that they read; their values that others read are the outputs."""
        if all(n.op == "Constant" for n in nodes):
            return []
        members: dict[int, Node] = {}
        made = {id(t) for n in nodes for t in n.outputs}
        inputs: dict[int, Tensor] = {}

        def take(node: Node) -> None:
            for tensor in needs(node):
                dequantizer = maker(tensor, "DequantizeLinear")
                constant = maker(tensor, "Constant")
                if id(tensor) in made or not tensor.name or self._of_body(tensor):
                    continue
                if dequantizer is not None and id(dequantizer) not in members:
                    take(dequantizer)
                elif constant is not None:
                    members[id(constant)] = constant
                elif dequantizer is None and (tensor.inputs or id(tensor) in self.scope.fed):
                    inputs[id(tensor)] = tensor
            members[id(node)] = node

        for node in nodes:
            if node.op != "Constant":
                take(node)
        own = {id(n) for n in members.values()}
        outputs = [
            t
            for n in members.values()
            for t in n.outputs
            if t.name and n.op not in ("Constant", "DequantizeLinear") and self._read_outside(t, own)
        ]
        if not outputs:  # nobody reads what they make
            return []
        kept = tuple(members.values())
        reasons = tuple(self.reasons.get(id(n), "it is between float values") for n in kept)
        return [Island(kept, _names(inputs.values()), _names(outputs), reasons=reasons)]

    def _read_outside(self, tensor: Tensor, own: set[int]) -> bool:
        """Does anything beside these nodes read a value? An operation reads codes, not what makes floats of them."""
        if id(tensor) in self.scope.ends:
            return True
        return any(
            id(reader) not in own
            or (reader.op == "DequantizeLinear" and any(id(n) in self.ops for t in reader.outputs for n in t.outputs))
            for reader in tensor.outputs
        )


def _names(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    return tuple(t.name for t in tensors)
