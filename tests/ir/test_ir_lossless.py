"""What a file says beside the computation comes back, for everything that survived the edits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from zc.ir.check import problems
from zc.ir.edit import detach, sweep
from zc.ir.graph import TypedList
from zc.ir.model import Model, from_text

Normal = Callable[..., onnx.ModelProto]

TEXT = """
    <ir_version: 8, opset_import: ["" : 17, "my.domain" : 3]>
    g (float[N,4] x) => (float[N,4] y) <float[4] w = {1,2,3,4}, float[2] unused = {5,6}> {
        a = Add (x, w)
        y = Relu (a)
    }"""


def back(model: onnx.ModelProto) -> onnx.ModelProto:
    return Model.from_proto(model).to_proto()


@pytest.fixture
def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


def test_the_model_keeps_what_it_says_of_itself(proto: onnx.ModelProto, normal: Normal) -> None:
    proto.domain, proto.model_version, proto.doc_string = "org.example", 7, "trained in May"
    proto.producer_name, proto.producer_version = "torch", "2.9"
    proto.metadata_props.add(key="license", value="MIT")
    proto.training_info.add().algorithm.name = "sgd"
    assert normal(back(proto)) == normal(proto)


def test_the_graph_keeps_metadata_and_quantization_annotations(proto: onnx.ModelProto, normal: Normal) -> None:
    proto.graph.doc_string = "the trunk"
    proto.graph.metadata_props.add(key="layer", value="3")
    note = proto.graph.quantization_annotation.add(tensor_name="a")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="unused")
    assert normal(back(proto)) == normal(proto)


def test_an_annotation_of_a_value_that_is_gone_is_not_written(proto: onnx.ModelProto) -> None:
    proto.graph.quantization_annotation.add(tensor_name="nowhere")
    assert not back(proto).graph.quantization_annotation


def test_nodes_keep_doc_metadata_overload_and_docs_of_attributes(proto: onnx.ModelProto, normal: Normal) -> None:
    node = proto.graph.node[0]
    node.doc_string, node.overload, node.name = "adds the bias", "v2", "first"
    node.metadata_props.add(key="pkg.torch.fx", value="add_1")
    attr = proto.graph.node[1].attribute.add(name="alpha", f=0.5, type=AttributeProto.FLOAT)
    attr.doc_string = "slope"
    assert normal(back(proto)) == normal(proto)
    assert Model.from_proto(proto).graph.nodes[1].attrs == {"alpha": 0.5}


def test_inputs_and_outputs_keep_denotations_doc_and_metadata(proto: onnx.ModelProto, normal: Normal) -> None:
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.denotation = "IMAGE"
        value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
        value.doc_string = "RGB"
        value.metadata_props.add(key="range", value="0..1")
    assert normal(back(proto)) == normal(proto)


def test_a_value_of_known_shape_and_unknown_type_is_written_without_a_type(proto: onnx.ModelProto) -> None:
    model = Model.from_proto(proto)
    middle = model.graph.nodes[0].outputs[0]
    middle.dtype, middle.shape = None, ["N", 4]
    assert not [v for v in model.to_proto().graph.value_info if v.type.tensor_type.elem_type == 0]
    ort.InferenceSession(model.to_proto().SerializeToString())  # "Invalid tensor data type 0" when it stood there


def test_an_axis_keeps_its_denotation_when_its_size_changes(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    model = Model.from_proto(proto)
    model.graph.inputs[0].shape = [1, 4]
    dim = model.to_proto().graph.input[0].type.tensor_type.shape.dim[0]
    assert (dim.dim_value, dim.denotation) == (1, "DATA_BATCH")


def test_a_default_of_an_input_keeps_how_it_was_listed(proto: onnx.ModelProto, normal: Normal) -> None:
    listed = proto.graph.input.add()
    listed.CopyFrom(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4], "may be overridden"))
    listed.type.denotation = "BIAS"
    assert normal(back(proto)) == normal(proto)


def test_initializers_keep_doc_and_metadata_also_once_touched(proto: onnx.ModelProto, normal: Normal) -> None:
    weight = proto.graph.initializer[0]
    weight.doc_string = "bias"
    weight.metadata_props.add(key="source", value="conv1")
    model = Model.from_proto(proto)
    assert normal(model.to_proto()) == normal(proto)
    model.constants()[0].values = np.zeros(4, np.float32)
    written = model.to_proto().graph.initializer[0]
    assert (written.doc_string, written.metadata_props[0].value) == ("bias", "conv1")


def test_an_initializer_that_nothing_used_stays(proto: onnx.ModelProto) -> None:
    assert [t.name for t in back(proto).graph.initializer] == ["w", "unused"]


def test_an_initializer_that_lost_its_last_use_goes(proto: onnx.ModelProto) -> None:
    model = Model.from_proto(proto)
    add, relu = model.graph.nodes
    relu.inputs[0] = model.graph.inputs[0]
    detach(add)
    sweep(model.graph)
    assert [t.name for t in model.to_proto().graph.initializer] == ["unused"]


def _attribute(kind: str) -> AttributeProto:
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.float32), "t")
    indices = numpy_helper.from_array(np.array([1, 4, 5]), "i")
    sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[8])
    made: dict[str, Any] = {
        "TENSORS": [tensor, tensor],
        "GRAPHS": [helper.make_graph([helper.make_node("Relu", ["x"], ["inner"])], "b", [], [])],
        "TYPE_PROTO": helper.make_tensor_type_proto(TensorProto.FLOAT, [2, "N"]),
        "TYPE_PROTOS": [helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.INT8, None))],
        "SPARSE_TENSOR": sparse,
        "SPARSE_TENSORS": [sparse],
        "STRING": b"\xff\xfe",
        "STRINGS": [b"\xff", b"ok"],
    }
    return helper.make_attribute("given", made[kind], attr_type=getattr(AttributeProto, kind))


@pytest.mark.parametrize(
    "kind",
    ["TENSORS", "GRAPHS", "TYPE_PROTO", "TYPE_PROTOS", "SPARSE_TENSOR", "SPARSE_TENSORS", "STRING", "STRINGS"],
)
def test_attributes_of_every_kind_come_back(proto: onnx.ModelProto, kind: str, normal: Normal) -> None:
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "my.domain", "Mine"
    proto.graph.node[0].attribute.append(_attribute(kind))
    assert normal(back(proto)) == normal(proto)
    assert normal(Model.from_proto(proto).copy().to_proto()) == normal(proto)


@pytest.mark.parametrize("kind", [AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS])
def test_an_empty_list_remembers_of_what(proto: onnx.ModelProto, kind: int, normal: Normal) -> None:
    proto.graph.node[0].domain = "my.domain"
    proto.graph.node[0].attribute.add(name="empty", type=kind)  # type: ignore[arg-type]
    assert normal(back(proto)) == normal(proto)
    copy = Model.from_proto(proto).copy()
    assert normal(copy.to_proto()) == normal(proto)
    assert isinstance(copy.graph.nodes[0].attrs["empty"], TypedList)


def test_an_attribute_of_a_file_that_names_no_types_is_understood() -> None:
    model = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Elu (x) }')
    proto = model.to_proto()
    proto.graph.node[0].attribute.add(name="alpha", f=2.0)  # IR version 1 left the type out
    assert Model.from_proto(proto).graph.nodes[0].attrs == {"alpha": 2.0}


@pytest.mark.parametrize(
    "declared",
    ["seq(float[N,2])", "optional(float[2])", "optional(seq(int64[3]))", "map(int64, float[1])"],
)
def test_inputs_and_outputs_that_are_no_tensors_come_back(declared: str, normal: Normal) -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({declared} x) => ({declared} y) {{ y = Identity (x) }}'
    )
    assert normal(back(proto)) == normal(proto)
    assert Model.from_proto(proto).inputs[0].dtype is None


def test_a_sparse_initializer_comes_back_and_can_be_read(normal: Normal) -> None:
    proto = onnx.parser.parse_model(TEXT)
    proto.graph.node[0].input[1] = "s"
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5.0], np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([2]), "s_index"))
    model = Model.from_proto(proto)
    assert normal(model.to_proto()) == normal(proto)
    assert next(c for c in model.constants() if c.name == "s").values.tolist() == [0, 0, 5, 0]
    assert [t.name for t in model.to_proto().graph.initializer][-1] == "s"  # dense from now on


def test_a_sparse_initializer_has_its_shape_in_the_check() -> None:
    proto = onnx.parser.parse_model(TEXT.replace("Add (x, w)", "MatMul (x, s)"))
    sparse = proto.graph.sparse_initializer.add(dims=[4, 4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5.0], np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([2]), "s_index"))
    assert problems(Model.from_proto(proto)) == []


def test_functions_come_back(normal: Normal) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.scale <by: float = 3.0> (x) }
        <domain: "local", opset_import: ["" : 17], overload: "f32", doc_string: "times">
        scale <by, alpha: float = 0.5> (a) => (b) {
            c = Constant <value_float: float = @by> ()
            d = Elu <alpha: float = @alpha> (a)
            b = Mul (c, d)
        }""")
    proto.functions[0].metadata_props.add(key="k", value="v")
    proto.functions[0].value_info.add().CopyFrom(helper.make_tensor_value_info("d", TensorProto.FLOAT, [2]))
    assert normal(back(proto)) == normal(proto)
    assert normal(Model.from_proto(proto).copy().to_proto()) == normal(proto)


def test_two_functions_may_differ_only_in_their_overload(normal: Normal) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { m = local.f:one (x)  y = local.f:two (m) }
        <domain: "local", opset_import: ["" : 17], overload: "one"> f (a) => (b) { b = Relu (a) }
        <domain: "local", opset_import: ["" : 17], overload: "two"> f (a) => (b) { b = Abs (a) }""")
    model = Model.from_proto(proto)
    assert normal(model.to_proto()) == normal(proto)
    assert [n.overload for n in model.nodes()] == ["one", "two"]
    assert len({f.unique_id for f in model.graph.functions}) == 2


def test_ir_version_3_is_raised_and_its_initializers_are_no_inputs() -> None:
    proto = onnx.parser.parse_model(TEXT.replace("ir_version: 8", "ir_version: 3"))
    proto.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("w", "unused"))
    model = Model.from_proto(proto)
    assert [i.name for i in model.inputs] == ["x"]
    assert model.notes == ("IR version 3: 2 initializers are no longer inputs",)
    written = model.to_proto()
    assert written.ir_version == 8
    assert [i.name for i in written.graph.input] == ["x"]
    assert [t.name for t in written.graph.initializer] == ["w", "unused"]


def test_the_long_name_of_the_default_domain_is_the_short_one(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].domain = "ai.onnx"
    proto.graph.node[0].domain = "ai.onnx"
    model = Model.from_proto(proto)
    assert (model.opset, model.opsets) == (17, {"": 17, "my.domain": 3})
    assert [n.op for n in model.nodes("Add")] == ["Add"]
    assert {o.domain: o.version for o in model.to_proto().opset_import} == {"": 17, "my.domain": 3}


def test_an_operator_set_that_a_pass_brought_in_is_imported(proto: onnx.ModelProto) -> None:
    model = Model.from_proto(proto)
    model.graph.nodes[1].domain = "com.microsoft"
    assert {o.domain: o.version for o in model.to_proto().opset_import}["com.microsoft"] == 1


def test_a_version_set_on_the_graph_is_the_one_that_is_written(proto: onnx.ModelProto) -> None:
    model = Model.from_proto(proto)
    model.graph.opset = 18
    assert {o.domain: o.version for o in model.to_proto().opset_import}[""] == 18


def test_dimensions_of_minus_one_are_unknown(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model = Model.from_proto(proto)
    assert model.inputs[0].shape == (None, 4)
    assert not model.to_proto().graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


def test_equal_models_are_written_with_equal_bytes(proto: onnx.ModelProto) -> None:
    for key in "zyxabc":
        proto.metadata_props.add(key=key, value=key)
    first, second = (Model.from_proto(proto).to_proto().SerializeToString(deterministic=True) for _ in "12")
    assert first == second


def test_lists_of_an_attribute_that_does_not_tell_its_type_are_read(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].CopyFrom(helper.make_node("Transpose", ["a"], ["y"], perm=[0, 1]))
    proto.graph.node[1].attribute[0].ClearField("type")  # as files of IR version 1 are
    model = Model.from_proto(proto)
    assert model.graph.nodes[1].attrs == {"perm": [0, 1]}
    assert model.to_proto().graph.node[1].attribute[0].type == AttributeProto.INTS
