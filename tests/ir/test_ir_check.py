"""The validity check: each rule finds its mistake and names it; nothing else is found."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from zc.errors import ZcError
from zc.ir.check import check, problems
from zc.ir.graph import Constant, Node, Variable
from zc.ir.model import Model, from_text

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
TEXT = f"""{HEAD} g (float[2] x) => (float[2] y) <float[2] w = {{1, 2}}> {{
    [one] a = Add (x, w)
    [two] b = Relu (a)
    [three] y = Mul (b, w)
}}"""


@pytest.fixture
def model() -> Model:
    return from_text(TEXT)


def only(model: Model) -> str:
    """The one problem that is found."""
    found = problems(model)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


def test_a_valid_model_has_no_problems(model: Model) -> None:
    assert problems(model) == []
    check(model)


def test_check_names_the_model_the_first_problem_and_how_many_more(model: Model) -> None:
    model.graph.nodes[0].op, model.graph.nodes[1].op = "Ad", "Rel"
    with pytest.raises(ZcError, match=r"^g: node 'one': operator Ad does not exist .* \(and 1 more\)$"):
        check(model)


# ---- names and definitions


def test_a_graph_input_without_a_name(model: Model) -> None:
    model.graph.inputs.append(Variable("", np.float32, [2]))
    assert only(model) == "a graph input has no name"


def test_a_constant_without_a_name(model: Model) -> None:
    model.graph.nodes[0].inputs[1] = Constant("", np.ones(2, np.float32))
    assert "node 'one': an input has a value but no name" in problems(model)


def test_two_values_of_one_name(model: Model) -> None:
    model.graph.nodes[1].outputs[0].name = "a"
    assert "value 'a' is defined more than once" in problems(model)


def test_two_initializers_of_one_name(model: Model) -> None:
    model.graph.nodes[2].inputs[1] = Constant("w", np.ones(2, np.float32))
    assert problems(model)[0] == "value 'w' is defined more than once"


def test_a_value_that_nobody_makes(model: Model) -> None:
    model.graph.nodes[1].inputs[0] = Variable("ghost")
    assert only(model) == (
        "node 'two': input 'ghost' is not defined: no node writes it and it is no graph input or initializer"
    )


def test_an_output_that_nobody_makes(model: Model) -> None:
    model.graph.outputs.append(Variable("ghost", np.float32, [2]))
    assert only(model).startswith("graph output 'ghost' is not defined")


def test_another_value_of_the_same_name(model: Model) -> None:
    model.graph.nodes[1].inputs[0] = Variable("a")
    assert only(model) == "node 'two': input 'a' is not the value that has this name here: two values share it"


def test_an_initializer_that_a_node_writes(model: Model) -> None:
    model.graph.nodes[0].outputs.append(model.graph.nodes[0].inputs[1])
    assert "node 'one': output 'w' is an initializer" in problems(model)


def test_a_file_without_a_producer_names_the_node() -> None:
    found = problems(from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Add (x, nothing) }}"))
    assert found[0].startswith("node 'Add -> y': input 'nothing' is not defined")


# ---- links and order


def test_a_consumer_that_is_in_no_graph(model: Model) -> None:
    model.graph.nodes.append(Node("Abs", "removed", inputs=[model.graph.inputs[0]], outputs=[Variable("z")]))
    model.graph.nodes.pop()
    assert only(model) == "value 'x' is read by node 'removed', which is in no graph"


def test_a_producer_that_is_in_no_graph(model: Model) -> None:
    node = model.graph.nodes.pop(1)
    node.inputs.clear()
    assert problems(model)[0] == "value 'b' is written by node 'two', which is in no graph"


def test_an_edge_that_is_known_at_one_end_only(model: Model) -> None:
    list.append(model.graph.inputs[0].outputs, model.graph.nodes[2])
    assert only(model) == "value 'x': 2 nodes are noted where it is read by 1"


def test_a_node_that_is_listed_twice(model: Model) -> None:
    model.graph.nodes.append(model.graph.nodes[1])
    assert "node 'two' is listed twice" in problems(model)


def test_a_node_before_its_producer(model: Model) -> None:
    model.graph.nodes.reverse()
    assert only(model) == "node 'three' stands before the node that makes its input 'b'"
    assert [n.name for n in model.graph.nodes] == ["three", "two", "one"]


def test_a_cycle(model: Model) -> None:
    model.graph.nodes[0].inputs[0] = model.graph.nodes[1].outputs[0]
    assert "is part of a cycle" in only(model)


# ---- operators


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("y = Convv (x)", "node 'Convv -> y': operator Convv does not exist in opset 17 (did you mean 'Conv'?)"),
        ("y = Gelu (x)", "node 'Gelu -> y': operator Gelu came with opset 20; the model declares 17"),
        ("y = Upsample (x, x)", "node 'Upsample -> y': operator Upsample no longer exists in opset 17, since 10"),
        ("y = Relu (x, x)", "node 'Relu -> y': Relu has 2 inputs, it takes 1"),
        ("y = Add (x)", "node 'Add -> y': Add has 1 inputs, it takes 2"),
        ('y = Add (x, "")', "node 'Add -> y': Add lacks its input 1"),
        ("y, z = Relu (x)", "node 'Relu -> y': Relu has 2 outputs, it takes 1"),
        ("y = Cast (x)", "node 'Cast -> y': Cast lacks its attribute 'to'"),
        ("y = Elu <alpa = 1.0> (x)", "node 'Elu -> y': Elu has no attribute 'alpa' (did you mean 'alpha'?)"),
        ("y = Concat <axis = 0> ()", "node 'Concat -> y': Concat has 0 inputs, it takes at least 1"),
    ],
)
def test_operators_are_held_against_their_schemas(body: str, problem: str) -> None:
    assert only(from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ {body} }}")) == problem


def test_operators_of_the_ml_domain_are_known_too() -> None:
    found = only(
        from_text(
            '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml": 3]>'
            " g (float[1,2] x) => (float[1,2] y) { y = ai.onnx.ml.Scalar (x) }"
        )
    )
    assert found == "node 'Scalar -> y': operator ai.onnx.ml::Scalar does not exist in opset 3 (did you mean 'Scaler'?)"


def test_operators_of_other_domains_are_allowed() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft": 1, "local": 1]>
        g (float[2] x) => (float[2] y) { a = com.microsoft.Gelu (x)  b = com.microsoft.Gelu (a)  y = local.f (b) }
        <domain: "local", opset_import: ["" : 17]> f (p) => (q) { q = Relu (p) }""")
    assert problems(model) == []


@pytest.mark.parametrize(("version", "word"), [(999, "is not known to the installed onnx"), (6, "is not supported")])
def test_operator_sets_that_nobody_can_judge_are_refused(version: int, word: str) -> None:
    model = from_text(
        f'<ir_version: 8, opset_import: ["" : {version}]> g (float[2] x) => (float[2] y) {{ y = Relu (x) }}'
    )
    assert f"operator set {version} {word}" in problems(model)[0]


def test_calls_of_functions_are_held_against_them() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.f <slop = 1.0> (x, x) }
        <domain: "local", opset_import: ["" : 17]>
        f <slope> (p) => (q) { q = LeakyRelu <alpha: float = @slope> (p) }""")
    assert problems(model) == [
        "node 'f -> y': function 'local::f' is given 2 inputs and has 1",
        "node 'f -> y': function 'local::f' has no attribute 'slop' (did you mean 'slope'?)",
    ]


def test_functions_are_checked_inside() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.f (x) }
        <domain: "local", opset_import: ["" : 17]> f (p) => (q) { q = Add (p, nothing) }""")
    assert problems(model)[0].startswith("function 'local::f': node 'Add -> q': input 'nothing' is not defined")


# ---- bodies

IF = f"""{HEAD} g (bool c, float[2] x) => (float[2] y) <float[2] w = {{1, 2}}> {{
    a = Abs (x)
    [if] y = If (c) <then_branch = t () => (float[2] p) {{ [inner] p = Add (a, w) }},
                     else_branch = e () => (float[2] r) {{ r = Identity (x) }}>
}}"""


def test_bodies_see_what_is_around_them() -> None:
    assert problems(from_text(IF)) == []


def test_a_mistake_in_a_body_says_where() -> None:
    model = from_text(IF)
    model.graph.nodes[1].attrs["then_branch"].nodes[0].inputs[0] = Variable("ghost")
    assert problems(model)[0].startswith("body 'then_branch' of node 'if': node 'inner': input 'ghost' is not defined")


def test_a_node_in_a_body_may_not_hide_a_value_around_it() -> None:
    model = from_text(IF)
    model.graph.nodes[1].attrs["else_branch"].nodes[0].outputs[0].name = "a"
    assert problems(model)[0] == (
        "body 'else_branch' of node 'if': node 'Identity -> a': output 'a' hides a value of that name around it"
    )


def test_an_input_of_a_body_may_hide_a_value_around_it() -> None:
    model = from_text(f"""{HEAD} g (int64 n, bool c, float[2] x) => (float[2] y) {{
        y = Loop (n, c, x) <body = b (int64 i, bool go, float[2] x) => (bool more, float[2] next) {{
            more = Identity (go)
            next = Abs (x)
        }}>
    }}""")
    assert problems(model) == []
    body = model.graph.nodes[0].attrs["body"]
    assert body.nodes[1].inputs[0] is body.inputs[2]


def test_a_body_that_needs_what_comes_later() -> None:
    model = from_text(IF)
    model.graph.nodes.reverse()
    assert only(model) == "node 'if' stands before the node that makes its input 'a'"


# ---- onnx's own opinion


def test_shapes_that_contradict_are_one_line() -> None:
    line = only(
        from_text(
            f"{HEAD} g (float[2,3] x) => (float[2,9] y) <float[4,9] w> {{ y = MatMul (x, w) }}".replace(
                "<float[4,9] w>", f"<float[4,9] w = {{{','.join('1' * 36)}}}>"
            )
        )
    )
    assert "MatMul" in line
    assert "Incompatible dimensions" in line


def test_a_stale_shape_is_found(model: Model) -> None:
    model.graph.nodes[0].outputs[0].dtype = np.dtype(np.float32)
    model.graph.nodes[0].outputs[0].shape = [7]
    assert "Inferred shape and existing shape differ" in only(model)


def test_types_that_contradict_are_found(model: Model) -> None:
    model.graph.nodes[2].inputs[1] = Constant("w2", np.ones(2, np.int64))
    assert "Mul" in only(model)


def test_outputs_of_unknown_rank_are_fine() -> None:
    assert problems(from_text(f"{HEAD} g (float x) => (float y) {{ y = Relu (x) }}")) == []
    proto = onnx.parser.parse_model(f"{HEAD} g (float[] x) => (y) {{ y = Relu (x) }}")
    proto.graph.output[0].type.tensor_type.elem_type = 1
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert problems(Model.from_proto(proto)) == []


def test_a_weight_of_a_type_that_onnx_has_not(model: Model) -> None:
    model.constants()[0].values = np.zeros(2, "datetime64[s]")
    assert problems(model)[0].startswith("initializer 'w': numpy type datetime64[s] has no ONNX element type")


def test_an_attribute_that_cannot_be_written_is_named(model: Model) -> None:
    model.graph.nodes[1].op = "LeakyRelu"
    model.graph.nodes[1].attrs["alpha"] = "much"
    assert only(model).startswith("node 'two': attribute 'alpha' cannot hold 'much'")
    model.graph.nodes[1].attrs["alpha"] = object()
    assert "attribute 'alpha'" in only(model)


def test_big_weights_cost_nothing(model: Model) -> None:
    class Unread(np.ndarray):
        def tobytes(self, *_: object) -> bytes:
            raise AssertionError("the weight was read")

    model.constants()[0].values = np.zeros((1000, 2), np.float32).view(Unread)
    model.graph.outputs[0].shape = [1000, 2]
    assert problems(model) == []


def test_the_check_is_linear(chain: Callable[..., onnx.ModelProto], growth: Callable[..., float]) -> None:
    assert growth(lambda n: Model.from_proto(chain(n)), problems, 500) < 5
