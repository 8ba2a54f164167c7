"""The pass as its user meets it: options, odd models, odd data."""

import re

import numpy as np
import pytest

from zc.errors import ZcError
from zc.ir.model import Model, from_text

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
TWO = """(float[N,3,8,8] x) => (float[N,4,4,4] z) <float[4,3,3,3] w, float[4,4,3,3] v> {
    stem = Conv (x, w)
    head = Relu (stem)
    z = Conv (head, v)
}"""


def test_skip_leaves_what_it_names(quantize):
    q = quantize(HEAD + TWO, skip=("ste*",))
    assert "stem: quantize:skip=ste*" in q.reasons()
    assert q.runs().count("QLinearConv") == 1


def test_skip_takes_an_operator(quantize):
    q = quantize(HEAD + TWO, skip=("Conv",))
    assert not q.result.changed


def test_only_quantises_what_it_names(quantize):
    q = quantize(HEAD + TWO, only=("z",))
    assert q.runs().count("QLinearConv") == 1
    assert "stem: not in quantize:only" in q.reasons()


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name(quantize):
    with pytest.raises(ZcError, match=re.escape("skip=stme matches no node (did you mean 'stem'?)")):
        quantize(HEAD + TWO, skip=("stme",))


def test_a_percentile_out_of_range_is_an_error(quantize):
    with pytest.raises(ZcError, match="percentile is 5"):
        quantize(HEAD + TWO, percentile=5)


def test_an_outlier_in_the_samples_is_left_out_by_the_default(quantize):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 3, 8, 8)).astype(np.float32)
    x[0, 0, 0, 0] = 1000
    assert quantize(HEAD + TWO, {"x": x}).values("x_scale") * 255 < 20
    assert quantize(HEAD + TWO, {"x": x}, method="minmax").values("x_scale") * 255 > 1000


def test_a_quantised_model_is_left_alone(quantize, quantize_model):
    once = quantize(HEAD + TWO)
    again = quantize_model(once.model, once.arrays)
    assert not again.result.changed
    assert "the model is already quantised (QuantizeLinear)" in again.reasons()


def test_a_model_with_nothing_to_quantise_says_so(quantize):
    q = quantize(HEAD + "(float[N,4] x) => (float[N,4] y) { y = Tanh (x) }")
    assert not q.result.changed
    assert "nothing to quantise" in q.reasons()


def test_an_output_that_is_a_sequence_is_no_obstacle(quantize):
    q = quantize(
        HEAD
        + """(float[N,3] x) => (seq(float[N,1]) z) <float[3,4] w> {
        h = MatMul (x, w)
        z = SplitToSequence <axis = 1> (h)
    }"""
    )
    assert q.result.stats["weighted_in_integers"] == 1


def test_a_half_precision_model_says_so(quantize):
    q = quantize(HEAD + "(float16[N,4] x) => (float16[N,3] y) <float16[4,3] w> { y = MatMul (x, w) }")
    assert not q.result.changed
    assert "the weights are float16; give the float32 model" in q.reasons()


def test_nan_in_a_weight_is_an_error_that_names_it(quantize_model, graph):
    model = graph(HEAD + TWO)
    w = next(c for c in model.constants() if c.name == "w")
    w.values = np.where(np.arange(w.size).reshape(w.shape) == 5, np.nan, w.values).astype(np.float32)
    with pytest.raises(ZcError, match=re.escape("node 'stem': weight 'w' holds NaN or infinite numbers; mend")):
        quantize_model(model)


def test_a_value_that_is_never_finite_is_named(quantize_model, graph):
    model = graph(HEAD + TWO)
    with pytest.raises(ZcError, match=r"value 'x' has no finite element in 24 calibration rows"):
        quantize_model(model, {"x": np.full((24, 3, 8, 8), np.nan, np.float32)})


def test_odd_values_among_the_samples_are_told(quantize_model, graph):
    text = """(float[N,4] x) => (float[N,3] y) <float[4,3] w> {
        l = Log (x)
        y = MatMul (l, w)
    }"""
    x = np.abs(np.random.default_rng(0).standard_normal((24, 4))).astype(np.float32)
    x[3, 2] = 0
    q = quantize_model(graph(HEAD + text), {"x": x})
    assert any(n.kind == "warning" and "0 NaN and 1 infinite elements" in n.what for n in q.result.notes)


def test_outputs_keep_their_names_when_a_conv_makes_them(quantize):
    q = quantize(HEAD + TWO)
    got, want = q.outputs()
    assert list(got) == ["z"]
    assert np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_the_result_tells_size_and_error(quantize):
    stats = quantize(HEAD + TWO).result.stats
    assert stats["weighted_in_integers"] == 2
    assert stats["bytes_after"] < 0.5 * stats["bytes_before"]
    assert 25 < stats["sqnr_db"] < 60


def test_a_ruined_output_is_a_warning(quantize):
    x = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)
    x[:, 0] = 1e6  # one input channel swallows the scale of all; its weights are zero
    text = """(float[N,8] x) => (float[N,3] y) <float[8,3] w, float[8] zero = {0,1,1,1,1,1,1,1}> {
        y = MatMul (x, w)
    }"""
    q = quantize_without_first_row(quantize, text, x)
    assert any(n.kind == "warning" and "dB signal to noise" in n.what for n in q.result.notes)


def quantize_without_first_row(quantize, text, x):
    model_text = text.replace(", float[8] zero = {0,1,1,1,1,1,1,1}", "")
    rows = ["0,0,0"] + [f"{i}.5,-1,{7 - i}" for i in range(7)]
    return quantize(HEAD + model_text.replace("float[8,3] w", f"float[8,3] w = {{{','.join(rows)}}}"), {"x": x})


def test_an_old_operator_set_is_raised(quantize):
    text = (HEAD + TWO).replace(": 17", ": 9")
    q = quantize(text)
    assert q.model.opset == 13
    assert any("opset raised to 13" in n.what for n in q.result.notes)
    assert q.runs().count("QLinearConv") == 2


def test_samples_that_are_all_the_same_are_warned_of(quantize):
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    notes = quantize(HEAD + TWO, {"x": np.repeat(x, 32, axis=0)}).result.notes
    assert any(note.kind == "warning" and note.what.startswith("all 32 rows are the same") for note in notes)


IF = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8] x, bool c) => (float[N,4] y) <float[8,8] w> {
    h = MatMul (x, w)
    y = If (c) <
        then_branch = t () => (float[N,4] a) <float[8,4] u = {%s}> { a = MatMul (h, u) },
        else_branch = e () => (float[N,4] b) <float[8,4] v = {%s}> { b = MatMul (h, v) }
    >
}
""" % ((",".join(str(round(0.1 * k - 1.5, 2)) for k in range(32)),) * 2)


def test_the_branch_that_runs_is_quantised_and_the_other_says_why_not(quantize_model):
    model = from_text(IF.replace("<float[8,8] w>", f"<float[8,8] w = {{{','.join(['0.1', '-0.3'] * 32)}}}>"))
    name_nodes(model)
    x = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    q = quantize_model(model, {"x": x, "c": np.array(True)})
    assert "no calibration row runs the branch that reads 'h'" in q.reasons()
    assert q.result.stats["weighted_in_integers"] == 2
    got, want = q.outputs()
    assert np.abs(got["y"] - want["y"]).max() < 0.05 * np.abs(want["y"]).max()


def name_nodes(model: Model) -> None:
    for scope in model.scopes():
        for node in scope.nodes:
            node.name = node.name or node.outputs[0].name
