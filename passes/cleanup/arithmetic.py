"""Rules for chains of arithmetic with constants, of Casts, and of Clip and Relu."""

import math
from typing import Any, cast

import numpy as np

from zc.ir.graph import Array, Node, Tensor
from zc.passes.cleanup.operands import given, is_float, plain
from zc.passes.cleanup.rules import Match, Rule, Site, after

_LONG = 6
"""Steps: in longer runs of constant arithmetic another order of rounding adds up, so they are left as they are."""


# ---- Mul and Div by constants in a row, Add and Sub of constants in a row


def _constant_side(node: Node, site: Site) -> tuple[int, Array] | None:
    """Which operand of an arithmetic node is constant, and its array. A constant minuend or dividend does not count."""
    for side in (1, 0) if node.op in ("Mul", "Add") else (1,):
        array = site.fixed(node.inputs[side])
        if array is not None:
            return side, array
    return None


def _find_chain(node: Node, site: Site) -> Match | None:
    kind = ("Mul", "Div") if node.op in ("Mul", "Div") else ("Add", "Sub")
    found = _constant_side(node, site)
    if found is None:
        return None
    match = after(*kind, at=1 - found[0])(node, site)
    if match is None or _constant_side(match[1], site) is None or _run_length(node, site) > _LONG:
        return None
    return match


def _run_length(node: Node, site: Site) -> int:
    """Nodes of constant arithmetic in a row around this one, counted no further than needed."""
    length, at = 1, node
    while length <= _LONG:
        found = _constant_side(at, site) if at.op in ("Mul", "Div", "Add", "Sub") else None
        before = site.producer(at.inputs[1 - found[0]], "Mul", "Div", "Add", "Sub") if found is not None else None
        if before is None:
            break
        length, at = length + 1, before
    at = node
    while length <= _LONG and len(at.outputs) == 1 and len(at.outputs[0].outputs) == 1:
        after_it = cast(Node, at.outputs[0].outputs[0])
        if after_it.op not in ("Mul", "Div", "Add", "Sub") or _constant_side(after_it, site) is None:
            break
        length, at = length + 1, after_it
    return length


def _check_chain(match: Match, site: Site) -> str | None:
    outer, inner = match
    if not is_float(outer.outputs[0]):
        return "its element type is not float32 or float64"
    (_, a), (_, b) = _sides(match, site)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return "a constant holds NaN or Inf"
    joined = _join(outer, inner, a, b)
    if joined.size > max(a.size, b.size):
        return "the constants together are bigger than either"
    if outer.op in ("Mul", "Div"):
        usable = np.isfinite(joined).all() and ((np.abs(joined) > 1e-30) | (joined == 0)).all()
        return None if usable else "the constants together are out of range"
    # What cancels would change which digits are lost.
    safe = np.maximum(np.abs(a), np.abs(b)) <= 16 * np.abs(joined)
    return None if (safe | ((a == 0) & (b == 0))).all() else "the constants nearly cancel"


def _sides(match: Match, site: Site) -> tuple[tuple[int, Array], tuple[int, Array]]:
    outer, inner = (_constant_side(n, site) for n in match)
    assert outer is not None
    assert inner is not None
    return outer, inner


def _join(outer: Node, inner: Node, a: Array, b: Array) -> Array:
    """The constant of Mul or Add that stands for both: b belongs to the inner node."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        if outer.op in ("Mul", "Div"):
            both = (wide_b if inner.op == "Mul" else 1 / wide_b) * (wide_a if outer.op == "Mul" else 1 / wide_a)
        else:
            both = (wide_b if inner.op == "Add" else -wide_b) + (wide_a if outer.op == "Add" else -wide_a)
        return np.asarray(both, dtype=a.dtype)


def _merge_chain(match: Match, site: Site) -> None:
    outer, inner = match
    (_, a), (inner_side, b) = _sides(match, site)
    joined = site.names.constant(f"{outer.outputs[0].name}_constant", _join(outer, inner, a, b))
    value = inner.inputs[1 - inner_side]
    outer.op = "Mul" if outer.op in ("Mul", "Div") else "Add"
    outer.inputs[:] = [value, joined]


# ---- Cast after a Cast that lost nothing: one Cast


def _lossless(source: Any, to: Any) -> bool:
    """Does every value of one type have its exact equal in the other?"""
    a, b = np.dtype(source), np.dtype(to)
    if a == b:
        return True
    if a.kind == "b":
        return b.kind in "iuf"
    if a.kind in "iu" and b.kind in "iu":
        return bool(np.iinfo(a).min >= np.iinfo(b).min and np.iinfo(a).max <= np.iinfo(b).max)
    digits = {"float16": 11, "float32": 24, "float64": 53}
    if a.kind in "iu" and b.name in digits and b.name != "float16":
        return bool(a.itemsize * 8 <= digits[b.name])
    order = {"float16": ("float32", "float64"), "bfloat16": ("float32", "float64"), "float32": ("float64",)}
    return b.name in order.get(a.name, ())


def _check_casts(match: Match, site: Site) -> str | None:
    source, middle = match[1].inputs[0], match[1].outputs[0]
    if source.dtype is None or middle.dtype is None:
        return "the type before it is unknown"
    return None if _lossless(source.dtype, middle.dtype) else "the Cast before it rounds"


def _skip_cast(match: Match, site: Site) -> None:
    match[0].inputs[0] = match[1].inputs[0]


# ---- Clip and Relu in a row: one Clip


def _range_of(node: Node, site: Site) -> tuple[float, float] | None:
    """The bounds of a Clip or Relu; None when one is not fixed."""
    if node.op == "Relu":
        return 0.0, math.inf
    low, high = -math.inf, math.inf
    if site.opset < 11:
        return float(plain(node, "min", low)), float(plain(node, "max", high))
    bounds = []
    for index, default in ((1, low), (2, high)):
        tensor = given(node, index)
        array = site.fixed(tensor, 1) if tensor is not None else None
        if tensor is not None and array is None:
            return None
        bounds.append(default if array is None else float(array.reshape(-1)[0]))
    return bounds[0], bounds[1]


def _find_clips(node: Node, site: Site) -> Match | None:
    match = after("Clip", "Relu")(node, site)
    return match if match is not None and "Clip" in (match[0].op, match[1].op) else None


def _check_clips(match: Match, site: Site) -> str | None:
    outer, inner = (_range_of(n, site) for n in match)
    if outer is None or inner is None:
        return "a bound is computed at run time"
    if not is_float(match[0].outputs[0]):
        return "its element type is not float32 or float64"
    return None if outer[0] <= outer[1] and inner[0] <= inner[1] else "a lower bound is above the upper one"


def _merge_clips(match: Match, site: Site) -> None:
    outer, inner = match
    last, first = _range_of(outer, site), _range_of(inner, site)
    assert last is not None
    assert first is not None
    low, high = (min(max(b, last[0]), last[1]) for b in first)
    dtype = np.dtype(outer.outputs[0].dtype)
    value: Tensor = inner.inputs[0]
    if low == 0 and high == math.inf:
        site.replace(outer, "Relu", [value], {})
        return
    bounds = {k: v for k, v in (("min", low), ("max", high)) if math.isfinite(v)}
    if site.opset < 11:
        site.replace(outer, "Clip", [value], bounds)
        return
    stem = outer.outputs[0].name
    inputs = [
        value,
        *(site.names.constant(f"{stem}_{k}", np.array(v, dtype)) for k, v in (("min", low), ("max", high))),
    ]
    site.replace(outer, "Clip", inputs, {})


RULES: list[Rule] = [
    Rule("constants in a row", ("Mul", "Div", "Add", "Sub"), _find_chain, _check_chain, _merge_chain),
    Rule("cast of cast", ("Cast",), after("Cast", alone=False), _check_casts, _skip_cast),
    Rule("clips in a row", ("Clip", "Relu"), _find_clips, _check_clips, _merge_clips),
]
