"""Write an assignment as Q/DQ: codes between QuantizeLinear and DequantizeLinear, weights and biases as integers.

    before:  x -> Conv(w, b) -> c -> Relu -> y -> ...
    after:   x -> Q -> x_q -> DQ -> Conv(DQ(w_q), DQ(b_q)) -> c -> Q -> y_q -> DQ -> y -> ...

A value keeps its name where it is read in float: it is then what DequantizeLinear makes of its codes. Operators that
only move codes about stand on the codes themselves.
"""

from typing import cast

import numpy as np

from zc.ir.edit import Editor, Names, detach
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, describe, fixed_value
from zc.passes.quantize.dynamic import VENDOR, DynamicWriter
from zc.passes.quantize.operators import activation_bounds, data_inputs
from zc.passes.quantize.opset import WIDE_OPSET
from zc.passes.quantize.placement import Placement
from zc.passes.quantize.scheme import Scale, activation_scale
from zc.passes.quantize.weights import Coded, WeightForm, WeightWriter
from zc.target import QuantType, Target

Range = tuple[float, float]


def assign_scales(placement: Placement, ranges: dict[int, Range], target: Target, kind: QuantType) -> dict[int, Scale]:
    """The scale of each value with codes, by id, which are of type `kind`.

    ranges: lowest and highest, by id of each measured value.
    """
    scales = {}
    symmetric = target.symmetric_activations or (kind != target.activations and target.symmetric_wide)
    for group in {id(g): g for g in placement.groups.values()}.values():
        if group.fixed is not None:
            # Of 16 bits, all that have a given scale (likelihoods, Tanh) take -1 to 1.
            given = group.fixed if kind == target.activations else (2.0**-15, 0 if symmetric else 2**15)
            scale = Scale(np.float32(given[0]), given[1], kind)
            scales.update({id(t): scale for t in group.members})
            continue
        low = max(min(ranges[id(t)][0] for t in group.measured), group.bounds[0])
        high = min(max(ranges[id(t)][1] for t in group.measured), group.bounds[1])
        scale = activation_scale(low, high, kind, symmetric)
        scales.update({id(t): scale for t in group.members})
    return scales


def write(placement: Placement, scales: dict[int, Scale], names: Names, form: WeightForm) -> list[Coded]:
    """Edit the graph of the placement in place; the weighted operators as written, in graph order.

    scales: of each value with codes, by id.
    """
    writer = Writer(placement, scales, names)
    weights = WeightWriter(writer.editor, names, form)
    order = {id(node): i for i, node in enumerate(placement.graph.nodes)}
    sites = [(site, site.source, site.output.name, describe(site.node)) for site in placement.sites]
    for site in placement.sites:
        writer.read_codes(site.node, 0)
    for node, position in placement.residuals:
        writer.read_codes(node, position)
    for node in placement.integer:
        writer.read_floats(node)
        writer.read_constants(node)
    for node in [*(s.node for s in placement.sites), *placement.integer]:
        writer.put_codes(node)
    coded = [weights.site(site, scales[id(source)], name, where) for site, source, name, where in sites]
    for node in placement.lookups:
        weights.lookup(node)
    for node in placement.transparent:
        writer.on_codes(node)
    products = DynamicWriter(writer.editor, names, form)
    coded += [products.site(site) for site in placement.dynamic]
    writer.finish([*weights.replaced, *products.replaced])
    return sorted(coded, key=lambda one: order[id(one.node)])


def domain_of(scale: Scale, graph: Graph) -> str | None:
    """The domain of Q/DQ with such codes: those of 16 bits are onnxruntime's own where the operator set has none."""
    return VENDOR if scale.dtype.itemsize > 1 and graph.opset < WIDE_OPSET else None


class Writer:
    """Adds Q/DQ nodes to the activations of one scope. Scales are shared by the values of a group."""

    def __init__(self, placement: Placement, scales: dict[int, Scale], names: Names) -> None:
        self.placement, self.scales, self.names = placement, scales, names
        self.editor = Editor(placement.graph, names)
        self.ends = {id(chain[0].inputs[0]): (chain, end) for end, chain in _chains(placement)}
        self.codes: dict[int, Tensor] = {}
        self.rounded: dict[int, Tensor] = {}  # by id of a float value: what DQ makes of its codes
        self.parameters: dict[int, tuple[Constant, Constant]] = {}  # by id of a Scale
        self.numbers: dict[int, Tensor] = {}
        self.dequantizers: list[Node] = []
        self.replaced: list[Tensor] = []

    # ---- activations

    def read_codes(self, node: Node, position: int) -> None:
        """Let an operator read codes of a value that is computed in float."""
        value = node.inputs[position]
        if id(value) in self.placement.native:
            return  # its own name stands for what DQ makes of its codes
        if id(value) not in self.rounded:
            codes = self.quantize(value, value.name, self.scales[id(value)])
            out = self.names.variable(f"{value.name}_dq", like=value)
            self.dequantize(codes, out, self.scales[id(value)])
            self.rounded[id(value)] = out
        node.inputs[position] = self.rounded[id(value)]

    def read_floats(self, node: Node) -> None:
        """Round what an integer operator reads of values that are computed in float."""
        for i, value in enumerate(node.inputs):
            if id(value) in self.scales:
                self.read_codes(node, i)

    def put_codes(self, node: Node) -> None:
        """Round what an operator puts out; the activations behind it are absorbed by the range."""
        raw = node.outputs[0]
        chain, value = self.ends.get(id(raw), ([], raw))
        if id(value) not in self.placement.native:
            return
        if chain:
            for activation in chain[::-1]:
                detach(activation)
        else:
            raw = self.names.variable(f"{value.name}_raw", like=value)
            node.outputs[0] = raw
        scale = self.scales[id(value)]
        self.codes[id(value)] = self.quantize(raw, value.name, scale)
        self.dequantize(self.codes[id(value)], value, scale)

    def on_codes(self, node: Node) -> None:
        """Move an operator that chooses among codes onto the codes."""
        scale = self.scales[id(node.inputs[0])]
        if node.op in {"Relu", "Clip"}:
            self._clip_codes(node, scale)
        elif node.op == "Pad":
            self._pad_codes(node, scale)
        node.inputs[0] = self.codes[id(node.inputs[0])]
        for i, value in enumerate(list(node.outputs)):
            if not value.name:
                continue
            codes = Variable(self.names.take(f"{value.name}_q"), scale.dtype, value.shape)
            node.outputs[i] = codes
            self.codes[id(value)] = codes
            self.dequantize(codes, value, scale)

    def _clip_codes(self, node: Node, scale: Scale) -> None:
        bounds = activation_bounds(node, self.placement.graph)
        assert bounds is not None  # checked by the placement
        limits = [scale.quantize(np.array(b)) if np.isfinite(b) else None for b in bounds]
        node.op, node.attrs = "Clip", {}
        data = node.inputs[0]
        node.inputs.clear()
        node.inputs.append(data)
        for label, limit in zip(("min", "max"), limits, strict=True):
            stem = f"{node.outputs[0].name}_{label}"
            node.inputs.append(Variable("") if limit is None else self.names.constant(stem, limit))
        if limits[1] is None:
            node.inputs.pop()

    def _pad_codes(self, node: Node, scale: Scale) -> None:
        fill = self.names.constant(f"{node.outputs[0].name}_fill", scale.zero)
        if len(node.inputs) > 2:
            self.replaced.append(node.inputs[2])
            node.inputs[2] = fill
        else:
            node.inputs.append(fill)

    def read_constants(self, node: Node) -> None:
        """Give an integer operator its constants as codes: one number exactly, as code 1, many rounded."""
        for i, tensor in enumerate(node.inputs):
            if tensor in data_inputs(node) and fixed_value(tensor, self.placement.graph) is not None:
                if id(tensor) not in self.numbers:
                    self.numbers[id(tensor)] = self._number(tensor)
                self.replaced.append(tensor)
                node.inputs[i] = self.numbers[id(tensor)]

    def _number(self, tensor: Tensor) -> Tensor:
        values = cast(Array, fixed_value(tensor))
        if values.size > 1:
            return self._vector(tensor.name, values)
        size = float(values.reshape(-1)[0])
        kind = next(iter(self.scales.values())).type
        # Unsigned codes have no -1: there the zero point is 1 and the code 0.
        zero, code = (0, 1) if size >= 0 else (0, -1) if kind.startswith("int") else (1, 0)
        scale = Scale(np.float32(abs(size) or 1.0), zero, kind)
        return self._coded(tensor.name, np.full(values.shape, code if size else zero, scale.dtype), scale)

    def _vector(self, name: str, values: Array) -> Tensor:
        found = next(iter(self.scales.values())).type
        kind = found if found.startswith("int") else "int8"
        scale = Scale(np.float32(np.abs(values).max() / np.iinfo(kind).max), 0, kind)
        return self._coded(name, np.rint(values / scale.scale).astype(scale.dtype), scale)

    def _coded(self, name: str, numbers: Array, scale: Scale) -> Tensor:
        codes = self.names.constant(f"{name}_q", numbers)
        out = self.names.variable(f"{name}_dq")
        out.dtype, out.shape = np.dtype(np.float32), list(numbers.shape)
        self.dequantize(codes, out, scale)
        return out

    def quantize(self, value: Tensor, stem: str, scale: Scale) -> Variable:
        """Add value -> QuantizeLinear -> codes."""
        codes = Variable(self.names.take(f"{stem}_q"), scale.dtype, value.shape)
        name = self.names.take(f"{stem}_QuantizeLinear")
        inputs = [value, *self._parameters(scale, stem)]
        self.editor.add(Node("QuantizeLinear", name, {}, inputs, [codes], domain_of(scale, self.placement.graph)))
        return codes

    def dequantize(self, codes: Tensor, value: Tensor, scale: Scale) -> None:
        """Add codes -> DequantizeLinear -> value."""
        name = self.names.take(f"{value.name}_DequantizeLinear")
        inputs = [codes, *self._parameters(scale, value.name)]
        domain = domain_of(scale, self.placement.graph)
        self.dequantizers.append(self.editor.add(Node("DequantizeLinear", name, {}, inputs, [value], domain)))

    def _parameters(self, scale: Scale, stem: str) -> tuple[Constant, Constant]:
        if id(scale) not in self.parameters:
            self.parameters[id(scale)] = (
                self.names.constant(f"{stem}_scale", np.array(scale.scale)),
                self.names.constant(f"{stem}_zero_point", scale.zero),
            )
        return self.parameters[id(scale)]

    # ---- end

    def finish(self, replaced: list[Tensor]) -> None:
        """Drop what nothing reads: dequantisers of values that are only read as codes, and float weights."""
        replaced = [*self.replaced, *replaced]
        for node in self.dequantizers:
            value = node.outputs[0]
            if not value.outputs and id(value) not in self.placement.kept_values:
                detach(node)
        gone = {id(t) for t in replaced if not t.outputs}
        for scope in [self.placement.graph, *self.placement.around]:
            scope.declared = [c for c in scope.declared if id(c) not in gone]
        for tensor in replaced:
            if not tensor.outputs and tensor.inputs and tensor.inputs[0].op == "Constant":
                detach(tensor.inputs[0])
        self.editor.finish()


def _chains(placement: Placement) -> list[tuple[Tensor, list[Node]]]:
    return [(chain[-1].outputs[0], chain) for chain in placement.absorbed.values()]
