"""What a node costs in onnxruntime, in float and in integers: closed forms (`kernels.py`) times measurements.

One table for all machines, so that the same model gives the same file everywhere: batch 1, one thread, a processor with
AVX-512 and an int8 dot product. It is the ratio of float to integers that decides, and that travels better than times.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from zc.backends.onnxruntime import kernels
from zc.backends.onnxruntime.cost_table import COSTS
from zc.backends.onnxruntime.kernels import BLOCK, BLOCKED, CODES, LAST, PLAIN, Window, Work
from zc.ir.graph import Node, Tensor, attribute
from zc.target import Form, Shapes, Step

Given = Sequence[Form]

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Constant", "Cast"})
MOVERS = frozenset(
    {
        *("Slice", "Split", "Pad", "Gather", "GatherElements", "GatherND", "Transpose", "Expand", "Tile", "Where"),
        *("DepthToSpace", "SpaceToDepth"),
    }
)
FUSED = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"})
"""Activations that a float Conv or Gemm in front of them applies itself."""
HEAVY = frozenset({"Erf", "Exp", "Log", "Pow", "Gelu", "Softplus", "Sin", "Cos", "Elu", "Selu", "Mish", "HardSwish"})
NORMALISERS = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"})


@dataclass(frozen=True)
class Costs:
    """`zc.target.CostTable` of onnxruntime's CPU kernels."""

    table: dict[str, dict[str, float]] = field(default_factory=lambda: COSTS)
    codes: Form = CODES

    def step(self, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
        """How the node runs; None where a shape that counts is not known."""
        rule = _RULES.get(node.op, _element) if node.standard else _element
        try:
            return rule(self, node, integer, given, shapes)
        except (KeyError, IndexError, ValueError, ZeroDivisionError):
            return None

    def convert(self, low: Form, rising: bool, shape: tuple[int, ...]) -> float:
        """Microseconds from form `low` to the next one (`rising`), or back."""
        if low in (BLOCKED, CODES) and len(shape) < 3:
            return 0.0  # only what convolutions read has these forms
        return self.us(kernels.conversion(low, rising, shape))

    def us(self, work: Work) -> float:
        """Microseconds of that work."""
        kernel, amounts = work
        costs = self.table.get(kernel, {})
        return sum(costs.get(name, 0.0) * amount for name, amount in amounts.items())


Rule = Callable[[Costs, Node, bool, Given, Shapes], Step | None]


def _shape(tensor: Tensor, shapes: Shapes) -> tuple[int, ...]:
    """KeyError where it is not known."""
    return shapes[tensor.name]


def _conv(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    window = conv_window(node, shapes)
    if integer:
        return Step(LAST, LAST, costs.us(kernels.integer_conv(window)))
    us = costs.us(kernels.float_conv(window))
    if not kernels.runs_blocked(window):
        return Step(PLAIN, PLAIN, us)
    return Step(PLAIN if kernels.reads_plain(window) else BLOCKED, BLOCKED, us)


def conv_window(node: Node, shapes: Shapes) -> Window:
    """A Conv as its kernel sees it. KeyError where a shape is not known."""
    x, weight, out = (_shape(t, shapes) for t in (node.inputs[0], node.inputs[1], node.outputs[0]))
    strides, dilations = attribute(node, "strides", [1]), attribute(node, "dilations", [1])
    return kernels.window(x, weight, out, int(attribute(node, "group", 1)), strides, dilations)


def _product(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    x, out = _shape(node.inputs[0], shapes), _shape(node.outputs[0], shapes)
    depth = x[0] if attribute(node, "transA", 0) else x[-1]
    work = kernels.product(math.prod(out[:-1]), depth, out[-1], integer=integer)
    return Step(CODES, CODES, costs.us(work)) if integer else Step(PLAIN, PLAIN, costs.us(work))


def _transposed(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    x, weight = _shape(node.inputs[0], shapes), _shape(node.inputs[1], shapes)
    work = kernels.product(math.prod(x) // x[1], x[1], math.prod(weight[1:]), integer=False)
    return Step(PLAIN, PLAIN, costs.us(work))


def _recurrent(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    """Each step reads all weights of all gates."""
    (steps, batch, _), inner, outer = (_shape(t, shapes) for t in node.inputs[:3])
    one = kernels.product(batch, inner[-1] + outer[-1], inner[0] * inner[1], integer=False)
    return Step(PLAIN, PLAIN, steps * costs.us(one))


def _pool(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    x, out = _shape(node.inputs[0], shapes), _shape(node.outputs[0], shapes)
    if integer:
        form = LAST if LAST in given else CODES
    else:
        form = BLOCKED if len(x) == 4 and x[1] % BLOCK == 0 else PLAIN
    taps = math.prod(attribute(node, "kernel_shape", [1]))
    name = node.op if node.op in kernels.MEASURED else "AveragePool"
    return Step(form, form, costs.us(kernels.elementwise(name, form, math.prod(out), math.prod(x), taps=taps)))


def _activation(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    """Applied by the convolution or Gemm in front of it, where there is one."""
    step = _element(costs, node, integer, given, shapes)
    maker = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if integer or step is None or maker is None or len(node.inputs[0].outputs) > 1:
        return step
    if maker.op not in {"Conv", "Gemm"} and not (maker.op == "Add" and _adds_to_conv(maker, given)):
        return step
    return Step(step.reads, step.writes, costs.us(_fused(node, shapes)))


def _add(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    step = _element(costs, node, integer, given, shapes)
    if step is None or integer or not _adds_to_conv(node, given):
        return step
    return Step(step.reads, step.writes, costs.us(_fused(node, shapes)))


def _fused(node: Node, shapes: Shapes) -> Work:
    out = _shape(node.outputs[0], shapes)
    return kernels.fused(node.op, out[1], math.prod(out) // out[1])


def _adds_to_conv(node: gs.Node, given: Given) -> bool:
    """Does a float Conv in front of an Add do its work?"""
    convs = [t.inputs[0] for t in node.inputs if t.inputs and t.inputs[0].op == "Conv" and len(t.outputs) == 1]
    return bool(convs) and len(set(given)) == 1


def _view(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    form = CODES if integer else PLAIN
    return Step(form, form, 0.5)


def _element(costs: Costs, node: Node, integer: bool, given: Given, shapes: Shapes) -> Step | None:
    """What moves or maps elements; such an operator takes its values as they come."""
    data = [_shape(t, shapes) for t in node.inputs if t.name and t.name in shapes]
    outs = [_shape(t, shapes) for t in node.outputs if t.name]
    rank = len(outs[0])
    if integer:
        form = LAST if LAST in given and rank > 2 else CODES
    else:
        blocks = node.op in {"Add", "Mul", "Sum", "Concat", "Resize", *FUSED}
        form = BLOCKED if blocks and given and set(given) == {BLOCKED} and _whole_blocks(node, shapes) else PLAIN
    inputs = sum(math.prod(s) for s in data if len(s) == rank)
    width = outs[0][1 if form == LAST else -1] if rank else 1
    work = kernels.elementwise(_measured(node), form, sum(map(math.prod, outs)), inputs, width=width)
    return Step(form, form, costs.us(work))


def _whole_blocks(node: Node, shapes: Shapes) -> bool:
    """Concat in blocks needs whole ones."""
    return node.op != "Concat" or all(_shape(t, shapes)[1] % BLOCK == 0 for t in node.inputs)


def _measured(node: Node) -> str:
    """The operator that was measured and is most like it."""
    if node.op in kernels.MEASURED:
        return node.op
    if node.op in MOVERS:
        return "Slice"
    if node.op in NORMALISERS:
        return "LayerNormalization"
    if node.op == "LogSoftmax":
        return "Softmax"
    if node.op in HEAVY:
        return "Erf"
    return "Relu" if len(node.inputs) == 1 else "Mul"


_RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "Gemm": _product,
    "MatMul": _product,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
    **dict.fromkeys(FUSED, _activation),
    "Add": _add,
    **dict.fromkeys(VIEWS, _view),
}
