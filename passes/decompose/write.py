"""Writes factors in the place of a layer, and says what nodes take by the target's table."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zc.ir.edit import Editor, Names
from zc.ir.graph import Array, Constant, Node, Tensor, Variable
from zc.passes.decompose.factors import Factors
from zc.passes.layers.layers import Layer
from zc.target import CostTable

Shapes = dict[str, tuple[int, ...]]
_WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "group")


def write(layer: Layer, factors: Factors, moved: Array | None, editor: Editor, names: Names) -> list[Node]:
    """Put the parts before the layer's node, which becomes the last of them, with its bias moved by `moved` [M]."""
    dtype = layer.weight.values.dtype
    if moved is not None and layer.may_shift:
        layer.set_offset(layer.offset() + moved, names)
    node, source = layer.node, layer.source
    made = []
    steps = list(_steps(layer, factors))
    for number, (attrs, values) in enumerate(steps[:-1]):
        weight = names.constant(f"{layer.weight.name}_{factors.form}{number}", values.astype(dtype))
        value = names.variable(f"{node.outputs[0].name}_{factors.form}{number}", source)
        value.shape = None
        op = "MatMul" if node.op == "Gemm" else node.op
        made.append(editor.add(Node(op, names.take(f"{node.name}_part"), attrs, [source, weight], [value])))
        source = value
    attrs, values = steps[-1]
    node.inputs[0] = source
    node.inputs[1] = names.constant(f"{layer.weight.name}_{factors.form}{len(steps) - 1}", values.astype(dtype))
    if node.op == "Conv":
        for name in _WINDOW:
            node.attrs.pop(name, None)
        node.attrs.update(attrs)
    elif node.op == "Gemm":
        node.attrs.pop("transB", None)
    return [*made, node]


def _steps(layer: Layer, factors: Factors) -> Iterator[tuple[dict[str, Any], Array]]:
    """Attributes and weight of each part. Strides, pads and dilations go to the one that has the window."""
    if not layer.convolves:
        for values in factors.parts:
            yield {}, values
        return
    own = {name: layer.node.attrs[name] for name in _WINDOW if name in layer.node.attrs and name != "group"}
    for number, values in enumerate(factors.parts):
        attrs: dict[str, Any] = {}
        if number == _spatial(factors):
            attrs = {**own, "kernel_shape": list(values.shape[2:])}
            if factors.form == "separable":
                attrs["group"] = int(layer.weight.shape[1])
        else:
            attrs["kernel_shape"] = [1] * (values.ndim - 2)
        yield attrs, values


def _spatial(factors: Factors) -> int:
    """Which part has the window of the layer."""
    return 1 if factors.form == "tucker" else 0


def microseconds(layer: Layer, factors: Factors | None, costs: CostTable, shapes: Shapes) -> float | None:
    """What the layer takes by the table, as it is (None) or in parts; None where the table does not know."""
    x, out = shapes.get(layer.source.name), shapes.get(layer.node.outputs[0].name)
    if x is None or out is None:
        return None
    if factors is None:
        return _us(layer.node.op, dict(layer.node.attrs), layer.weight.values, x, out, costs)
    steps = list(_steps(layer, factors))
    total = 0.0
    for number, (attrs, values) in enumerate(steps):
        width = int(values.shape[0] if layer.convolves else values.shape[-1])
        if layer.convolves:
            made = (out[0], width, *(x[2:] if number < _spatial(factors) else out[2:]))
        else:
            made = (*out[:-1], width)
        us = _us("Conv" if layer.convolves else "MatMul", attrs, values, x, made, costs)
        if us is None:
            return None
        total, x = total + us, made
    return total


def _us(
    op: str, attrs: Mapping[str, Any], values: Array, x: tuple[int, ...], out: tuple[int, ...], costs: CostTable
) -> float | None:
    a, w, y = Variable("x", np.float32, list(x)), Constant("w", values), Variable("y", np.float32, list(out))
    inputs: list[Tensor] = [a, w]
    node = Node(op, "n", dict(attrs), inputs, [y])
    step = costs.step(node, False, (costs.codes - 1,), {"x": x, "w": tuple(values.shape), "y": out})
    return None if step is None else step.us
