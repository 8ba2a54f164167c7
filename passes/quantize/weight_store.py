"""Write weights that are stored as codes and computed with in float.

    multiply      codes -> Cast -> Mul(scale) -> w         a runtime that computes constants ahead does so at loading
    dequantize    codes -> DequantizeLinear(scale) -> w    ONNX's own form; by block from operator set 21
    nbits         x -> MatMulNBits(codes, scale) -> y      onnxruntime's kernel on packed codes

Codes with scales by block are stored in blocks, and a Reshape gives the weight its shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import ml_dtypes
import numpy as np
import onnx

from zc.ir.edit import Editor, detach
from zc.ir.graph import Array, Constant, Node, Tensor, Variable
from zc.passes.quantize.weight_rows import Layout, RowCodes

StoredForm = Literal["multiply", "dequantize", "nbits"]
VENDOR = "com.microsoft"
SMALLEST_BLOCK = 16
"""Of MatMulNBits; blocks are powers of two there."""
WIDE_BLOCK = 128
"""The block of MatMulNBits for rows that have one scale: it is the fastest."""


@dataclass(eq=False)
class Written:
    """A weight as it stands in the graph: the value that stands for it, and the nodes that make it."""

    real: Variable
    codes: Constant
    nodes: list[Node] = field(default_factory=list)


class Store:
    """Writes the weights of one scope."""

    def __init__(self, editor: Editor, stem: str, layout: Layout) -> None:
        """stem: the name of the float weight."""
        self.editor, self.names, self.stem, self.layout = editor, editor.names, stem, layout
        self.nodes: list[Node] = []

    def multiply(self, rows: RowCodes, real: Variable | None = None, packed: bool = False) -> Written:
        """Codes -> Cast -> [Sub] -> Mul -> [Reshape]. real: the value to make; packed: in types of 4 bits."""
        real = self._real() if real is None else real
        codes = self._codes(self._as_stored(rows), rows, packed)
        value = self._node("Cast", [codes], {"to": onnx.TensorProto.FLOAT})
        if rows.zero is not None:
            zero = self._constant("zero_point", self._scales(rows, rows.zero).astype(np.float32))
            value = self._node("Sub", [value, zero])
        scale = self._constant("scale", self._scales(rows, rows.scale))
        if rows.scale.shape[1] == 1:
            self._node("Mul", [value, scale], out=real)
        else:
            self._shape(self._node("Mul", [value, scale]), rows, real, flat=False)
        return Written(real, codes, self.nodes)

    def dequantize(self, rows: RowCodes, real: Variable | None = None, packed: bool = False) -> Written:
        """Codes -> DequantizeLinear -> [Reshape]."""
        real = self._real() if real is None else real
        one_scale, layout = rows.scale.shape[1] == 1, self.layout
        natural = one_scale and layout.leading == 1
        flat = rows.codes[:, : rows.inputs]
        stored = layout.from_rows(flat) if natural else flat.T if layout.turned else flat
        axis = layout.axis if natural else int(layout.turned) if one_scale else int(not layout.turned)
        attrs = {"axis": axis} | ({} if one_scale else {"block_size": rows.block})

        def beside(values: Array) -> Array:
            return values[:, 0] if one_scale else np.ascontiguousarray(values.T if layout.turned else values)

        codes = self._codes(stored, rows, packed)
        inputs: list[Tensor] = [codes, self._constant("scale", beside(rows.scale))]
        if rows.zero is not None:
            inputs.append(self._constant("zero_point", beside(rows.zero).astype(codes.dtype)))
        if stored.shape == layout.shape:
            self._node("DequantizeLinear", inputs, attrs, out=real)
        else:
            self._shape(self._node("DequantizeLinear", inputs, attrs), rows, real, flat=True)
        return Written(real, codes, self.nodes)

    # ---- parts

    def _as_stored(self, rows: RowCodes) -> Array:
        if rows.scale.shape[1] == 1:
            return self.layout.from_rows(rows.codes)
        blocks = rows.in_blocks()
        return np.ascontiguousarray(blocks.transpose(1, 2, 0)) if self.layout.turned else blocks

    def _scales(self, rows: RowCodes, values: Array) -> Array:
        if rows.scale.shape[1] == 1:
            return self.layout.beside(values)
        return np.ascontiguousarray(values.T[:, None]) if self.layout.turned else values[:, :, None]

    def _shape(self, value: Variable, rows: RowCodes, real: Variable, flat: bool) -> None:
        """From blocks, or rows, to the shape of the weight."""
        shape, turned, width = self.layout.shape, self.layout.turned, rows.codes.shape[1]
        if width != rows.inputs and not flat:
            whole = [width, self.layout.rows] if turned else [self.layout.rows, width]
            value = self._node("Reshape", [value, self._numbers("blocks", whole)])
            ends = {"start": 0, "stop": rows.inputs, "axis": int(not turned)}
            cut = [self._numbers(what, [n]) for what, n in ends.items()]
            if len(shape) == 2:
                self._node("Slice", [value, *cut], out=real)
                return
            value = self._node("Slice", [value, *cut])
        self._node("Reshape", [value, self._numbers("shape", list(shape))], out=real)

    def _real(self) -> Variable:
        return Variable(self.names.take(f"{self.stem}_real"), np.dtype(np.float32), list(self.layout.shape))

    def _codes(self, codes: Array, rows: RowCodes, packed: bool) -> Constant:
        if packed and rows.bits <= 4:
            kind = ml_dtypes.int4 if rows.zero is None else ml_dtypes.uint4
        else:
            kind = np.int8 if rows.zero is None else np.uint8
        return self.names.constant(f"{self.stem}_q", np.ascontiguousarray(codes).astype(kind))

    def _constant(self, what: str, values: Array) -> Constant:
        return self.names.constant(f"{self.stem}_{what}", values)

    def _numbers(self, what: str, values: Sequence[int]) -> Constant:
        return self._constant(what, np.array(values, np.int64))

    def _node(
        self, op: str, inputs: Sequence[Tensor], attrs: dict[str, int] | None = None, out: Variable | None = None
    ) -> Variable:
        out = Variable(self.names.take(f"{self.stem}_{op.lower()}"), np.dtype(np.float32)) if out is None else out
        name = self.names.take(f"{self.stem}_{op}")
        self.nodes.append(self.editor.add(Node(op, name, attrs or {}, list(inputs), [out])))
        return out


def unwrite(written: Written) -> None:
    """Take the nodes away that make a weight; the value that stands for it is left without a maker."""
    for node in written.nodes:
        detach(node)


def to_nbits(node: Node, rows: RowCodes, editor: Editor, stem: str, shared: dict[str, Constant]) -> None:
    """Turn a MatMul, or a Gemm without factors, into MatMulNBits on the codes of its weight.

    stem: the name of the float weight. shared: the constants of this weight, where another node has them already.
    """
    if not shared:
        shared.update(_packed(rows, editor, stem))
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    given: list[Tensor] = [node.inputs[0], shared["codes"], shared["scale"]]
    if "zero" in shared:
        given.append(shared["zero"])
    if bias is not None:
        given += [Variable("") for _ in range(5 - len(given))] + [bias]
    count, width = shared["codes"].shape[0], shared["codes"].shape[2] * 8 // rows.bits
    node.op, node.domain = "MatMulNBits", VENDOR
    # Level 4: activations are rounded to 8 bits by block when they are read; other levels run several times slower.
    node.attrs = {"K": rows.inputs, "N": count, "bits": rows.bits, "block_size": width, "accuracy_level": 4}
    node.inputs.clear()
    node.inputs.extend(given)


def nbits_block(rows: RowCodes) -> int | None:
    """The block with which MatMulNBits can hold these codes, or None."""
    if rows.scale.shape[1] == 1:
        return min(WIDE_BLOCK, max(SMALLEST_BLOCK, 1 << (rows.inputs - 1).bit_length()))
    return rows.block if rows.block >= SMALLEST_BLOCK and rows.block & (rows.block - 1) == 0 else None


def _packed(rows: RowCodes, editor: Editor, stem: str) -> dict[str, Constant]:
    """Codes uint8[N, blocks, block * bits / 8], unsigned around a zero point; scales [N * blocks]."""
    block = nbits_block(rows)
    assert block is not None
    middle = 2 ** (rows.bits - 1)
    blocks = -(-rows.inputs // block)
    each = blocks // rows.scale.shape[1]  # a scale for the whole row is repeated
    codes = rows.codes[:, : rows.inputs].astype(np.int64) + (middle if rows.zero is None else 0)
    full = np.full((len(codes), blocks * block), middle, np.int64)
    if rows.zero is not None:
        full[:] = np.repeat(rows.zero.repeat(each, axis=1), block, axis=1)
    full[:, : rows.inputs] = codes
    found = {
        "codes": editor.names.constant(f"{stem}_q", _halves(full.reshape(len(codes), blocks, block), rows.bits)),
        "scale": editor.names.constant(f"{stem}_scale", rows.scale.repeat(each, axis=1).reshape(-1)),
    }
    if rows.zero is not None:
        zero = _halves(rows.zero.astype(np.int64).repeat(each, axis=1), rows.bits)
        found["zero"] = editor.names.constant(f"{stem}_zero_point", zero.reshape(-1))
    return found


def _halves(codes: Array, bits: int) -> Array:
    """Numbers of 4 bits, two a byte along the last axis, the first in the low half; of 8 bits as they are."""
    if bits == 8:
        return codes.astype(np.uint8)
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return np.asarray(even[..., 0::2] | even[..., 1::2] << 4, np.uint8)
