from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from zc.errors import ZcError
from zc.ir.model import Model, load
from zc.measure.cost import Cost, count


def text(body: str, opset: int = 17, extra: str = "") -> Model:
    """A model; a value that is declared without content, `<float[3,4] w>`, is an initializer of zeros."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}{extra}]>\n{body}')
    graph = proto.graph
    held = {t.name for t in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    for info in [v for v in graph.value_info if v.name not in held | made]:
        kind = info.type.tensor_type
        shape = [d.dim_value for d in kind.shape.dim]
        zeros = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        graph.initializer.append(onnx.numpy_helper.from_array(zeros, info.name))
        graph.value_info.remove(info)
    return Model.from_proto(proto)


def one_layer(cost: Cost) -> tuple[str, int, int | None]:
    (layer,) = cost.layers
    return layer.op, layer.params, layer.macs


def test_conv_costs_outputs_times_the_kernel_of_its_group():
    model = text("""
        g (float[N,4,8,8] x) => (float[N,6,4,4] y) <float[6,2,3,3] w, float[6] b> {
            y = Conv <group=2, strides=[2,2], pads=[1,1,1,1]> (x, w, b)
        }""")
    cost = count(model)
    assert one_layer(cost) == ("Conv", 6 * 2 * 9 + 6, 6 * 4 * 4 * 2 * 9)
    assert cost.macs == 6 * 4 * 4 * 18
    assert cost.bytes == 4 * (6 * 18 + 6)
    assert cost.layers[0].output_shape == (1, 6, 4, 4)


def test_transposed_conv_costs_inputs_times_the_kernel():
    model = text("""
        g (float[1,4,5,5] x) => (float[1,3,10,10] y) <float[4,3,2,2] w> {
            y = ConvTranspose <strides=[2,2]> (x, w)
        }""")
    assert count(model).macs == 4 * 25 * 3 * 4


def test_matrix_products_cost_outputs_times_the_reduction():
    model = text("""
        g (float[N,7,8] x, float[3,8] a) => (float[N,7,5] y, float[2,8] z, float[N,7,7] s)
        <float[8,5] w, float[3,2] b> {
            y = MatMul (x, w)
            z = Gemm <transA=1> (b, a)
            t = Transpose <perm=[0,2,1]> (x)
            s = MatMul (x, t)
        }""")
    by_op = [(layer.op, layer.macs) for layer in count(model).layers]
    assert by_op == [("MatMul", 7 * 5 * 8), ("Gemm", 2 * 8 * 3), ("MatMul", 7 * 7 * 8)]


def test_lstm_uses_every_recurrent_weight_once_a_step():
    model = text("""
        g (float[5,2,3] x) => (float[5,1,2,4] y) <float[1,16,3] w, float[1,16,4] r> {
            y = LSTM <hidden_size=4> (x, w, r)
        }""")
    assert count(model).macs == 5 * 2 * (16 * 3 + 16 * 4)


@pytest.mark.parametrize(
    ("equation", "macs"), [("bij,jk->bik", 2 * 3 * 4 * 5), ("...ij,jk->...ik", 2 * 3 * 4 * 5), ("bij,jk->k", 120)]
)
def test_einsum_costs_the_product_of_its_labels(equation: str, macs: int):
    model = text(f"""
        g (float[2,3,4] x, float[4,5] w) => (float[2,3,5] y) {{ y = Einsum <equation="{equation}"> (x, w) }}""")
    assert count(model, {}).macs == macs


def test_attention_costs_two_products():
    model = text(
        """
        g (float[1,4,6,8] q, float[1,4,7,8] k, float[1,4,7,8] v) => (float[1,4,6,8] y) { y = Attention (q, k, v) }""",
        opset=23,
    )
    assert count(model).macs == 4 * 6 * 7 * (8 + 8)


def test_quantised_weights_behind_dequantize_belong_to_the_conv_and_scales_are_no_parameters():
    model = text("""
        g (float[N,2,4,4] x) => (float[N,3,4,4] y)
        <int8[3,2,1,1] w, float[3] ws, int8[3] wz, int32[3] b, float[3] bs> {
            wf = DequantizeLinear <axis=0> (w, ws, wz)
            bf = DequantizeLinear <axis=0> (b, bs)
            y = Conv (x, wf, bf)
        }""")
    cost = count(model)
    assert one_layer(cost) == ("Conv", 6 + 3, 3 * 16 * 2)
    assert cost.bytes == cost.layers[0].bytes == 6 + 12 + 3 + 12 + 12


def test_integer_convolutions_count_like_float_ones():
    model = text("""
        g (uint8[1,2,4,4] x) => (uint8[1,3,4,4] y)
        <float s = {1.0}, uint8 z = {0}, int8[3,2,1,1] w, float[3] ws, int8[3] wz, int32[3] b> {
            y = QLinearConv (x, s, z, w, ws, wz, s, z, b)
        }""")
    assert one_layer(count(model)) == ("QLinearConv", 6 + 3, 3 * 16 * 2)


def test_shape_constants_and_bounds_are_bytes_and_no_parameters():
    model = text("""
        g (float[1,8] x) => (float[2,4] y) <int64[2] shape = {2, 4}, float low = {0.0}, float high = {6.0}> {
            c = Clip (x, low, high)
            y = Reshape (c, shape)
        }""")
    cost = count(model)
    assert (cost.params, cost.macs, cost.bytes) == (0, 0, 16 + 8)
    assert cost.layers == ()


def test_a_shared_weight_counts_once_and_is_multiplied_twice():
    model = text("""
        g (float[1,4] x) => (float[1,4] y) <float[4,4] w> {
            h = MatMul (x, w)
            y = MatMul (h, w)
        }""")
    cost = count(model)
    assert (cost.params, cost.macs) == (16, 32)
    assert [layer.params for layer in cost.layers] == [16, 0]


def test_weights_in_constant_nodes_count():
    model = text("""
        g (float[1,2] x) => (float[1,2] y) {
            w = Constant <value = float[2,2] {1.0, 2.0, 3.0, 4.0}> ()
            y = MatMul (x, w)
        }""")
    cost = count(model)
    assert one_layer(cost) == ("MatMul", 4, 4)
    assert cost.bytes == 16
    assert cost.ops == {"Constant": 1, "MatMul": 1}


def test_an_unused_initializer_is_bytes_and_no_parameter():
    model = text("g (float[1,2] x) => (float[1,2] y) <float[100] left> { y = Relu (x) }")
    assert (count(model).params, count(model).bytes) == (0, 400)


def test_of_an_if_both_branches_have_weights_and_the_dearer_one_is_the_cost():
    model = text("""
        g (float[1,4] x, bool c) => (float[1,2] y) <float[4,2] w, float[4,8] a, float[8,2] b> {
            y = If (c) <
                then_branch = t () => (float[1,2] p) { p = MatMul (x, w) },
                else_branch = e () => (float[1,2] q) { h = MatMul (x, a)
                    q = MatMul (h, b) }
            >
        }""")
    cost = count(model)
    assert (cost.params, cost.macs) == (8 + 32 + 16, 32 + 16)
    assert len(cost.layers) == 3


def test_a_loop_is_reported_because_nobody_knows_how_often_it_runs():
    model = text("""
        g (float[1,4] x, int64 n, bool c) => (float[1,4] y) <float[4,4] w> {
            y = Loop (n, c, x) <body = b (int64 i, bool k, float[1,4] s) => (bool ko, float[1,4] so) {
                ko = Identity (k)
                so = MatMul (s, w)
            }>
        }""")
    cost = count(model)
    assert (cost.macs, cost.known_macs, cost.params) == (None, 16, 16)
    assert "how often" in cost.unknown[0]


def test_an_open_dimension_is_reported_until_it_is_given_a_size():
    model = text("g (float[N,S,8] x) => (float[N,S,5] y) <float[8,5] w> { y = MatMul (x, w) }")
    cost = count(model)
    assert (cost.macs, cost.open_dims, cost.params) == (None, ("S",), 40)
    assert cost.layers[0].macs is None
    assert "'y' is [1,S,5]" in cost.unknown[0]
    bound = count(model, {"S": 128})
    assert (bound.macs, bound.unknown) == (128 * 40, ())
    assert count(model, {"S": 128, "N": 4}).macs == 4 * 128 * 40


def test_a_dimension_without_a_name_is_given_a_size_by_its_place():
    model = text("g (float[N,?,8] x) => (float[N,?,5] y) <float[8,5] w> { y = MatMul (x, w) }")
    model.graph.inputs[0].shape = ["N", None, 8]
    assert count(model).open_dims == ("x:1",)
    assert count(model, {"x:1": 3}).macs == 3 * 40


def test_counting_leaves_the_model_as_it_is():
    model = text("g (float[N,S,8] x) => (float[N,S,5] y) <float[8,5] w> { y = MatMul (x, w) }")
    before = model.to_proto().SerializeToString(deterministic=True)
    count(model, {"S": 3})
    assert model.to_proto().SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("dims", "words"), [({"T": 3}, "no open dimension 'T'"), ({"S": 0}, "at least 1"), ({"x:2": 3}, "is 8")]
)
def test_a_dimension_that_cannot_be_given_is_refused(dims: dict[str, int], words: str):
    model = text("g (float[N,S,8] x) => (float[N,S,5] y) <float[8,5] w> { y = MatMul (x, w) }")
    with pytest.raises(ZcError, match=words):
        count(model, dims)


def test_shapes_that_inference_cannot_follow_are_seen_by_running_the_model():
    model = text("""
        g (float[N,4] x) => (float[M,5] y) <float[4,5] w, int64[2] repeats = {3, 1}> {
            f = Cast <to=1> (repeats)
            i = Cast <to=7> (f)
            e = Tile (x, i)
            y = MatMul (e, w)
        }""")
    assert count(model).macs == 3 * 5 * 4


def test_an_unknown_operator_with_weights_is_reported():
    model = text("g (float[1,4] x) => (float[1,5] y) <float[4,5] w> { y = acme.Dense (x, w) }", extra=', "acme" : 1')
    cost = count(model)
    assert cost.ops == {"acme.Dense": 1}
    assert cost.macs is None
    assert "no rule" in cost.unknown[0]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("resnet20_cifar10", 269_034, 40_551_040),
        ("resnet20_cifar10_dynamo", 269_034, 40_551_040),
        ("resnet56_cifar10", 850_986, 125_485_696),
        ("mobilenetv1_025_imagenet", 467_336, 41_030_272),
        ("squeezenet10_imagenet", 1_248_424, 861_339_936),
    ],
)
def test_known_models_cost_what_the_papers_say(shared: Path, name: str, params: int, macs: int):
    cost = count(load(shared / "models" / f"{name}.onnx"))
    assert (cost.params, cost.macs) == (params, macs)
