"""Edits: order, names, replacing, removing; linear and by identity."""

import random
from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from zc.errors import ZcError
from zc.ir.check import check
from zc.ir.edit import Editor, Names, detach, make_constant, replace_uses, sort_nodes, sweep
from zc.ir.graph import Constant, Node, Variable
from zc.ir.model import Model, from_text

Chain = Callable[..., onnx.ModelProto]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def order(model: Model) -> list[str]:
    return [n.name or n.op for n in model.graph.nodes]


# ---- sorting


def test_a_sorted_graph_keeps_its_order(chain: Chain) -> None:
    model = Model.from_proto(chain(50))
    before = order(model)
    assert sort_nodes(model.graph) is False
    assert order(model) == before


def test_nodes_that_need_not_move_stay_in_order() -> None:
    model = from_text(
        f"{HEAD} g (float[2] x) => (float[2] y, float[2] z) {{ z = Relu (x)  y = Add (a, b)  a = Abs (x)  b = Exp (x)}}"
    )
    assert sort_nodes(model.graph) is True
    assert order(model) == ["Relu", "Abs", "Exp", "Add"]


def test_a_shuffled_chain_of_20000_is_sorted(chain: Chain) -> None:
    model = Model.from_proto(chain(20_000, shuffled=True))
    assert sort_nodes(model.graph) is True
    assert order(model) == [f"n{i}" for i in range(20_000)]


def test_sorting_is_linear(chain: Chain, growth: Callable[..., float]) -> None:
    def make(n: int) -> Model:
        return Model.from_proto(chain(n, shuffled=True))

    assert growth(make, lambda model: sort_nodes(model.graph), 500) < 5


def test_toposort_of_the_graph_is_the_same(chain: Chain) -> None:
    model = Model.from_proto(chain(5_000, shuffled=True))
    model.graph.toposort()
    assert order(model) == [f"n{i}" for i in range(5_000)]


def test_a_cycle_is_named() -> None:
    model = from_text(f"""{HEAD} g (float[2] x) => (float[2] y) {{
        [one] a = Add (x, c)
        [two] b = Relu (a)
        [three] c = Abs (b)
        y = Exp (b)
    }}""")
    with pytest.raises(ZcError, match=r"node '(one|two|three)' is part of a cycle"):
        sort_nodes(model.graph)
    assert order(model) == ["one", "two", "three", "Exp"]


def test_a_node_that_needs_itself_is_named() -> None:
    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ [knot] a = Add (x, a)  y = Exp (a) }}")
    with pytest.raises(ZcError, match="node 'knot' takes its own output as an input"):
        sort_nodes(model.graph)


def test_what_a_body_takes_from_outside_comes_first() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2] x) => (float[2] y) {{
        y = If (c) <then_branch = t () => (float[2] p) {{ q = Neg (late)  p = Abs (q) }},
                    else_branch = e () => (float[2] r) {{ r = Identity (x) }}>
        late = Relu (x)
    }}""")
    body = model.graph.nodes[0].attrs["then_branch"]
    body.nodes.reverse()
    assert sort_nodes(model.graph) is True
    assert order(model) == ["Relu", "If"]
    assert [n.op for n in body.nodes] == ["Neg", "Abs"]


def test_a_cycle_through_a_body_is_named() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2] x) => (float[2] y) {{
        [outer] a = If (c) <then_branch = t () => (float[2] p) {{ p = Neg (y) }},
                            else_branch = e () => (float[2] r) {{ r = Identity (x) }}>
        y = Relu (a)
    }}""")
    with pytest.raises(ZcError, match="part of a cycle"):
        sort_nodes(model.graph)


# ---- names


def test_fresh_names_avoid_those_of_every_scope_and_node() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2] x) => (float[2] y) <float[1] w = {{1}}> {{
        [n] y = If (c) <then_branch = t () => (float[2] p) {{ p = Neg (x) }},
                        else_branch = e () => (float[2] r) <float[2] inner = {{1,2}}> {{ r = Add (x, inner) }}>
    }}""")
    names = Names(model.graph)
    assert [names.take(s) for s in ("p", "inner", "w", "n", "free", "free", "")] == [
        *("p_1", "inner_1", "w_1", "n_1", "free", "free_1", "_1")
    ]


def test_layer_makes_names_that_nobody_has(chain: Chain) -> None:
    model = Model.from_proto(chain(10))
    graph = model.graph
    first = graph.layer(op="Relu", inputs=[graph.inputs[0]], outputs=["v3"])[0]
    graph.nodes.append(Node("Abs", "node_1", inputs=[first], outputs=[Variable("v3_2")]))
    second = graph.layer(op="Relu", inputs=[first, np.ones(2, np.float32), 1.5, [1, 2]], outputs=["v3"])[0]
    assert first.name not in {"v3", second.name}
    assert second.name not in {"v3", "v3_2"}
    assert len({n.name for n in graph.nodes}) == len(graph.nodes)
    array, scalar, numbers = graph.nodes[-1].inputs[1:]
    assert (scalar.dtype, numbers.dtype, array.name) == (np.float32, np.int64, "constant")


def test_layer_is_linear(chain: Chain, growth: Callable[..., float]) -> None:
    def add(model: Model) -> None:
        last = model.graph.inputs[0]
        for _ in range(len(model.graph.nodes)):
            last = model.graph.layer(op="Relu", inputs=[last], outputs=["out"])[0]

    assert growth(lambda n: Model.from_proto(chain(n)), add, 500) < 5


# ---- replacing and removing


def test_detached_nodes_are_swept_and_others_with_no_outputs_stay() -> None:
    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ a = Abs (x)  y = Relu (x) }}")
    model.graph.nodes.append(Node("Print", "p", inputs=[model.graph.inputs[0]], domain="my.domain"))
    detach(model.graph.nodes[0])
    assert sweep(model.graph) == 1
    assert order(model) == ["Relu", "p"]
    assert [n.op for n in model.graph.inputs[0].outputs] == ["Relu", "Print"]


def test_replace_uses_reaches_bodies_and_spares_outputs() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2] x) => (float[2] y, float[2] a) {{
        a = Abs (x)
        b = Add (a, a)
        y = If (c) <then_branch = t () => (float[2] p) {{ p = Neg (a) }},
                    else_branch = e () => (float[2] r) {{ r = Identity (b) }}>
    }}""")
    x, a = model.graph.inputs[1], model.graph.outputs[1]
    assert replace_uses(a, x) == 3
    assert (list(a.outputs), model.graph.outputs[1]) == ([], a)
    assert model.graph.nodes[2].attrs["then_branch"].nodes[0].inputs[0] is x
    check(model)


def test_replace_uses_may_choose_the_consumers() -> None:
    model = from_text(
        f"{HEAD} g (float[2] x) => (float[2] y) {{ a = Abs (x)  b = Neg (a)  c = Exp (a)  y = Add (b, c) }}"
    )
    a = model.graph.nodes[0].outputs[0]
    assert replace_uses(a, model.graph.inputs[0], lambda node: node.op == "Neg") == 1
    assert [n.op for n in a.outputs] == ["Exp"]


def test_make_constant_takes_the_value_from_its_producer() -> None:
    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ a = Abs (x)  y = Relu (a) }}")
    constant = make_constant(model.graph.nodes[0].outputs[0], np.array([1, 2], np.float32))
    assert isinstance(constant, Constant)
    assert model.graph.nodes[1].inputs[0] is constant
    detach(model.graph.nodes[0])
    sweep(model.graph)
    check(model)
    assert [t.name for t in model.to_proto().graph.initializer] == ["a"]


def forwarded(text: str, node: int) -> tuple[Model, str | None]:
    """Take one node out by letting its input stand for its output."""
    model = from_text(f"{HEAD} {text}")
    target = model.graph.nodes[node]
    editor = Editor(model.graph, Names(model.graph))
    why = editor.forward(target.outputs[0], target.inputs[0])
    if why is None:
        detach(target)
    editor.finish()
    check(model)
    return model, why


def test_forward_in_the_middle() -> None:
    model, why = forwarded("g (float[2] x) => (float[2] y) { a = Abs (x)  b = Identity (a)  y = Relu (b) }", 1)
    assert (why, order(model)) == (None, ["Abs", "Relu"])


def test_forward_to_an_output_keeps_its_name_and_moves_the_other_consumers() -> None:
    model, why = forwarded(
        "g (float[2] x) => (float[2] y, float[2] z) { a = Abs (x)  y = Identity (a)  z = Relu (a) }", 1
    )
    assert (why, order(model)) == (None, ["Abs", "Relu"])
    assert [o.name for o in model.graph.outputs] == ["y", "z"]
    assert model.graph.nodes[1].inputs[0].name == "y"


@pytest.mark.parametrize(
    ("text", "node", "reason"),
    [
        (
            "g (float[2] x) => (float[2] y) { y = Identity (x) }",
            0,
            "it connects a graph input or constant to a graph output",
        ),
        ("g () => (float[2] y) <float[2] w = {1,2}> { y = Identity (w) }", 0, "it connects a graph input or constant"),
        (
            "g (float[2] x) => (float[2] y, float[2] z) { z = Abs (x)  y = Identity (z) }",
            1,
            "it connects two graph outputs",
        ),
    ],
)
def test_forward_says_why_not(text: str, node: int, reason: str) -> None:
    model, why = forwarded(text, node)
    assert why is not None
    assert why.startswith(reason)
    assert any(n.op == "Identity" for n in model.graph.nodes)


def test_forward_leaves_the_result_of_a_body() -> None:
    model = from_text(f"""{HEAD} g (bool c, float[2] x) => (float[2] y) {{
        a = Abs (x)
        b = Identity (a)
        y = If (c) <then_branch = t () => (float[2] b) {{ }}, else_branch = e () => (float[2] r) {{ r = Neg (x) }}>
    }}""")
    node = model.graph.nodes[1]
    editor = Editor(model.graph, Names(model.graph))
    assert editor.sole_use(node.outputs[0]) is None
    assert editor.forward(node.outputs[0], node.inputs[0]) == "its output is the result of a subgraph body"


def test_sole_use_sees_outputs_and_bodies() -> None:
    model = from_text(
        f"{HEAD} g (float[2] x) => (float[2] y, float[2] a) {{ a = Abs (x)  b = Neg (a)  y = Add (b, b) }}"
    )
    a, b = (n.outputs[0] for n in model.graph.nodes[:2])
    editor = Editor(model.graph, Names(model.graph))
    assert editor.sole_use(a) is None
    assert editor.sole_use(b) is None  # read twice by one node: two uses
    assert editor.is_output(a)


def test_500_edits_on_a_shared_constant_are_linear(chain: Chain, growth: Callable[..., float]) -> None:
    def cut(model: Model) -> None:
        editor = Editor(model.graph, Names(model.graph))
        for node in list(model.graph.nodes):
            if node.op == "Add" and editor.forward(node.outputs[0], node.inputs[0]) is None:
                detach(node)
        editor.finish()

    assert growth(lambda n: Model.from_proto(chain(n)), cut, 500) < 5


# ---- plain onnx-graphsurgeon


def test_what_plain_graphsurgeon_objects_lack_is_adopted_on_the_way_out() -> None:
    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ a = Abs (x)  y = Relu (a) }}")
    graph = model.graph
    weight = gs.Constant("w", np.array([1, 2], np.float32))
    fresh = gs.Variable("fresh", np.float32, [2])
    node = gs.Node("Mul", "mine", inputs=[graph.nodes[0].outputs[0], weight], outputs=[fresh])
    graph.nodes.insert(1, node)
    graph.nodes[2].inputs[0] = fresh
    check(model)
    assert isinstance(graph.nodes[1], Node)
    assert isinstance(graph.nodes[1].inputs[1], Constant)
    assert isinstance(fresh, Variable)
    assert fresh.dtype == np.dtype("float32")
    assert [t.name for t in model.to_proto().graph.initializer] == ["w"]


def test_a_graph_imported_by_plain_graphsurgeon_is_adopted(chain: Chain) -> None:
    proto = chain(6)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones(4, np.float32), "w0"))
    model = Model.from_proto(proto)
    model.graph = gs.import_onnx(proto)
    check(model)
    assert [n.op_type for n in model.copy().to_proto().graph.node] == [n.op_type for n in proto.graph.node]


def test_cleanup_and_toposort_of_graphsurgeon_work(chain: Chain) -> None:
    model = Model.from_proto(chain(2000, shuffled=True))
    model.graph.nodes.append(Node("Abs", "dead", inputs=[model.graph.inputs[0]], outputs=[Variable("dead")]))
    model.graph.cleanup().toposort()
    assert order(model) == [f"n{i}" for i in range(2000)]
    check(model)


def test_functions_registered_with_graphsurgeon_are_methods(capsys: pytest.CaptureFixture[str]) -> None:
    @gs.Graph.register()
    def twice_for_this_test(self: gs.Graph, tensor: gs.Tensor) -> gs.Tensor:
        return self.layer(op="Add", inputs=[tensor, tensor], outputs=["twice"])[0]

    model = from_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Relu (x) }}")
    model.graph.nodes[0].inputs[0] = model.graph.twice_for_this_test(model.graph.inputs[0])
    assert not hasattr(model.graph, "no_such_thing")
    model.graph.toposort()
    check(model)
    assert capsys.readouterr().out == ""


def test_random_edits_leave_a_valid_graph(chain: Chain) -> None:
    pick = random.Random(0)
    for _ in range(20):
        model = Model.from_proto(chain(40))
        editor = Editor(model.graph, Names(model.graph))
        for node in pick.sample(list(model.graph.nodes), 10):
            if pick.random() < 0.5:
                if editor.forward(node.outputs[0], node.inputs[0]) is None:
                    detach(node)
            elif node.inputs:
                new = editor.add(Node("Abs", inputs=[node.inputs[0]], outputs=[editor.names.variable("n")]))
                node.inputs[0] = new.outputs[0]
        editor.finish()
        check(model)
