"""Weights of every element type: read, touched, replaced, written; and data that does not fit its shape."""

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

from zc.errors import ZcError
from zc.ir.elements import dtype_of, elem_type_of
from zc.ir.graph import Constant, Variable, fixed_value
from zc.ir.model import Model, from_text

TYPES = [key for key in dict(TensorProto.DataType.items()) if key not in ("UNDEFINED", "STRING")]


def with_weight(tensor: TensorProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("y", tensor.data_type, list(tensor.dims))
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [value], [tensor])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 23)])


def numbers(kind: str) -> np.ndarray:
    dtype = dtype_of(getattr(TensorProto, kind))
    low = 4 if kind == "FLOAT8E8M0" else 0  # a type of powers of two, without a zero
    return np.array([[1, low, 1], [1, 1, low]]).astype(dtype)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("kind", TYPES)
def test_a_weight_of_each_type_is_read_touched_and_written(kind: str, raw: bool) -> None:
    want = numbers(kind)
    elem_type = getattr(TensorProto, kind)
    if raw:
        tensor = numpy_helper.from_array(want, "w")
    else:
        tensor = helper.make_tensor("w", elem_type, want.shape, want.reshape(-1).tolist())
    model = Model.from_proto(with_weight(tensor))
    weight = model.constants()[0]
    assert weight.lazy is not None
    assert (weight.dtype, tuple(weight.shape)) == (want.dtype, (2, 3))
    np.testing.assert_array_equal(weight.values, want)
    weight.values = weight.values.copy()
    written = model.to_proto().graph.initializer[0]
    assert written.data_type == elem_type
    assert written.raw_data == numpy_helper.from_array(want).raw_data
    np.testing.assert_array_equal(numpy_helper.to_array(written), want)


@pytest.mark.parametrize("kind", TYPES)
def test_a_weight_may_become_one_of_each_type(kind: str) -> None:
    model = from_text(
        '<ir_version: 10, opset_import: ["" : 23]> g () => (float[2] y) <float[2] w = {1, 2}> { y = Abs (w) }'
    )
    model.constants()[0].values = numbers(kind)
    written = model.to_proto().graph.initializer[0]
    assert written.data_type == getattr(TensorProto, kind)
    np.testing.assert_array_equal(numpy_helper.to_array(written), numbers(kind))


@pytest.mark.parametrize("name", ["float8_e4m3fnuz", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e8m0fnu"])
def test_the_kinds_of_float8_are_not_mixed_up(name: str) -> None:
    array = np.array([0.5, 2.0], getattr(ml_dtypes, name))
    assert dtype_of(elem_type_of(array.dtype)).name == name


def test_strings_are_read_replaced_and_written() -> None:
    model = Model.from_proto(with_weight(helper.make_tensor("w", TensorProto.STRING, [2, 1], ["ä", b"b"])))
    weight = model.constants()[0]
    assert weight.values.tolist() == [["ä"], ["b"]]
    weight.values = np.array(["new", "words"])
    assert list(model.to_proto().graph.initializer[0].string_data) == [b"new", b"words"]
    weight.values = np.array([b"\xff", "x"], object)
    assert list(model.to_proto().graph.initializer[0].string_data) == [b"\xff", b"x"]


def test_strings_that_are_not_utf8_are_bytes() -> None:
    model = Model.from_proto(with_weight(helper.make_tensor("w", TensorProto.STRING, [2], [b"\xff\xfe", b"b"])))
    weight = model.constants()[0]
    assert weight.values.tolist() == [b"\xff\xfe", b"b"]
    weight.values = weight.values
    assert list(model.to_proto().graph.initializer[0].string_data) == [b"\xff\xfe", b"b"]


def test_arrays_of_a_file_are_read_only() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g () => (float[2] y) <float[2] w = {1, 2}> { y = Abs (w) }'
    )
    with pytest.raises(ValueError, match="read-only"):
        model.constants()[0].values[0] = 5


def test_big_endian_and_strided_arrays_are_written_as_numbers() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g () => (float[2] y) <float[2] w = {1, 2}> { y = Abs (w) }'
    )
    model.constants()[0].values = np.array([[1, 9], [2, 9]], ">f4")[:, 0]
    np.testing.assert_array_equal(numpy_helper.to_array(model.to_proto().graph.initializer[0]), [1, 2])


def test_an_export_type_is_applied_at_once() -> None:
    weight = Constant("w", np.array([1.0, 2.0], np.float32), export_dtype=TensorProto.BFLOAT16)
    assert weight.dtype == ml_dtypes.bfloat16
    assert Variable("v").to_constant(np.ones(2, np.float32), np.float16).dtype == np.float16


def test_only_arrays_are_values() -> None:
    with pytest.raises(ZcError, match="constant 'w': its values must be an array, not list"):
        Constant("w", [1, 2])


@pytest.mark.parametrize(
    ("attribute", "want"),
    [
        ("value_float=2.5", np.float32(2.5)),
        ("value_ints=[1, 2]", np.array([1, 2])),
        ('value_string="a"', np.array("a", object)),
        ("value=float[2] {1, 2}", np.array([1, 2], np.float32)),
    ],
)
def test_a_constant_node_in_each_form_is_a_fixed_value(attribute: str, want: np.ndarray) -> None:
    model = from_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g () => (y) {{ c = Constant <{attribute}> ()  y = Identity (c) }}'
    )
    got = fixed_value(model.graph.nodes[1].inputs[0])
    assert got is not None
    assert got.dtype == np.asarray(want).dtype
    np.testing.assert_array_equal(got, want)


def test_a_default_of_an_input_is_no_fixed_value() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Abs (w) }'
    )
    assert fixed_value(model.graph.inputs[0], model.graph) is None
    assert fixed_value(model.graph.inputs[0]) is not None


def test_an_array_may_be_the_attribute_of_a_constant_node() -> None:
    model = from_text('<ir_version: 8, opset_import: ["" : 17]> g () => (float[2] y) { y = Constant <value_int=1> () }')
    model.graph.nodes[0].attrs = {"value": np.array([1, 2], np.float32)}
    np.testing.assert_array_equal(numpy_helper.to_array(model.to_proto().graph.node[0].attribute[0].t), [1, 2])


def test_plain_graphsurgeon_constants_do_not_lose_their_type() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g () => (float[2] y) <float[2] w = {1, 2}> { y = Abs (w) }'
    )
    model.graph.nodes[0].inputs[0] = gs.Constant("int4", np.array([1, -8], ml_dtypes.int4))
    assert model.to_proto().graph.initializer[0].data_type == TensorProto.INT4


# ---- data that does not fit


def broken(**fields: object) -> TensorProto:
    return TensorProto(name="w", **{"data_type": TensorProto.FLOAT, "dims": [2], **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (broken(raw_data=b"1234"), r"initializer 'w': its shape \[2\] of float32 needs 8 bytes, and there are 4"),
        (broken(raw_data=b"123456789abc"), r"needs 8 bytes, and there are 12"),
        (broken(float_data=[1.0]), r"needs 2 values, and there are 1"),
        (broken(), r"needs 2 values, and there are 0"),
        (broken(dims=[1 << 40], raw_data=b"1234"), r"needs 4398046511104 bytes, and there are 4"),
        (broken(dims=[1 << 62, 1 << 62], raw_data=b"1234"), r"and there are 4"),
        (broken(dims=[-2], raw_data=b""), r"initializer 'w' has a negative dimension: \[-2\]"),
        (
            broken(data_type=99, raw_data=b"1234"),
            r"initializer 'w': element type 99 is not known to the installed onnx",
        ),
        (broken(data_type=0), r"initializer 'w': element type 0 is not known"),
        (broken(data_type=TensorProto.STRING, string_data=[b"a"]), r"needs 2 values, and there are 1"),
        (broken(data_type=TensorProto.INT4, dims=[3], raw_data=b"1"), r"needs 2 bytes, and there are 1"),
        (broken(data_type=TensorProto.COMPLEX64, float_data=[1, 2]), r"needs 4 values, and there are 2"),
        (broken(segment=TensorProto.Segment(begin=0, end=1), float_data=[1, 2]), r"is one segment of a tensor"),
    ],
)
def test_data_that_does_not_fit_is_refused_when_the_file_is_read(tensor: TensorProto, reason: str) -> None:
    with pytest.raises(ZcError, match=reason):
        Model.from_proto(with_weight(tensor))


def test_an_unknown_type_of_an_input_is_refused_by_name() -> None:
    proto = with_weight(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    proto.graph.output[0].type.tensor_type.elem_type = 77
    with pytest.raises(ZcError, match="value 'y': element type 77 is not known to the installed onnx"):
        Model.from_proto(proto)


def test_a_sparse_weight_with_bad_indices_is_refused() -> None:
    proto = with_weight(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    del proto.graph.initializer[:]
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5.0, 6.0], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([2]), "i"))
    with pytest.raises(ZcError, match="sparse initializer 'w' of shape"):
        Model.from_proto(proto)
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([2, 9]), "i"))
    with pytest.raises(ZcError, match=r"sparse initializer 'w' of shape .* cannot be read"):
        _ = Model.from_proto(proto).constants()[0].values
