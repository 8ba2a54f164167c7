"""What is known of small integer tensors (shapes, indices, sizes) before the model runs, batch unknown or not.

`ShapeValues` walks a graph in order and keeps, for each such tensor, an object array whose elements are ints, bools,
`Poly` sizes (see `zc.passes.cleanup.symbols`) or None. Operators without a rule are unknown, never wrong.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.external import dtype_of
from zc.ir.graph import Array, Graph, Node, Tensor
from zc.passes.cleanup import symbols
from zc.passes.cleanup.operands import fixed, given, plain, shape_of
from zc.passes.cleanup.symbols import Element, Poly

MOST = 512
"""Elements: longer integer tensors are data, not shapes."""

_KINDS = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.bool_))
Rule = Callable[["ShapeValues", gs.Node], "Array | None"]


class ShapeValues:
    """The known values, by tensor; values of outer scopes are seen in bodies if those were walked first."""

    def __init__(self, opset: int, loose: frozenset[int]) -> None:
        self.opset, self.loose = opset, loose
        self.known: dict[int, Array] = {}
        self._alive: list[Tensor] = []  # ids are only unique while the objects live
        self._anonymous: dict[tuple[int, int], str] = {}

    def walk(self, graph: Graph) -> None:
        """Evaluate all nodes of one scope, which must be sorted."""
        for node in graph.nodes:
            rule = RULES.get(node.op)
            if rule is None or not cast(Node, node).standard or not node.outputs:
                continue
            out = node.outputs[0]
            if out.dtype is not None and np.dtype(out.dtype) not in _KINDS:
                continue
            value = rule(self, node)
            if value is not None and value.size <= MOST:
                self.known[id(out)] = value
                self._alive.append(out)

    def of(self, tensor: Tensor | None) -> Array | None:
        """The elements of a tensor, or None when nothing is known."""
        if tensor is None:
            return None
        value = self.known.get(id(tensor))
        if value is not None:
            return value
        array = fixed(tensor, self.loose, MOST)
        if array is None or array.dtype not in _KINDS:
            return None
        value = array.astype(object)
        self.known[id(tensor)] = value
        self._alive.append(tensor)
        return value

    def dims(self, tensor: Tensor | None) -> list[Element] | None:
        """The shape of a tensor as elements; an unnamed dimension gets a symbol of its own."""
        shape = None if tensor is None else shape_of(tensor)
        if tensor is None or shape is None:
            return None
        return [d if isinstance(d, int) else symbols.symbol(d or self._name(tensor, i)) for i, d in enumerate(shape)]

    def _name(self, tensor: Tensor, axis: int) -> str:
        if (id(tensor), axis) not in self._anonymous:
            self._anonymous[id(tensor), axis] = f"?{len(self._anonymous)}"
            self._alive.append(tensor)
        return self._anonymous[id(tensor), axis]

    def ints(self, node: gs.Node, name: str, index: int) -> tuple[int, ...] | None:
        """Known numbers of an attribute of old operator sets that is an input in new ones; () when absent."""
        if name in node.attrs:
            value = plain(node, name)
            return None if value is None else tuple(value)
        tensor = given(node, index)
        if tensor is None:
            return ()
        array = self.of(tensor)
        return known_ints(array)


def known_ints(array: Array | None) -> tuple[int, ...] | None:
    """The elements when all are plain numbers, else None."""
    if array is None or not all(isinstance(e, int | np.integer | bool | np.bool_) for e in array.flat):
        return None
    return tuple(int(e) for e in array.flat)


def concrete(array: Array, dtype: np.dtype[Any]) -> Array | None:
    """The array in its ONNX type when every element is known and fits, else None."""
    values = known_ints(array)
    if values is None:
        return None
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if any(not info.min <= v <= info.max for v in values):
            return None
    return np.array(values, dtype).reshape(array.shape)


def objects(items: Any, shape: tuple[int, ...] | None = None) -> Array:
    """An object array of the given elements (never spread by numpy)."""
    flat = np.empty(len(items), object)
    flat[:] = items
    return flat if shape is None else flat.reshape(shape)


def _shape(values: ShapeValues, node: gs.Node) -> Array | None:
    dims = values.dims(node.inputs[0])
    if dims is None:
        return None
    return objects(dims[slice(plain(node, "start", 0), plain(node, "end"))])


def _size(values: ShapeValues, node: gs.Node) -> Array | None:
    dims = values.dims(node.inputs[0])
    if dims is None:
        return None
    total: Element = 1
    for dim in dims:
        total = symbols.mul(total, dim)
    return objects([total], ())


def _identity(values: ShapeValues, node: gs.Node) -> Array | None:
    return values.of(node.inputs[0])


def _cast(values: ShapeValues, node: gs.Node) -> Array | None:
    source = values.of(node.inputs[0])
    to = dtype_of(int(plain(node, "to", 0) or 1))
    if source is None or to not in _KINDS:
        return None
    if to.kind == "b":
        done = [None if (e := symbols.equal(_number(x), 0)) is None else not e for x in source.flat]
        return objects(done, source.shape)
    return objects([_number(x) for x in source.flat], source.shape)


def _number(element: Any) -> Element:
    return int(element) if isinstance(element, bool | np.bool_ | np.integer) else element


def _gather(values: ShapeValues, node: gs.Node) -> Array | None:
    data, index = values.of(node.inputs[0]), values.of(node.inputs[1])
    numbers = known_ints(index)
    axis = plain(node, "axis", 0)
    if data is None or index is None or numbers is None or not -data.ndim <= axis < data.ndim:
        return None
    if any(not -data.shape[axis] <= i < data.shape[axis] for i in numbers):
        return None
    taken = np.take(data, np.array(numbers, np.int64).reshape(index.shape), axis=axis)
    return taken if isinstance(taken, np.ndarray) else objects([taken], ())


def _slice(values: ShapeValues, node: gs.Node) -> Array | None:
    data = values.of(node.inputs[0])
    if data is None:
        return None
    starts, ends = values.ints(node, "starts", 1), values.ints(node, "ends", 2)
    axes, steps = values.ints(node, "axes", 3), values.ints(node, "steps", 4)
    if starts is None or ends is None or axes is None or steps is None:
        return None
    cut = [slice(None)] * data.ndim
    for i, axis in enumerate(axes or range(len(starts))):
        step = steps[i] if steps else 1
        if step == 0 or not -data.ndim <= axis < data.ndim:
            return None
        cut[axis] = slice(starts[i], ends[i], step)  # Python clamps bounds as ONNX does, for negative steps too
    return data[tuple(cut)]


def _concat(values: ShapeValues, node: gs.Node) -> Array | None:
    parts = [values.of(t) for t in node.inputs]
    known = [p for p in parts if p is not None]
    if known and len(known) < len(parts) and all(p.ndim == 1 for p in known):
        known = []
        for part, tensor in zip(parts, node.inputs, strict=True):
            length = tensor.shape[0] if tensor.shape is not None and len(tensor.shape) == 1 else None
            if part is None and (not isinstance(length, int) or not 0 <= length <= MOST):
                return None
            known.append(objects([None] * (length or 0)) if part is None else part)
    if not known or len(known) != len(parts) or len({p.ndim for p in known}) != 1 or known[0].ndim == 0:
        return None
    try:
        return np.concatenate(known, axis=plain(node, "axis", 0))
    except ValueError:
        return None


def _unsqueeze(values: ShapeValues, node: gs.Node) -> Array | None:
    data, axes = values.of(node.inputs[0]), values.ints(node, "axes", 1)
    return None if data is None or not axes else np.expand_dims(data, axes)


def _squeeze(values: ShapeValues, node: gs.Node) -> Array | None:
    data, axes = values.of(node.inputs[0]), values.ints(node, "axes", 1)
    if data is None or axes is None:
        return None
    if any(data.shape[a] != 1 for a in axes if -data.ndim <= a < data.ndim):
        return None
    return np.squeeze(data, axes or None)


def _reshape(values: ShapeValues, node: gs.Node) -> Array | None:
    data, shape = values.of(node.inputs[0]), known_ints(values.of(given(node, 1)))
    if data is None or shape is None:
        return None
    if not plain(node, "allowzero", 0):
        shape = tuple(data.shape[i] if d == 0 and i < data.ndim else d for i, d in enumerate(shape))
    try:
        return data.reshape(shape)
    except ValueError:
        return None


def _binary(operation: Callable[[Element, Element], Any]) -> Rule:
    def rule(values: ShapeValues, node: gs.Node) -> Array | None:
        parts = [values.of(t) for t in node.inputs]
        result = parts[0]
        for part in parts[1:]:
            if result is None or part is None:
                return None
            try:
                a, b = np.broadcast_arrays(result, part)
            except ValueError:
                return None
            if a.size > MOST:
                return None
            pairs = zip(a.flat, b.flat, strict=True)
            result = objects([operation(_number(x), _number(y)) for x, y in pairs], a.shape)
        return result

    return rule


def _where(values: ShapeValues, node: gs.Node) -> Array | None:
    parts = [values.of(t) for t in node.inputs]
    if any(p is None for p in parts):
        return None
    try:
        test, a, b = np.broadcast_arrays(*[p for p in parts if p is not None])
    except ValueError:
        return None
    picked = []
    for c, x, y in zip(test.flat, a.flat, b.flat, strict=True):
        picked.append((x if c else y) if c is not None else (x if x == y else None))
    return objects(picked, test.shape)


def _not(values: ShapeValues, node: gs.Node) -> Array | None:
    data = values.of(node.inputs[0])
    return None if data is None else objects([None if e is None else not e for e in data.flat], data.shape)


def _range(values: ShapeValues, node: gs.Node) -> Array | None:
    numbers = [known_ints(values.of(t)) for t in node.inputs]
    if any(n is None or len(n) != 1 for n in numbers):
        return None
    start, limit, delta = (n[0] for n in numbers if n is not None)
    if delta == 0 or len(range(start, limit, delta)) > MOST:
        return None
    return objects(list(range(start, limit, delta)))


def _product(values: ShapeValues, node: gs.Node) -> Array | None:
    return _reduce(values, node, symbols.mul, 1)


def _sum(values: ShapeValues, node: gs.Node) -> Array | None:
    return _reduce(values, node, symbols.add, 0)


def _reduce(
    values: ShapeValues, node: gs.Node, step: Callable[[Element, Element], Element], start: int
) -> Array | None:
    data, axes = values.of(node.inputs[0]), values.ints(node, "axes", 1)
    if data is None or axes is None or data.ndim != 1 or (not axes and plain(node, "noop_with_empty_axes", 0)):
        return None
    total: Element = start
    for element in data:
        total = step(total, _number(element))
    return objects([total], (1,) if plain(node, "keepdims", 1) else ())


def _constant_of_shape(values: ShapeValues, node: gs.Node) -> Array | None:
    shape = known_ints(values.of(node.inputs[0]))
    if shape is None or any(d < 0 for d in shape) or int(np.prod(shape)) > MOST or "value" not in node.attrs:
        return None
    fill = node.attrs["value"].values
    return objects([fill.reshape(-1)[0].item()] * int(np.prod(shape)), shape) if fill.dtype in _KINDS else None


def _expand(values: ShapeValues, node: gs.Node) -> Array | None:
    data, shape = values.of(node.inputs[0]), known_ints(values.of(given(node, 1)))
    if data is None or shape is None or int(np.prod(shape)) > MOST:
        return None
    try:
        return np.broadcast_to(data, np.broadcast_shapes(data.shape, shape)).copy()
    except ValueError:
        return None


def _less(a: Element, b: Element) -> bool | None:
    difference = symbols.sub(b, a)
    if isinstance(difference, int):
        return difference > 0
    return True if isinstance(difference, Poly) and _at_least_one(difference) else None


def _at_least_one(value: Poly) -> bool:
    return value.never_negative and any(m == () for m, _ in value.terms)


RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Add": _binary(symbols.add),
    "Sub": _binary(symbols.sub),
    "Mul": _binary(symbols.mul),
    "Div": _binary(symbols.div),
    "Mod": lambda values, node: None if plain(node, "fmod", 0) else _binary(symbols.mod)(values, node),
    "Min": _binary(symbols.smaller),
    "Max": _binary(symbols.larger),
    "Equal": _binary(symbols.equal),
    "Less": _binary(_less),
    "Greater": _binary(lambda a, b: _less(b, a)),
    "Not": _not,
    "Where": _where,
    "Range": _range,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
}
"""Operator -> what it does to known elements."""
