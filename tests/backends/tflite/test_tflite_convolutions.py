"""Convolutions and pools, float: what LiteRT computes is what onnxruntime does."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from zc.ir.graph import Constant
from zc.ir.model import Model, from_text

Emitted = Callable[..., Counter[str]]


def one_op(line: str, x: str, y: str, **weights: tuple[int, ...]) -> Model:
    """A model of one node on input x; weights by name are drawn."""
    listed = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())
    model = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{x}] x{", " + listed if listed else ""}) => (float[{y}] y) {{ y = {line} }}""")
    rng = np.random.default_rng(0)
    for tensor in [t for t in model.graph.inputs if t.name in weights]:
        model.graph.inputs.remove(tensor)
        tensor.to_constant(rng.normal(size=weights[tensor.name]).astype(np.float32))
    assert all(not isinstance(t, Constant) for t in model.graph.inputs)
    return model


CONVS = {
    "same": ("Conv <pads=[1,1,1,1]> (x, w, b)", "N,4,9,9", "N,6,9,9", {"w": (6, 4, 3, 3), "b": (6,)}, {"CONV_2D": 1}),
    "stride": ("Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)", "N,4,8,8", "N,6,4,4", {"w": (6, 4, 3, 3)}, {"PAD": 1}),
    "valid": ("Conv <strides=[2,2]> (x, w)", "N,4,9,9", "N,6,4,4", {"w": (6, 4, 3, 3)}, {"PAD": 0}),
    "lower": (
        'Conv <auto_pad="SAME_LOWER", strides=[2,2]> (x, w)',
        "N,4,8,8",
        "N,6,4,4",
        {"w": (6, 4, 3, 3)},
        {"PAD": 1},
    ),
    "upper": (
        'Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)',
        "N,4,8,8",
        "N,6,4,4",
        {"w": (6, 4, 3, 3)},
        {"PAD": 0},
    ),
    "dilated": ("Conv <pads=[2,2,2,2], dilations=[2,2]> (x, w)", "N,4,9,9", "N,6,9,9", {"w": (6, 4, 3, 3)}, {"PAD": 0}),
    "depthwise": (
        "Conv <group=4, pads=[1,1,1,1]> (x, w)",
        "N,4,9,9",
        "N,8,9,9",
        {"w": (8, 1, 3, 3)},
        {"DEPTHWISE_CONV_2D": 1},
    ),
    "grouped": ("Conv <group=2> (x, w)", "N,4,9,9", "N,6,7,7", {"w": (6, 2, 3, 3)}, {"CONV_2D": 1}),
    "one axis": ("Conv <pads=[1,1], strides=[2]> (x, w)", "N,4,9", "N,6,5", {"w": (6, 4, 3)}, {"CONV_2D": 1}),
    "three axes": (
        "Conv <pads=[1,1,1,1,1,1]> (x, w)",
        "N,4,5,6,7",
        "N,3,5,6,7",
        {"w": (3, 4, 3, 3, 3)},
        {"CONV_3D": 1},
    ),
    "transposed": (
        "ConvTranspose <strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]> (x, w, b)",
        "2,4,5,5",
        "2,6,10,10",
        {"w": (4, 6, 3, 3), "b": (6,)},
        {"TRANSPOSE_CONV": 1},
    ),
    "transposed, as SAME": (
        "ConvTranspose <strides=[2,2], pads=[1,1,1,1]> (x, w, b)",
        "N,4,5,5",
        "N,6,10,10",
        {"w": (4, 6, 4, 4), "b": (6,)},
        {"TRANSPOSE_CONV": 1, "STRIDED_SLICE": 1},  # of the shape, for the open batch
    ),
    "transposed, grouped": (
        "ConvTranspose <strides=[2,2], group=2> (x, w)",
        "2,4,5,5",
        "2,6,11,11",
        {"w": (4, 3, 3, 3)},
        {"TRANSPOSE_CONV": 2},
    ),
    "transposed, dilated": (
        "ConvTranspose <dilations=[2,2]> (x, w)",
        "2,4,5,5",
        "2,3,9,9",
        {"w": (4, 3, 3, 3)},
        {"TRANSPOSE_CONV": 1},
    ),
    "transposed, open batch": (
        "ConvTranspose <strides=[2,2]> (x, w)",
        "N,4,5,5",
        "N,3,11,11",
        {"w": (4, 3, 3, 3)},
        {"SHAPE": 1},
    ),
    "transposed, one axis": (
        "ConvTranspose <strides=[2]> (x, w)",
        "2,4,5",
        "2,3,11",
        {"w": (4, 3, 3)},
        {"TRANSPOSE_CONV": 1},
    ),
}


@pytest.mark.parametrize("case", CONVS)
def test_convolution(emitted: Emitted, case: str) -> None:
    line, x, y, weights, counts = CONVS[case]
    ops = emitted(one_op(line, x, y, **weights))
    assert {code: ops[code] for code in counts} == counts
    assert ops["TRANSPOSE"] == 0


POOLS = {
    "max": ("MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)", "N,3,8,8", "N,3,4,4"),
    "max, padded": ("MaxPool <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (x)", "N,3,8,8", "N,3,4,4"),
    "max, ceiled": ("MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)", "N,3,8,8", "N,3,4,4"),
    "max, one axis": ("MaxPool <kernel_shape=[2], strides=[2]> (x)", "N,3,8", "N,3,4"),
    "average": ("AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (x)", "N,3,8,8", "N,3,8,8"),
    "average, uneven": ("AveragePool <kernel_shape=[3,3], pads=[2,2,0,0]> (x)", "N,3,8,8", "N,3,8,8"),
    "average, counted": (
        "AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (x)",
        "N,3,8,8",
        "N,3,8,8",
    ),
    "average, ceiled": ("AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)", "N,3,8,8", "N,3,4,4"),
    "global": ("GlobalAveragePool (x)", "N,3,8,8", "N,3,1,1"),
    "global max": ("GlobalMaxPool (x)", "N,3,8,8", "N,3,1,1"),
    "root of squares": ("LpPool <kernel_shape=[2,2]> (x)", "N,3,8,8", "N,3,7,7"),
}


@pytest.mark.parametrize("case", POOLS)
def test_pool(emitted: Emitted, case: str) -> None:
    assert emitted(one_op(*POOLS[case]))["TRANSPOSE"] == 0


def test_a_flattened_image_permutes_the_weight_of_the_layer_behind(emitted: Emitted) -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2,4,4] x, float[3,2,3,3] w, float[5,12] v) => (float[N,5] y) {
            c = Conv (x, w)
            f = Flatten (c)
            y = Gemm <transB=1> (f, v)
        }""")
    rng = np.random.default_rng(0)
    for tensor in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(tensor)
        tensor.to_constant(rng.normal(size=tensor.shape).astype(np.float32))
    assert emitted(model) == {"CONV_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}
