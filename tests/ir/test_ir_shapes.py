"""Shapes inferred anew."""

import numpy as np
import pytest

from zc.ir.check import check
from zc.ir.model import Model, from_text
from zc.ir.shapes import infer_shapes, made_up, static_shape

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
CONV = f"""{HEAD} g (float[N,3,8,8] x) => (float[N,2] y) <float[4,3,3,3] w, float[2,4] v> {{
    [conv] a = Conv <pads = [1,1,1,1]> (x, w)
    [pool] b = GlobalAveragePool (a)
    [flat] c = Flatten (b)
    [gemm] y = Gemm <transB = 1> (c, v)
}}"""


@pytest.fixture
def model() -> Model:
    text = CONV.replace("w,", f"w = {{{','.join('1' * 108)}}},").replace("v>", f"v = {{{','.join('1' * 8)}}}>")
    return from_text(text)


def shapes(model: Model) -> list[object]:
    return [list(n.outputs[0].shape) for n in model.graph.nodes]


def test_every_value_gets_type_and_shape(model: Model) -> None:
    assert infer_shapes(model) == ()
    assert shapes(model) == [["N", 4, 8, 8], ["N", 4, 1, 1], ["N", 4], ["N", 2]]
    assert all(n.outputs[0].dtype == np.float32 for n in model.graph.nodes)


def test_after_a_cut_the_old_shapes_are_not_trusted(model: Model) -> None:
    infer_shapes(model)
    weight, last = model.constants()
    weight.values, last.values = weight.values[:3], last.values[:, :3]
    infer_shapes(model, stale=True)
    assert shapes(model) == [["N", 3, 8, 8], ["N", 3, 1, 1], ["N", 3], ["N", 2]]
    check(model)


def test_after_a_cut_shapes_that_came_with_the_file_are_not_trusted(model: Model) -> None:
    infer_shapes(model)
    loaded = Model.from_proto(model.to_proto())
    weight, last = loaded.constants()
    weight.values, last.values = weight.values[:3], last.values[:, :3]
    infer_shapes(loaded, stale=True)
    assert shapes(loaded)[0] == ["N", 3, 8, 8]
    assert [d.dim_value for d in loaded.to_proto().graph.value_info[0].type.tensor_type.shape.dim] == [0, 3, 8, 8]
    check(loaded)


def test_what_the_file_said_stays_where_inference_knows_nothing() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "my.domain": 1]>
        g (float[2] x) => (float[7] y) <float[7] a> { a = my.domain.Mine (x)  y = Relu (a) }""")
    infer_shapes(model)
    assert (model.graph.nodes[0].outputs[0].shape, model.graph.nodes[0].outputs[0].dtype) == ([7], np.float32)
    infer_shapes(model, stale=True)
    assert (model.graph.nodes[0].outputs[0].shape, model.graph.nodes[0].outputs[0].dtype) == (None, np.float32)


def test_shape_arithmetic_is_followed() -> None:
    model = from_text(f"""{HEAD} g (float[2,3,4] x) => (float[K,12] y) <int64[1] one = {{1}}, int64[1] rest = {{-1}}> {{
        s = Shape <start = 0, end = 1> (x)
        t = Concat <axis = 0> (s, rest)
        r = Reshape (x, t)
        y = Relu (r)
    }}""")
    infer_shapes(model)
    assert model.graph.nodes[2].outputs[0].shape == [2, 12]


def test_values_inside_bodies_get_shapes() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2,3] x) => (float[6] y) <int64[1] flat = {{-1}}> {{
        y = If (c) <then_branch = t () => (float[6] p) {{ a = Abs (x)  p = Reshape (a, flat) }},
                    else_branch = e () => (float[6] r) {{ r = Reshape (x, flat) }}>
    }}""")
    infer_shapes(model)
    assert model.graph.nodes[0].attrs["then_branch"].nodes[0].outputs[0].shape == [2, 3]


def test_stale_results_of_bodies_are_inferred_anew() -> None:
    ones = ",".join("1" * 12)
    model = from_text(f"""{HEAD} g (bool c, float[N,3] x) => (float[N,M] y) <float[3,4] w = {{{ones}}}> {{
        z = If (c) <then_branch = t () => (float[N,4] p) {{ p = MatMul (x, w) }},
                    else_branch = e () => (float[N,4] r) {{ q = MatMul (x, w)  r = Neg (q) }}>
        y = Relu (z)
    }}""")
    model.constants()[0].values = model.constants()[0].values[:, :2]
    infer_shapes(model, stale=True)
    assert model.graph.nodes[0].attrs["then_branch"].outputs[0].shape == ["N", 2]
    check(model)


def test_values_that_are_no_tensors_are_told_apart() -> None:
    model = from_text(f"""{HEAD} g (float[2,2] x) => (float[2] y) {{
        s = SplitToSequence <axis = 0, keepdims = 0> (x)
        i = Constant <value_int = 0> ()
        y = SequenceAt (s, i)
    }}""")
    infer_shapes(model)
    assert model.graph.nodes[0].outputs[0].type == "sequence_type"
    check(Model.from_proto(model.copy().to_proto()))


def test_where_shapes_contradict_the_rest_is_still_inferred() -> None:
    model = from_text(f"""{HEAD} g (float[2,3] x) => (float[2,1] y) <float[5,1] w = {{1,1,1,1,1}}> {{
        a = Abs (x)
        y = MatMul (a, w)
    }}""")
    infer_shapes(model)
    assert model.graph.nodes[0].outputs[0].shape == [2, 3]


def test_static_shapes_have_sizes_only(model: Model) -> None:
    infer_shapes(model)
    assert static_shape(model.graph.nodes[0].outputs[0]) is None
    assert static_shape(model.constants()[0]) == (4, 3, 3, 3)


def test_a_name_that_inference_made_up_is_not_kept_where_the_next_one_knows_nothing() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "my.domain": 1]>
        g (float[N,2] x) => (float[K,N,2] y) <float[unk__0,N,2] a> { a = my.domain.Mine (x)  y = Relu (a) }""")
    infer_shapes(model)
    assert model.graph.nodes[0].outputs[0].shape == [None, "N", 2]
    assert [made_up(d) for d in ("unk__0", "N", None, 3)] == [True, False, False, False]
