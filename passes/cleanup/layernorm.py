"""Layer normalisation written out in elementary operators, in any of the ways in which exporters do it.

    (x - mean) / sqrt(variance + epsilon) [* scale] [+ offset]

Every value around a square root gets a role by what computes it: mean, square, variance, ... A role is the same
whether the variance is the mean of squares or `mean(x*x) - mean(x)^2`, whether sums are divided or multiplied, whether
the root divides or its reciprocal multiplies, and whether means keep their dimension or get it back by a Reshape.
(Ba, Kiros and Hinton, Layer Normalization, 2016.)
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np

from zc.ir.graph import Array, Node, Tensor
from zc.passes.cleanup.gelu import scalar
from zc.passes.cleanup.operands import normal_axes, rank_of, shape_of
from zc.passes.cleanup.rules import Site

ANCHORS = ("Sqrt",)

Role = Literal[
    "x",
    "square",
    "centred",
    "centred square",
    "mean",
    "mean square",
    "squared mean",
    "variance",
    "variance + epsilon",
    "deviation",
    "inverse",
    "scaled inverse",
    "normal",
]
_STATISTICS = frozenset(
    {"mean", "mean square", "squared mean", "variance", "variance + epsilon", "deviation", "inverse"}
)
_CLOSE = 1e-6
_MOVES = ("Reshape", "Squeeze", "Unsqueeze", "Identity")
_MOST = 64
"""Values looked at around one square root; the longest form has less than twenty nodes."""
_DEEPEST = 12


class Part(NamedTuple):
    """A value's role, and the number that it is multiplied by (a sum is the size times the mean)."""

    role: Role
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """One normalisation: `last` puts out the normalised `source`, scaled and shifted."""

    source: Tensor
    last: Node
    nodes: tuple[Node, ...]
    axes: tuple[int, ...]
    """What it normalises along: the trailing axes, or one axis. Counted from the front."""
    epsilon: float
    scale: Array
    """Shape: of the source along the axes."""
    offset: Array | None
    stable: bool
    """Is the variance the mean of squared deviations? The mean of squares less the squared mean loses digits."""


def find_layer_norm(anchor: Node, site: Site) -> LayerNorm | None:
    """The normalisation whose square root the node is, or None."""
    for source in _sources(anchor, site):
        reader = _Reader(source, site)
        if reader.axes is None or reader.part(anchor.outputs[0]) != Part("deviation"):
            continue
        found = reader.follow(anchor)
        if found is not None:
            return found
    return None


def _sources(anchor: Node, site: Site) -> list[Tensor]:
    """What x may be: the operand of the first reduction above the root, or what the mean was subtracted from."""
    stack, found, seen = [anchor.inputs[0]], [], 0
    while stack and seen < _MOST:
        seen += 1
        node = site.producer(stack.pop(), "Add", "Sub", "Mul", "Div", "Max", "Relu", "ReduceMean", "ReduceSum", *_MOVES)
        if node is None:
            continue
        if node.op in ("ReduceMean", "ReduceSum"):
            found.append(node.inputs[0])
            square = site.producer(node.inputs[0], "Mul", "Pow")
            if square is not None:
                found.append(square.inputs[0])
                centred = site.producer(square.inputs[0], "Sub")
                found += [centred.inputs[0]] if centred is not None else []
        else:
            stack += [t for t in node.inputs if scalar(t, site) is None]
    return list({id(t): t for t in reversed(found)}.values())


class _Reader:
    """Gives the values around one square root their roles, x being known."""

    def __init__(self, source: Tensor, site: Site) -> None:
        self.source, self.site = source, site
        self.shape = shape_of(source)
        self.parts: dict[int, Part | None] = {id(source): Part("x")}
        self.nodes: list[Node] = []
        self.epsilon = 0.0
        self.scale: Array | None = None
        self.depth = 0
        self.axes = self._axes()

    # ---- what is normalised

    def _axes(self) -> tuple[int, ...] | None:
        """The axes of the first reduction of x; None unless they are one or the trailing ones, of known size."""
        if self.shape is None or self.source.dtype != np.float32:
            return None
        for node in self.source.outputs:
            if isinstance(node, Node) and node.op in ("ReduceMean", "ReduceSum") and node.standard:
                axes = self._reduced(node)
                trailing = axes is not None and axes == tuple(range(len(self.shape) - len(axes), len(self.shape)))
                if axes and (trailing or len(axes) == 1) and all(isinstance(self.shape[a], int) for a in axes):
                    return axes
        return None

    def _reduced(self, node: Node) -> tuple[int, ...] | None:
        assert self.shape is not None
        axes = self.site.ints(node, "axes", 1)
        return tuple(sorted(normal_axes(axes, len(self.shape)))) if axes else None

    @property
    def size(self) -> int:
        """Elements that are normalised together."""
        assert self.axes is not None
        assert self.shape is not None
        return math.prod(cast(int, self.shape[a]) for a in self.axes)

    # ---- roles

    def part(self, tensor: Tensor) -> Part | None:
        """The role of a value, None if it has none."""
        if id(tensor) not in self.parts:
            self.parts[id(tensor)] = None  # against circles and for all that does not fit
            node = self.site.producer(tensor, *_RULES)
            if node is not None and len(self.parts) < _MOST and self.depth < _DEEPEST:
                self.depth += 1
                self.parts[id(tensor)] = self._apply(node)
                self.depth -= 1
                if self.parts[id(tensor)] is not None:
                    self.nodes.append(node)
        return self.parts[id(tensor)]

    def _apply(self, node: Node) -> Part | None:
        if node.op in _MOVES:
            part = self.part(node.inputs[0])
            return part if part is not None and part.role in _STATISTICS else None
        if node.op in ("ReduceMean", "ReduceSum"):
            return self._reduce(node)
        if len(node.inputs) == 1:
            part = self.part(node.inputs[0])
            return _of_one(node.op, part) if part is not None else None
        if len(node.inputs) != 2:
            return None
        return self._of_two(node, *node.inputs)

    def _reduce(self, node: Node) -> Part | None:
        part = self.part(node.inputs[0])
        role = _MEANS.get(part.role) if part is not None and part.factor == 1 else None
        if role is None or self._reduced(node) != self.axes:
            return None
        return Part(role, 1.0 if node.op == "ReduceMean" else float(self.size))

    def _of_two(self, node: Node, left: Tensor, right: Tensor) -> Part | None:
        numbers = scalar(left, self.site), scalar(right, self.site)
        if numbers[0] is not None or numbers[1] is not None:
            swap = numbers[1] is None
            number = cast(float, numbers[0] if swap else numbers[1])
            part = self.part(right if swap else left)
            return self._with_number(node.op, part, number, swap) if part is not None else None
        parts = self.part(left), self.part(right)
        if parts[0] is None or parts[1] is None:
            return self._scaled_inverse(node, left, right)
        if any(not math.isclose(p.factor, 1.0, rel_tol=_CLOSE) for p in parts if p is not None):
            return None
        roles = parts[0].role, parts[1].role
        role = _PAIRS.get((node.op, *roles))
        if role is None and node.op == "Mul":
            role = _PAIRS.get(("Mul", roles[1], roles[0]))
        if role in ("centred", "normal"):
            statistic, given = (right, roles[1]) if roles[0] in ("x", "centred") else (left, roles[0])
            if given in _STATISTICS and not self._aligned(statistic):
                return None
        return Part(role) if role is not None else None

    def _with_number(self, op: str, part: Part, number: float, swapped: bool) -> Part | None:
        role, factor = part
        if op == "Mul" or (op == "Div" and not swapped and number):
            return Part(role, factor * number if op == "Mul" else factor / number) if role in _STATISTICS else None
        if not math.isclose(factor, 1.0, rel_tol=_CLOSE):
            return None
        if op == "Add" and role == "variance" and number > 0:
            self.epsilon = number
            return Part("variance + epsilon")
        if op == "Max" and role == "variance" and number == 0:
            return Part("variance")
        if op == "Div" and swapped and role == "deviation" and number == 1:
            return Part("inverse")
        if op == "Pow" and not swapped and number == 2:
            return _of_one("Square", part)
        return None

    def _scaled_inverse(self, node: Node, left: Tensor, right: Tensor) -> Part | None:
        """The reciprocal of the root times the scale, where the scale comes first."""
        for value, given in ((left, right), (right, left)):
            if node.op == "Mul" and self.part(value) == Part("inverse") and self.scale is None and self._aligned(value):
                self.scale = self.along_axes(given)
                return Part("scaled inverse") if self.scale is not None else None
        return None

    # ---- shapes

    def _aligned(self, statistic: Tensor) -> bool:
        """Has the statistic the dimensions of x, with 1 along the axes? Of the others one may be unknown."""
        assert self.shape is not None
        assert self.axes is not None
        shape = shape_of(statistic)
        if shape is None or len(shape) != len(self.shape):
            return False
        others = [(a, b) for i, (a, b) in enumerate(zip(shape, self.shape, strict=True)) if i not in self.axes]
        unknown = sum(a != b or a is None for a, b in others)
        known = all(a == b for a, b in others if isinstance(a, int) and isinstance(b, int))
        return known and unknown <= 1 and all(shape[a] == 1 for a in self.axes)

    def along_axes(self, tensor: Tensor) -> Array | None:
        """A constant as an array along the axes alone, or None if it differs along others."""
        values = self.site.fixed(tensor)
        if values is None or values.dtype != np.float32 or self.shape is None or self.axes is None:
            return None
        if values.ndim > len(self.shape):
            return None
        full = values.reshape((1,) * (len(self.shape) - values.ndim) + values.shape)
        sizes = tuple(cast(int, self.shape[a]) for a in self.axes)
        if any(d != 1 for i, d in enumerate(full.shape) if i not in self.axes):
            return None
        if any(full.shape[a] not in (1, n) for a, n in zip(self.axes, sizes, strict=True)):
            return None
        return np.ascontiguousarray(np.broadcast_to(full.reshape([full.shape[a] for a in self.axes]), sizes))

    # ---- from the root to the end

    def follow(self, anchor: Node) -> LayerNorm | None:
        """What the root's values become: the normalised x, then the scale and the offset behind it."""
        front, last = [anchor], None
        while front and last is None:
            node = front.pop(0)
            for consumer in cast("list[Node]", list(node.outputs[0].outputs)):
                part = self.part(consumer.outputs[0]) if consumer.outputs else None
                if part == Part("normal"):
                    last = consumer
                elif part is not None:
                    front.append(consumer)
        if last is None or self.epsilon == 0:
            return None
        assert self.axes is not None
        last, scale = self._behind(last, "Mul") if self.scale is None else (last, self.scale)
        last, offset = self._behind(last, "Add")
        if scale is None:
            scale = np.ones([cast(int, cast(list[object], self.shape)[a]) for a in self.axes], np.float32)
        if rank_of(last.outputs[0]) != rank_of(self.source):
            return None
        stable = all(part is None or part.role != "mean square" for part in self.parts.values())
        return LayerNorm(self.source, last, tuple(self.nodes), self.axes, self.epsilon, scale, offset, stable)

    def _behind(self, last: Node, op: str) -> tuple[Node, Array | None]:
        """The node behind that multiplies or adds a constant along the axes, and that constant; else None."""
        node = self.site.editor.sole_use(last.outputs[0])
        if not isinstance(node, Node) or node.op != op or not node.standard or not self.site.editor.local(node):
            return last, None
        given = [t for t in node.inputs if t is not last.outputs[0]]
        values = self.along_axes(given[0]) if len(given) == 1 else None
        if values is None or (values.size > 1 and _all_one_element(given[0])):
            return last, None
        self.nodes.append(node)
        return node, values


def _all_one_element(tensor: Tensor) -> bool:
    """A single number is no scale by channel: it belongs to what stands behind."""
    return tensor.shape is not None and all(d == 1 for d in tensor.shape)


def _of_one(op: str, part: Part) -> Part | None:
    role = _UNARY.get((op, part.role))
    return Part(role) if role is not None and math.isclose(part.factor, 1.0, rel_tol=_CLOSE) else None


_MEANS: dict[str, Role] = {"x": "mean", "square": "mean square", "centred square": "variance"}
_UNARY: dict[tuple[str, str], Role] = {
    ("Square", "x"): "square",
    ("Square", "centred"): "centred square",
    ("Square", "mean"): "squared mean",
    ("Relu", "variance"): "variance",
    ("Sqrt", "variance + epsilon"): "deviation",
    ("Reciprocal", "deviation"): "inverse",
}
_PAIRS: dict[tuple[str, str, str], Role] = {
    ("Mul", "x", "x"): "square",
    ("Mul", "centred", "centred"): "centred square",
    ("Mul", "mean", "mean"): "squared mean",
    ("Sub", "mean square", "squared mean"): "variance",
    ("Sub", "x", "mean"): "centred",
    ("Div", "centred", "deviation"): "normal",
    ("Mul", "centred", "inverse"): "normal",
    ("Mul", "centred", "scaled inverse"): "normal",
}
_RULES = frozenset(
    {"ReduceMean", "ReduceSum", "Relu", "Sqrt", "Reciprocal", "Mul", "Div", "Add", "Sub", "Max", "Pow", *_MOVES}
)
