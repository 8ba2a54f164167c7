"""What the tables of a target change in what is written."""

from dataclasses import replace

import numpy as np

from zc.backends.onnxruntime import TARGET

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,3,8,8] x) => (float[N,5] z)
    <float[4,3,3,3] w, float[4] b, float[4,4,3,3] v, float[64,5] u, float[5] c> {
    a = Conv (x, w, b)
    r = Relu (a)
    d = Conv (r, v)
    f = Flatten (d)
    z = Gemm <beta = 2.0> (f, u, c)
}"""


def close(q):
    got, want = q.outputs()
    return np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_a_target_may_keep_biases_in_float(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET), target=replace(TARGET, integer_bias=False, integer_runtime_ops=frozenset()))
    assert q.values("b_float").dtype == np.float32
    assert not any(c.dtype == np.int32 for c in q.model.constants())
    assert q.result.stats["biases_corrected"] == 3
    assert close(q)


def test_a_target_may_want_symmetric_int8_activations(quantize_model, graph):
    target = replace(TARGET, activations="int8", symmetric_activations=True, absorbed_activations=frozenset())
    q = quantize_model(graph(HEAD + NET), target=target)
    zeros = [c.values for c in q.model.constants() if c.name.endswith("zero_point")]
    assert all(z.dtype == np.int8 and not z.any() for z in zeros)
    assert "Relu" in q.ops() or "Clip" in q.ops()
    assert close(q)


def test_an_operator_without_kernel_stays_float(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET), target=replace(TARGET, weighted_ops=frozenset({"Gemm"})))
    assert q.result.stats["weighted_in_integers"] == 1
    assert q.ops().count("QuantizeLinear") == 1
    assert close(q)


def test_a_target_with_one_scale_a_weight_gets_it(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET), target=replace(TARGET, per_channel=False))
    assert q.values("w_scale").shape == ()
    assert close(q)


def test_a_layer_that_the_runtime_runs_in_float_all_the_same_stays_float(quantize_model, graph):
    without = replace(TARGET, integer_runtime_ops=TARGET.integer_runtime_ops - {"QGemm", "MatMulIntegerToFloat"})
    q = quantize_model(graph(HEAD + NET), target=without)
    gemm = next(n for n in q.model.graph.nodes if n.op == "Gemm")
    assert gemm.inputs[1].dtype == np.float32
    assert not gemm.inputs[1].inputs
    assert "does not fuse it into an int8 kernel" in q.reasons()
    assert q.result.stats["unfused_left_float"] == 1
