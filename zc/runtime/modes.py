"""The rules by which results become codes: onnxruntime's, or TFLite's fixed point, to which operations turn here."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast, get_args

import numpy as np

from zc.errors import ZcError, nearest
from zc.ir.graph import Array, Node, attribute, describe, fixed_value
from zc.kernels import tflite_rules
from zc.kernels.fixedpoint import Rounding
from zc.kernels.rules import Codes
from zc.runtime.ops import (
    BatchedProduct,
    Coding,
    Concatenate,
    Convolution,
    Interpolate,
    Island,
    LookUp,
    LookUpPairs,
    Op,
    Product,
)

Mode = Literal["ort", "tflite-single", "tflite-double"]
"""`ort`: float32, halves to even. `tflite-*`: TFLite's reference kernels, which multiply in fixed point and round the
product once (as TFLite does if it is built with TFLITE_SINGLE_ROUNDING) or twice (as it is built by default)."""

BORDERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})

MODES: list[str] = list(get_args(Mode))


def rounding_of(mode: str) -> Rounding | None:
    """Of a mode; None for onnxruntime's. ZcError for an unknown one."""
    if mode not in MODES:
        raise ZcError(f"no mode '{mode}'{nearest(mode, MODES)}; use {', '.join(MODES)}")
    return None if mode == "ort" else cast(Rounding, mode.removeprefix("tflite-"))


def in_fixed_point(name: str, ops: tuple[Op, ...], rounding: Rounding) -> tuple[Op, ...]:
    """The operations with TFLite's tables. Islands stay where they make no codes, as a Softmax of the results.

    Raises:
        ZcError: TFLite has no rule in integers for some; all are named.
    """
    found: list[Op] = []
    refused: list[str] = []
    for op in ops:
        if isinstance(op, Island) and any(_makes_codes(n) for n in op.nodes):
            real = [(n, why) for n, why in zip(op.nodes, op.reasons, strict=True) if n.op not in BORDERS]
            refused += [f"{n.op} '{describe(n)}' ({why})" for n, why in real or [(op.nodes[-1], op.reasons[-1])]]
            continue
        try:
            found.append(_turned(op, rounding))
        except _NoRule as why:
            refused.append(f"{op.nodes[0].op} '{describe(op.nodes[0])}' ({why})")
    if refused:
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise ZcError(
            f"{name}: mode tflite-{rounding}: TFLite has no rule in integers for {'; '.join(refused[:5])}{more}; "
            "quantise with --target tflite, or use mode ort"
        )
    return tuple(found)


def _makes_codes(node: Node) -> bool:
    """Does onnxruntime's rounding decide what a node of an island makes?"""
    return node.op in ("QuantizeLinear", "DynamicQuantizeLinear") or "QLinear" in node.op or "Integer" in node.op


class _NoRule(Exception):  # noqa: N818
    """TFLite computes this operator in another way, or not on codes; the text says why."""


def _turned(op: Op, rounding: Rounding) -> Op:
    if isinstance(op, (Convolution, Product)):
        if op.weights.zero.any() or op.weights.codes.dtype != np.int8:
            raise _NoRule("its weights are not int8 around zero")
        if op.y is None:
            raise _NoRule("its result is float")
    if isinstance(op, BatchedProduct):
        raise _NoRule("both its factors are computed")
    if isinstance(op, Interpolate):
        raise _NoRule("TFLite interpolates in a fixed point of its own")
    if isinstance(op, LookUpPairs) and not (op.nodes[0].op in ("Min", "Max") and _shared(op)):
        raise _NoRule("its rule in fixed point is not written")
    if isinstance(op, Concatenate) and op.codings:
        *inputs, y = op.codings
        tables = tuple(None if _same(x, y) else _rescaled(x, y, rounding) for x in inputs)
        return replace(op, tables=tables)
    if isinstance(op, LookUp) and op.x is not None and op.y is not None:
        return replace(op, table=_table(op.nodes[0], op.x, op.y, rounding))
    return op


def _shared(op: LookUpPairs) -> bool:
    """Do both inputs and the result have one scale, as TFLite wants for the larger of two codes?"""
    return op.operands is not None and all(_same(x, op.y) for x in op.operands)


def _same(x: Coding, y: Coding) -> bool:
    return (x.scale, x.zero) == (y.scale, y.zero)


def _rescaled(x: Coding, y: Coding, rounding: Rounding) -> Codes:
    return tflite_rules.rescale_table(x.scale, x.zero, y.scale, y.zero, rounding)


def _table(node: Node, x: Coding, y: Coding, rounding: Rounding) -> Codes:
    """What TFLite makes of the 256 codes."""
    terms = (x.scale, x.zero, y.scale, y.zero)
    if node.op == "QuantizeLinear":
        return _rescaled(x, y, rounding)
    name = node.op.removeprefix("QLinear")
    if name in FLOAT:
        made = FIXED.get(name, y)
        table = tflite_rules.float_table(FLOAT[name], x.scale, x.zero, made.scale, made.zero)
        return table if _same(made, y) else _rescaled(made, y, rounding)[table]
    if name == "LeakyRelu":
        return tflite_rules.leaky_relu_table(float(attribute(node, "alpha", 0.01)), *terms, rounding)
    if name == "HardSwish":
        return tflite_rules.hard_swish_table(*terms)
    if name in ("Relu", "Clip"):
        bounds = (0.0, np.inf) if name == "Relu" else _bounds(node)
        if bounds in RELUS:
            return tflite_rules.relu_table(*bounds, *terms, rounding)
    raise _NoRule("TFLite computes it in float")


def _bounds(node: Node) -> tuple[float, float]:
    found = [float(attribute(node, "min", -np.inf)), float(attribute(node, "max", np.inf))]
    for i, tensor in enumerate(node.inputs[1:3]):
        values = fixed_value(tensor) if tensor.name else None
        found[i] = found[i] if values is None else float(values.reshape(-1)[0])
    return found[0], found[1]


RELUS = ((0.0, np.inf), (0.0, 6.0), (-1.0, 1.0))
"""Bounds that TFLite has an operator for."""

FLOAT: dict[str, Callable[[Array], Array]] = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}
"""Operators that TFLite tables by way of float."""

FIXED = {"Sigmoid": Coding(np.float32(1 / 256), 0), "Tanh": Coding(np.float32(1 / 128), 128)}
"""How TFLite codes the results of those whose kernel insists on a scale."""
