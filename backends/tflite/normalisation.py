"""Softmax and normalisations. What LiteRT has no kernel for is written out in float."""

from functools import partial
from math import prod
from typing import cast

import numpy as np

from zc.backends.tflite.broadcast import operand
from zc.backends.tflite.elementwise import Rule, fixed_scale
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import Layout, permuted
from zc.backends.tflite.lowering import Lowering
from zc.backends.tflite.movement import last_axis
from zc.ir.graph import Array, Node, attribute


def softmax(code: str, lowering: Lowering, node: Node) -> None:
    """Softmax or LogSoftmax; the axis has to be the last dimension of the tensor."""
    data, out = node.inputs[0], node.outputs[0]
    shape = lowering.shape(data)
    old = lowering.graph.opset < 13
    axis = int(attribute(node, "axis", 1 if old else -1)) % len(shape)
    if old and prod(shape[axis + 1 :]) != 1:
        # Before operator set 13: over all axes from this one on.
        source = lowering.read(data)
        rows = (
            prod(shape[:axis]) if -1 not in shape[:axis] else -1,
            prod(lowering.sizes(data)[axis:]) if axis == 0 else _size(lowering, shape[axis:]),
        )
        flat = lowering.reshape(source, rows)
        made = lowering.like(flat)
        _emit(lowering, code, flat, made)
        lowering.bind(out, lowering.reshape(made, shape))
        return
    layout = lowering.layout(data)
    if layout[-1] != axis and shape[axis] != 1:
        layout = last_axis(layout, axis)
    source = lowering.read(data, layout)
    _emit(lowering, code, source, lowering.out(out, layout, fixed_scale(code, source) if lowering.integer else None))


def _size(lowering: Lowering, shape: tuple[int, ...]) -> int:
    if -1 in shape:
        raise lowering.open_size("over an open size")
    return prod(shape)


def _emit(lowering: Lowering, code: str, source: FlatTensor, out: FlatTensor) -> None:
    if code == "SOFTMAX":
        lowering.op(code, [source], [out], beta=1.0)
    else:
        lowering.op(code, [source], [out])


def hardmax(lowering: Lowering, node: Node) -> None:
    """Hardmax: one at the first largest number."""
    data, out = node.inputs[0], node.outputs[0]
    axis = int(attribute(node, "axis", -1)) % lowering.rank(data)
    layout = last_axis(lowering.layout(data), axis)
    source = lowering.read(data, layout)
    depth = lowering.sizes(data)[axis]
    place = lowering.integers([len(layout) - 1])
    spots = lowering.apply("ARG_MAX", source, place, shape=source.shape[:-1], dtype=np.int32, outputType="INT32")
    parts = [lowering.array(np.array(v, kind)) for v, kind in ((depth, np.int32), (1, np.float32), (0, np.float32))]
    lowering.op("ONE_HOT", [spots, *parts], [lowering.out(out, layout)], axis=-1)


# ---- normalisations


def batch_norm(lowering: Lowering, node: Node) -> None:
    """BatchNormalization with constant statistics: a factor and a shift for each channel."""
    if attribute(node, "training_mode", 0):
        raise lowering.fail("training_mode")
    data = node.inputs[0]
    given = [lowering.constant(t) for t in node.inputs[1:5]]
    if any(one is None for one in given):
        raise lowering.fail("its statistics are computed at run time", "make them initializers")
    gain, shift, mean, var = (cast(Array, one).astype(np.float64) for one in given)
    factor = gain / np.sqrt(var + float(attribute(node, "epsilon", 1e-5)))
    layout = lowering.layout(data)
    rank = len(layout)
    along = permuted(tuple(-1 if i == 1 else 1 for i in range(rank)), layout) if rank > 1 else (-1,)
    source = lowering.read(data, layout)
    scaled = lowering.apply("MUL", source, _vector(lowering, factor, along))
    out = lowering.out(node.outputs[0], layout)
    lowering.op("ADD", [scaled, _vector(lowering, shift - mean * factor, along)], [out])


def _vector(lowering: Lowering, values: Array, along: tuple[int, ...]) -> FlatTensor:
    shape = along[1:] if along[-1] == -1 and len(along) > 1 else along
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return lowering.array(values.astype(np.float32).reshape(shape), "vector")


def standardised(lowering: Lowering, source: FlatTensor, places: list[int], epsilon: float) -> FlatTensor:
    """(x - mean) / sqrt(variance + epsilon) along dimensions of a tensor."""
    return statistics(lowering, source, places, epsilon)[0]


def statistics(
    lowering: Lowering, source: FlatTensor, places: list[int], epsilon: float
) -> tuple[FlatTensor, FlatTensor, FlatTensor]:
    """The same, with the mean and one over the deviation."""
    axes = lowering.integers(places)
    kept = tuple(1 if i in places else d for i, d in enumerate(source.shape))
    mean = lowering.apply("MEAN", source, axes, shape=kept, keepDims=True)
    centred = lowering.apply("SUB", source, mean)
    variance = lowering.apply("MEAN", lowering.apply("MUL", centred, centred), axes, shape=kept, keepDims=True)
    inverse = _inverse_root(lowering, variance, epsilon)
    return lowering.apply("MUL", centred, inverse), mean, inverse


def _inverse_root(lowering: Lowering, variance: FlatTensor, epsilon: float) -> FlatTensor:
    shifted = lowering.apply("ADD", variance, lowering.array(np.array(epsilon, np.float32)))
    return lowering.apply("RSQRT", shifted)


def layer_norm(lowering: Lowering, node: Node) -> None:
    """LayerNormalization, written out along the dimensions in which its axes lie."""
    layout, source, places = _trailing(lowering, node)
    epsilon = float(attribute(node, "epsilon", 1e-5))
    made, *moments = statistics(lowering, source, places, epsilon)
    for tensor, moment in zip(node.outputs[1:], moments, strict=False):
        if tensor.name:
            lowering.bind(tensor, moment, layout)
    for code, tensor in zip(("MUL", "ADD"), node.inputs[1:3], strict=False):
        if tensor.name:
            made = lowering.apply(code, made, operand(lowering, tensor, layout))
    lowering.bind(node.outputs[0], made, layout)


def _trailing(lowering: Lowering, node: Node) -> tuple[Layout, FlatTensor, list[int]]:
    """What is normalised, how it lies, and the dimensions of the axes from `axis` on."""
    data = node.inputs[0]
    rank = lowering.rank(data)
    first = int(attribute(node, "axis", -1)) % rank
    layout = lowering.layout(data)
    return layout, lowering.read(data, layout), sorted(layout.index(axis) for axis in range(first, rank))


def rms_norm(lowering: Lowering, node: Node) -> None:
    """RMSNormalization, written out."""
    layout, source, places = _trailing(lowering, node)
    kept = tuple(1 if i in places else d for i, d in enumerate(source.shape))
    squares = lowering.apply("MUL", source, source)
    mean = lowering.apply("MEAN", squares, lowering.integers(places), shape=kept, keepDims=True)
    made = lowering.apply("MUL", source, _inverse_root(lowering, mean, float(attribute(node, "epsilon", 1e-5))))
    lowering.bind(node.outputs[0], lowering.apply("MUL", made, operand(lowering, node.inputs[1], layout)), layout)


def instance_norm(lowering: Lowering, node: Node) -> None:
    """InstanceNormalization: each channel of each row by its own statistics over space."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    rank = len(layout)
    source = lowering.read(data, layout)
    places = [layout.index(axis) for axis in range(2, rank)]
    made = standardised(lowering, source, places, float(attribute(node, "epsilon", 1e-5)))
    along = permuted(tuple(-1 if i == 1 else 1 for i in range(rank)), layout)
    for code, tensor in zip(("MUL", "ADD"), node.inputs[1:3], strict=True):
        values = lowering.constant(tensor)
        if values is None:
            raise lowering.fail("its factors are computed at run time", "make them initializers")
        made = lowering.apply(code, made, _vector(lowering, values, along))
    lowering.bind(node.outputs[0], made, layout)


def group_norm(lowering: Lowering, node: Node) -> None:
    """GroupNormalization: channels in groups, each by its statistics over the group and space."""
    data = node.inputs[0]
    shape, groups = lowering.shape(data), int(attribute(node, "num_groups", 1))
    source = lowering.read(data)
    inner = prod(lowering.sizes(data)[1:]) // groups if shape[0] >= 0 else _size(lowering, shape[1:]) // groups
    rows = lowering.reshape(source, (shape[0], groups, inner))
    made = standardised(lowering, rows, [2], float(attribute(node, "epsilon", 1e-5)))
    made = lowering.reshape(made, shape)
    for code, tensor in zip(("MUL", "ADD"), node.inputs[1:3], strict=True):
        values = lowering.constant(tensor)
        if values is None:
            raise lowering.fail("its factors are computed at run time", "make them initializers")
        if values.size == groups != shape[1]:  # before operator set 21: a number for each group
            values = np.repeat(values, shape[1] // groups)
        along = values.reshape(-1, *[1] * (len(shape) - 2))
        made = lowering.apply(code, made, lowering.array(along, "vector"))
    lowering.bind(node.outputs[0], made)


def lp_norm(lowering: Lowering, node: Node) -> None:
    """LpNormalization of order 1 or 2: a division by the norm, as ONNX has it, zero staying zero."""
    data = node.inputs[0]
    axis, order = int(attribute(node, "axis", -1)) % lowering.rank(data), int(attribute(node, "p", 2))
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    place = layout.index(axis)
    kept = tuple(1 if i == place else d for i, d in enumerate(source.shape))
    size = lowering.apply("ABS", source) if order == 1 else lowering.apply("MUL", source, source)
    norm = lowering.apply("SUM", size, lowering.integers([place]), shape=kept, keepDims=True)
    norm = norm if order == 1 else lowering.apply("SQRT", norm)
    least = lowering.array(np.array(1e-30, np.float32))
    made = lowering.apply("DIV", source, lowering.apply("MAXIMUM", norm, least))
    lowering.bind(node.outputs[0], made, layout)


def mean_variance(lowering: Lowering, node: Node) -> None:
    """MeanVarianceNormalization: less the mean, by the deviation plus 1e-9."""
    data = node.inputs[0]
    axes = [int(a) % lowering.rank(data) for a in attribute(node, "axes", [0, 2, 3])]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    places = [layout.index(a) for a in axes]
    lowering.bind(node.outputs[0], standardised(lowering, source, places, 1e-18), layout)


def response_norm(lowering: Lowering, node: Node) -> None:
    """LRN over an odd number of channels: LOCAL_RESPONSE_NORMALIZATION."""
    size = int(attribute(node, "size", 1))
    if size % 2 == 0:
        raise lowering.fail(f"over {size} channels; the kernel takes as many on either side")
    layout = last_axis(lowering.layout(node.inputs[0]), 1)
    if len(layout) != 4:
        raise lowering.fail("data that is no image")
    source = lowering.read(node.inputs[0], layout)
    lowering.op(
        "LOCAL_RESPONSE_NORMALIZATION",
        [source],
        [lowering.out(node.outputs[0], layout)],
        radius=size // 2,
        bias=float(attribute(node, "bias", 1.0)),
        alpha=float(attribute(node, "alpha", 1e-4)) / size,
        beta=float(attribute(node, "beta", 0.75)),
    )


RULES: dict[str, Rule] = {
    "Softmax": partial(softmax, "SOFTMAX"),
    "LogSoftmax": partial(softmax, "LOG_SOFTMAX"),
    "Hardmax": hardmax,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance,
    "LRN": response_norm,
}
