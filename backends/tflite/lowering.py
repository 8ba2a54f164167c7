"""What a lowering rule works with: the values of a graph as tensors of the file, in whatever layout they lie.

A Transpose moves nothing here: it changes in which layout a tensor holds the value. Numbers move only where an operator
cannot read them as they lie, so a net of convolutions is NHWC from end to end. The same way a DequantizeLinear computes
nothing: the value behind it stands for the codes, and only an operator that has no integer form asks for numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zc.backends.tflite.flat import FlatGraph, FlatOp, FlatTensor, Option, Quant, Shape
from zc.backends.tflite.layout import Layout, between, keeps_order, permuted, plain
from zc.errors import ZcError
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, describe, fixed_value

FLOATS = frozenset({"float16", "bfloat16", "float64"})
"""Types whose values become float32: LiteRT's kernels have no others."""

TYPES = frozenset({"float32", "bool", *("int8", "int16", "int32", "int64"), *("uint8", "uint16", "uint32", "uint64")})
"""Types that values may have in the file."""

_DIMENSIONS = {"PAD": 5, "PADV2": 5, "BATCH_MATMUL": 5, "MIRROR_PAD": 4}
_SIX = frozenset({"MEAN", "SUM", "CONCATENATION", "SOFTMAX", "LOG_SOFTMAX", "SPLIT", "SPLIT_V", "FULLY_CONNECTED"})


def dimensions(code: str) -> int:
    """The most dimensions that LiteRT's kernels of an operator, and its default delegate's, were seen to take."""
    return _DIMENSIONS.get(code, 6 if code in _SIX or code.startswith("REDUCE_") else 8)


ELSEWHERE = "cut it off the model and compute it outside in float, or write .onnx, where it stays float beside integers"
"""What to do about an operator without a form."""


class NoForm(ZcError):  # noqa: N818
    """A node that has no form in the file, and what to do."""

    def __init__(self, node: Node, why: str, advice: str, rule: str = "no-form") -> None:
        """why: what of it has no form. rule: the name of what is broken."""
        super().__init__(f"node '{describe(node)}': {node.op}: {why}; {advice}")
        self.node, self.why, self.advice, self.rule = node, why, advice, rule


@dataclass(eq=False)
class Value:
    """A tensor of the file and the layout in which it holds an ONNX value."""

    tensor: FlatTensor
    layout: Layout
    spread: "Spread | None" = None
    """Set where the numbers would still have to be moved to make this the value; see `Spread`."""


@dataclass(eq=False)
class Spread:
    """A Reshape of axes that do not lie in order, not carried out yet: a product can permute its weight instead.

    The value is `source` moved into plain order, then reshaped. Of the numbers of a row as they lie in the tensor,
    `order` says which of the value's they are.
    """

    source: Value
    source_shape: Shape
    order: Array


class Lowering:
    """The state of lowering one graph. Rules read values, emit operators and bind what a node puts out."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.flat = FlatGraph(name)
        self.values: dict[int, Value] = {}
        self.arrays: dict[int, Array] = {}
        """By id of a value: its numbers, where a node was computed at compile time."""
        self.coded: dict[int, tuple[Array, Quant]] = {}
        """By id of a value that DequantizeLinear makes of a constant: the codes, in ONNX's order of axes."""
        self.outputs = {id(t) for t in graph.outputs}
        self.node: Node = Node("Identity")
        self.integer = False
        """Does the node at hand run on codes?"""
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[int, Layout, bool], FlatTensor] = {}
        self._keep: list[Any] = []  # what `_constants` knows by id must live
        self._moved: dict[tuple[int, Layout], FlatTensor] = {}
        self._numbers: dict[int, FlatTensor] = {}

    # ---- what is known of ONNX values

    def fail(self, why: str, advice: str = ELSEWHERE) -> NoForm:
        """The error that the node at hand has no form in the file."""
        return NoForm(self.node, why, advice)

    def open_size(self, why: str) -> NoForm:
        """The error that the node at hand needs a size that the model leaves open."""
        return NoForm(self.node, why, f"state the sizes: {sizes_to_state(self.graph)}", "open-size")

    def constant(self, tensor: Tensor) -> Array | None:
        """The numbers of a value that is known now, halves and doubles as float32, else None."""
        values = self.arrays.get(id(tensor))
        if values is None:
            values = fixed_value(tensor, self.graph)
        if values is None and id(tensor) in self.coded:
            codes, quant = self.coded[id(tensor)]
            spread = [1] * codes.ndim
            if quant.per_channel:
                spread[quant.axis] = -1
            zero, scale = quant.zero.reshape(spread), quant.scale.reshape(spread)
            values = ((codes.astype(np.int64) - zero) * scale).astype(np.float32).reshape(codes.shape)
        if values is not None and values.dtype.name in FLOATS:
            return values.astype(np.float32)
        return values

    def shape(self, tensor: Tensor) -> Shape:
        """Sizes, -1 for those known at run time only. ZcError where not even their number is known."""
        if id(tensor) in self.arrays:
            return self.arrays[id(tensor)].shape
        if tensor.shape is None:
            raise self.open_size(f"the shape of '{tensor.name}' is not known")
        return tuple(d if isinstance(d, int) else -1 for d in tensor.shape)

    def rank(self, tensor: Tensor) -> int:
        """Number of axes."""
        return len(self.shape(tensor))

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape where every size is known. ZcError where one is open."""
        shape = self.shape(tensor)
        if -1 in shape:
            raise self.open_size(f"'{tensor.name}' has an open dimension")
        return shape

    def dtype(self, tensor: Tensor) -> np.dtype[Any]:
        """Element type in the file."""
        values = self.constant(tensor)
        kind = values.dtype if values is not None else np.dtype(tensor.dtype or np.float32)
        if kind.name in FLOATS:
            return np.dtype(np.float32)
        if kind.name not in TYPES:
            raise self.fail(f"'{tensor.name}' is of type {kind}, which LiteRT's kernels lack", "cast it to float32")
        return kind

    def layout(self, tensor: Tensor) -> Layout:
        """The layout in which a value lies; ONNX's own for constants."""
        value = self.values.get(id(tensor))
        return plain(self.rank(tensor)) if value is None else value.layout

    def known(self, tensor: Tensor) -> bool:
        """Is it constant?"""
        return id(tensor) not in self.values and self.constant(tensor) is not None

    def codes(self, tensor: Tensor) -> Quant | None:
        """How a value lies as codes of one scale, or None where it does not."""
        value = self.values.get(id(tensor))
        quant = None if value is None or value.tensor.constant else value.tensor.quant
        return None if quant is None or quant.per_channel else quant

    # ---- reading values

    def read(self, tensor: Tensor, layout: Layout | None = None) -> FlatTensor:
        """A value as a tensor in a layout (ONNX's own by default): codes if the node runs on codes, else numbers."""
        wanted = plain(self.rank(tensor)) if layout is None else layout
        if id(tensor) not in self.values:
            return self._read_constant(tensor, wanted)
        value = self.settled(tensor)
        own = value.tensor
        if own.quant is not None and not self.integer and np.dtype(tensor.dtype or np.float32).kind == "f":
            own = self.as_numbers(own)
        return self.move(own, value.layout, wanted)

    def settled(self, tensor: Tensor) -> Value:
        """The value with a pending Reshape carried out."""
        value = self.values[id(tensor)]
        if value.spread is not None:
            source = value.spread.source
            moved = self.move(source.tensor, source.layout, plain(len(source.layout)))
            value = Value(self.reshape(moved, self.shape(tensor)), plain(self.rank(tensor)))
            self.values[id(tensor)] = value
        return value

    def _read_constant(self, tensor: Tensor, layout: Layout) -> FlatTensor:
        values = self.constant(tensor)
        if values is None:
            raise self.fail(f"'{tensor.name}' is not computed by anything that has a form in the file")
        key = (id(tensor), layout, self.integer)
        if key not in self._constants:
            self._keep.append(tensor)
            self._constants[key] = self.array(self._as_codes(values).transpose(layout), tensor.name)
        return self._constants[key]

    def _as_codes(self, values: Array) -> Array:
        """Constants of type uint8 beside codes are codes: less 128, as all of them."""
        if self.integer and values.dtype == np.uint8:
            return (values.astype(np.int16) - 128).astype(np.int8)
        return values

    def weight(self, tensor: Tensor, order: Layout) -> FlatTensor:
        """A weight with its axes in an order; one stored as codes is turned into numbers by the runtime, once."""
        if id(tensor) not in self.coded or self.coded[id(tensor)][0].dtype != np.int8:
            return self.read(tensor, order)
        codes, quant = self.coded[id(tensor)]
        placed = Quant(quant.scale, quant.zero, order.index(quant.axis) if quant.per_channel else 0)
        stored = self.array(codes.transpose(order), tensor.name, placed)
        out = self.temporary(stored.shape, np.float32, f"{tensor.name}_float")
        self.op("DEQUANTIZE", [stored], [out])
        return out

    def array(self, values: Array, stem: str = "constant", quant: Quant | None = None) -> FlatTensor:
        """A constant of the file."""
        values = values.astype(np.float32) if values.dtype.name in FLOATS else values
        return FlatTensor(self.take(stem), values.shape, values.dtype, quant, np.ascontiguousarray(values))

    def integers(self, values: Sequence[int], stem: str = "sizes") -> FlatTensor:
        """A constant of int32 in one dimension, as operators take sizes and axes."""
        return self.array(np.array(values, np.int32).reshape(-1), stem)

    def as_numbers(self, tensor: FlatTensor) -> FlatTensor:
        """Codes as float32, turned once."""
        if id(tensor) not in self._numbers:
            out = FlatTensor(self.take(f"{tensor.name}_float"), tensor.shape, np.dtype(np.float32))
            self.op("DEQUANTIZE", [tensor], [out])
            self._numbers[id(tensor)] = out
        return self._numbers[id(tensor)]

    # ---- moving

    def move(self, tensor: FlatTensor, layout: Layout, wanted: Layout) -> FlatTensor:
        """The same value in another layout: the tensor itself, a RESHAPE if no number moves, else a TRANSPOSE."""
        perm = between(layout, wanted)
        if perm == plain(len(perm)):
            return tensor
        if (id(tensor), perm) not in self._moved:
            shape = permuted(tensor.shape, perm)
            if keeps_order(tensor.shape, perm):
                out = self.reshape(tensor, shape)
            else:
                out = self.like(tensor, shape)
                self.op("TRANSPOSE", [tensor, self.integers(perm)], [out])
            self._moved[id(tensor), perm] = out
        return self._moved[id(tensor), perm]

    def reshape(self, tensor: FlatTensor, shape: Shape) -> FlatTensor:
        """The same numbers in another shape. ZcError where more than one size is open."""
        if shape == tensor.shape:
            return tensor
        if tensor.data is not None:
            return FlatTensor(self.take(tensor.name), shape, tensor.dtype, tensor.quant, tensor.data.reshape(shape))
        if shape.count(-1) > 1:
            raise self.open_size(f"a reshape to {_shown(shape)}, of which more than one size is open")
        out = self.like(tensor, shape)
        self.op("RESHAPE", [tensor, self.integers(shape)], [out], newShape=shape)
        return out

    # ---- emitting

    def take(self, stem: str) -> str:
        """A fresh name."""
        count = self._names.get(stem, 0)
        self._names[stem] = count + 1
        return stem if count == 0 else f"{stem}_{count}"

    def like(self, tensor: FlatTensor, shape: Shape | None = None, stem: str | None = None) -> FlatTensor:
        """A new tensor of the type and scale of another."""
        shape = tensor.shape if shape is None else shape
        return FlatTensor(self.take(stem or tensor.name), shape, tensor.dtype, tensor.quant)

    def temporary(self, shape: Shape, dtype: Any = np.float32, stem: str | None = None) -> FlatTensor:
        """A new tensor without a scale."""
        name = stem or (self.node.outputs[0].name if self.node.outputs else "value")
        return FlatTensor(self.take(name), tuple(shape), np.dtype(dtype))

    def op(
        self, code: str, inputs: Sequence[FlatTensor | None], outputs: Sequence[FlatTensor], **options: Option
    ) -> FlatOp:
        """Add an operator. ZcError where its kernel does not take as many dimensions."""
        rank, most = max((len(t.shape) for t in (*inputs, *outputs) if t is not None), default=0), dimensions(code)
        if rank > most:
            what = f"{code} of {rank} dimensions; LiteRT's kernels take {most}"
            raise NoForm(self.node, what, "join axes in front of it (Reshape)", "dimensions")
        made = FlatOp(code, list(inputs), list(outputs), options, describe(self.node))
        self.flat.ops.append(made)
        return made

    def apply(
        self, code: str, *inputs: FlatTensor, shape: Shape | None = None, dtype: Any = None, **options: Option
    ) -> FlatTensor:
        """Add an operator with one output of numbers; shape and type of the first input by default."""
        out = self.temporary(inputs[0].shape if shape is None else shape, dtype or inputs[0].dtype)
        self.op(code, inputs, [out], **options)
        return out

    # ---- binding

    def out(self, tensor: Tensor, layout: Layout | None = None, quant: Quant | None = None) -> FlatTensor:
        """The tensor that an operator writes for a value, which is bound to it.

        quant: the scale that the kernel insists on, where the node runs on codes; QuantizeLinear behind it rounds anew
        if it asks for another.
        """
        layout = plain(self.rank(tensor)) if layout is None else layout
        kind, own = self.rounding(tensor) if self.integer else (self.dtype(tensor), None)
        made = FlatTensor(self.take(tensor.name), permuted(self.shape(tensor), layout), kind, quant or own)
        self.bind(tensor, made, layout)
        return made

    def rounding(self, tensor: Tensor) -> tuple[np.dtype[Any], Quant]:
        """Type and scale of the codes that a node which runs on codes puts out for a value."""
        from zc.backends.tflite.codes import output_codes

        return output_codes(self, tensor)

    def bind(self, tensor: Tensor, made: FlatTensor, layout: Layout | None = None) -> None:
        """Let a tensor of the file stand for a value."""
        layout = plain(len(made.shape)) if layout is None else layout
        self.values[id(tensor)] = Value(made, layout)


def sizes_to_state(graph: Graph) -> str:
    """The options that would state the open sizes of the inputs: a batch of one, the rest for the user to fill in."""
    options = []
    for tensor in graph.inputs:
        shape = tensor.shape
        if isinstance(tensor, Constant) or (shape is not None and all(isinstance(d, int) for d in shape)):
            continue
        sizes = ["SIZES"] if shape is None else [str(d or f"SIZE{i}") for i, d in enumerate(shape)]
        if shape and not isinstance(shape[0], int):
            sizes[0] = "1"
        options.append(f"--shape {tensor.name}={','.join(sizes)}")
    return " ".join(options) or "that of a value which is computed at run time cannot be stated; compute it outside"


def _shown(shape: Shape) -> str:
    return "[" + ", ".join("?" if d < 0 else str(d) for d in shape) + "]"
