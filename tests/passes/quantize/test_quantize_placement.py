"""Which values carry codes, which share a scale, what stays float."""

from dataclasses import replace

import numpy as np

from zc.backends.onnxruntime import TARGET
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def test_relu_is_absorbed_and_the_conv_runs_in_integers(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4,4,4] z) <float[4,3,3,3] w, float[4] b, float[4,4,3,3] w2, float[4] b2> {
            c = Conv (x, w, b)
            y = Relu (c)
            z = Conv (y, w2, b2)
        }"""
    )
    assert "Relu" not in q.ops()
    assert q.values("y_zero_point") == 0
    assert q.runs().count("QLinearConv") == 2


def test_a_range_belongs_behind_clip(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4,4,4] z)
            <float[4,3,3,3] w, float[4,4,3,3] w2, float lo = {0}, float hi = {0.5}> {
            c = Conv (x, w)
            y = Clip (c, lo, hi)
            z = Conv (y, w2)
        }"""
    )
    assert "Clip" not in q.ops()
    assert q.values("y_scale") * 255 <= 0.5 + 1e-6
    assert q.runs().count("QLinearConv") == 2


def test_an_activation_that_something_else_reads_before_runs_on_codes(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4,6,6] c, float[N,4,4,4] z) <float[4,3,3,3] w, float[4,4,3,3] w2> {
            c = Conv (x, w)
            y = Relu (c)
            z = Conv (y, w2)
        }"""
    )
    assert q.node("y").op == "Clip"
    assert q.values("y_min").dtype == np.uint8
    assert q.runs().count("QLinearConv") == 2
    got, want = q.outputs()
    assert np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_a_residual_add_between_convs_runs_in_integers(quantize):
    q = quantize(
        HEAD
        + """(float[N,4,8,8] x) => (float[N,4,4,4] z) <float[4,4,3,3] w, float[4,4,1,1] v, float[4,4,3,3] w2> {
            a = Conv (x, w)
            p = Conv <kernel_shape = [1,1], strides = [1,1]> (a, v)
            s = Add (a, p)
            y = Relu (s)
            z = Conv (y, w2)
        }"""
    )
    assert q.runs().count("QLinearAdd") == 1
    assert "Relu" not in q.ops()


def test_the_tail_of_a_net_stays_float(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4] z) <float[4,3,3,3] w> {
            c = Conv (x, w)
            p = GlobalAveragePool (c)
            f = Flatten (p)
            z = Softmax (f)
        }"""
    )
    assert q.runs()[-3:] == ["GlobalAveragePool", "Flatten", "Softmax"]
    assert "Softmax (1 node): stays float" in q.reasons()
    assert "GlobalAveragePool (1 node): stays float" in q.reasons()


def test_flatten_stands_on_the_codes_so_that_gemm_fuses(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,6,6] x) => (float[N,5] z) <float[4,3,3,3] w, float[64,5] v, float[5] b> {
            c = Conv (x, w)
            f = Flatten (c)
            z = Gemm (f, v, b)
        }"""
    )
    assert q.node("f").inputs[0].dtype == np.uint8
    assert q.runs() == ["QuantizeLinear", "Transpose", "QLinearConv", "Transpose", "Flatten", "QGemm"]


def test_the_residual_stream_and_normalisation_of_a_transformer_stay_float(quantize):
    q = quantize(
        HEAD
        + """(float[N,S,16] x) => (float[N,S,16] z)
            <float[16] g, float[16] h, float[16,32] w, float[32] b, float[32,16] v, float[16] c> {
            n = LayerNormalization <axis = -1> (x, g, h)
            m = MatMul (n, w)
            s = Add (m, b)
            t = Erf (s)
            u = MatMul (t, v)
            r = Add (u, c)
            z = Add (x, r)
        }"""
    )
    runs = q.runs()
    assert runs.count("MatMulIntegerToFloat") == 2
    assert runs.count("QuantizeLinear") == 2
    assert "QLinearAdd" not in runs
    assert "LayerNormalization" in runs


def test_a_bias_behind_matmul_does_not_pull_it_back_into_float(quantize):
    q = quantize(
        HEAD
        + """(float[24,7,16] x) => (float[24,7,8] y) <float[16,8] w, float[8] b> {
            m = MatMul (x, w)
            y = Add (m, b)
        }"""
    )
    assert "MatMulIntegerToFloat" in q.runs()
    assert "fuse" not in q.reasons()


def test_gemm_chains_stay_in_codes(quantize):
    q = quantize(
        HEAD
        + """(float[N,16] x) => (float[N,4] y) <float[16,8] w, float[8] b, float[8,4] v, float[4] c> {
            h = Gemm (x, w, b)
            r = Relu (h)
            y = Gemm (r, v, c)
        }"""
    )
    assert q.runs() == ["QuantizeLinear", "QGemm", "QGemm"]


def test_alpha_and_beta_are_folded(quantize):
    q = quantize(
        HEAD
        + """(float[N,16] x) => (float[N,8] y) <float[16,8] w, float[8] b> {
            y = Gemm <alpha = 0.5, beta = 3.0> (x, w, b)
        }"""
    )
    got, want = q.outputs()
    assert "QGemm" in q.runs()
    assert np.abs(got["y"] - want["y"]).max() < 0.03 * np.abs(want["y"]).max()


CONCAT = """(float[N,3,8,8] x) => (float[N,4,4,4] z) <float[4,3,3,3] w, float[4,3,3,3] v, float[4,8,3,3] u> {{
    a = Conv (x, w)
    b = Conv (x, v)
    {relus}
    y = Concat <axis = 1> ({inputs})
    z = Conv (y, u)
}}"""


def scales_read_by(q, name):
    return [t.inputs[0].inputs[1].values.item() for t in q.node(name).inputs]


def test_concat_shares_one_scale(quantize):
    q = quantize(HEAD + CONCAT.format(relus="ra = Relu (a) rb = Relu (b)", inputs="ra, rb"))
    assert len(set(scales_read_by(q, "y"))) == 1
    assert q.runs().count("QLinearConcat") == 1


def test_concat_of_differing_activations_keeps_their_scales(quantize):
    q = quantize(HEAD + CONCAT.format(relus="ra = Relu (a)", inputs="ra, b"))
    assert len(set(scales_read_by(q, "y"))) == 2
    assert q.runs().count("QLinearConv") == 3


def test_pad_fills_with_the_code_of_zero(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4,6,6] z)
            <float[4,3,3,3] w, float[4,4,3,3] v, int64[8] pads = {0,0,1,1,0,0,1,1}> {
            a = Conv (x, w)
            p = Pad (a, pads)
            z = Conv (p, v)
        }"""
    )
    assert q.node("p").inputs[2].values == q.values("a_zero_point") > 0
    got, want = q.outputs()
    assert np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_a_number_beside_codes_is_exact(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4,4,4] z) <float[4,3,3,3] w, float[4,4,3,3] v, float half = {-0.3}> {
            a = Conv (x, w)
            s = Mul (a, half)
            z = Conv (s, v)
        }"""
    )
    assert "QLinearMul" in q.runs()
    got, want = q.outputs()
    assert np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_a_negative_number_has_zero_point_0_where_codes_are_signed(quantize_model, graph):
    signed = replace(TARGET, costs=None, name="signed", activations="int8", symmetric_activations=True)
    model = graph(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,4,4,4] z) <float[4,3,3,3] w, float[4,4,3,3] v, float half = {-0.3}> {
            a = Conv (x, w)
            s = Mul (a, half)
            z = Conv (s, v)
        }"""
    )
    q = quantize_model(model, target=signed)
    assert q.values("half_q") == -1
    assert all(not c.values.any() for c in q.model.constants() if "zero_point" in c.name)
    got, want = q.outputs()
    assert np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_a_value_that_float_and_integer_operators_read_serves_both(quantize):
    q = quantize(
        HEAD
        + """(float[N,16] x) => (float[N,8] y, float[N,16] t) <float[16,8] w> {
            t = Tanh (x)
            y = MatMul (t, w)
        }"""
    )
    got, want = q.outputs()
    assert np.array_equal(got["t"], want["t"])
    assert "MatMulIntegerToFloat" in q.runs()


def test_a_transposed_convolution_says_why_it_stays_float(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x) => (float[N,2,8,8] z) <float[4,3,3,3] w, float[4,2,3,3] v> {
            a = Conv (x, w)
            z = ConvTranspose (a, v)
        }"""
    )
    assert "ConvTranspose (1 node): stays float: onnxruntime has no int8 kernel" in q.reasons()


def test_a_weight_that_a_caller_may_override_stays_float(quantize):
    q = quantize(
        HEAD
        + """(float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y) <float[4,3,3,3] w = {0}> {
            y = Conv (x, w)
        }""".replace("= {0}", "= {" + ",".join(["0.5"] * 108) + "}")
    )
    assert not q.result.changed
    assert "weight 'w' is a graph input" in q.reasons()


def test_an_embedding_table_becomes_int8(quantize):
    q = quantize(
        HEAD
        + """(int64[N] i) => (float[N,4] y) <float[100,16] table, float[16,4] w> {
            e = Gather (table, i)
            y = MatMul (e, w)
        }""",
        {"i": np.arange(24)},
    )
    assert q.values("table_q").dtype == np.int8
    assert q.result.stats["tables_in_integers"] == 1
    got, want = q.outputs()
    assert np.abs(got["y"] - want["y"]).max() < 0.05 * np.abs(want["y"]).max()


def test_a_sum_of_two_is_an_add(quantize):
    q = quantize(
        HEAD
        + """(float[N,4,8,8] x) => (float[N,4,4,4] z) <float[4,4,3,3] w, float[4,4,1,1] v, float[4,4,3,3] w2> {
            a = Conv (x, w)
            p = Conv (a, v)
            s = Sum (a, p)
            z = Conv (s, w2)
        }"""
    )
    assert "QLinearAdd" in q.runs()


def test_an_operator_that_reads_codes_in_float_says_why(quantize):
    q = quantize(
        HEAD
        + """(float[N,4,8,8] x) => (float[N,4,4,4] z)
            <float[4,4,3,3] w, float[4,4,3,3] v, int64[8] by = {0,0,1,1,0,0,1,1}, float one = {1}> {
            a = Conv (x, w)
            t = Tanh (a)
            p = Pad (a, by, one)
            r = MaxPool <kernel_shape = [3, 3]> (p)
            s = Sub (t, r)
            z = Conv (s, v)
        }"""
    )
    assert "Tanh (1 node): stays float: ort-cpu has no int8 kernel for it" in q.reasons()
    assert "Pad (1 node): stays float: it pads with a value other than zero" in q.reasons()


def test_a_model_with_nothing_to_quantise_is_left_as_it_is(graph):
    model = graph(HEAD + "(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Sum (x, z) }")
    result = Quantize().run(model, Context(TARGET))
    assert [n.op for n in model.graph.nodes] == ["Sum"]
    assert not result.changed
