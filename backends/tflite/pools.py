"""Pools over windows: MAX_POOL_2D, AVERAGE_POOL_2D, L2_POOL_2D."""

import numpy as np

from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.lowering import Lowering
from zc.backends.tflite.window import Window, image, pad_space, padded, put_image, two, window_of
from zc.ir.graph import Node, attribute


def max_pool(lowering: Lowering, node: Node) -> None:
    """MaxPool. Positions that no padding of TensorFlow's adds hold the lowest number there is."""
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise lowering.fail("it puts out indices")
    window = _window(lowering, node)
    data, padding = padded(lowering, image(lowering, node.inputs[0]), window, -np.inf)
    _pool(lowering, node, "MAX_POOL_2D", data, window, padding)


def average_pool(lowering: Lowering, node: Node) -> None:
    """AveragePool. SAME leaves added positions out of the mean; where they count, they are added by a PAD."""
    window = _window(lowering, node)
    data = image(lowering, node.inputs[0])
    if not window.padded:
        _pool(lowering, node, "AVERAGE_POOL_2D", data, window, "VALID")
    elif attribute(node, "count_include_pad", 0) and not window.ceiled:
        data = pad_space(lowering, data, window.begins, window.ends)
        _pool(lowering, node, "AVERAGE_POOL_2D", data, window, "VALID")
    elif window.same and not attribute(node, "count_include_pad", 0):
        _pool(lowering, node, "AVERAGE_POOL_2D", data, window, "SAME")
    else:
        _uneven_average(lowering, node, data, window)


def _uneven_average(lowering: Lowering, node: Node, data: FlatTensor, window: Window) -> None:
    """Windows that count differing numbers of positions: the mean over all, times how many of them count."""
    if lowering.integer:
        raise lowering.fail(
            "pads that do not count in its mean, in integers", "leave it in float (quantize:skip=AveragePool)"
        )
    if any(size < 0 for size in window.sizes):
        raise lowering.open_size("uneven pads on data of open size")
    data = pad_space(lowering, data, window.begins, window.ends)
    made = _place(lowering, node, "AVERAGE_POOL_2D", data, window, "VALID")
    space = len(window.sizes)
    asked = list(attribute(node, "pads", [0] * 2 * space))
    factor = np.ones((1, 1, 1, 1), np.float32)
    for i in range(space):
        low, high = 0, window.sizes[i]
        if attribute(node, "count_include_pad", 0):
            low, high = -window.begins[i], window.sizes[i] + asked[space + i]
        starts = np.arange(window.outputs[i]) * window.strides[i] - window.begins[i]
        taps = starts[:, None] + np.arange(window.kernel[i])[None, :]
        counts = ((taps >= low) & (taps < high)).sum(1)
        along = [1, 1, 1, 1]
        along[i + 3 - space] = -1
        factor = factor * (np.float32(window.kernel[i]) / counts.astype(np.float32)).reshape(along)
    put_image(lowering, node.outputs[0], lowering.apply("MUL", made, lowering.array(factor, "counts")))


def lp_pool(lowering: Lowering, node: Node) -> None:
    """LpPool of order 2: L2_POOL_2D is the root of the mean of squares, so times the root of their number."""
    if int(attribute(node, "p", 2)) != 2:
        raise lowering.fail(f"p is {attribute(node, 'p', 2)}; L2_POOL_2D has 2")
    window = _window(lowering, node)
    data = image(lowering, node.inputs[0])
    if window.padded:
        data = pad_space(lowering, data, window.begins, window.ends)
    made = _place(lowering, node, "L2_POOL_2D", data, window, "VALID")
    root = np.array(np.sqrt(np.prod(window.kernel)), np.float32)
    put_image(lowering, node.outputs[0], lowering.apply("MUL", made, lowering.array(root, "root")))


def _window(lowering: Lowering, node: Node) -> Window:
    window = window_of(lowering, node, attribute(node, "kernel_shape", []))
    if any(d != 1 for d in window.dilations):
        raise lowering.fail("a dilated pool; LiteRT has none")
    return window


def _place(lowering: Lowering, node: Node, code: str, data: FlatTensor, window: Window, padding: str) -> FlatTensor:
    shape = (data.shape[0], *two(window.outputs), data.shape[3])
    out = lowering.like(data, shape, node.outputs[0].name)
    (height, width), (tall, wide) = two(window.strides), two(window.kernel)
    options = {"strideH": height, "strideW": width, "filterHeight": tall, "filterWidth": wide}
    lowering.op(code, [data], [out], padding=padding, **options)
    return out


def _pool(lowering: Lowering, node: Node, code: str, data: FlatTensor, window: Window, padding: str) -> None:
    """Codes keep their scale; where the node rounds to another, QuantizeLinear does behind it."""
    put_image(lowering, node.outputs[0], _place(lowering, node, code, data, window, padding))


RULES = {"MaxPool": max_pool, "AveragePool": average_pool, "LpPool": lp_pool}
