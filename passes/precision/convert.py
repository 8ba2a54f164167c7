"""Write a plan: nodes in half precision, with a Cast where a value goes from one side to the other.

    before:  x -> Conv(w) -> c -> Softmax -> y
    after:   x -> Cast -> Conv(w half) -> c_float16 -> Cast -> c -> Softmax -> y

Each value is cast at most once in either direction. A value in float32 keeps its name; its half is called after it.
"""

from typing import cast

import numpy as np
from onnx import TensorProto

from zc.ir.edit import Editor, Names, outer_values
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, fixed_value
from zc.passes.precision.kinds import Kind
from zc.passes.precision.plan import Plan


class Converter:
    """Rewrites one graph."""

    def __init__(self, graph: Graph, names: Names, kind: Kind) -> None:
        self.graph, self.kind = graph, kind
        self.editor, self.names = Editor(graph, names), names
        self.halves: dict[int, Tensor] = {}
        """By id of a value in float32: the same in half precision."""
        self.replaced: list[Tensor] = []

    def run(self, plan: Plan) -> None:
        """Convert the nodes of the plan; graph inputs and outputs stay in float32."""
        nodes = [cast(Node, n) for n in self.graph.nodes if id(n) in plan.half]
        outer = {id(t) for n in self.graph.nodes for t in (outer_values(n) if n.attrs else ())}
        made: list[Tensor] = []
        for node in nodes:
            for i in plan.half[id(node)][1]:
                value = node.outputs[i]
                half = Variable(self.names.take(f"{value.name}_{self.kind.name}"), self.kind.dtype, value.shape)
                node.outputs[i] = half
                self.halves[id(value)] = half
                made.append(value)
            if node.op == "Cast" and plan.half[id(node)][1]:
                node.attrs["to"] = self.kind.element_type
        for node in nodes:
            for i in plan.half[id(node)][0]:
                node.inputs[i] = self._half(node.inputs[i])
        for value in made:
            if value.outputs or self.editor.is_output(value) or id(value) in outer:
                self._cast(self.halves[id(value)], value, TensorProto.FLOAT)
        gone = {id(t) for t in self.replaced if not t.outputs}
        self.graph.declared = [c for c in self.graph.declared if id(c) not in gone]
        self.editor.finish()

    def _half(self, value: Tensor) -> Tensor:
        if id(value) not in self.halves:
            numbers = fixed_value(value, self.graph)
            name = f"{value.name}_{self.kind.name}"
            if numbers is not None:
                self.halves[id(value)] = self.names.constant(name, self._rounded(value, numbers))
                self.replaced.append(value)
            else:
                half = Variable(self.names.take(name), self.kind.dtype, value.shape)
                self._cast(value, half, self.kind.element_type)
                self.halves[id(value)] = half
        return self.halves[id(value)]

    def _rounded(self, value: Tensor, numbers: Array) -> Array:
        """Constants in half precision. A scale never becomes 0: codes times the smallest number are as good as 0."""
        half = self.kind.round(numbers)
        if any(n.op in {"QuantizeLinear", "DequantizeLinear"} and n.inputs[1] is value for n in value.outputs):
            half = np.where(half == 0, np.asarray(self.kind.least, self.kind.dtype), half)
        return half

    def _cast(self, source: Tensor, result: Tensor, to: int) -> None:
        self.editor.add(Node("Cast", self.names.take(f"{result.name}_Cast"), {"to": to}, [source], [result]))

    # ---- inputs and outputs

    def open_ends(self) -> None:
        """Give the graph's own inputs and outputs in float32 the half-precision type."""
        for value in [t for t in self.graph.inputs if _is_plain_float(t)]:
            half = self._half(value)
            caster = half.inputs[0] if half.inputs else None
            real = Variable(self.names.take(f"{value.name}_float32"), np.float32, value.shape)
            _move_readers(value, real, but=caster)
            _move_readers(half, value)
            if caster is not None:
                caster.inputs.clear()
                caster.outputs.clear()
            cast(Variable, value).dtype = self.kind.dtype
            self.halves[id(value)] = value
            if real.outputs:
                self._cast(value, real, TensorProto.FLOAT)
        for value in [t for t in self.graph.outputs if _is_plain_float(t) and not isinstance(t, Constant)]:
            self._open_output(cast(Variable, value))
        self.editor.finish()

    def _open_output(self, value: Variable) -> None:
        producer = value.inputs[0]
        real = Variable(self.names.take(f"{value.name}_float32"), np.float32, value.shape)
        _move_readers(value, real)
        half = self.halves.get(id(value))
        value.dtype = self.kind.dtype
        if half is not None and producer.op == "Cast" and producer.inputs[0] is half and half.inputs:
            # What the Cast turned into float32 is put out as it is.
            maker = half.inputs[0]
            producer.inputs.clear()
            producer.outputs.clear()
            maker.outputs[next(i for i, t in enumerate(maker.outputs) if t is half)] = value
            _move_readers(half, value)
            if real.outputs:
                self._cast(value, real, TensorProto.FLOAT)
        else:
            producer.outputs[next(i for i, t in enumerate(producer.outputs) if t is value)] = real
            self._cast(real, value, self.kind.element_type)


def _is_plain_float(tensor: Tensor) -> bool:
    return isinstance(tensor, Variable) and tensor.dtype == np.float32 and tensor.type == "tensor_type"


def _move_readers(old: Tensor, new: Tensor, but: object = None) -> None:
    for consumer in list({id(c): c for c in old.outputs}.values()):
        if consumer is not but:
            for i, tensor in enumerate(consumer.inputs):
                if tensor is old:
                    consumer.inputs[i] = new
