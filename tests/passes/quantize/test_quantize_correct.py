"""Bias correction."""

import numpy as np

from zc.execute import Runner

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
DEEP = """(float[N,4,10,10] x) => (float[N,4] z)
    <float[8,4,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8,8,1,1] w3, float[8,4] w4, float[4] b4> {
    c1 = Conv (x, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <group = 8> (r1, w2)
    p = Conv (r1, w3)
    crop = GlobalAveragePool (p)
    s = Add (c2, crop)
    m = GlobalAveragePool (s)
    f = Flatten (m)
    z = Gemm (f, w4, b4)
}"""


def channel_means(model, name, arrays):
    value = Runner(model, outputs=[name]).run(arrays)[name]
    return value.mean(axis=tuple(a for a in range(value.ndim) if a != 1))


def test_means_of_every_layer_are_those_of_the_float_model(quantize):
    corrected = quantize(HEAD + DEEP)
    plain = quantize(HEAD + DEEP, bias_correct=False)
    for name, raw in (("c1", "c1"), ("c2", "c2_raw"), ("p", "p_raw")):
        want = channel_means(corrected.float_model, name, corrected.arrays)
        off = np.abs(channel_means(corrected.model, raw, corrected.arrays) - want).max()
        assert off < 0.2 * np.abs(channel_means(plain.model, raw, plain.arrays) - want).max()
    assert corrected.result.stats["biases_corrected"] == 4


def test_a_layer_without_a_bias_gets_one(quantize):
    q = quantize(HEAD + DEEP)
    assert len(q.node("c2").inputs) == 3
    assert len(quantize(HEAD + DEEP, bias_correct=False).node("c2").inputs) == 2


def test_the_float_bias_behind_a_matmul_is_corrected(quantize):
    text = """(float[N,5,16] x) => (float[N,5,8] y) <float[16,8] w, float[8] b> {
        m = MatMul (x, w)
        y = Add (m, b)
    }"""
    rng = np.random.default_rng(1)
    arrays = {"x": rng.gamma(1.0, 1.0, (24, 5, 16)).astype(np.float32)}
    errors = []
    for on in (True, False):
        got, want = quantize(HEAD + text, arrays, bias_correct=on).outputs()
        errors.append(np.abs((got["y"] - want["y"]).mean(axis=(0, 1))).max())
    assert errors[0] < 0.01 * errors[1]


def test_layers_around_a_branch_are_corrected(quantize):
    q = quantize(
        HEAD
        + """(float[N,4,6,6] x) => (float[N,4,2,2] z) <float[4,4,3,3] w, float[4,4,3,3] v, bool c = {1}> {
            a = Conv (x, w)
            y = If (c) <
                then_branch = t () => (float[N,4,4,4] p) { m = Abs (a) p = Tanh (m) },
                else_branch = e () => (float[N,4,4,4] n) { n = Neg (a) }
            >
            z = Conv (y, v)
        }"""
    )
    assert q.result.stats["biases_corrected"] == 2
    got, want = q.outputs()
    assert np.abs((got["z"] - want["z"]).mean(axis=(0, 2, 3))).max() < 0.01 * np.abs(want["z"]).max()


def test_a_row_that_overflows_shifts_no_bias(quantize):
    arrays = {"x": np.random.default_rng(0).standard_normal((24, 4, 10, 10)).astype(np.float32)}
    arrays["x"][7] = 3e38
    q = quantize(HEAD + DEEP, arrays, method="minmax")
    biases = [n.inputs[0].values for n in q.model.nodes("DequantizeLinear") if n.inputs[0].dtype == np.int32]
    assert biases
    assert max(np.abs(codes).max() for codes in biases) < 2**30
