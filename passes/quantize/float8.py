"""The pass `float8`: codes that are floating-point numbers of 8 bits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import ml_dtypes
import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, Tensor, Variable, attribute, describe, fixed_value
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.quantize.opset import raise_opset
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
LARGEST = 448.0
"""Of float8e4m3fn: four bits of exponent, three of fraction, no infinity (Micikevicius et al., 2022, FP8 Formats for
Deep Learning)."""
INT8_LARGEST = 127.0
OPSET = 19


@register
@dataclass(frozen=True)
class Float8(Pass):
    """Turn int8 codes into float8e4m3fn: finer near zero, coarser far away, for GPUs with kernels for it.

    before:  x -> Q(s, int8) -> DQ -> Conv(DQ(w int8, s_w))
    after:   x -> Q(s 127/448, float8) -> DQ -> Conv(DQ(w float8, s_w 127/448))

    Ranges stay: what was code 127 is now 448. Weights are rounded anew from the float model where the pipeline began
    with it (`quantize,float8`), else from their codes. Codes with a zero point other than 0 are left alone.
    """

    name: ClassVar[str] = "float8"

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Convert in place. ZcError when the operator set cannot be raised to 19."""
        result = PassResult(changed=False)
        pairs = [n for scope in model.scopes() for n in scope.nodes if n.op in {"QuantizeLinear", "DequantizeLinear"}]
        nodes = [cast(Node, n) for n in pairs]
        symmetric = [n for n in nodes if _is_int8(n, result)]
        if not symmetric:
            result.declined(model.name, "has no symmetric int8 codes; run quantize with --target tensorrt first")
            return result
        if model.opset < OPSET:
            raise_opset(model, OPSET, "float8")
            result.info(model.name, f"opset raised to {OPSET}, the first with float8")
            return _merged(result, self.run(model, ctx))
        writer = _Writer(model, ctx.float_model)
        for node in symmetric:
            writer.convert(node)
        infer_shapes(model)
        result.changed = True
        result.stats = {"conversions": len(symmetric), "weights": len(writer.weights), "from_floats": writer.exact}
        return result


def _merged(first: PassResult, then: PassResult) -> PassResult:
    then.notes = first.notes + [n for n in then.notes if n not in first.notes]
    return then


def _is_int8(node: Node, result: PassResult) -> bool:
    zero = fixed_value(node.inputs[2]) if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    if zero is None or zero.dtype != np.int8 or fixed_value(node.inputs[1]) is None:
        if node.inputs[0].dtype != np.int32:
            result.declined(describe(node), "its codes are not int8, or their scale is computed")
        return False
    if zero.any():
        result.declined(describe(node), f"its zero point is {int(zero.reshape(-1)[0])}; float8 has none")
        return False
    return not attribute(node, "block_size", 0)


class _Writer:
    """Gives Q/DQ nodes their new constants, each made once."""

    def __init__(self, model: Model, floats: Model | None) -> None:
        self.names = Names(model.graph)
        self.floats = {} if floats is None else {c.name: c for c in floats.constants()}
        self.constants: dict[int, Constant] = {}
        self.weights: dict[tuple[int, int], Constant] = {}
        self.exact = 0

    def convert(self, node: Node) -> None:
        """Change one node."""
        old = node.inputs[1]
        node.inputs[1] = self._constant(old, lambda v: np.asarray(v * np.float32(INT8_LARGEST / LARGEST), v.dtype))
        node.inputs[2] = self._constant(node.inputs[2], lambda v: np.zeros(v.shape, FLOAT8))
        if node.op == "QuantizeLinear":
            cast(Variable, node.outputs[0]).dtype = FLOAT8
        elif isinstance(node.inputs[0], Constant):
            key = (id(node.inputs[0]), id(old))
            if key not in self.weights:
                self.weights[key] = self._weight(node, node.inputs[0], fixed_value(old))
            node.inputs[0] = self.weights[key]

    def _constant(self, tensor: Tensor, change: Callable[[Array], Array]) -> Constant:
        assert isinstance(tensor, Constant)  # checked above
        if id(tensor) not in self.constants:
            self.constants[id(tensor)] = self.names.constant(f"{tensor.name}_float8", change(tensor.values))
        return self.constants[id(tensor)]

    def _weight(self, node: Node, codes: Constant, scale: Array | None) -> Constant:
        """The weight in float8: from the float model's number where its name leads there, else from the codes."""
        assert scale is not None
        rank = codes.values.ndim
        axis = int(attribute(node, "axis", 1)) % max(rank, 1)
        spread = scale.reshape([-1 if i == axis else 1 for i in range(rank)]) if scale.ndim == 1 else scale
        spread = spread.astype(np.float64)
        real = codes.values * spread
        source = self.floats.get(codes.name.removesuffix("_q"))
        if source is not None and source.values.shape == real.shape and _same(source.values, real, spread):
            real, self.exact = source.values.astype(np.float64), self.exact + 1
        small = real / (spread * (INT8_LARGEST / LARGEST))
        stem = f"{codes.name.removesuffix('_q')}_float8"
        return self.names.constant(stem, np.asarray(np.clip(small, -LARGEST, LARGEST), np.float32).astype(FLOAT8))


def _same(floats: Array, rounded: Array, scale: Array) -> bool:
    """Are the codes those of these numbers? Rounding moves them by a step or two, other numbers by many."""
    return bool((np.abs(floats - rounded) <= 2 * scale).mean() > 0.999)
