"""Convolutions: CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV, CONV_3D. Weights are OHWI, of depthwise ones 1HWO."""

from collections.abc import Sequence

import numpy as np

from zc.backends.tflite.codes import bias_codes, weight_codes
from zc.backends.tflite.flat import FlatTensor, Option, Quant
from zc.backends.tflite.layout import channels_last, permuted
from zc.backends.tflite.lowering import Lowering
from zc.backends.tflite.window import Window, image, pad_space, padded, put_image, two, window_of
from zc.ir.graph import Array, Node, Tensor, attribute


def conv(lowering: Lowering, node: Node) -> None:
    """Conv of one or two axes of space, dense, grouped or depthwise; of three, dense and in float."""
    data, weight = node.inputs[0], node.inputs[1]
    shape = lowering.sizes(weight)
    if len(shape) == 5:
        _conv3d(lowering, node)
        return
    groups, channels = int(attribute(node, "group", 1)), lowering.shape(data)[1]
    window = window_of(lowering, node, shape[2:])
    depthwise = groups > 1 and shape[1] == 1
    source = image(lowering, data)
    source, padding = padded(lowering, source, window)
    kernel, bias = _kernel_and_bias(lowering, node, source, shape[0], depthwise)
    options = _steps(window, padding)
    out = _image_out(lowering, node.outputs[0])
    if depthwise:
        options["depthMultiplier"] = shape[0] // channels
        lowering.op("DEPTHWISE_CONV_2D", [source, kernel, bias], [out], **options)
    else:
        lowering.op("CONV_2D", [source, kernel, bias], [out], **options)
    put_image(lowering, node.outputs[0], out)


def _steps(window: Window, padding: str) -> dict[str, Option]:
    strides, dilations = two(window.strides), two(window.dilations)
    return {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
    }


def _image_out(lowering: Lowering, tensor: Tensor) -> FlatTensor:
    """What an operator on [N, H, W, C] writes for a value, not bound yet."""
    shape = permuted(lowering.shape(tensor), channels_last(lowering.rank(tensor)))
    shape = shape if len(shape) == 4 else (shape[0], 1, *shape[1:])
    kind, quant = lowering.rounding(tensor) if lowering.integer else (lowering.dtype(tensor), None)
    return FlatTensor(lowering.take(tensor.name), shape, kind, quant)


def _kernel_and_bias(
    lowering: Lowering, node: Node, source: FlatTensor, channels: int, depthwise: bool
) -> tuple[FlatTensor, FlatTensor]:
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    rank = lowering.rank(weight)
    order = (1, *range(2, rank), 0) if depthwise else channels_last(rank)
    if lowering.integer:
        codes, quant = weight_codes(lowering, weight)
        scales = Quant(quant.scale, quant.zero, 3 if depthwise else 0)
        kernel = lowering.array(_two_axes(codes.transpose(order)), weight.name, scales)
        assert source.quant is not None
        return kernel, bias_codes(lowering, bias, source.quant, scales, channels, source.dtype == np.int16)
    kernel = lowering.weight(weight, order)
    if rank == 3:
        kernel = lowering.reshape(kernel, (kernel.shape[0], 1, *kernel.shape[1:]))
    return kernel, zeros_or(lowering, bias, channels)


def _two_axes(array: Array) -> Array:
    return array.reshape(array.shape[0], 1, *array.shape[1:]) if array.ndim == 3 else array


def zeros_or(lowering: Lowering, bias: Tensor | None, channels: int) -> FlatTensor:
    """The bias in float; zeros where there is none, because older delegates insist on one."""
    if bias is not None:
        return lowering.read(bias)
    return lowering.array(np.zeros(channels, np.float32), f"{lowering.node.outputs[0].name}_bias")


def _conv3d(lowering: Lowering, node: Node) -> None:
    if int(attribute(node, "group", 1)) != 1:
        raise lowering.fail("a convolution over three axes in groups; CONV_3D has none")
    shape = lowering.sizes(node.inputs[1])
    window = window_of(lowering, node, shape[2:])
    data, padding = padded(lowering, lowering.read(node.inputs[0], channels_last(5)), window)
    kernel = lowering.weight(node.inputs[1], (2, 3, 4, 1, 0))
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    steps = dict(zip(("strideD", "strideH", "strideW"), window.strides, strict=True))
    holes = dict(zip(("dilationDFactor", "dilationHFactor", "dilationWFactor"), window.dilations, strict=True))
    out = lowering.out(node.outputs[0], channels_last(5))
    lowering.op("CONV_3D", [data, kernel, zeros_or(lowering, bias, shape[0])], [out], padding=padding, **steps, **holes)


# ---- transposed


def conv_transpose(lowering: Lowering, node: Node) -> None:
    """ConvTranspose: TRANSPOSE_CONV, SAME where that is the size that the node asks for, else cut from the full reach.

    Dilations are zeros in the weight; groups are convolutions of their own.
    """
    weight = node.inputs[1]
    space = lowering.shape(node.inputs[0])[2:]
    if -1 in space:
        raise lowering.open_size("an image of open size")
    shape = lowering.sizes(weight)
    if len(shape) not in {3, 4}:
        raise lowering.fail("a transposed convolution over three axes")
    groups = int(attribute(node, "group", 1))
    strides = tuple(attribute(node, "strides", [1] * len(space)))
    dilations = tuple(attribute(node, "dilations", [1] * len(space)))
    kernel = tuple((k - 1) * d + 1 for k, d in zip(shape[2:], dilations, strict=True))
    wanted = lowering.shape(node.outputs[0])[2:]
    full = tuple((n - 1) * s + k for n, s, k in zip(space, strides, kernel, strict=True))
    begins = _crop(node, full, wanted)
    source = image(lowering, node.inputs[0])
    numbers = lowering.constant(weight)
    if numbers is None:
        raise lowering.fail("its weight is computed at run time", "make it an initializer")
    same = all(map(_is_same, space, wanted, strides, full, begins))
    size = wanted if same else full
    raw = lowering.temporary((source.shape[0], *two(size), shape[1] * groups))
    if lowering.integer:
        kind, quant = lowering.rounding(node.outputs[0])
        raw = FlatTensor(raw.name, raw.shape, kind, quant)
    parts = [
        _one_group(
            lowering,
            node,
            part,
            i,
            groups,
            dilations,
            strides,
            raw if groups == 1 else lowering.like(raw, (*raw.shape[:3], shape[1])),
            "SAME" if same else "VALID",
        )
        for i, part in enumerate(_split(lowering, source, groups))
    ]
    if groups > 1:
        lowering.op("CONCATENATION", parts, [raw], axis=3)
    made = raw if same else _cut(lowering, raw, two(begins, 0), two(wanted))
    put_image(lowering, node.outputs[0], made)


def _is_same(size: int, wanted: int, stride: int, full: int, begin: int) -> bool:
    """Does TensorFlow's SAME cut the same positions off the full reach, along one axis?"""
    return -(-wanted // stride) == size and full >= wanted and begin == (full - wanted) // 2


def _crop(node: Node, full: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """How many positions of the full result stand before what is wanted (ONNX's rules of pads and auto_pad)."""
    mode = attribute(node, "auto_pad", "NOTSET")
    extra = attribute(node, "output_padding", [0] * len(full))
    if mode in {"NOTSET", ""} and "output_shape" not in node.attrs:
        return tuple(attribute(node, "pads", [0] * (2 * len(full))))[: len(full)]
    totals = [max(f + e - w, 0) for f, e, w in zip(full, extra, wanted, strict=True)]
    if mode == "VALID":
        return (0,) * len(full)
    return tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in totals)


def _split(lowering: Lowering, source: FlatTensor, groups: int) -> list[FlatTensor]:
    if groups == 1:
        return [source]
    parts = [lowering.like(source, (*source.shape[:3], source.shape[3] // groups)) for _ in range(groups)]
    lowering.op("SPLIT", [lowering.array(np.array(3, np.int32), "axis"), source], parts, numSplits=groups)
    return parts


def _one_group(
    lowering: Lowering,
    node: Node,
    source: FlatTensor,
    group: int,
    groups: int,
    dilations: tuple[int, ...],
    strides: tuple[int, ...],
    out: FlatTensor,
    padding: str,
) -> FlatTensor:
    weight, channels = node.inputs[1], out.shape[3]
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    quant = None
    if lowering.integer:
        numbers, quant = weight_codes(lowering, weight)
        quant = Quant(quant.scale, quant.zero, 0)
    else:
        found = lowering.constant(weight)
        assert found is not None
        numbers = found
    depth = numbers.shape[0] // groups
    own = _spread(numbers[group * depth : (group + 1) * depth], dilations)
    kernel = lowering.array(_two_axes(own.transpose(1, *range(2, own.ndim), 0)), weight.name, quant)
    if quant is not None:
        assert source.quant is not None
        added = bias_codes(lowering, bias, source.quant, quant, channels, source.dtype == np.int16)
    else:
        values = np.zeros(channels * groups, np.float32) if bias is None else lowering.constant(bias)
        if values is None:
            raise lowering.fail("its bias is computed at run time", "make it an initializer")
        added = lowering.array(values[group * channels : (group + 1) * channels], "bias")
    height, width = two(strides)
    sizes = _sizes(lowering, source, out)
    lowering.op("TRANSPOSE_CONV", [sizes, kernel, source, added], [out], padding=padding, strideH=height, strideW=width)
    return out


def _spread(weight: Array, dilations: tuple[int, ...]) -> Array:
    """A weight [I, O, ...] with the zeros of its dilations."""
    if all(d == 1 for d in dilations):
        return weight
    space = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.shape[:2], *space), weight.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return wide


def _sizes(lowering: Lowering, source: FlatTensor, out: FlatTensor) -> FlatTensor:
    """The shape of the result as a tensor; an open batch is read from the data."""
    if out.static:
        return lowering.integers(out.shape)
    if -1 in out.shape[1:]:
        raise lowering.open_size("a transposed convolution of open size")
    shape = lowering.apply("SHAPE", source, shape=(4,), dtype=np.int32, outType="INT32")
    ends = [lowering.integers([one]) for one in (0, 1, 1)]
    batch = lowering.apply("STRIDED_SLICE", shape, *ends, shape=(1,))
    return lowering.apply("CONCATENATION", batch, lowering.integers(out.shape[1:]), shape=(4,), axis=0)


def _cut(lowering: Lowering, full: FlatTensor, begins: Sequence[int], wanted: Sequence[int]) -> FlatTensor:
    """The wanted part of [N, H, W, C]; zeros where it is larger than the whole."""
    more = [max(b + w - n, 0) for b, w, n in zip(begins, wanted, full.shape[1:3], strict=True)]
    if any(more):
        full = pad_space(lowering, full, (0, 0), more)
    if tuple(full.shape[1:3]) == tuple(wanted):
        return full
    starts, stops = [0, *begins, 0], [0, *(b + w for b, w in zip(begins, wanted, strict=True)), 0]
    shape = (full.shape[0], *wanted, full.shape[3])
    out = lowering.like(full, shape)
    ends = [lowering.integers(one) for one in (starts, stops, [1, 1, 1, 1])]
    # Bits 0 and 3: all of the batch and of the channels.
    lowering.op("STRIDED_SLICE", [full, *ends], [out], beginMask=9, endMask=9)
    return out


RULES = {"Conv": conv, "ConvTranspose": conv_transpose}
