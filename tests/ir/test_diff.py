"""Structural diff: each kind of change is told as what it is."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from zc.ir.diff import diff, render_html, render_text, to_json
from zc.ir.edit import Names, make_constant, replace_uses, sort_nodes
from zc.ir.graph import Constant, Node, Variable
from zc.ir.model import Model, from_text, load
from zc.ir.text import parse_text, print_model

NET = """
<ir_version: 8, opset_import: ["" : 17], metadata_props: ["author": "me"]>
net (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, 2}, float[2,2,1,1] v = {1, 0, 0, 1}, float[N,2,8,8] c>
{
  [conv] c = Conv <pads = [0, 0, 0, 0]> (x, w, b)
  [relu] r = Relu (c)
  [conv2] d = Conv (r, v)
  [add] y = Add (d, r)
}
"""


def pair(edit: Callable[[Model], object] | None = None, text: str = NET) -> tuple[Model, Model]:
    """A model and its edited copy."""
    model = from_text(text)
    other = model.copy()
    if edit is not None:
        edit(other)
    return model, other


def rename_everything(model: Model) -> None:
    for i, node in enumerate(model.graph.nodes):
        node.name = f"n{i}"
        for tensor in node.outputs:
            if tensor.name != "y":
                tensor.name = f"t{i}"
    for i, constant in enumerate(model.constants()):
        constant.name = f"c{i}"


def test_a_model_equals_itself_and_its_copy() -> None:
    result = diff(*pair())
    assert result.equal
    assert result.summary() == "equal"
    assert render_text(result) == "equal\n"


def test_renamed_nodes_values_and_weights_are_renames() -> None:
    result = diff(*pair(rename_everything))
    assert (result.added, result.removed, result.changed, result.weights) == ((), (), (), ())
    assert {(r.kind, r.before, r.after) for r in result.renamed} >= {("node", "relu", "n1"), ("value", "r", "t1")}
    assert result.summary() == "10 names changed"


def test_repeated_blocks_whose_names_have_shifted_are_matched_by_their_weights() -> None:
    def chain(count: int, first: int) -> Model:
        nodes, inits, last = [], [], "x"
        for i in range(first, count):
            name = f"v{i - first}"
            inits.append(numpy_helper.from_array(np.full((2, 2), i, np.float32), f"w{i - first}"))
            nodes.append(helper.make_node("MatMul", [last, f"w{i - first}"], [name], f"m{i - first}"))
            last = name
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in ("x", last)]
        return Model.from_proto(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], inits)))

    result = diff(chain(9, 0), chain(9, 2))
    assert [n.name for n in result.removed] == ["m0", "m1"]
    assert [w.name for w in result.weights_removed] == ["w0", "w1"]
    assert (result.added, result.weights) == ((), ())
    assert [(c.name, c.changes[0].pattern) for c in result.changed] == [
        ("m2", "input 0: no longer through MatMul, MatMul")
    ]


def test_attributes_are_shown_before_and_after() -> None:
    def edit(model: Model) -> None:
        model.graph.nodes[0].attrs["pads"] = [1, 1, 1, 1]
        model.graph.nodes[0].attrs["group"] = 1

    (change,) = diff(*pair(edit)).changed
    assert (change.name, change.op) == ("conv", "Conv")
    assert [(c.what, c.before, c.after) for c in change.changes] == [
        ("attribute group", None, "1 (the default)"),
        ("attribute pads", "[0, 0, 0, 0]", "[1, 1, 1, 1]"),
    ]


def test_rewired_inputs_are_shown_with_both_sources() -> None:
    def edit(model: Model) -> None:
        add = model.graph.nodes[3]
        add.inputs[1] = model.graph.nodes[0].outputs[0]

    (change,) = diff(*pair(edit)).changed
    assert (change.name, change.changes[0].what) == ("add", "input 1")
    assert (change.changes[0].before, change.changes[0].after) == ("r", "c")


def test_a_removed_node_is_one_removal_and_its_consumers_say_so() -> None:
    def edit(model: Model) -> None:
        conv, relu = model.graph.nodes[:2]
        replace_uses(relu.outputs[0], conv.outputs[0])
        model.graph.nodes.remove(relu)

    result = diff(*pair(edit))
    assert [(n.op, n.name) for n in result.removed] == [("Relu", "relu")]
    assert {c.pattern for n in result.changed for c in n.changes} == {
        "input 0: no longer through Relu",
        "input 1: no longer through Relu",
    }


def test_an_operator_that_took_the_place_of_another_is_a_changed_node() -> None:
    result = diff(*pair(lambda m: setattr(m.graph.nodes[1], "op", "Sigmoid")))
    assert [(c.name, c.changes[0].pattern) for c in result.changed] == [("relu", "operator Relu -> Sigmoid")]
    assert (result.added, result.removed) == ((), ())


def test_a_node_that_only_took_over_a_name_is_an_added_node() -> None:
    """Quantisation writes a DequantizeLinear under the name of the activation that it absorbed."""

    def edit(model: Model) -> None:
        relu = model.graph.nodes[1]
        scale, zero = Constant("s", np.array(1, np.float32)), Constant("z", np.array(0, np.uint8))
        codes = Variable("codes", np.uint8)
        quantize = Node("QuantizeLinear", "q", {}, [relu.inputs[0], scale, zero], [codes])
        relu.inputs.clear()
        relu.op, relu.name = "DequantizeLinear", "dq"
        relu.inputs.extend([codes, scale, zero])
        model.graph.nodes.insert(1, quantize)

    result = diff(*pair(edit))
    assert ([n.op for n in result.removed], [n.op for n in result.added]) == (
        ["Relu"],
        ["QuantizeLinear", "DequantizeLinear"],
    )
    assert {c.pattern.partition(": ")[2] for n in result.changed for c in n.changes} == {
        "no longer through Relu and now through QuantizeLinear, DequantizeLinear"
    }


def test_few_numbers_are_shown_as_they_are() -> None:
    (change,) = diff(*pair(lambda m: setattr(m.constants()[1], "values", np.array([3], np.float32)))).weights
    assert (change.name, change.before, change.after) == ("b", "float[2] [1., 2.]", "float[1] [3.]")


def test_weights_are_measured() -> None:
    def edit(model: Model) -> None:
        model.constants()[0].values = np.array([1, 2, 3, 4, 5, 6.6], np.float32).reshape(2, 3, 1, 1)

    (change,) = diff(*pair(edit)).weights
    assert (change.name, change.before, change.after) == ("w", "float[2,3,1,1]", "float[2,3,1,1]")
    assert change.used_by == "Conv 'conv', input 1"
    assert change.max_abs == pytest.approx(0.6)
    assert change.relative == pytest.approx(0.1)
    assert change.sqnr_db == pytest.approx(10 * np.log10(91 / 0.36))


def test_a_cut_weight_is_a_change_of_shape() -> None:
    def edit(model: Model) -> None:
        w = model.constants()[0]
        w.values = w.values[:1]
        model.graph.nodes[0].outputs[0].shape = ["N", 1, 8, 8]

    result = diff(*pair(edit))
    assert [(w.before, w.after, w.max_abs) for w in result.weights] == [("float[2,3,1,1]", "float[1,3,1,1]", None)]
    assert [(v.name, v.before, v.after) for v in result.values] == [("c", "float[N,2,8,8]", "float[N,1,8,8]")]


def test_a_weight_that_became_codes_is_measured_through_its_scale() -> None:
    def edit(model: Model) -> None:
        conv, w = model.graph.nodes[0], model.constants()[0]
        scale = np.array([0.5, 1], np.float32)
        codes = Constant("w_q", np.array([2, 4, 6, 4, 5, 7], np.int8).reshape(2, 3, 1, 1))
        inputs = [codes, Constant("w_s", scale), Constant("w_z", np.zeros(2, np.int8))]
        node = Node("DequantizeLinear", "dq", {"axis": 0}, inputs, [Variable("w_dq", np.float32, [2, 3, 1, 1])])
        model.graph.nodes.insert(0, node)
        conv.inputs[1] = node.outputs[0]
        model.graph.declared.remove(w)

    result = diff(*pair(edit))
    (change,) = result.weights
    assert (change.name, change.max_abs, change.note) == ("w", 1.0, "dequantized from int8[2,3,1,1] 'w_q'")
    assert [w.name for w in result.weights_added] == ["w_s", "w_z"]
    assert result.weights_removed == ()
    assert result.changed[0].changes[0].pattern == "input 1: now through DequantizeLinear"


def test_a_shared_weight_is_reported_once_and_a_parting_is_no_difference() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { t = Add (x, w)  y = Mul (t, w) }"""

    def edit(model: Model) -> None:
        model.graph.nodes[1].inputs[1] = Constant("w2", np.array([1, 2], np.float32))

    parted = diff(*pair(edit, text))
    assert (parted.weights, [w.name for w in parted.weights_added]) == ((), ["w2"])
    changed = diff(*pair(lambda m: setattr(m.constants()[0], "values", np.array([1, 3], np.float32)), text))
    assert len(changed.weights) == 1


def test_a_constant_node_and_an_initializer_of_the_same_numbers_are_the_same_input() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { w = Constant <value = float[2] {1, 2}> ()  y = Add (x, w) }"""

    def edit(model: Model) -> None:
        constant, _ = model.graph.nodes
        make_constant(constant.outputs[0], np.array([1, 2], np.float32))
        model.graph.nodes.remove(constant)

    result = diff(*pair(edit, text))
    assert (result.changed, result.weights) == ((), ())
    assert [n.op for n in result.removed] == ["Constant"]


def test_inputs_outputs_and_header_are_compared() -> None:
    def edit(model: Model) -> None:
        model.graph.inputs[0].shape = [1, 3, 8, 8]
        model.set_opset(18)
        model.metadata = {"author": "you", "zc.version": "1"}
        model.doc = "new"

    result = diff(*pair(edit))
    assert [(e.kind, e.name, e.before, e.after) for e in result.ends] == [
        ("input", "x", "float[N,3,8,8]", "float[1,3,8,8]")
    ]
    assert {(h.what, h.before, h.after) for h in result.header} == {
        ("opset ai.onnx", "17", "18"),
        ("metadata author", "me", "you"),
        ("doc string", None, "new"),
    }


def test_provenance_alone_is_no_difference() -> None:
    assert diff(*pair(lambda m: m.metadata.update({"zc.version": "1"}))).equal


def test_another_order_of_nodes_is_told_but_is_no_difference() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a = Relu (x)  b = Neg (x)  y = Add (a, b) }"""

    def edit(model: Model) -> None:
        model.graph.nodes[:2] = model.graph.nodes[1::-1]
        sort_nodes(model.graph)

    result = diff(*pair(edit, text))
    assert result.equal
    assert result.summary() == "equal (the nodes stand in another order)"


def test_bodies_are_compared_inside_their_node(golden_models) -> None:
    text = (golden_models / "text" / "if_constant.txt").read_text()
    result = diff(*pair(lambda m: setattr(m.graph.nodes[1].attrs["else_branch"].nodes[0], "op", "Abs"), text))
    (change,) = result.changed
    assert change.scope.endswith(".else_branch")
    assert change.changes[0].pattern == "operator Neg -> Abs"


def test_functions_are_matched_by_name() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.F (x) }
        <domain: "local", opset_import: ["" : 17]> F (a) => (b) { b = Elu <alpha = 2.0> (a) }"""

    def edit(model: Model) -> None:
        model.graph.functions[0].nodes[0].attrs["alpha"] = 3.0

    (change,) = diff(*pair(edit, text)).changed
    assert (change.scope, change.changes[0].before, change.changes[0].after) == ("function local::F", "2.0", "3.0")


def test_hashed_weights_are_compared_by_their_hash() -> None:
    big = NET.replace("float[2] b = {1, 2}", "float[2,3,8] k = {" + ", ".join(["1"] * 48) + "}, float[2] b = {1, 2}")
    model, other = pair(lambda m: None, big.replace("Relu (c)", "Add (c, k)"))
    texts = [parse_text(print_model(m), hashed=True) for m in (model, other)]
    assert diff(*texts).equal
    assert diff(model, texts[1]).equal
    k = next(c for c in other.constants() if c.name == "k")
    k.values = k.values + 1
    (change,) = diff(texts[0], parse_text(print_model(other), hashed=True)).weights
    assert (change.name, change.note, change.max_abs) == ("k", "hashes differ", None)


def test_the_page_collapses_alike_changes_and_counts_what_it_does_not_show() -> None:
    text = "\n".join(f"v{i + 1} = LeakyRelu <alpha = 0.1> (v{i})" for i in range(20))
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[2] v0) => (float[2] v20) {{ {text} }}'

    def edit(model: Model) -> None:
        for node in model.graph.nodes:
            node.attrs["alpha"] = 0.5

    page = render_text(diff(*pair(edit, text)), limit=3)
    assert page.splitlines() == [
        "20 nodes changed",
        "",
        "Changed nodes (20)",
        "  20 x LeakyRelu: alpha: 0.10000000149011612 -> 0.5",
        "    LeakyRelu -> v1",
        "    LeakyRelu -> v2",
        "    LeakyRelu -> v3",
        "    ... and 17 more",
    ]


def test_the_summary_counts_parameters_and_bytes() -> None:
    def edit(model: Model) -> None:
        model.constants()[0].values = np.ones((1, 3, 1, 1), np.float32)

    result = diff(*pair(edit), measure=lambda m: (sum(c.size for c in m.constants()), 1_234_567 + m.nbytes()))
    assert result.summary() == "1 weight differs; parameters 12 -> 9 (-25.0 %); 1.23 MB -> 1.23 MB"


def test_json_is_plain_and_finite() -> None:
    def edit(model: Model) -> None:
        model.constants()[1].values = np.array([np.inf, np.nan], np.float32)

    plain = to_json(diff(*pair(edit)))
    parsed = json.loads(json.dumps(plain, allow_nan=False))
    assert parsed["equal"] is False
    assert parsed["weights"][0]["name"] == "b"


def test_html_escapes_what_the_models_say_and_needs_nothing_else() -> None:
    page = render_html(diff(*pair(lambda m: setattr(m.graph.nodes[1], "name", "<script>alert(1)</script>"))))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_names_that_only_one_model_has_are_added_and_removed_nodes() -> None:
    def edit(model: Model) -> None:
        names = Names(model.graph)
        y = model.graph.outputs[0]
        add = model.graph.nodes[3]
        middle = names.variable("middle", y)
        add.outputs[0] = middle
        model.graph.nodes.append(Node("Tanh", "tail", {}, [middle], [y]))

    result = diff(*pair(edit))
    assert [(n.op, n.name, n.output) for n in result.added] == [("Tanh", "tail", "y")]
    assert result.removed == ()


@pytest.mark.slow
def test_comparing_is_linear(growth: Callable[..., float]) -> None:
    def chain(count: int, drop: int) -> Model:
        nodes, last = [], "x"
        for i in range(count):
            if i % drop:
                nodes.append(
                    helper.make_node(["Add", "Relu", "Mul"][i % 3], [last, "w"][: 1 + (i % 3 != 1)], [f"v{i}"])
                )
                last = f"v{i}"
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", last)]
        w = numpy_helper.from_array(np.ones(4, np.float32), "w")
        return Model.from_proto(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [w])))

    def compare(pair: tuple[Model, Model]) -> None:
        a, b = pair
        assert len(diff(a, b).removed) == len(a.graph.nodes) // 100

    assert growth(lambda n: (chain(n + 1, n + 2), chain(n + 1, 100)), compare, 500) < 5


@pytest.mark.real
def test_real_models_equal_themselves_and_their_hashed_text(shared) -> None:
    for path in sorted((shared / "models").glob("*.onnx")):
        model = load(path)
        assert diff(model, load(path)).equal, path.name
        assert diff(model, parse_text(print_model(model), hashed=True)).equal, path.name


@pytest.mark.real
def test_folded_batch_normalization_is_told_in_a_few_lines(shared) -> None:
    models = shared / "models"
    result = diff(load(models / "mobilenetv1_025_imagenet_bn.onnx"), load(models / "mobilenetv1_025_imagenet.onnx"))
    lines = render_text(result, limit=0).splitlines()
    assert "  27 x Conv: input 2: none -> constant" in lines
    assert "  27 x Clip: input 0: no longer through BatchNormalization" in lines
    assert "  27 x BatchNormalization" in lines
    assert len(lines) < 25
