"""The NumPy rules are what onnxruntime computes: every code, on inputs full of ties."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from zc.kernels import rules

F32 = np.float32
RNG = np.random.default_rng(0)
CODES = np.arange(256, dtype=np.uint8)
CODINGS = [
    (F32(scale), int(zero), F32(scale) * F32(ratio), int(out))
    for scale, zero, ratio, out in zip(
        [0.5, 0.25, 0.1, 0.3, 0.0123, 0.7, 0.02, 1.0],
        [0, 128, 3, 255, 77, 200, 128, 0],
        [1, 2, 0.5, 0.25, 1 / 3, 3, 1.7, 2],
        [128, 0, 255, 100, 3, 128, 60, 10],
        strict=True,
    )
]


def run(
    op: str,
    inputs: list[Any],
    kind: int = TensorProto.UINT8,
    domain: str = "com.microsoft",
    version: int = 17,
    **attributes: Any,
):
    """One operator in onnxruntime; the first array of more than one element is fed, the rest are constants."""
    fed = next(i for i, value in enumerate(inputs) if value is not None and np.asarray(value).ndim)
    names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
    constants = [
        numpy_helper.from_array(np.asarray(v), n)
        for i, (n, v) in enumerate(zip(names, inputs, strict=True))
        if n and i != fed
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **attributes)],
        "g",
        [helper.make_tensor_value_info(names[fed], helper.np_dtype_to_tensor_dtype(inputs[fed].dtype), None)],
        [helper.make_tensor_value_info("y", kind, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI, its products would saturate
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {names[fed]: inputs[fed]})[0]


@pytest.mark.parametrize(("sx", "zx", "sy", "zy"), CODINGS)
class TestRules:
    def test_quantize(self, sx, zx, sy, zy) -> None:
        values = np.concatenate([(np.arange(-600, 600) * 0.5 * sx).astype(F32), F32([np.inf, -np.inf, 3e38])])
        want = run("QuantizeLinear", [values, sx, np.uint8(zx)], domain="")
        np.testing.assert_array_equal(rules.quantize(values, sx, zx), want)

    def test_dequantize(self, sx, zx, sy, zy) -> None:
        want = run("DequantizeLinear", [CODES, sx, np.uint8(zx)], TensorProto.FLOAT, domain="")
        np.testing.assert_array_equal(rules.dequantize(CODES, sx, zx), want)

    def test_add_and_multiply_on_all_pairs(self, sx, zx, sy, zy) -> None:
        a, b = np.repeat(CODES, 256), np.tile(CODES, 256)
        sb, zb = F32(sx * F32(2)), 255 - zx
        inputs = [a, sx, np.uint8(zx), b, sb, np.uint8(zb), sy, np.uint8(zy)]
        terms = rules.add_terms(sx, zx, sb, zb, sy, zy)
        np.testing.assert_array_equal(rules.add(a, b, terms), run("QLinearAdd", inputs))
        scale = F32(F32(sx * sb) / sy)
        np.testing.assert_array_equal(rules.multiply(a, zx, b, zb, scale, zy), run("QLinearMul", inputs))

    def test_global_average(self, sx, zx, sy, zy) -> None:
        x = RNG.integers(0, 256, (8, 64, 2, 4)).astype(np.uint8)
        want = run("QLinearGlobalAveragePool", [x, sx, np.uint8(zx), sy, np.uint8(zy)], channels_last=0)
        np.testing.assert_array_equal(rules.global_average(x, sx, zx, sy, zy), want)

    def test_average_of_a_window(self, sx, zx, sy, zy) -> None:
        x = RNG.integers(0, 256, (4, 64, 2, 4)).astype(np.uint8)
        inputs = [x, sx, np.uint8(zx), sy, np.uint8(zy)]
        want = run("QLinearAveragePool", inputs, kernel_shape=[2, 2], strides=[2, 2])
        for column in range(2):
            window = x[:, :, :, 2 * column : 2 * column + 2].reshape(4, 64, 4).transpose(2, 0, 1)
            np.testing.assert_array_equal(rules.average_window(window, sx, zx, sy, zy, 4), want[:, :, 0, column])

    def test_concat(self, sx, zx, sy, zy) -> None:
        want = run("QLinearConcat", [sy, np.uint8(zy), CODES, sx, np.uint8(zx)], axis=0)
        np.testing.assert_array_equal(rules.rescale_table(sx, zx, sy, zy), want)

    def test_convolution(self, sx, zx, sy, zy) -> None:
        x = RNG.integers(0, 256, (2, 6, 9, 8)).astype(np.uint8)
        w = RNG.integers(-128, 128, (8, 3, 3, 2)).astype(np.int8)
        scale = (2.0 ** RNG.integers(-9, -5, 8)).astype(F32)
        bias = RNG.integers(-4000, 4000, 8).astype(np.int32)
        zeros = np.zeros(8, np.int8)
        inputs = [x, sx, np.uint8(zx), w, scale, zeros, sy, np.uint8(zy), bias]
        how = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "group": 2}
        acc = rules.convolve(x, zx, w, how["strides"], how["pads"], how["dilations"], 2) + bias[:, None, None]
        got = rules.requantize(acc, rules.multiplier(sx, scale, sy)[:, None, None], zy)
        np.testing.assert_array_equal(got, run("QLinearConv", inputs, domain="", **how))

    def test_matrix_product(self, sx, zx, sy, zy) -> None:
        x, w = RNG.integers(0, 256, (9, 33)).astype(np.uint8), RNG.integers(-128, 128, (33, 20)).astype(np.int8)
        inputs = [x, sx, np.uint8(zx), w, F32(0.01), np.int8(3), sy, np.uint8(zy)]
        acc = rules.multiply_accumulate(x, zx, w, 3)
        got = rules.requantize(acc, rules.multiplier(sx, np.asarray(F32(0.01)), sy), zy)
        np.testing.assert_array_equal(got, run("QLinearMatMul", inputs, domain=""))

    @pytest.mark.parametrize("levels", [1 / 256, 1 / 255, 0.00787])
    def test_softmax(self, sx, zx, sy, zy, levels) -> None:
        # Two largest values and some that are just too small to count: the quotients are ties, or just not.
        width = int(16.6 / float(sx))
        x = np.maximum(255 - RNG.integers(max(width - 8, 1), width + 10, (200, 6)), 0).astype(np.uint8)
        x[:, [1, 4]] = 255
        want = run("QLinearSoftmax", [x, sx, np.uint8(zx), F32(levels), np.uint8(0)], axis=-1, opset=13)
        np.testing.assert_array_equal(rules.softmax(x, rules.softmax_table(sx, 6), F32(levels), 0), want)


HOW = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("out", [(1, 3), (4, 4), (10, 7), (3, 19)])
def test_interpolation(how, out) -> None:
    """Of floats that are made from codes: the sum of four products, to the bit."""
    codes, scale = RNG.integers(0, 256, (2, 3, 5, 6)).astype(np.uint8), F32(0.0123)
    x = rules.dequantize(codes, scale, 100)
    for scales in (None, [(n + 0.3) / s for n, s in zip(out, (5, 6), strict=True)]):
        k = np.array([2, 3, *out]) if scales is None else F32([1, 1, *scales])
        inputs = [x, None, None, k] if scales is None else [x, None, k]
        found = run(
            "Resize", inputs, TensorProto.FLOAT, "", version=19, mode="linear", coordinate_transformation_mode=how
        )
        want = rules.quantize(found, F32(0.02), 7)
        axes = [rules.between(how, s, n, None if scales is None else scales[i])
                for i, (s, n) in enumerate(zip((5, 6), out, strict=True))]  # fmt: skip
        np.testing.assert_array_equal(rules.interpolate(codes, axes[0], axes[1], scale, 100, F32(0.02), 7), want)


def test_pairs_by_table() -> None:
    table = RNG.integers(0, 256, (256, 256)).astype(np.uint8)
    x, z = RNG.integers(0, 256, (4, 5)).astype(np.uint8), RNG.integers(0, 256, 5).astype(np.uint8)
    got = rules.look_up_pairs(x, z, table)
    assert all(got[i, j] == table[z[j], x[i, j]] for i in range(4) for j in range(5))


def test_the_fused_multiply_add_rounds_once() -> None:
    a, b, c = (RNG.standard_normal(100_000).astype(F32) * F32(2) ** RNG.integers(-20, 20, 100_000) for _ in range(3))
    exact = a.astype(np.longdouble) * b.astype(np.longdouble) + c.astype(np.longdouble)
    got = rules.fma(a, b, c)
    below = np.nextafter(got, F32(-np.inf)).astype(np.longdouble)
    above = np.nextafter(got, F32(np.inf)).astype(np.longdouble)
    error = np.abs(got.astype(np.longdouble) - exact)
    assert (error <= np.abs(below - exact)).all()
    assert (error <= np.abs(above - exact)).all()


def test_a_tie_that_float64_cannot_see_is_broken() -> None:
    a, b, c = F32(1 + 2**-23), F32(1 + 2**-23), F32(2**-77)  # the product is a float64; the sum is not
    tie = F32(2.0**24) + F32(1)
    assert rules.fma(np.array(a), np.array(b), np.array(c)) == F32(float(a) * float(b))
    assert rules.fma(np.array(F32(2**24)), np.array(F32(1)), np.array(F32(1))) == F32(2**24)
    assert rules.fma(np.array(F32(4097)), np.array(F32(4097)), np.array(F32(2**-60))) == F32(16785410)
    assert tie == F32(2**24)
