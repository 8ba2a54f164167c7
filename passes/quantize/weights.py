"""Write weights, biases and embedding tables as integers, each behind a DequantizeLinear. Equal ones are shared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx

from zc.ir.edit import Editor, Names
from zc.ir.graph import Array, Constant, Node, Tensor, Variable, describe, fixed_value
from zc.passes.quantize.saturation import exact_scales, reduction
from zc.passes.quantize.scheme import WEIGHT_LIMIT, Scale, bias_codes, overflow_room, quantize_weight, weight_scales
from zc.passes.quantize.sites import Site


@dataclass(frozen=True, eq=False)
class Coded:
    """A weighted operator as it was written."""

    node: Node
    where: str
    """How messages named the node in the float model; the same in every copy of it."""
    weight: Constant
    """int8 or int4 codes."""
    output: Tensor
    """What it puts out before rounding to codes; for a MatMul with a float bias, the sum."""
    float_name: str
    """The name of that value in the float model."""
    channel_axis: int
    bias: Constant | None
    """int32 codes, or a bias that is added in float."""
    bias_scales: Constant | None
    """float32[channels]: value of one bias code. None: the bias is float."""
    raised: int
    """Channels whose weight scale had to be raised lest the bias or the accumulator overflow."""
    narrowed: int = 0
    """Channels whose weight scale was raised lest pairs of products saturate."""
    exact_pairs: bool = False
    """Must the codes stay such that no pair of products saturates 16 bits?"""


@dataclass(frozen=True)
class WeightForm:
    """What weights and biases look like when they are written."""

    per_channel: bool = True
    """A weight scale for each output channel."""
    per_tensor_ops: frozenset[str] = frozenset()
    """Operators with one scale for the whole weight all the same."""
    integer_bias: bool = True
    """Biases as int32 codes, rather than in float."""
    zero_biases: bool = False
    """Give every operator that takes one a bias, so that it can be corrected."""
    exact_pairs: bool = False
    """Weights with which no pair of products saturates 16 bits."""
    limit: int = WEIGHT_LIMIT
    """Largest magnitude of a weight's code."""
    packed: bool = False
    """Store weights as int4, which a Cast makes int8. The limit is at most 7 then."""
    special: Mapping[str, "WeightForm"] = field(default_factory=dict)
    """Of nodes with a form of their own, by the name that messages have for them."""

    def of(self, where: str) -> "WeightForm":
        """The form of one node."""
        return self.special.get(where, self)

    def axis(self, site: Site) -> int | None:
        """The axis of a weight along which it has scales; None for one scale."""
        return site.axis if self.per_channel and site.node.op not in self.per_tensor_ops else None


def site_scales(site: Site, form: WeightForm, bias: Array | None, input_scale: float) -> tuple[Array, int, int]:
    """The scales of a site's weight, and how many had to be raised: for int32, and for pairs in 16 bits."""
    weight, axis = site.weight_values(), form.axis(site)
    free = weight_scales(weight, axis, limit=form.limit)
    scales = weight_scales(weight, axis, overflow_room(weight, site.axis, bias, input_scale), form.limit)
    raised = int((scales > free).sum())
    rows = reduction(site.node, weight) if form.exact_pairs else None
    if rows is None:
        return scales, raised, 0
    exact = exact_scales(rows, scales)
    return exact, raised, int((exact > scales).sum())


def as_loaded(codes: Constant, form: WeightForm, editor: Editor) -> Tensor:
    """int8 codes as an operator reads them: they themselves, or, stored as int4, what a Cast makes of them."""
    if not form.packed:
        return codes
    names = editor.names
    codes.values = codes.values.astype(ml_dtypes.int4)
    read = Variable(names.take(f"{codes.name}8"), np.dtype(np.int8), list(codes.shape))
    attrs = {"to": onnx.TensorProto.INT8}
    editor.add(Node("Cast", names.take(f"{codes.name}_Cast"), attrs, [codes], [read]))
    return read


class WeightWriter:
    """Gives the weighted operators of one scope their integers. `replaced` are the float tensors that they leave."""

    def __init__(self, editor: Editor, names: Names, form: WeightForm) -> None:
        self.editor, self.names, self.form = editor, names, form
        self.replaced: list[Tensor] = []
        self._zeros: dict[int, Constant] = {}
        self._tables: dict[int, tuple[Constant, Constant, Constant]] = {}
        self._weights: dict[tuple[int, float, int, bytes], tuple[Constant, Tensor]] = {}

    def site(self, site: Site, source: Scale, float_name: str, where: str) -> Coded:
        """Write weight and bias of a weighted operator. `source`: the scale of what it reads."""
        weight, node = site.weight_values(), site.node
        form = self.form.of(where)
        scales, raised, narrowed = site_scales(site, form, site.bias, float(source.scale))
        codes, real = self._weight(site, weight, scales, form)
        self.replaced.append(node.inputs[1])
        node.inputs[1] = real
        output, name, bias, bias_scales = node.outputs[0], float_name, None, None
        channels = weight.shape[site.axis]
        if site.takes_bias:
            if site.bias is not None or form.zero_biases:
                of_codes = np.broadcast_to(np.float32(source.scale) * scales, (channels,)).astype(np.float32)
                given = np.zeros(channels, np.float32) if site.bias is None else site.bias
                bias, bias_scales = self._bias(site, given, of_codes if form.integer_bias else None)
        elif (found := self._added_bias(node, channels)) is not None:
            output, bias = found[0].outputs[0], found[1]
            name = output.name
        if node.op == "Gemm":
            node.attrs.pop("alpha", None)
            node.attrs.pop("beta", None)
        return Coded(
            node=node,
            where=where,
            weight=codes,
            output=output,
            float_name=name,
            channel_axis=site.channel_axis,
            bias=bias,
            bias_scales=bias_scales,
            raised=raised,
            narrowed=narrowed,
            exact_pairs=form.exact_pairs,
        )

    def lookup(self, node: Node) -> None:
        """Let a Gather pick rows of codes, and turn only those into numbers: one scale for each column."""
        table = node.inputs[0]
        values = fixed_value(table)
        assert values is not None  # checked by the placement
        form = self.form.of(describe(node))
        axis = values.ndim - 1 if form.per_channel else None
        if id(table) not in self._tables:
            self._tables[id(table)] = self._table(table, values, axis)
        codes = self._tables[id(table)]
        self.replaced.append(table)
        node.inputs[0] = codes[0]
        out = node.outputs[0]
        picked = Variable(self.names.take(f"{out.name}_q"), np.dtype(np.int8), out.shape)
        node.outputs[0] = picked
        # The last axis of the table is the last axis of what is picked, whatever the rank of the indices.
        self._dequantize([picked, codes[1], codes[2]], out, {"axis": -1} if form.per_channel else {})

    def _weight(self, site: Site, weight: Array, scales: Array, form: WeightForm) -> tuple[Constant, Tensor]:
        key = (id(site.weight), site.factor, site.axis, scales.tobytes())
        if key not in self._weights:
            axis = form.axis(site)
            codes = self._codes(site.weight, quantize_weight(weight, scales, axis, form.limit), scales, axis)
            read = as_loaded(codes[0], form, self.editor)
            real = Variable(self.names.take(f"{site.weight.name}_dq"), np.dtype(np.float32), list(weight.shape))
            self._dequantize([read, *codes[1:]], real, {} if axis is None else {"axis": axis})
            self._weights[key] = codes[0], real
        return self._weights[key]

    def _table(self, table: Tensor, values: Array, axis: int | None) -> tuple[Constant, Constant, Constant]:
        scales = weight_scales(values, axis)
        return self._codes(table, quantize_weight(values, scales, axis), scales, axis)

    def _codes(
        self, weight: Tensor, codes: Array, scales: Array, axis: int | None
    ) -> tuple[Constant, Constant, Constant]:
        """Codes, scales and zero points as initializers."""
        shape = scales.shape if axis is not None else ()
        size = int(np.prod(shape, dtype=np.int64)) if shape else -1
        if size not in self._zeros:
            self._zeros[size] = self.names.constant("weight_zero_point", np.zeros(shape, np.int8))
        return (
            self.names.constant(f"{weight.name}_q", codes),
            self.names.constant(f"{weight.name}_scale", scales.reshape(shape)),
            self._zeros[size],
        )

    def _bias(self, site: Site, bias: Array, scales: Array | None) -> tuple[Constant, Constant | None]:
        """Give the operator its bias: int32 codes and their scales, or float where there are none."""
        node = site.node
        given = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        stem = given.name if given is not None else f"{node.name or site.output.name}_bias"
        factors: Constant | None = None
        if scales is None:
            constant = self.names.constant(f"{stem}_float", bias)
            real: Tensor = constant
        else:
            constant = self.names.constant(f"{stem}_q", bias_codes(bias, scales))
            factors = self.names.constant(f"{stem}_scale", scales)
            real = Variable(self.names.take(f"{stem}_dq"), np.dtype(np.float32), [len(bias)])
            self._dequantize([constant, factors], real, {"axis": 0})
        if given is not None:
            self.replaced.append(given)
        if len(node.inputs) > 2:
            node.inputs[2] = real
        else:
            node.inputs.append(real)
        return constant, factors

    def _added_bias(self, node: Node, channels: int) -> tuple[Node, Constant] | None:
        """The Add behind a MatMul and its constant, as a constant of its own, if that is a bias in float.

        The bias gets as many dimensions as the sum: onnxruntime merges MatMul and a bias of one dimension into a float
        Gemm before it looks for int8 forms.
        """
        add = self.editor.sole_use(node.outputs[0])
        if not isinstance(add, Node) or add.op != "Add" or not add.standard or not self.editor.local(add):
            return None
        position = 0 if add.inputs[1] is node.outputs[0] else 1
        given = add.inputs[position]
        values = fixed_value(given, self.editor.graph)
        if values is None or values.dtype != np.float32 or values.size != channels:
            return None
        if values.ndim and values.shape[-1] != channels:
            return None
        rank = len(add.outputs[0].shape) if add.outputs[0].shape is not None else 0
        shape = (1,) * (rank - 1) + (channels,) if rank >= max(3, values.ndim) else values.shape
        own = self.names.constant(f"{given.name}_float", values.reshape(shape))
        self.replaced.append(given)
        add.inputs[position] = own
        return add, own

    def _dequantize(self, inputs: list[Tensor], value: Tensor, attrs: dict[str, int]) -> None:
        name = self.names.take(f"{value.name}_DequantizeLinear")
        self.editor.add(Node("DequantizeLinear", name, attrs, inputs, [value]))
