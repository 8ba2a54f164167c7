"""Operators that work element by element: what they align leaves together."""

from zc.ir.graph import Node, attribute
from zc.passes.prune.flow import Flow, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import block_at
from zc.passes.prune.rules.rule import Rule, axis_of, given, out_dims, rank


def unary(node: Node, flow: Flow) -> None:
    """The layout passes; further inputs are single numbers."""
    for place in range(1, len(node.inputs)):
        if given(node, place):
            flow.pin(node.inputs[place], f"reaches {where(node)} as a parameter")
    layout = flow.of(node.inputs[0])
    for tensor in node.outputs:
        if not tensor.is_empty():
            flow.put(tensor, layout, f"is made by {where(node)}")


def elementwise(node: Node, flow: Flow) -> None:
    """Inputs are aligned as NumPy broadcasts them."""
    reason = f"meets in {where(node)} a value that must stay whole"
    inputs = [t for t in node.inputs if not t.is_empty()]
    flow.put(node.outputs[0], flow.broadcast(inputs, len(out_dims(node)), reason), reason)


def quantize(node: Node, flow: Flow) -> None:
    """QuantizeLinear, DequantizeLinear: scale and zero point are single numbers, or vectors along an axis."""
    data = node.inputs[0]
    axis = axis_of(node, 1, max(rank(node), 1))
    if int(attribute(node, "block_size", 0)):
        raise_pins = f"is quantised by blocks in {where(node)}"
        flow.stop(node, node.inputs, raise_pins)
        return
    reason = f"is quantised along another axis than it leaves in {where(node)}"
    layout, labels = flow.of(data), None
    vectors = [t for t in node.inputs[1:] if not t.is_empty() and len(t.shape) == 1 and t.shape[0] != 1]
    if vectors:
        layout, labels = flow.along(data, axis, reason)
    for vector in vectors:
        _tie_vector(flow, labels, flow.of(vector), reason)
    flow.put(node.outputs[0], layout, reason)


def _tie_vector(flow: Flow, labels: Ints | None, layout: tuple, reason: str) -> None:  # type: ignore[type-arg]
    block = block_at(layout, 0)
    if block is None and labels is not None:
        flow.labels.pin(labels, reason)
    elif block is not None and labels is None:
        flow.labels.pin(block.labels, reason)
    elif block is not None and labels is not None:
        flow.labels.union(labels, block.labels)


# fmt: off
_UNARY = [
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip",
    "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
]
# fmt: on

# fmt: off
_ALIGNED = [
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub",
    "Sum", "Where", "Xor",
]
# fmt: on

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_ALIGNED, elementwise),
    "CastLike": unary,
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
    "com.microsoft.Gelu": unary,
    "com.microsoft.QuickGelu": unary,
    "com.microsoft.BiasGelu": elementwise,
    "com.microsoft.FastGelu": elementwise,
    "com.microsoft.QuantizeLinear": quantize,
    "com.microsoft.DequantizeLinear": quantize,
}
