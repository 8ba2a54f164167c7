"""Learned scales of Q/DQ pairs: which move together, and the scales of biases that follow from them."""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs
import torch

from zc.ir.graph import Constant, Tensor
from zc.ir.model import Model
from zc.training.ops.elementwise import as_tensor
from zc.training.weights import ScaleWeight

_TIED = frozenset(
    {"Clip", "Concat", "Flatten", "Gather", "MaxPool", "Pad", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze",
     "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operators that keep the scale of their input where it was given to their output too."""
_FIXED = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Tanh"})
"""Operators whose output has a scale that targets demand."""
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def learned_scales(model: Model) -> list[ScaleWeight]:
    """The scales of Q/DQ that may be learned.

    Those that must stay equal have one parameter; the scale of a bias, which is the product of those of its layer's
    input and weight, moves with both.
    """
    scales = _scales(model)
    leader = {key: key for key in scales}

    def find(key: int) -> int:
        while leader[key] != key:
            key = leader[key]
        return key

    for one, other in _pairs(model, scales):
        if np.array_equal(scales[one].values, scales[other].values):
            leader[find(other)] = find(one)
    fixed = {find(key) for key in _fixed(model, scales)}
    biases = _bias_scales(model, scales)
    parameters: dict[int, torch.nn.Parameter] = {}
    found = []
    for key, constant in scales.items():
        root = find(key)
        if root in fixed or key in biases:
            continue
        if root not in parameters:
            parameters[root] = torch.nn.Parameter(torch.zeros_like(as_tensor(constant.values), dtype=torch.float32))
        found.append(ScaleWeight(constant, [parameters[root]]))
    for key, (given, weight) in biases.items():
        own = [parameters[find(k)] for k in (given, weight) if find(k) in parameters]
        if own:
            found.append(ScaleWeight(scales[key], own))
    return found


def _nodes(model: Model) -> Iterator[gs.Node]:
    for scope in model.scopes():
        yield from scope.nodes


def _scales(model: Model) -> dict[int, Constant]:
    """Constants that are scales of Q/DQ and nothing else, by id."""
    inputs = {id(t) for scope in model.scopes() for t in scope.inputs}
    found = {}
    for constant in model.constants():
        at = [(node.op, i) for node in constant.outputs for i, t in enumerate(node.inputs) if t is constant]
        plain = at and all(op in ("QuantizeLinear", "DequantizeLinear") and i == 1 for op, i in at)
        if plain and id(constant) not in inputs and np.dtype(constant.dtype).kind == "f":
            found[id(constant)] = constant
    return found


def _scale_of(tensor: Tensor, op: str) -> int | None:
    """The scale of the Q or DQ that makes a value, by id."""
    node = tensor.inputs[0] if tensor.inputs else None
    return id(node.inputs[1]) if node is not None and node.op == op else None


def _pairs(model: Model, scales: dict[int, Constant]) -> Iterator[tuple[int, int]]:
    """Scales that must stay equal if they are: of a Q and its DQ, and around operators that keep the scale."""
    for node in _nodes(model):
        around: list[int] = []
        if node.op == "DequantizeLinear":
            source = node.inputs[0]
            while source.inputs and source.inputs[0].op in _TIED:  # operators on the codes themselves
                source = source.inputs[0].inputs[0]
            first = _scale_of(source, "QuantizeLinear")
            around = [id(node.inputs[1])] + ([first] if first is not None else [])
        elif node.op in _TIED:
            around = [s for t in node.inputs if (s := _scale_of(t, "DequantizeLinear")) is not None]
            after = (c for t in node.outputs for c in t.outputs if c.op == "QuantizeLinear")
            around += [id(c.inputs[1]) for c in after]
        known = [key for key in around if key in scales]
        yield from ((known[0], other) for other in known[1:])


def _fixed(model: Model, scales: dict[int, Constant]) -> Iterator[int]:
    for node in _nodes(model):
        if node.op == "QuantizeLinear" and node.inputs[0].inputs and node.inputs[0].inputs[0].op in _FIXED:
            key = id(node.inputs[1])
            if key in scales:
                yield key


def _bias_scales(model: Model, scales: dict[int, Constant]) -> dict[int, tuple[int, int]]:
    """By the scale of an int32 bias, those of the layer's input and weight. Of a bias without them: its own, twice."""
    found: dict[int, tuple[int, int]] = {}
    for node in _nodes(model):
        if node.op not in _LAYERS or len(node.inputs) < 3:
            continue
        given, weight, bias = (_scale_of(t, "DequantizeLinear") for t in node.inputs[:3])
        if bias in scales and given is not None and weight is not None:
            found[bias] = (given, weight)
    return found
