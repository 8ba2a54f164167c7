"""GELU written out in elementary operators, in whatever order an exporter put its factors.

    x * 0.5 * (1 + erf(x / sqrt(2)))                             exact
    x * 0.5 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))      tanh

What stands inside erf or tanh is read as a polynomial in x, so that x*x*x, Pow(x, 3) and x*(1 + 0.044715*x*x) are one.
(Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.)
"""

import math
from dataclasses import dataclass
from typing import Literal

from zc.ir.graph import Node, Tensor
from zc.passes.cleanup.operands import rank_of
from zc.passes.cleanup.rules import Site

Polynomial = dict[int, float]
"""Power of x -> its coefficient."""

ANCHORS = ("Erf", "Tanh")
_INSIDE: dict[str, Polynomial] = {
    "Erf": {1: math.sqrt(0.5)},
    "Tanh": {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715},
}
_CLOSE = 1e-6
"""Relative difference within which constants are the formula's, rounded to float32."""
_DEEPEST = 7
_HIGHEST = 3
_FACTORS = 3
"""Products by x, by one half and by nothing else."""


@dataclass(frozen=True, eq=False)
class Gelu:
    """One GELU: `last` puts out GELU of `source`."""

    source: Tensor
    last: Node
    nodes: tuple[Node, ...]
    """All that it is made of."""
    approximate: Literal["none", "tanh"]


def find_gelu(anchor: Node, site: Site) -> Gelu | None:
    """The GELU whose erf or tanh the node is, or None."""
    inside = anchor.inputs[0]
    one = _next(anchor.outputs[0], site, "Add")
    if one is None or scalar(_other(one, anchor.outputs[0]), site) != 1.0:
        return None
    nodes, value, factor, rest = [anchor, one], one.outputs[0], 1.0, None
    for _ in range(_FACTORS):
        node = _next(value, site, "Mul", "Div")
        if node is None or (node.op == "Div" and node.inputs[0] is not value):
            return None
        other = _other(node, value)
        number = scalar(other, site)
        if number:
            factor = factor * number if node.op == "Mul" else factor / number
        elif rest is None and other is not None and node.op == "Mul":
            rest = other
        else:
            return None
        nodes.append(node)
        value = node.outputs[0]
        for source in _sources(rest, site):
            own: list[Node] = []
            scale = polynomial(rest, source, site, own)
            if scale is None or set(scale) != {1} or not math.isclose(factor * scale[1], 0.5, rel_tol=_CLOSE):
                continue
            if _alike(polynomial(inside, source, site, own), _INSIDE[anchor.op]) and _same_rank(value, source):
                kind: Literal["none", "tanh"] = "none" if anchor.op == "Erf" else "tanh"
                return Gelu(source, node, tuple({id(n): n for n in (*own, *nodes)}.values()), kind)
    return None


def scalar(tensor: Tensor | None, site: Site) -> float | None:
    """The number that a constant of one element holds."""
    array = site.fixed(tensor, 1)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind == "f" else None


def polynomial(
    tensor: Tensor | None, source: Tensor, site: Site, visited: list[Node], depth: int = _DEEPEST
) -> Polynomial | None:
    """What a value is in terms of another, if that is a polynomial of at most third degree made of few nodes.

    visited: gets the nodes that compute it.
    """
    if tensor is None or tensor is source:
        return {1: 1.0} if tensor is source else None
    number = scalar(tensor, site)
    if number is not None:
        return {0: number}
    node = site.producer(tensor, "Mul", "Add", "Sub", "Div", "Pow")
    if node is None or depth == 0:
        return None
    a, b = (polynomial(t, source, site, visited, depth - 1) for t in node.inputs[:2])
    result = None if a is None or b is None else _combine(node.op, a, b)
    if result is not None:
        visited.append(node)
    return result


def _combine(op: str, a: Polynomial, b: Polynomial) -> Polynomial | None:
    number = b.get(0, 0.0) if set(b) <= {0} else None
    if op == "Pow":
        power = int(number) if number in (1.0, 2.0, 3.0) else 0
        return _power(a, power) if power else None
    if op == "Div":
        return {k: v / number for k, v in a.items()} if number else None
    if op == "Mul":
        return _product(a, b)
    sign = 1.0 if op == "Add" else -1.0
    return {k: a.get(k, 0.0) + sign * b.get(k, 0.0) for k in sorted({*a, *b})}


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    result: Polynomial = {}
    for i, p in a.items():
        for j, q in b.items():
            result[i + j] = result.get(i + j, 0.0) + p * q
    return result if max(result, default=0) <= _HIGHEST else None


def _power(a: Polynomial, power: int) -> Polynomial | None:
    result: Polynomial | None = {0: 1.0}
    for _ in range(power):
        result = None if result is None else _product(result, a)
    return result


def _alike(found: Polynomial | None, wanted: Polynomial) -> bool:
    if found is None or {k for k, v in found.items() if v} != set(wanted):
        return False
    return all(math.isclose(found[k], v, rel_tol=_CLOSE) for k, v in wanted.items())


def _sources(factor: Tensor | None, site: Site) -> list[Tensor]:
    """What x may be when this is x times a number."""
    if factor is None:
        return []
    before = site.producer(factor, "Mul", "Div")
    return [factor, *(t for t in before.inputs if scalar(t, site) is None)] if before is not None else [factor]


def _next(value: Tensor, site: Site, *ops: str) -> Node | None:
    """The only consumer of a value, if it is one of these operators."""
    node = site.editor.sole_use(value)
    fits = isinstance(node, Node) and node.op in ops and node.standard and site.editor.local(node)
    return node if fits else None  # type: ignore[return-value]  # an instance of Node if it fits


def _other(node: Node, value: Tensor) -> Tensor | None:
    """The other operand of a binary node; None where both are the value."""
    left = [t for t in node.inputs[:2] if t is not value]
    return left[0] if len(left) == 1 else None


def _same_rank(value: Tensor, source: Tensor) -> bool:
    """A constant of one element may still add dimensions; then the result is no GELU of x alone."""
    return rank_of(source) is not None and rank_of(value) == rank_of(source)
