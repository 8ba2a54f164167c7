"""Shape arithmetic: what is known becomes constant, and a shape that carries a dynamic size along gets `0` or `-1`."""

from collections.abc import Callable
from typing import cast

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.edit import Names, make_constant, replace_uses
from zc.ir.graph import Constant, Graph, Node, Tensor, Variable
from zc.ir.model import Model
from zc.passes.cleanup.operands import computing_scopes, given, normal_axes, plain
from zc.passes.cleanup.shapevalues import ShapeValues, concrete, known_ints
from zc.passes.cleanup.symbols import Element, Poly

_END = 2**63 - 1


def fold_shapes(model: Model, loose: frozenset[int]) -> int:
    """Fold the shape arithmetic of all scopes; the number of operands that became constant or were found equal."""
    values = ShapeValues(model.opset, loose)
    names = Names(model.graph)
    count = 0
    for scope in computing_scopes(model):
        values.walk(scope)
        count += _settle_known(scope, values)
        count += sum(_mend(node, values, names) for node in scope.nodes)
        count += _share_equal(scope, values)
    return count


def _settle_known(scope: Graph, values: ShapeValues) -> int:
    """Make constants of the values that are known to the last element; their number."""
    ends = {id(t) for t in scope.outputs}
    count = 0
    for node in scope.nodes:
        if len(node.outputs) != 1 or node.op == "Constant":
            continue
        out = node.outputs[0]
        known = values.known.get(id(out))
        if known is None or out.dtype is None or id(out) in ends or not isinstance(out, Variable) or not out.outputs:
            continue
        array = concrete(known, np.dtype(out.dtype))
        if array is not None:
            make_constant(out, array)
            count += 1
    return count


def _share_equal(scope: Graph, values: ShapeValues) -> int:
    """Let values that are equal whatever the dynamic sizes are be computed once.

    before:  Gather(Shape(x[N,S]), 1) -> a;  Gather(Shape(y[N,S,8]), 1) -> b          after:  b's readers take a
    """
    ends = {id(t) for t in scope.outputs}
    first: dict[object, Tensor] = {}
    count = 0
    for node in scope.nodes:
        if len(node.outputs) != 1 or node.op == "Identity":
            continue
        out = node.outputs[0]
        known = values.known.get(id(out))
        if known is None or out.dtype is None or isinstance(out, Constant) or any(e is None for e in known.flat):
            continue
        key = (np.dtype(out.dtype), known.shape, tuple(known.flat))
        same = first.setdefault(key, out)
        if same is not out and id(out) not in ends and out.outputs:
            count += replace_uses(out, same) > 0
    return count


def _mend(node: gs.Node, values: ShapeValues, names: Names) -> bool:
    """Give a node a constant operand in the place of one that is computed; True when done."""
    rule = _OPERANDS.get(node.op)
    if rule is None or not cast(Node, node).standard or not node.outputs:
        return False
    index, compute = rule
    operand = given(node, index)
    if operand is None or isinstance(operand, Constant) or not operand.inputs or operand.inputs[0].op == "Constant":
        return False
    known = values.of(operand)
    if known is None or known_ints(known) is not None or any(e is None for e in known.flat) or operand.dtype is None:
        return False
    numbers = compute(node, list(known.flat), values)
    if numbers is None:
        return False
    node.inputs[index] = names.constant(f"{operand.name}_folded", np.array(numbers, np.dtype(operand.dtype)))
    return True


def _reshape_target(node: gs.Node, target: list[Element], values: ShapeValues) -> list[int] | None:
    """The constant target of a Reshape: `0` where a dimension is handed through, `-1` for at most one other."""
    source = values.dims(node.inputs[0])
    copies = source is not None and not plain(node, "allowzero", 0)
    if any(isinstance(e, int) and (e < -1 or e == 0) for e in target):
        return None
    numbers: list[int] = []
    for i, element in enumerate(target):
        if isinstance(element, int):
            numbers.append(element)
        elif copies and source is not None and i < len(source) and source[i] == element:
            numbers.append(0)
        else:
            if not cast(Poly, element).never_negative:
                return None
            numbers.append(-1)
    return numbers if numbers.count(-1) <= 1 else None


def _expand_target(node: gs.Node, target: list[Element], values: ShapeValues) -> list[int] | None:
    """The constant target of an Expand: 1 where the dimension stays as it is."""
    source = values.dims(node.inputs[0])
    if source is None:
        return None
    numbers: list[int] = []
    for i, element in enumerate(target):
        at = i - len(target) + len(source)
        if isinstance(element, int):
            numbers.append(element)
        elif at >= 0 and source[at] == element:
            numbers.append(1)
        else:
            return None
    return numbers


def _slice_ends(node: gs.Node, ends: list[Element], values: ShapeValues) -> list[int] | None:
    """The constant ends of a Slice: the biggest integer where it ends with the dimension."""
    source, axes = values.dims(node.inputs[0]), values.ints(node, "axes", 3)
    steps = values.ints(node, "steps", 4)
    if source is None or axes is None or steps is None or any(s < 0 for s in steps):
        return None
    numbers = []
    for element, axis in zip(ends, normal_axes(axes or range(len(ends)), len(source)), strict=True):
        if isinstance(element, int):
            numbers.append(element)
        elif source[axis] == element:
            numbers.append(_END)
        else:
            return None
    return numbers


_OPERANDS: dict[str, tuple[int, Callable[[gs.Node, list[Element], ShapeValues], list[int] | None]]] = {
    "Reshape": (1, _reshape_target),
    "Expand": (1, _expand_target),
    "Slice": (2, _slice_ends),
}
"""Operator -> which input holds sizes, and how they are written without the dynamic ones."""
