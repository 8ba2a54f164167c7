"""Operators that work element by element."""

import numpy as np

from zc.ir.graph import Array, Node, Tensor, attribute
from zc.passes.prune.labels import Ints
from zc.passes.quantize.scaling.flow import Edit, Flow, Limit, given, rank, where
from zc.passes.quantize.scaling.rule import Rule, pass_on


def add(node: Node, flow: Flow) -> None:
    """Add, Sub, Sum, Mean, Max, Min, Where: what is aligned has equal factors, constants are scaled along."""
    first = 1 if node.op == "Where" else 0
    places = [i for i in range(first, len(node.inputs)) if given(node, i)]
    constants = {i: array for i in places if (array := flow.fixed_value(node.inputs[i])) is not None}
    values = [node.inputs[i] for i in places if i not in constants]
    if len(values) > 1 and not flow.residual:
        flow.stop(node, f"meets another value in {where(node)}")
        return
    for place, array in constants.items():
        why = _fixed_term(node.inputs[place], array, flow)
        if why is not None or not values:
            flow.stop(node, f"reaches {where(node)}: {why or 'it only has constants'}")
            return
    axes = rank(node.outputs[0])
    layout = flow.meet([_raise(flow.of(t), axes) for t in values])
    for place, array in constants.items():
        if array.any():
            flow.edits.append(Edit(node, place, _lower(flow, layout, array.ndim)))
    flow.put(node.outputs[0], layout)


def _fixed_term(tensor: Tensor, array: Array, flow: Flow) -> str | None:
    """Why a constant term cannot be scaled by channel, or None."""
    if not array.any():
        return None
    if array.size == 1:
        return "it has one number for all channels"
    return None if flow.scalable(tensor) else f"'{tensor.name}' is no initializer of floats"


def mul(node: Node, flow: Flow) -> None:
    """Mul and Div: a constant for each channel takes any factor; of two values one must have factor 1."""
    left, right = node.inputs
    known = [flow.fixed_value(t) for t in (left, right)]
    if node.op == "Div" and known[0] is not None:
        flow.stop(node, f"reaches {where(node)}, which divides by it")
    elif known[0] is None and known[1] is None:
        _product(node, flow)
    elif known[0] is not None and known[1] is not None:
        flow.stop(node, f"reaches {where(node)}")
    else:
        place = 0 if known[0] is not None else 1
        array = known[place]
        assert array is not None  # one of the two is
        _by_constant(node, flow, place, array)


def _by_constant(node: Node, flow: Flow, place: int, array: Array) -> None:
    axes = rank(node.outputs[0])
    layout = _raise(flow.of(node.inputs[1 - place]), axes)
    wide = [axes - array.ndim + a for a, size in enumerate(array.shape) if size > 1]
    if len(wide) != 1 or not flow.scalable(node.inputs[place]):
        flow.put(node.outputs[0], layout)  # homogeneous whatever the constant is
        return
    layout = flow.only(layout, wide[0])
    made = flow.fresh(axes, wide[0], array.size)
    times, over = (made, layout) if node.op == "Mul" else (layout, made)
    flow.edits.append(Edit(node, place, _lower(flow, times, array.ndim), _lower(flow, over, array.ndim)))
    flow.put(node.outputs[0], made)


def _product(node: Node, flow: Flow) -> None:
    left, right = (_raise(flow.of(t), rank(node.outputs[0])) for t in node.inputs)
    reason = f"is multiplied with another value in {where(node)}"
    if flow.pinned(right):
        flow.put(node.outputs[0], left)
    elif flow.pinned(left) and node.op == "Mul":
        flow.put(node.outputs[0], right)
    else:
        # The narrower one is a gate: what it gates is worth more.
        gate = left if node.op == "Mul" and left.size < right.size else right
        flow.labels.pin(gate, reason)
        rest = right if gate is left else left
        flow.put(node.outputs[0], rest)


def clip(node: Node, flow: Flow) -> None:
    """Clip: bounds at zero and infinity pass factors; others are recorded, or stop them."""
    limits = [-np.inf, np.inf]
    for i, name in enumerate(("min", "max")):
        limits[i] = float(attribute(node, name, limits[i]))
        if given(node, i + 1):
            values = flow.fixed_value(node.inputs[i + 1])
            if values is None or values.size != 1:
                flow.stop(node, f"reaches {where(node)}, whose bounds are not constant")
                return
            limits[i] = float(values.reshape(-1)[0])
    low, high = limits
    layout = flow.of(node.inputs[0])
    free = low in (0.0, -np.inf) and high in (0.0, np.inf)
    if not free and (not flow.clips or not low <= 0 <= high):
        flow.stop(node, f"reaches {where(node)}, whose bounds are the same for all channels")
        return
    if not free:
        flow.limits.append(Limit(node, layout, low, high))
    flow.put(node.outputs[0], layout)


def prelu(node: Node, flow: Flow) -> None:
    """PRelu: the slope has factor 1."""
    flow.pin(node.inputs[1], f"is a slope in {where(node)}")
    pass_on(node, flow)


def cast(node: Node, flow: Flow) -> None:
    """Cast between floats of at least 32 bits."""
    kinds = [t.dtype for t in (node.inputs[0], node.outputs[0])]
    if all(kind is not None and np.dtype(kind) in (np.float32, np.float64) for kind in kinds):
        pass_on(node, flow)
    else:
        flow.stop(node, f"reaches {where(node)}, which changes its type")


def _raise(layout: Ints, axes: int) -> Ints:
    """The layout as one of more axes, as NumPy aligns them."""
    return layout.reshape((1,) * (axes - layout.ndim) + layout.shape)


def _lower(flow: Flow, layout: Ints, axes: int) -> Ints:
    """The layout for a constant of fewer axes."""
    extra = layout.ndim - axes
    return flow.even(layout, *range(extra)).reshape(layout.shape[extra:])


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "Abs", "Neg", "Identity", "Dropout"), pass_on),
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean", "Max", "Min", "Where"), add),
    **dict.fromkeys(("Mul", "Div"), mul),
    "Clip": clip,
    "PRelu": prelu,
    "Cast": cast,
}
