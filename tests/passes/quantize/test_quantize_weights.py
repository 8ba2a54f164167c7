"""Numbers as integers: scales, overflow, what is left in the file."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.passes.quantize.scheme import activation_scale, bias_codes, overflow_room, quantize_weight, weight_scales

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
CONV = """(float[N,2,6,6] x) => (float[N,3,4,4] y) <float[3,2,3,3] w, float[3] b> {
    y = Conv (x, w, b)
}"""

numbers = st.floats(-1e6, 1e6, width=32)


@given(numbers, numbers, st.sampled_from(["uint8", "int8"]), st.booleans())
def test_zero_has_a_code_and_the_range_is_covered(one, other, kind, symmetric):
    low, high = min(one, other), max(one, other)
    scale = activation_scale(low, high, kind, symmetric)
    info = np.iinfo(scale.dtype)
    assert scale.quantize(np.zeros(1))[0] == scale.zero_point
    step = float(scale.scale)
    assert (info.min - scale.zero_point) * step <= min(low, 0) + 1.01 * step
    assert (info.max - scale.zero_point) * step >= max(high, 0) - 1.01 * step
    assert not symmetric or scale.zero_point in (0, 128)


@given(st.floats(-50, 50), st.floats(0.1, 50), st.lists(st.floats(0, 1), min_size=1))
def test_codes_are_within_one_step(low, width, places):
    scale = activation_scale(low, low + width, "uint8", False)
    values = np.array([low + width * p for p in places])
    back = (scale.quantize(values).astype(np.float64) - scale.zero_point) * float(scale.scale)
    assert np.abs(back - values).max() <= 1.001 * float(scale.scale)


weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.floats(-1, 1, width=32)
)


@settings(deadline=None)
@given(weights, st.floats(1e-6, 10), st.floats(-40, 40))
def test_no_accumulator_can_overflow(weight, input_scale, exponent):
    bias = np.full(weight.shape[0], 10.0**exponent if abs(exponent) < 37 else 1e9)
    scales = weight_scales(weight, 0, overflow_room(weight, 0, bias, input_scale))
    codes = quantize_weight(weight, scales, 0).astype(object).reshape(weight.shape[0], -1)
    b = np.rint(bias / (input_scale * scales.astype(np.float64)))
    worst_high = b + np.array([sum(255 * max(c, 0) for c in row) for row in codes], float)
    worst_low = -b + np.array([sum(255 * max(-c, 0) for c in row) for row in codes], float)
    # Brute force: every activation is what moves this channel farthest. The scale is rounded to float32.
    assert max(worst_high.max(), worst_low.max()) <= 2**31 * (1 + 1e-6)
    assert np.isfinite(bias_codes(bias, input_scale * scales)).all()


def test_a_channel_of_zeros_is_harmless(quantize_model, graph):
    model = graph(HEAD + CONV)
    w = next(c for c in model.constants() if c.name == "w")
    w.values = w.values * np.float32([1, 0, 1]).reshape(3, 1, 1, 1)
    q = quantize_model(model)
    assert q.values("w_scale")[1] == 1
    got, want = q.outputs()
    assert np.abs(got["y"] - want["y"]).max() < 0.03 * np.abs(want["y"]).max()


def test_a_nearly_dead_channel_keeps_its_bias(quantize_model, graph):
    model = graph(HEAD + CONV)
    w = next(c for c in model.constants() if c.name == "w")
    b = next(c for c in model.constants() if c.name == "b")
    w.values = w.values * np.float32([1, 1e-12, 1]).reshape(3, 1, 1, 1)
    b.values = np.float32([0.1, 5, -0.1])
    q = quantize_model(model)
    got, want = q.outputs()
    assert np.abs(got["y"][:, 1] - 5).max() < 0.03
    assert np.abs(got["y"] - want["y"]).max() < 0.03 * np.abs(want["y"]).max()
    assert any("raised so that int32 cannot overflow" in n.what for n in q.result.notes)


def test_no_float_weight_is_left_in_the_file(quantize):
    q = quantize(HEAD + CONV)
    assert {c.name for c in q.model.constants()} & {"w", "b"} == set()
    assert q.values("w_q").dtype == np.int8
    assert q.values("b_q").dtype == np.int32
    assert q.model.graph.declared == [c for c in q.model.graph.declared if c.outputs]


def test_a_shared_weight_is_written_once(quantize):
    q = quantize(
        HEAD
        + """(float[N,4,8,8] x) => (float[N,4,4,4] z) <float[4,4,3,3] w> {
            y = Conv (x, w)
            z = Conv (y, w)
        }"""
    )
    assert sum(c.dtype == np.int8 and c.size > 4 for c in q.model.constants()) == 1
    assert q.runs().count("QLinearConv") == 2


def test_a_weight_that_something_else_reads_stays_beside_its_codes(quantize):
    q = quantize(
        HEAD
        + """(float[N,8] x) => (float[N,8] y, float[8,8] t) <float[8,8] w> {
            y = MatMul (x, w)
            t = Tanh (w)
        }"""
    )
    got, want = q.outputs()
    assert np.array_equal(got["t"], want["t"])
    assert "MatMulIntegerToFloat" in q.runs()


def test_weights_have_a_scale_for_each_output_channel_unless_told_otherwise(quantize):
    assert quantize(HEAD + CONV).values("w_scale").shape == (3,)
    q = quantize(HEAD + CONV, per_channel=False)
    assert q.values("w_scale").shape == ()
    assert "QLinearConv" in q.runs()


def test_the_same_input_gives_the_same_bytes(quantize):
    one, other = (quantize(HEAD + CONV).model.to_proto().SerializeToString(deterministic=True) for _ in range(2))
    assert one == other


def test_a_number_added_to_a_single_column_is_its_bias(quantize):
    q = quantize(f"""{HEAD}(float[N,8,16] x) => (float[N,8,1] y) <float[16,1] w, float c = {{0.5}}> {{
        product = MatMul (x, w)
        y = Add (product, c)
    }}""")
    assert "MatMulIntegerToFloat" in q.runs()
