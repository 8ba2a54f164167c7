"""Canonical text: what stands in it, and that it reads back."""

import re

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from zc.errors import ZcError
from zc.ir.graph import Constant
from zc.ir.hashed import HashedTensor
from zc.ir.model import Model, from_text, load
from zc.ir.text import parse_text, print_model, render

CONV = """
<ir_version: 8, opset_import: ["" : 17], metadata_props: ["zc.version": "1", "author": "me"]>
net (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[4,8,8] unused = {%s}, float[4] b = {1, 2, 3, 4}, float[4,3,1,1] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}>
{
  ["/conv"] c = Conv <pads = [0, 0, 0, 0], dilations = [1, 1], alpha = 1.0> (x, w, b)
  y = Relu (c)
}
""" % ", ".join(map(str, range(256)))  # noqa: UP031 (braces are the grammar's)

VALUES, INDICES = helper.make_tensor("w", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [1])


def body(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def attribute_model(**attrs: object) -> Model:
    node = helper.make_node("Op", ["x"], ["y"], "n", domain="custom")
    for name, value in attrs.items():
        node.attribute.append(
            value if isinstance(value, AttributeProto) else helper.make_attribute(name, value)  # type: ignore[arg-type]
        )
    return node_model(node)


def node_model(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> Model:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(initializers))
    return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


def test_the_whole_text_of_a_small_model() -> None:
    model = from_text(CONV)
    model.graph.nodes[0].outputs[0].dtype, model.graph.nodes[0].outputs[0].shape = np.float32, ["N", 4, 8, None]
    assert print_model(model) == (
        '<\n  ir_version: 8,\n  opset_import: ["": 17],\n  metadata_props: ["author": "me"]\n>\n'
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y)\n<\n"
        "  float[4,3,1,1] w = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0},\n"
        "  float[4] b = {1.0, 2.0, 3.0, 4.0},\n"
        '  float[4,8,8] unused = ["location": "sha256:04441b72253f"],\n'
        "  float[N,4,8,?] c\n>\n{\n"
        '  ["/conv"] c = Conv <alpha = 1.0, dilations = [1, 1], pads = [0, 0, 0, 0]> (x, w, b)\n'
        "  y = Relu (c)\n}\n"
    )


def test_provenance_is_left_out_unless_asked_for() -> None:
    model = from_text(CONV)
    assert "zc.version" not in print_model(model)
    assert '"zc.version": "1"' in print_model(model, provenance=True)


def test_the_order_in_which_initializers_and_attributes_are_stored_does_not_matter() -> None:
    model = from_text(CONV)
    other = model.copy()
    other.graph.declared.reverse()
    node = other.graph.nodes[0]
    node.attrs = dict(reversed(node.attrs.items()))
    assert print_model(other) == print_model(model)


def test_full_text_holds_every_number_and_hashed_text_is_refused_on_the_way_back() -> None:
    model = from_text(CONV)
    back = parse_text(print_model(model, weights="full"))
    assert np.array_equal(back.constants()[2].values, np.arange(256, dtype=np.float32).reshape(4, 8, 8))
    with pytest.raises(ZcError, match=r"'unused'.*hashed.*--weights full"):
        parse_text(print_model(model))


def test_hashed_text_reads_back_as_a_model_without_numbers() -> None:
    text = print_model(from_text(CONV))
    model = parse_text(text, hashed=True)
    assert print_model(model) == text
    weight = next(c for c in model.constants() if c.name == "unused")
    assert isinstance(weight.lazy, HashedTensor)
    assert (weight.shape, weight.dtype, weight.lazy.digest) == ((4, 8, 8), np.float32, "04441b72253f")
    for use in (lambda: weight.values, model.to_proto, lambda: print_model(model, weights="full")):
        with pytest.raises(ZcError, match="hashed"):
            use()


def test_hashed_text_is_onnx_text() -> None:
    proto = onnx.parser.parse_model(print_model(from_text(CONV)))
    assert proto.graph.initializer[2].external_data[0].value == "sha256:04441b72253f"


def test_shape_form_says_no_number_that_may_differ_between_processors() -> None:
    big, codes = np.linspace(0, 1, 20, dtype=np.float32), np.arange(20, dtype=np.int32)
    scale, shape = np.array([0.0123456789], np.float32), np.array([1, -1], np.int64)
    arrays = {"big": big, "kept": -big, "codes": codes, "bias": codes[:2], "scale": scale, "shape": shape}
    model = node_model(
        helper.make_node("Op", ["x", *arrays], ["y"], domain="custom"),
        initializers=tuple(numpy_helper.from_array(a, n) for n, a in arrays.items()),
    )
    source = node_model(
        helper.make_node("Op", ["x", "w"], ["y"], domain="custom"), initializers=(numpy_helper.from_array(-big, "w"),)
    )
    lines = body(print_model(model, weights="shape", source=source))
    assert 'float[20] big = ["location": "computed"],' in lines
    assert any(line.startswith('float[20] kept = ["location": "sha256:') for line in lines)
    assert 'int32[20] codes = ["location": "computed"],' in lines
    assert 'int32[2] bias = ["location": "computed"],' in lines
    assert "float[1] scale = {0.0123}," in lines
    assert "int64[2] shape = {1, -1}" in lines
    text = print_model(model, weights="shape", source=source)
    assert print_model(parse_text(text, hashed=True)) == text


@pytest.mark.parametrize(
    ("dtype", "literal"),
    [
        ("FLOAT16", "float16[2] w = {15360, 47104}  # 1.0, -0.5"),
        ("BFLOAT16", "bfloat16[2] w = {16256, 48896}  # 1.0, -0.5"),
        ("FLOAT8E4M3FN", "float8e4m3fn[2] w = {56, 176}  # 1.0, -0.5"),
        ("INT4", "int4[2] w = {1}  # 1.0, 0.0"),
        ("UINT4", "uint4[2] w = {1}  # 1.0, 0.0"),
        ("FLOAT4E2M1", "float4e2m1[2] w = {146}  # 1.0, -0.5"),
        ("BOOL", "bool[2] w = {1, 1}"),
        ("COMPLEX64", "complex64[2] w = {1.0, 0.0, -0.5, 0.0}"),
        ("DOUBLE", "double[2] w = {1.0, -0.5}"),
        ("UINT64", "uint64[2] w = {1, 0}"),
    ],
)
def test_every_element_type_has_a_literal_that_reads_back(dtype: str, literal: str) -> None:
    values = [1, 0] if dtype == "UINT64" else [1, -0.5]
    array = np.array(values).astype(helper.tensor_dtype_to_np_dtype(getattr(TensorProto, dtype)))
    model = node_model(
        helper.make_node("Op", ["x", "w"], ["y"], domain="custom"),
        initializers=(TensorProto(name="w", data_type=getattr(TensorProto, dtype), dims=[2], raw_data=raw(array)),),
    )
    text = print_model(model, weights="full")
    assert literal in body(text)
    back = parse_text(text).constants()[0]
    assert (back.values.dtype, back.values.tobytes()) == (array.dtype, array.tobytes())


def raw(array: np.ndarray) -> bytes:
    return numpy_helper.from_array(array).raw_data


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        (helper.make_attribute("a", [b"\xff\xfe"]), "not UTF-8"),
        (helper.make_attribute("a", b"\xff"), "not UTF-8"),
        (helper.make_attribute("a", [helper.make_tensor("t", 1, [1], [1.0])]), "of kind tensors"),
        (helper.make_attribute("a", [helper.make_graph([], "g", [], [])]), "of kind graphs"),
        (helper.make_attribute("a", [helper.make_tensor_type_proto(1, [1])]), "of kind type_protos"),
        (
            helper.make_attribute("a", helper.make_sparse_tensor(VALUES, INDICES, [3])),
            "of kind sparse_tensor",
        ),
        (helper.make_attribute("a", "zero\0"), "NUL"),
        (AttributeProto(name="no identifier", type=AttributeProto.INT, i=1), "no identifier"),
    ],
)
def test_what_the_grammar_cannot_say_is_refused_by_name_and_named_in_the_hashed_form(
    attribute: AttributeProto, said: str
) -> None:
    model = attribute_model(a=attribute)
    with pytest.raises(ZcError, match=rf"ONNX text cannot say .*{said}.*--weights hash"):
        print_model(model, weights="full")
    assert re.match(f"# ONNX text cannot say: .*{said}", print_model(model))


def test_operators_and_domains_that_are_no_identifiers_are_refused_by_name() -> None:
    model = node_model(helper.make_node("a-b", ["x"], ["y"], "n", domain="c/d"))
    with pytest.raises(ZcError, match=r"operator 'a-b' is no identifier \(and 1 more\)"):
        print_model(model, weights="full")
    assert "c/d.a-b (x)" in print_model(model)


def test_sparse_initializers_are_named() -> None:
    model = node_model(helper.make_node("Add", ["x", "w"], ["y"]))
    proto = model.to_proto()
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(VALUES, INDICES, [3]))
    model = Model.from_proto(proto)
    assert "# sparse float[3] w: 1 values" in body(print_model(model))
    with pytest.raises(ZcError, match="initializer 'w': it is sparse"):
        print_model(model, weights="full")


def test_documentation_without_a_place_in_the_text_is_counted() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], doc_string="made at line 3")
    node.metadata_props.add(key="a", value="b")
    text, gaps = render(node_model(node), weights="full")
    assert str(gaps) == "1 node doc strings, 1 node metadata entries"
    assert "line 3" not in text


def test_strings_with_quotes_backslashes_newlines_and_comments_read_back() -> None:
    text = 'a"b\\c\nd # e\t{é}'
    model = attribute_model(s=text, many=[text, ""])
    model.metadata[text] = text
    back = parse_text(print_model(model, weights="full"))
    assert back.nodes()[0].attrs["s"] == text
    assert back.nodes()[0].attrs["many"] == [text, ""]
    assert back.metadata == {text: text}


def test_bodies_stand_inside_their_node_and_read_back(golden_models) -> None:
    model = from_text((golden_models / "text" / "if_constant.txt").read_text())
    lines = print_model(model).splitlines()
    start = lines.index("  y = If (condition) <")
    assert lines[start : start + 9] == [
        "  y = If (condition) <",
        "    else_branch = other () => (float[N,8] else_y)",
        "      {",
        "        else_y = Neg (relu)",
        "      },",
        "    then_branch = taken () => (float[N,8] then_y)",
        "      {",
        "        then_y = Exp (relu)",
        "      }",
    ]
    assert print_model(parse_text(print_model(model, weights="full"))) == print_model(model)


def test_functions_read_back() -> None:
    model = from_text("""
        <ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.Scaled:fast <alpha = 2.0> (x) }
        <domain: "local", opset_import: ["" : 17], overload: "fast", doc_string: "why">
        Scaled <alpha, beta: float = 0.5> (a) => (b) <float[2] t> {
            t = Elu <alpha: float = @alpha> (a)
            b = Elu <alpha: float = @beta> (t)
        }""")
    text = print_model(model, weights="full")
    assert print_model(parse_text(text), weights="full") == text
    assert "Scaled <alpha, beta = 0.5> (a) => (b)" in text
    assert "t = Elu <alpha: float = @alpha> (a)" in body(text)


def test_mistakes_in_a_text_are_one_line_with_their_place() -> None:
    with pytest.raises(ZcError, match=r"^ONNX text: .*line: 1 column: \d+.*$") as caught:
        parse_text("nonsense")
    assert "\n" not in str(caught.value)
    with pytest.raises(ZcError, match="ONNX text"):
        parse_text('<ir_version: 8, opset_import: ["": 99999999999999999999]> g () => () {}')


def test_weights_of_constant_nodes_are_hashed_too() -> None:
    model = attribute_model(value=numpy_helper.from_array(np.arange(100, dtype=np.float32), "numbers"))
    assert 'value = float[100] numbers = ["location": "sha256:' in print_model(model)
    back = parse_text(print_model(model, weights="full"))
    value = back.nodes()[0].attrs["value"]
    assert isinstance(value, Constant)
    assert value.values[99] == 99
    assert print_model(parse_text(print_model(model), hashed=True)) == print_model(model)


def test_committed_models_read_back(golden_models) -> None:
    from golden_models.texts import read_text

    models = [load(path) for path in sorted(golden_models.glob("*.onnx"))]
    models += [Model.from_proto(read_text(path)) for path in sorted((golden_models / "text").glob("*.txt"))]
    assert len(models) > 40
    for model in models:
        full, hashed = print_model(model, weights="full"), print_model(model)
        back = parse_text(full)
        assert print_model(back, weights="full") == full, model.name
        assert print_model(back) == hashed, model.name
        assert print_model(parse_text(hashed, hashed=True)) == hashed, model.name
        weights = [(c.name, c.values.dtype.str, c.values.tobytes()) for c in model.constants()]
        assert sorted((c.name, c.values.dtype.str, c.values.tobytes()) for c in back.constants()) == sorted(weights)


@pytest.mark.real
def test_real_models_print_and_their_hashed_text_reads_back(shared) -> None:
    for path in sorted((shared / "models").glob("*.onnx")):
        text = print_model(load(path))
        assert print_model(parse_text(text, hashed=True)) == text, path.name
        assert "# ONNX text cannot say" not in text, path.name
