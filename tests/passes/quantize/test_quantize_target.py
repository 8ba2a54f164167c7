"""What the tables of a target change in what is written."""

from dataclasses import replace

import numpy as np

from zc.backends.onnxruntime import TARGET as DEFAULT

TARGET = replace(DEFAULT, costs=None)  # nothing is too small to be quantised

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


def test_symmetric_codes_do_not_stand_for_what_a_relu_does(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET), target=replace(TARGET, activations="int8", symmetric_activations=True))
    assert "Relu" in q.ops()
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


def test_one_operator_may_take_one_scale_a_weight(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET), target=replace(TARGET, per_tensor_ops=frozenset({"Gemm"})))
    assert (q.values("u_scale").shape, q.values("w_scale").shape) == ((), (4,))
    assert close(q)


def test_products_that_are_too_small_for_a_target_stay_float(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET), target=replace(TARGET, least_product=16))
    assert q.result.stats["weighted_in_integers"] == 2
    assert "depth or width below 16" in q.reasons()


BRANCHES = """(float[N,3,8,8] x) => (float[N,4,4,4] z)
    <float[4,3,3,3] w, float[4,3,3,3] v, float[4,K,3,3] u> {{
    a = Conv (x, w)
    b = Conv (x, v)
    {body}
    z = Conv (y, u)
}}"""


def branches(graph, body, channels):
    return graph(HEAD + BRANCHES.format(body=body).replace("K", str(channels)))


def test_an_output_may_have_a_fixed_scale(quantize_model, graph):
    target = replace(TARGET, fixed_scales={"Sigmoid": (1 / 256, 0), "Softmax": (1 / 256, 0)})
    q = quantize_model(branches(graph, "s = Sigmoid (a) y = Add (s, b)", 4), target=target)
    (code,) = [n for n in q.model.graph.nodes if n.op == "QuantizeLinear" and n.inputs[0].inputs[:1] == [q.node("s")]]
    assert (code.inputs[1].values, code.inputs[2].values) == (np.float32(1 / 256), 0)
    assert close(q)


def test_ties_that_are_demanded_keep_activations_apart(quantize_model, graph):
    body = "r = Relu (a) y = Concat <axis = 1> (r, b)"
    loose, strict = (
        quantize_model(branches(graph, body, 8), target=replace(TARGET, strict_ties=one)) for one in (False, True)
    )
    tied = {float(t.inputs[0].inputs[1].values) for t in strict.node("y").inputs}
    assert len(tied) == 1
    assert loose.values("r_scale") != loose.values("b_scale")
    assert "Relu" not in loose.ops()
    assert strict.node("r").op == "Clip"
    assert strict.node("r").inputs[1].dtype == np.uint8
    assert close(strict)


def test_a_tie_with_a_fixed_scale_leaves_the_operator_in_float(quantize_model, graph):
    target = replace(TARGET, strict_ties=True, fixed_scales={"Sigmoid": (1 / 256, 0)})
    q = quantize_model(branches(graph, "s = Sigmoid (a) y = Concat <axis = 1> (s, b)", 8), target=target)
    assert q.node("y").inputs[0].inputs[0].op == "Sigmoid"
    assert close(q)


RESIDUAL = replace(
    TARGET,
    float_output_ops=frozenset({"Conv"}),
    integer_ops=frozenset(),
    integer_runtime_ops=frozenset(),
    residual_sums=True,
)


def coded(q, name):
    """Is this input of the sum made of codes?"""
    makers = {t.name: t.inputs[0].op for t in q.node("y").inputs}
    return makers.get(name, makers.get(f"{name}_dq")) == "DequantizeLinear"


def test_a_sum_takes_one_branch_in_float_and_the_other_in_codes(quantize_model, graph):
    q = quantize_model(branches(graph, "r = Tanh (a) y = Add (b, r)", 4), target=RESIDUAL)
    assert (coded(q, "b"), coded(q, "r")) == (False, True)
    assert close(q)


def test_of_two_convolutions_the_longer_branch_stays_float(quantize_model, graph):
    text = """(float[N,3,8,8] x) => (float[N,4,4,4] z)
        <float[4,3,3,3] w, float[4,3,3,3] v, float[4,4,1,1] k, float[4,4,3,3] u> {
        a = Conv (x, w)
        t = Tanh (a)
        c = Conv (t, k)
        b = Conv (x, v)
        y = Add (b, c)
        z = Conv (y, u)
    }"""
    q = quantize_model(graph(HEAD + text), target=RESIDUAL)
    assert (coded(q, "b"), coded(q, "c")) == (True, False)
    assert close(q)
