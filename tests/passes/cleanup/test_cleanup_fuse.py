import numpy as np
import pytest

IMAGE = "g (float[N,3,8,8] x) => (float[N,4,H,W] y)"


def conv(after: str, more: str = "", pads: str = "pads = [1, 1, 1, 1], ") -> str:
    return f"""{IMAGE} <float[4,3,3,3] w, float[4] b{more}> {{
        conv = Conv <{pads}kernel_shape = [3, 3]> (x, w, b)
        {after}
    }}"""


def test_batch_normalization_goes_into_the_conv_before_it(run_pass):
    after = run_pass(
        "fuse",
        conv("y = BatchNormalization (conv, s, o, m, var)", ", float[4] s, float[4] o, float[4] m, float[4] var"),
    )
    assert after.ops == ["Conv"]
    assert after.model.graph.nodes[0].inputs[1].name == "w"


@pytest.mark.parametrize("group", [1, 2])
def test_batch_normalization_goes_into_a_conv_transpose(run_pass, group):
    after = run_pass(
        "fuse",
        f"""g (float[N,4,4,4] x) => (float[N,6,8,8] y)
        <float[4,{6 // group},2,2] w, float[6] s, float[6] o, float[6] m, float[6] var> {{
            up = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2], group = {group}> (x, w)
            y = BatchNormalization (up, s, o, m, var)
        }}""",
    )
    assert after.ops == ["ConvTranspose"]


@pytest.mark.parametrize("trans", [0, 1])
def test_batch_normalization_goes_into_a_gemm(run_pass, trans):
    shape = "8,5" if trans else "5,8"
    after = run_pass(
        "fuse",
        f"""g (float[N,5] x) => (float[N,8] y)
        <float[{shape}] w, float[8] c, float[8] s, float[8] o, float[8] m, float[8] var> {{
            gemm = Gemm <transB = {trans}, alpha = 0.5, beta = 2.0> (x, w, c)
            y = BatchNormalization (gemm, s, o, m, var)
        }}""",
    )
    assert after.ops == ["Gemm"]


def test_batch_normalization_goes_into_the_conv_after_it(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,6,6,6] y)
        <float[6,2,3,3] w, float[4] s, float[4] o, float[4] m, float[4] var> {
            normal = BatchNormalization (x, s, o, m, var)
            y = Conv <kernel_shape = [3, 3], group = 2> (normal, w)
        }""",
    )
    assert after.ops == ["Conv"]


def test_an_offset_in_front_of_a_padded_conv_stays(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,6,8,8] y)
        <float[6,4,3,3] w, float[4] s, float[4] o, float[4] m, float[4] var> {
            normal = BatchNormalization (x, s, o, m, var)
            y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (normal, w)
        }""",
    )
    assert after.ops == ["BatchNormalization", "Conv"]
    assert "border" in after.reasons


def test_a_factor_in_front_of_a_padded_conv_goes_into_it(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,6,8,8] y) <float[6,4,3,3] w, float[1,4,1,1] f> {
            scaled = Mul (x, f)
            y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (scaled, w)
        }""",
    )
    assert after.ops == ["Conv"]


def test_a_conv_whose_output_is_read_elsewhere_keeps_its_batch_normalization(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,3,8,8] x) => (float[N,4,8,8] y)
        <float[4,3,1,1] w, float[4] s, float[4] o, float[4] m, float[4] var> {
            conv = Conv <kernel_shape = [1, 1]> (x, w)
            normal = BatchNormalization (conv, s, o, m, var)
            y = Add (normal, conv)
        }""",
    )
    assert after.ops == ["Conv", "BatchNormalization", "Add"]
    assert "read elsewhere" in after.reasons


def test_a_shared_weight_is_not_rewritten(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w, float[4,1,1] f> {
            first = Conv <kernel_shape = [1, 1]> (x, w)
            second = Conv <kernel_shape = [1, 1]> (first, w)
            y = Mul (second, f)
        }""",
    )
    assert after.ops == ["Conv", "Conv", "Mul"]
    assert "shared" in after.reasons


def test_a_weight_that_a_caller_may_replace_is_not_rewritten(run_pass, text_model):
    model = text_model(conv("y = Mul (conv, f)", ", float[4,1,1] f"))
    model.graph.inputs.append(next(c for c in model.constants() if c.name == "w"))
    after = run_pass("fuse", model)
    assert after.ops == ["Conv", "Mul"]
    assert "a caller may replace it" in after.reasons


def test_half_precision_weights_are_not_rounded_anew(run_pass):
    after = run_pass(
        "fuse",
        """g (float16[N,3,8,8] x) => (float16[N,4,8,8] y) <float16[4,3,1,1] w, float16[4,1,1] f> {
            conv = Conv <kernel_shape = [1, 1]> (x, w)
            y = Mul (conv, f)
        }""",
    )
    assert after.ops == ["Conv", "Mul"]
    assert "float16" in after.reasons


def test_training_statistics_are_not_folded(text_model):
    from zc.passes.cleanup.fuse import fuse

    model = text_model(
        """g (float[N,3,8,8] x) => (float[N,4,8,8] y)
        <float[4,3,1,1] w, float[4] s, float[4] o, float[4] m, float[4] var> {
            conv = Conv <kernel_shape = [1, 1]> (x, w)
            y, mean, variance = BatchNormalization <training_mode = 1> (conv, s, o, m, var)
        }"""
    )
    result = fuse(model)
    assert not result.changed
    assert any("training mode" in n.what for n in result.notes)


def test_numbers_that_are_not_finite_stay_where_they_are(run_pass):
    after = run_pass("fuse", conv("y = Div (conv, f)", ", float[4,1,1] f = {1, 0, 2, 3}"))
    assert after.ops == ["Conv", "Div"]
    assert "finite" in after.reasons


@pytest.mark.parametrize("line", ["Mul (conv, f)", "Div (conv, f)", "Add (f, conv)", "Sub (conv, f)", "Sub (f, conv)"])
@pytest.mark.parametrize("shape", ["4,1,1", "1,4,1,1", "1", ""])
def test_arithmetic_by_channel_goes_into_the_conv(run_pass, line, shape):
    dims = f"[{shape}]" if shape else ""
    values = {"": "{2}", "1": "{2}"}.get(shape, "{0.5, -1, 0.25, 2}")
    after = run_pass("fuse", conv(f"y = {line}", f", float{dims} f = {values}"))
    assert after.ops == ["Conv"]


def test_a_constant_that_differs_within_a_channel_stays(run_pass):
    after = run_pass("fuse", conv("y = Mul (conv, f)", ", float[8,8] f"))
    assert after.ops == ["Conv", "Mul"]
    assert "within a channel" in after.reasons


def test_a_constant_on_the_wrong_axis_stays(run_pass):
    after = run_pass("fuse", conv("y = Add (conv, f)", ", float[8] f"))
    assert after.ops == ["Conv", "Add"]


def test_a_bias_may_be_added_to_a_conv_with_a_shared_weight(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w, float[4,1,1] c> {
            first = Conv <kernel_shape = [1, 1]> (x, w)
            second = Conv <kernel_shape = [1, 1]> (first, w)
            y = Add (second, c)
        }""",
    )
    assert after.ops == ["Conv", "Conv"]


def test_mul_and_add_go_into_a_batch_normalization(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y)
        <float[4] s, float[4] o, float[4] m, float[4] var, float[4,1,1] f, float[4,1,1] c> {
            normal = BatchNormalization (x, s, o, m, var)
            scaled = Mul (normal, f)
            y = Add (scaled, c)
        }""",
    )
    assert after.ops == ["BatchNormalization"]


def test_parameters_shared_by_two_normalizations_are_not_spoiled(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y)
        <float[4] s, float[4] o, float[4] m, float[4] var, float[4,1,1] f> {
            first = BatchNormalization (x, s, o, m, var)
            scaled = Mul (first, f)
            relu = Relu (scaled)
            y = BatchNormalization (relu, s, o, m, var)
        }""",
    )
    assert after.ops == ["BatchNormalization", "Relu", "BatchNormalization"]


@pytest.mark.parametrize("opset", [9, 17])
def test_matmul_and_a_bias_become_gemm(run_pass, opset):
    text = "g (float[N,16] x) => (float[N,8] y) <float[16,8] w, float[8] c> { p = MatMul (x, w)  y = Add (p, c) }"
    assert run_pass("fuse", text, opset).ops == ["Gemm"]


def test_matmul_on_three_dimensions_stays(run_pass):
    text = "g (float[N,5,16] x) => (float[N,5,8] y) <float[16,8] w, float[8] c> { p = MatMul (x, w)  y = Add (p, c) }"
    assert run_pass("fuse", text).ops == ["MatMul", "Add"]


def test_a_factor_goes_into_a_matmul_of_any_rank(run_pass):
    text = "g (float[N,5,16] x) => (float[N,5,8] y) <float[16,8] w, float[8] f> { p = MatMul (x, w)  y = Mul (p, f) }"
    assert run_pass("fuse", text).ops == ["MatMul"]


def test_a_residual_add_is_no_bias(run_pass):
    text = "g (float[N,8] x) => (float[N,8] y) <float[8,8] w> { p = MatMul (x, w)  y = Add (p, x) }"
    assert run_pass("fuse", text).ops == ["MatMul", "Add"]


@pytest.mark.parametrize("side", [0, 1])
def test_a_transpose_goes_into_gemm(run_pass, side):
    shapes = ("float[5,N] x, float[5,4] z", "t, z") if side == 0 else ("float[N,5] z, float[4,5] x", "z, t")
    text = f"g ({shapes[0]}) => (float[N,4] y) {{ t = Transpose <perm = [1, 0]> (x)  y = Gemm ({shapes[1]}) }}"
    after = run_pass("fuse", text)
    assert after.ops == ["Gemm"]
    assert after.attrs("Gemm")["transB" if side else "transA"] == 1


def pad(node: str, line: str = "Pad (x, pads)", more: str = "", pads: str = "0,0,1,1,0,0,2,1") -> str:
    return f"""g (float[N,4,8,8] x) => (float[N,4,H,W] y) <int64[8] pads = {{{pads}}}, float[4,4,3,3] w{more}> {{
        p = {line}
        y = {node}
    }}"""


CONV = "Conv <kernel_shape = [3, 3]> (p, w)"


@pytest.mark.parametrize("opset", [9, 11, 17, 18])
def test_a_zero_pad_goes_into_the_conv(run_pass, opset):
    line = "Pad <pads = [0,0,1,1,0,0,2,1]> (x)" if opset < 11 else "Pad (x, pads)"
    after = run_pass("fuse", pad(CONV, line), opset)
    assert after.ops == ["Conv"]
    assert after.attrs("Conv")["pads"] == [1, 1, 2, 1]


def test_the_pads_of_pad_and_conv_add_up(run_pass):
    after = run_pass("fuse", pad("Conv <kernel_shape = [3, 3], pads = [1, 0, 0, 1]> (p, w)"))
    assert after.attrs("Conv")["pads"] == [2, 1, 2, 2]


def test_a_pad_with_axes_goes_into_the_conv(run_pass):
    more = ", int64[2] short = {1, 2}, int64[1] axis = {-1}, float zero = {0}"
    after = run_pass("fuse", pad(CONV, "Pad (x, short, zero, axis)", more), 18)
    assert after.attrs("Conv")["pads"] == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("line", "pads", "why"),
    [
        ('Pad <mode = "reflect"> (x, pads)', "0,0,1,1,0,0,2,1", "reflect"),
        ("Pad (x, pads, one)", "0,0,1,1,0,0,2,1", "other than zero"),
        ("Pad (x, pads)", "0,0,-1,0,0,0,0,0", "crops"),
        ("Pad (x, pads)", "1,0,0,0,0,0,0,0", "batch"),
    ],
)
def test_a_pad_that_a_conv_cannot_do_stays(run_pass, line, pads, why):
    after = run_pass("fuse", pad(CONV, line, ", float one = {1}", pads).replace("float[N,4,H,W] y", "float[M,4,H,W] y"))
    assert after.ops == ["Pad", "Conv"]
    assert why in after.reasons


@pytest.mark.parametrize("include", [0, 1])
def test_a_pad_counts_in_the_average_whatever_the_pool_does_with_its_own(run_pass, include):
    node = f"AveragePool <kernel_shape = [3, 3], strides = [2, 2], count_include_pad = {include}> (p)"
    after = run_pass("fuse", pad(node))
    assert after.ops == ["AveragePool"]
    assert after.attrs("AveragePool")["count_include_pad"] == 1


@pytest.mark.parametrize(
    "attrs", ["pads = [1, 1, 1, 1], count_include_pad = 0", "ceil_mode = 1", "ceil_mode = 1, count_include_pad = 1"]
)
def test_an_average_that_would_count_otherwise_keeps_the_pad(run_pass, attrs):
    after = run_pass("fuse", pad(f"AveragePool <kernel_shape = [3, 3], strides = [2, 2], {attrs}> (p)"))
    assert after.ops == ["Pad", "AveragePool"]


def test_a_zero_pad_after_relu_goes_into_max_pool(run_pass):
    text = """g (float[N,4,8,8] x) => (float[N,4,H,W] y) <int64[8] pads = {0,0,1,1,0,0,1,1}> {
        r = Relu (x)
        p = Pad (r, pads)
        y = MaxPool <kernel_shape = [3, 3]> (p)
    }"""
    assert run_pass("fuse", text).ops == ["Relu", "MaxPool"]
    after = run_pass("fuse", text.replace("Relu", "Neg"))
    assert after.ops == ["Neg", "Pad", "MaxPool"]
    assert "greatest" in after.reasons


def test_each_rule_counts_what_it_did(run_pass):
    after = run_pass("fuse", conv("m = Mul (conv, f)  y = Add (m, f)", ", float[4,1,1] f"))
    assert after.result.stats == {"arithmetic into the layer before": 2}


def test_the_original_keeps_its_numbers_when_a_copy_is_rewritten(run_pass, text_model):
    model = text_model(conv("y = Mul (conv, f)", ", float[4,1,1] f"))
    weight = next(c for c in model.constants() if c.name == "w").values.copy()
    after = run_pass("fuse", model)
    assert np.array_equal(next(c for c in after.before.constants() if c.name == "w").values, weight)
    assert not np.array_equal(after.constant("w"), weight)


def test_a_batch_normalization_along_another_axis_than_the_matmuls_columns_stays(run_pass):
    after = run_pass(
        "fuse",
        """g (float[2,8,16] x) => (float[2,8,8] y) <float[16,8] w, float[8] s, float[8] var,
            float[8] zeros = {0, 0, 0, 0, 0, 0, 0, 0}> {
            product = MatMul (x, w)
            y = BatchNormalization (product, s, zeros, zeros, var)
        }""",
    )
    assert after.ops == ["MatMul", "BatchNormalization"]
    assert "it has the channels elsewhere" in after.reasons
