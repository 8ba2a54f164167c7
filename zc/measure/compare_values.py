"""Which value of one model stands for which value of another, when one of them may be quantised, fused or renamed.

    a:  x -> Conv -> c -> Relu -> y -> ...
    b:  x -> Q -> DQ -> Conv -> c -> Q -> DQ -> y -> ...       (y stands for y: the Relu is in the range of its codes)

Quantised models are looked at without their QuantizeLinear and DequantizeLinear: all forms that a value has (as it is
computed, as codes, as what DequantizeLinear makes of them) are one. Nodes are then matched as `zc diff` does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from zc.ir.edit import detach, sort_nodes, sweep
from zc.ir.graph import Array, Constant, Node, Tensor, Variable, attribute, describe, fixed_value
from zc.ir.match import Matching
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes

_REACH = 32
"""Nodes that are looked at behind a value for what was fused with its producer."""

# QLinear operators: what they are in float, the inputs that hold data, and where the scale of the output stands.
_QLINEAR: dict[str, tuple[str, tuple[int, ...], int]] = {
    "QLinearConv": ("Conv", (0, 3), 6),
    "QLinearMatMul": ("MatMul", (0, 3), 6),
    "QGemm": ("Gemm", (0, 3), 7),
    "QLinearAdd": ("Add", (0, 3), 6),
    "QLinearMul": ("Mul", (0, 3), 6),
    "QLinearWhere": ("Where", (0, 1, 4), 7),
    **{
        f"QLinear{op}": (op, (0,), 3)
        for op in ("Sigmoid", "LeakyRelu", "Softmax", "GlobalAveragePool", "AveragePool", "ReduceMean")
    },
}


@dataclass(frozen=True, eq=False)
class Codes:
    """A value as integer codes: real = (code - zero) * scale."""

    name: str
    scale: Array
    zero: Array
    axis: int = 1

    def real(self, codes: Array) -> Array:
        """The numbers that codes stand for, float32 (ONNX, DequantizeLinear)."""
        scale, zero = self.scale.astype(np.float32), self.zero.astype(np.float32)
        if scale.size > 1:
            shape = [1] * codes.ndim
            shape[self.axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
        return np.asarray((codes.astype(np.float32) - zero) * scale)


@dataclass(eq=False)
class Value:
    """One value of a model in all the forms that it has."""

    made: str
    """The name of what its producer puts out, a float or codes."""
    floats: list[str]
    """The names of its float forms: as it is computed, then what DequantizeLinear makes of its codes."""
    codes: list[Codes] = field(default_factory=list)

    @property
    def seen(self) -> str:
        """The form to look at: its codes, where it has any."""
        return self.codes[0].name if self.codes else self.floats[0]

    @property
    def label(self) -> str:
        """How a person is told of it."""
        return self.floats[-1] if self.floats else self.made

    def real(self, seen: Array) -> Array:
        """The numbers that the form to look at stands for."""
        return self.codes[0].real(seen) if self.codes else seen


@dataclass(frozen=True, eq=False)
class Pair:
    """A value of the first model and the one of the second that stands for it."""

    a: Value
    b: Value
    tensor: Tensor
    """The value in the first model, seen without Q/DQ."""


@dataclass(frozen=True)
class Layer:
    """What computes a value of the first model from values that are known."""

    op: str
    """Its operators, joined by `+`; empty for an input of the model."""
    node: str
    """The name of the operator with a weight, else of the last one."""
    nodes: tuple[str, ...]
    """How messages name its operators, in their order."""
    reads: tuple[Pair, ...]
    """The known values that it starts from."""
    channel: int = -1
    """Axis of what it makes that is the channel."""
    rounded: bool = False
    """Is what it makes held as codes in the second model?"""


@dataclass(frozen=True)
class Correspondence:
    """The pairs in the order of the first model, and what has no counterpart."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def match_values(a: Model, b: Model) -> Correspondence:
    """Which value of the main graph of `b` stands for which of `a`. Linear in their size; the models stay as they are.

    Each value has one counterpart at most. Where `b` computes several operators of `a` at once (a folded
    BatchNormalization, an activation in the range of codes), the last of their values is meant.
    """
    views = _View(a, frozenset()), _View(b, frozenset(t.name for n in a.graph.nodes for t in n.outputs))
    matching = Matching()
    matching.scopes(views[0].model.graph, views[1].model.graph)
    found = _Finder(views[0], views[1], matching).find()
    order = list(views[0].tensors())
    taken = {id(value) for value in found.values()}
    return Correspondence(
        tuple(Pair(views[0].values[id(t)], found[id(t)], t) for t in order if id(t) in found),
        tuple(views[0].values[id(t)].label for t in order if id(t) not in found and _computed(t)),
        tuple(v.label for t in views[1].tensors() if id(v := views[1].values[id(t)]) not in taken and _computed(t)),
    )


def _computed(tensor: Tensor) -> bool:
    """Is it a value that a layer computes (and not a constant, a size or an index)?"""
    return bool(tensor.inputs) and tensor.inputs[0].op != "Constant" and _may_be_float(tensor)


def _may_be_float(tensor: Tensor) -> bool:
    return tensor.dtype is None or np.dtype(tensor.dtype).kind not in "iub"


def _is_matrix(tensor: Tensor) -> bool:
    """Is it the weight of a layer, and not a bias or scale for each channel?"""
    return isinstance(tensor, Constant) and sum(d > 1 for d in tensor.shape) > 1


def layer_of(pair: Pair, known: Mapping[int, Pair]) -> Layer:
    """The operators between a value and those that are known, by id of their tensors."""
    nodes: list[Node] = []
    reads: dict[int, Pair] = {}
    queue, seen = list(pair.tensor.inputs), {id(n) for n in pair.tensor.inputs}
    for node in queue:
        nodes.append(cast(Node, node))
        for tensor in node.inputs:
            if id(tensor) in known:
                reads[id(tensor)] = known[id(tensor)]
            else:
                fresh = [n for n in tensor.inputs if id(n) not in seen and _computed(tensor)]
                seen.update(id(n) for n in fresh)
                queue.extend(fresh)
    nodes.reverse()
    if not nodes:
        return Layer("", pair.a.label, (), (), rounded=bool(pair.b.codes))
    weighted = [n for n in nodes if any(_is_matrix(t) for t in n.inputs)]
    ops = [n.op for n in nodes] if len(nodes) < 4 else [nodes[0].op, "...", nodes[-1].op]
    main = (weighted or nodes[-1:])[0]
    names = tuple(describe(n) for n in nodes)
    channel = 1 if any(n.op in {"Conv", "ConvTranspose"} for n in nodes) else -1
    name, known_reads = main.name or main.outputs[0].name, tuple(reads.values())
    return Layer("+".join(ops), name, names, known_reads, channel, bool(pair.b.codes))


class _View:
    """A copy of a model without Q/DQ, and the value that each of its run-time tensors is."""

    def __init__(self, model: Model, known: frozenset[str]) -> None:
        """known: names of the other model; a value with several names is called by one of these."""
        self.model = model.copy()
        self.values: dict[int, Value] = {}
        self._stands: dict[int, Tensor] = {}
        self._codes: dict[int, Codes] = {}
        infer_shapes(self.model)
        graph = self.model.graph
        sort_nodes(graph)
        for tensor in graph.inputs:
            if isinstance(tensor, Variable):
                self.values[id(tensor)] = Value(tensor.name, [tensor.name])
        for node in graph.nodes:
            self._node(cast(Node, node))
        graph.outputs = [self._stands.get(id(t), t) for t in graph.outputs]
        sweep(graph)
        for tensor in self.tensors():
            names = self.values[id(tensor)].floats
            tensor.name = next((n for n in names if n in known), tensor.name)

    def tensors(self) -> Iterator[Tensor]:
        """The run-time tensors of the main graph, in graph order."""
        graph = self.model.graph
        for tensor in (*graph.inputs, *(t for n in graph.nodes for t in n.outputs)):
            if id(tensor) in self.values:
                yield tensor

    def _node(self, node: Node) -> None:
        read = list(node.inputs)
        for i, tensor in enumerate(read):
            if id(tensor) in self._stands:
                node.inputs[i] = self._stands[id(tensor)]
        if node.op in {"QuantizeLinear", "DequantizeLinear"} and self._transparent(node, read[0]):
            return
        given: tuple[Array, Array, int] | None = None
        if node.op in _QLINEAR or node.op == "QLinearConcat":
            given = _qlinear(node)
        elif read and id(read[0]) in self._codes and not node.op.endswith("Integer"):
            codes = self._codes[id(read[0])]  # it moves codes about
            given = codes.scale, codes.zero, codes.axis
        for tensor in node.outputs:
            if not tensor.name or not isinstance(tensor, Variable):
                continue
            if given is None:
                self.values[id(tensor)] = Value(tensor.name, [tensor.name])
            else:
                self._codes[id(tensor)] = Codes(tensor.name, *given)
                self.values[id(tensor)] = Value(tensor.name, [], [self._codes[id(tensor)]])

    def _transparent(self, node: Node, read: Tensor) -> bool:
        """Let what a Q or DQ node reads stand for what it puts out. False where its scale is not constant."""
        source, out = node.inputs[0], node.outputs[0]
        scale = fixed_value(node.inputs[1])
        if scale is None or attribute(node, "block_size", 0):
            return False
        if isinstance(source, Constant) or fixed_value(source) is not None:
            self._stands[id(out)] = source
            detach(node)
            return True
        value = self.values.get(id(source))
        if value is None:
            return False
        zero = fixed_value(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros((), np.uint8)
        if zero is None:
            return False
        axis = int(attribute(node, "axis", 1))
        if node.op == "QuantizeLinear":
            self._codes[id(out)] = Codes(out.name, scale, zero, axis)
            value.codes.append(self._codes[id(out)])
        else:
            value.floats.append(out.name)
            if not value.codes:  # an operator puts out these codes
                self._codes[id(read)] = Codes(read.name, scale, zero, axis)
                value.codes.append(self._codes[id(read)])
                value.floats.remove(read.name)
        self._stands[id(out)] = source
        detach(node)
        return True


def _qlinear(node: Node) -> tuple[Array, Array, int] | None:
    """Turn a QLinear operator of the view into its float form; scale, zero point and axis of its output's codes."""
    if node.op == "QLinearConcat":
        op, data, place = "Concat", tuple(range(2, len(node.inputs), 3)), 0
    else:
        op, data, place = _QLINEAR[node.op]
    parameters = node.inputs[place : place + 2]
    scale, zero = ([fixed_value(t) for t in parameters] + [None, None])[:2]
    node.op, node.domain = op, None
    node.inputs = [node.inputs[i] for i in data]
    return None if scale is None or zero is None else (scale, zero, 1)


class _Finder:
    """Pairs the values of two views, given which nodes are the same."""

    def __init__(self, a: _View, b: _View, matching: Matching) -> None:
        self.a, self.b, self.matching = a, b, matching
        self.order = {id(t): i for i, t in enumerate(a.tensors())}

    def find(self) -> dict[int, Value]:
        """By id of a tensor of the first view: the value of the second."""
        made = {id(other): key for key, other in self.matching.values.items()}
        tensors = {id(t): t for t in self.a.tensors()}
        read = self._read()
        by_name = {t.name: t for t in tensors.values()} if self._names_hold() else {}
        found: dict[int, Value] = {}
        for other in self.b.tensors():
            value = self.b.values[id(other)]
            named = [by_name[n] for n in value.floats if n in by_name]
            start = tensors.get(made.get(id(other), 0)) or next(iter(named), None)
            if start is None:
                sole = read.get(id(other), [])
                start = sole[0] if len({id(t) for t in sole}) == 1 else None
            if start is None:
                continue
            best = self._latest(start, {id(t) for t in (*named, *read.get(id(other), []))})
            inserted = bool(other.inputs) and id(other.inputs[0]) not in self.matching.back
            if id(best) not in found or inserted:  # what was put behind a value is what its readers see
                found[id(best)] = value
        return found

    def _names_hold(self) -> bool:
        """Do most of the matched nodes put out values of the same name? Then equal names mean equal values."""
        both = [(self.matching.nodes[id(n)], n) for n in self.a.model.graph.nodes if id(n) in self.matching.nodes]
        same = sum(x.outputs[0].name == y.outputs[0].name for x, y in both if x.outputs and y.outputs)
        return same * 2 >= len(both)

    def _read(self) -> dict[int, list[Tensor]]:
        """By id of a tensor of the second view: what the counterparts of its readers read in its place."""
        read: dict[int, list[Tensor]] = {}
        for node in self.a.model.graph.nodes:
            twin = self.matching.nodes.get(id(node))
            for mine, other in zip(node.inputs, twin.inputs if twin is not None else (), strict=False):
                if id(mine) in self.order and id(other) in self.b.values:
                    read.setdefault(id(other), []).append(mine)
        return read

    def _latest(self, start: Tensor, wanted: set[int]) -> Tensor:
        """The last of the wanted values that follow from `start` through nodes which only the first model has."""
        best, queue = start, [start]
        seen = {id(start)}
        if not wanted - seen:
            return start
        for tensor in queue:
            if len(seen) > _REACH:
                break
            for node in tensor.outputs:
                if id(node) in self.matching.nodes or any(_is_matrix(t) for t in node.inputs):
                    continue
                for out in node.outputs:
                    if id(out) in self.order and id(out) not in seen:
                        seen.add(id(out))
                        queue.append(out)
                        if id(out) in wanted and self.order[id(out)] > self.order[id(best)]:
                            best = out
        return best


__all__ = ["Codes", "Correspondence", "Layer", "Pair", "Value", "layer_of", "match_values"]
