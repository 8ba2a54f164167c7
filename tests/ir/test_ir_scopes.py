"""Bodies, functions and copies."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.check import check, problems
from zc.ir.edit import make_constant, replace_uses
from zc.ir.graph import Constant, Graph, Node, Variable, scopes
from zc.ir.model import Model, from_text

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
IF = f"""{HEAD} g (bool c, float[2] x) => (float[2] y) <float[2] w = {{1, 2}}> {{
    a = Abs (x)
    [if] y = If (c) <then_branch = t () => (float[2] p) {{ [add] p = Add (a, w) }},
                     else_branch = e () => (float[2] r) <float[2] own = {{3, 4}}> {{ [mul] r = Mul (x, own) }}>
}}"""
LOOP = f"""{HEAD} g (int64 n, bool c, float[2] x) => (float[2] y, float[n,2] all) <float[2] w = {{1, 2}}> {{
    y, all = Loop (n, c, x) <body = b (int64 i, bool go, float[2] state) => (bool more, float[2] next, float[2] seen) {{
        more = Identity (go)
        next = Add (state, w)
        seen = Identity (state)
    }}>
}}"""
SCAN = f"""{HEAD} g (float[2] start, float[5,2] xs) => (float[2] end, float[5,2] sums) {{
    end, sums = Scan <num_scan_inputs = 1, body = b (float[2] sum, float[2] one) => (float[2] next, float[2] out) {{
        next = Add (sum, one)
        out = Identity (next)
    }}> (start, xs)
}}"""


def body(model: Model, name: str) -> Graph:
    node = next(n for n in model.graph.nodes if name in n.attrs)
    result = node.attrs[name]
    assert isinstance(result, Graph)
    return result


FEEDS = {
    IF: {"c": np.array(True), "x": np.array([-1, 5], np.float32)},
    LOOP: {"n": np.array(3), "c": np.array(True), "x": np.array([1, 1], np.float32)},
    SCAN: {"start": np.zeros(2, np.float32), "xs": np.ones((5, 2), np.float32)},
}


@pytest.mark.parametrize("text", [IF, LOOP, SCAN], ids=["If", "Loop", "Scan"])
def test_control_flow_runs_as_before(text: str) -> None:
    want = Runner(Model.from_proto(onnx.parser.parse_model(text))).run(FEEDS[text])
    copy = from_text(text).copy()
    check(copy)
    for name, got in Runner(copy).run(FEEDS[text]).items():
        np.testing.assert_array_equal(got, want[name])


def test_a_body_uses_the_very_value_of_the_scope_around_it() -> None:
    model = from_text(IF)
    assert body(model, "then_branch").nodes[0].inputs[0] is model.graph.nodes[0].outputs[0]
    assert [n.name for n in model.constants()[0].outputs] == ["add"]
    assert [c.name for c in model.constants()] == ["w", "own"]


def test_a_body_that_hands_a_value_through_returns_that_value() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2] x) => (float[2] y) {{
        a = Abs (x)
        y = If (c) <then_branch = t () => (float[2] a) {{ }}, else_branch = e () => (float[2] r) {{ r = Neg (x) }}>
    }}""")
    assert body(model, "then_branch").outputs[0] is model.graph.nodes[0].outputs[0]
    result = next(a.g for a in model.copy().to_proto().graph.node[1].attribute if a.name == "then_branch").output[0]
    assert (result.name, result.type.tensor_type.elem_type) == ("a", TensorProto.FLOAT)


def test_value_info_in_a_body_does_not_hide_what_it_speaks_of() -> None:
    proto = onnx.parser.parse_model(IF)
    then = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
    then.value_info.add().CopyFrom(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2]))
    model = Model.from_proto(proto)
    assert body(model, "then_branch").nodes[0].inputs[0] is model.graph.nodes[0].outputs[0]


def test_a_weight_that_two_bodies_share_is_written_once() -> None:
    model = from_text(IF)
    shared = Constant("shared", np.array([5, 6], np.float32))
    for name in ("then_branch", "else_branch"):
        body(model, name).nodes[0].inputs[1] = shared
    check(model)
    proto = model.to_proto()
    assert [t.name for t in proto.graph.initializer] == ["shared"]
    assert [t.name for a in proto.graph.node[1].attribute for t in a.g.initializer] == []
    assert model.copy().to_proto() == proto
    got = Runner(model).run(FEEDS[IF])["y"]
    np.testing.assert_array_equal(got, [6, 11])


def test_a_weight_that_one_body_declares_and_another_uses_is_written_once() -> None:
    model = from_text(IF)
    own = body(model, "else_branch").nodes[0].inputs[1]
    body(model, "then_branch").nodes[0].inputs[1] = own
    check(model)
    assert [t.name for t in model.to_proto().graph.initializer] == ["own"]


def test_a_weight_whose_name_means_something_else_nearby_stays_where_it_is_used() -> None:
    model = from_text(IF)
    node = body(model, "else_branch").nodes[0]
    node.inputs[1].name = "w"  # the weight of the main graph has that name too
    model.graph.nodes[0].inputs[0] = model.constants()[0]
    proto = model.to_proto()
    assert [t.name for t in proto.graph.initializer] == ["w"]
    assert [t.name for a in proto.graph.node[1].attribute for t in a.g.initializer] == ["w"]


def test_a_new_weight_of_one_body_is_written_there() -> None:
    model = from_text(IF)
    body(model, "then_branch").nodes[0].inputs[1] = Constant("new", np.ones(2, np.float32))
    check(model)
    then = next(a.g for a in model.to_proto().graph.node[1].attribute if a.name == "then_branch")
    assert [t.name for t in then.initializer] == ["new"]


def test_an_output_may_be_a_constant_or_an_input() -> None:
    model = from_text(
        f"{HEAD} g (float[2] x) => (float[2] x, float[2] w, float[2] y) <float[2] w = {{1, 2}}> {{ y = Abs (x) }}"
    )
    assert problems(model.copy()) == []
    make_constant(model.graph.outputs[2], np.array([7, 8], np.float32))
    model.graph.nodes.clear()
    model.graph.inputs[0].outputs.clear()
    assert problems(model) == []
    assert [t.name for t in model.to_proto().graph.initializer] == ["w", "y"]


def test_a_constant_of_a_function_becomes_a_constant_node() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.f (x) }
        <domain: "local", opset_import: ["" : 17]>
        f (p) => (q) { k = Constant <value = float[2] {3, 4}> ()  q = Add (p, k) }""")
    function = model.graph.functions[0]
    make_constant(function.nodes[0].outputs[0], np.array([5, 6], np.float32))
    function.nodes.pop(0)
    check(model)
    written = model.to_proto().functions[0]
    assert [n.op_type for n in written.node] == ["Constant", "Add"]
    np.testing.assert_array_equal(Runner(model).run({"x": np.zeros(2, np.float32)})["y"], [5, 6])


def test_a_function_imports_what_a_pass_made_it_use() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "local": 1, "com.microsoft": 1]>
        g (float[2] x) => (float[2] y) { y = local.f (x) }
        <domain: "local", opset_import: ["" : 17]> f (p) => (q) { q = Relu (p) }""")
    model.graph.functions[0].nodes[0].domain = "com.microsoft"
    assert {o.domain for o in model.to_proto().functions[0].opset_import} == {"", "com.microsoft"}


# ---- copies


def test_edits_of_a_copy_do_not_reach_the_original() -> None:
    model = from_text(IF)
    before = model.to_proto()
    copy = model.copy()
    copy.constants()[0].values = np.zeros(2, np.float32)
    copy.graph.nodes[0].attrs["new"] = 1
    body(copy, "then_branch").nodes[0].op = "Sub"
    replace_uses(copy.graph.inputs[1], Variable("other"))
    copy.graph.inputs.pop()
    copy.metadata["k"] = "v"
    copy.graph.outputs[0].shape[0] = 7
    copy.set_opset(18)
    assert model.to_proto() == before
    assert model.metadata == {}


def test_attributes_that_are_tensors_or_lists_are_copied_too() -> None:
    model = from_text(f"""{HEAD} g (float[2,2] x) => (float[2,2] y) {{
        c = Constant <value = float[1] {{1}}> ()
        t = Transpose <perm = [1, 0]> (x)
        y = Add (t, c)
    }}""")
    before = model.to_proto()
    copy = model.copy()
    copy.graph.nodes[0].attrs["value"].values = np.zeros(1, np.float32)
    copy.graph.nodes[1].attrs["perm"].reverse()
    assert model.to_proto() == before


def test_a_copy_shares_the_arrays() -> None:
    model = from_text(IF)
    array = model.constants()[0].values
    assert model.copy().constants()[0].values is array


def test_a_copy_of_a_function_is_a_function() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.f (x) }
        <domain: "local", opset_import: ["" : 17]> f (p) => (q) { r = Neg (p)  q = Relu (r) }""")
    function = model.graph.functions[0]
    copy = function.copy()
    assert type(copy) is type(function)
    copy.nodes.reverse()
    copy.toposort()
    assert [n.op for n in copy.nodes] == ["Neg", "Relu"]
    assert copy.nodes[0] is not function.nodes[0]


# ---- depth and width


def nested(depth: int) -> Model:
    """If inside If, made in memory: the innermost reads a value of the outermost scope."""
    c, x = Variable("c", np.bool_, []), Variable("x", np.float32, [2])
    inner = Graph([Node("Abs", "deepest", inputs=[x], outputs=[Variable("y0", np.float32, [2])])], name="b", opset=17)
    inner.outputs = [inner.nodes[0].outputs[0]]
    for i in range(1, depth + 1):
        other = Graph(
            [Node("Neg", f"e{i}", inputs=[x], outputs=[Variable(f"e{i}", np.float32, [2])])], name="e", opset=17
        )
        other.outputs = [other.nodes[0].outputs[0]]
        out = Variable(f"y{i}", np.float32, [2])
        node = Node("If", f"if{i}", {"then_branch": inner, "else_branch": other}, [c], [out])
        inner = Graph([node], outputs=[out], name=f"b{i}", opset=17)
    inner.inputs = [c, x]
    return Model(inner)


def test_thirty_levels_of_bodies_are_read_checked_copied_and_written() -> None:
    model = nested(30)
    assert problems(model) == []
    again = Model.from_proto(onnx.ModelProto.FromString(model.to_proto().SerializeToString())).copy()
    assert again.to_proto() == model.to_proto()
    assert len(list(again.scopes())) == 61
    assert any(n.name == "deepest" for n in again.graph.inputs[1].outputs)


def test_more_levels_than_a_file_can_hold_are_one_clear_line(tmp_path: object) -> None:
    model = nested(50)
    assert len(list(scopes(model.copy().graph))) == 101
    with pytest.raises(ZcError, match="bodies are nested more than 30 deep"):
        model.save(f"{tmp_path}/deep.onnx")
    assert len(problems(model)) > 0


def test_a_concat_of_thousands_of_values(normal: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Concat", [f"x{i}" for i in range(5000)], ["y"], axis=0)],
            "g",
            [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1]) for i in range(5000)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5000])],
        ),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model = Model.from_proto(proto)
    assert problems(model) == []
    assert normal(model.copy().to_proto()) == normal(proto)


def test_a_copied_node_reads_the_same_outer_values() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
            a = Abs (x)
            y = If (c) <then_branch = t () => (float[2] p) { p = Add (a, w) },
                        else_branch = e () => (float[2] q) { q = Neg (a) }>
        }""")
    node = model.graph.nodes[1]
    out = Variable("z", np.float32, [2])
    twin = node.copy(inputs=list(node.inputs), outputs=[out])
    for body in twin.subgraphs():
        for tensor in [t for n in body.nodes for t in n.outputs]:
            tensor.name += "_twin"
    model.graph.nodes.append(twin)
    model.graph.outputs.append(out)
    assert problems(model) == []
    assert twin.attrs["then_branch"].nodes[0].inputs[0] is model.graph.nodes[0].outputs[0]
    assert twin.attrs["then_branch"] is not node.attrs["then_branch"]
