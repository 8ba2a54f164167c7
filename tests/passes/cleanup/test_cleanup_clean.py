from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from zc.execute import Runner, relative_error
from zc.ir.model import Model, load
from zc.passes.cleanup.clean import Clean

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"
BEST = {
    "resnet20_cifar10": 54,
    "resnet20_cifar10_bn": 54,
    "resnet20_cifar10_dynamo": 54,
    "resnet56_cifar10": 144,
    "resnet56_cifar10_bn": 144,
    "resnet8_cifar10": 23,
    "squeezenet10_imagenet": 65,
    "mobilenetv1_025_imagenet": 58,
    "mobilenetv1_025_imagenet_bn": 58,
    "mobilenetv2_10_imagenet_qatsrc": 101,
    "vww_mobilenetv1_025": 58,
    "magika_standard_v3_3": 93,
    "silero_vad_op18_ifless": 90,
    "ultraface_rfb_320": 124,
    "superres_espcn": 8,
    "mnist_cntk": 8,
    "minilm_l6_trim": 281,
}
"""Nodes that the best other tool leaves."""


def count(model: Model) -> int:
    return sum(n.op != "Constant" for scope in model.scopes() for n in scope.nodes)


def test_all_passes_work_together(run_pass):
    after = run_pass(
        "clean",
        """g (float[N,3,8,8] x) => (float[N,32] y)
        <float[2,3,3,3] w, float[2] s, float[2] o, float[2] m, float[2] var, float one = {1}> {
            same = Identity (x)
            conv = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (same, w)
            n = BatchNormalization (conv, s, o, m, var)
            t = Mul (n, one)
            shape = Shape (t)
            zero = Constant <value_int = 0> ()
            batch = Gather <axis = 0> (shape, zero)
            axes = Constant <value_ints = [0]> ()
            first = Unsqueeze (batch, axes)
            rest = Constant <value_ints = [-1]> ()
            target = Concat <axis = 0> (first, rest)
            y = Reshape (t, target)
            dead = Relu (t)
        }""",
    )
    assert after.ops == ["Conv", "Reshape"]
    assert after.result.stats["nodes before"] == 10
    assert after.result.stats["nodes after"] == 2


def test_functions_are_inlined(run_pass):
    after = run_pass(
        "clean",
        """<ir_version: 8, opset_import: ["" : 17, "near" : 1]>
        g (float[N] x) => (float[N] y) { a = near.twice (x)  y = near.twice (a) }
        <domain: "near", opset_import: ["" : 17]> twice (a) => (b) { i = Identity (a)  b = Add (i, i) }""",
    )
    assert after.ops == ["Add", "Add"]
    assert not after.model.graph.functions


def test_nodes_of_a_foreign_domain_are_left_alone(text_model):
    model = text_model(
        """<ir_version: 8, opset_import: ["" : 17, "far.away" : 1]>
        g (float[N] x) => (float[N] y) {
            i = Identity (x)  a = far.away.Thing (i)  b = far.away.Thing (i)  y = Add (a, b)
        }"""
    )
    Clean().run(model, None)
    assert [n.op for n in model.graph.nodes] == ["Thing", "Thing", "Add"]


def test_a_graph_in_any_order_is_sorted_first(run_pass, text_model):
    model = text_model("g (float[N] x) => (float[N] y) { a = Neg (x)  b = Identity (a)  c = Exp (b)  y = Abs (c) }")
    model.graph.nodes.reverse()
    assert run_pass("clean", model).ops == ["Neg", "Exp", "Abs"]


UNARY = ["Identity", "Relu", "Neg", "Dropout", "Tanh", "Clip"]
BINARY = ["Add", "Mul", "Sub", "Max"]
CONSTANTS = {
    "one": 1.0,
    "zero": 0.0,
    "half": 0.5,
    "vector": [1.0, 2.0, -1.0, 0.5],
    "ones": [1.0] * 4,
    "column": [[2.0]],
}


@st.composite
def graphs(draw):
    """Random small graphs on values of shape [N,4], with constants, shape arithmetic, pairs of moves, and dead ends."""
    nodes, values = [], ["x", "z"]
    fresh = iter(range(1000))

    def emit(op, inputs, **attrs):
        name = f"v{next(fresh)}"
        nodes.append(helper.make_node(op, inputs, [name], **attrs))
        return name

    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["unary", "binary", "constant", "gemm", "transposes", "shape", "fold"]))
        a = draw(st.sampled_from(values))
        if kind == "unary":
            values.append(emit(draw(st.sampled_from(UNARY)), [a]))
        elif kind == "binary":
            values.append(emit(draw(st.sampled_from(BINARY)), [a, draw(st.sampled_from(values))]))
        elif kind == "constant":
            pair = [a, draw(st.sampled_from(sorted(CONSTANTS)))]
            values.append(emit(draw(st.sampled_from(BINARY)), pair if draw(st.booleans()) else pair[::-1]))
        elif kind == "gemm":
            values.append(emit("MatMul", [a, draw(st.sampled_from(["w1", "w2"]))]))
        elif kind == "transposes":
            values.append(emit("Transpose", [emit("Transpose", [a], perm=[1, 0])], perm=[1, 0]))
        elif kind == "shape":
            shape = emit("Shape", [draw(st.sampled_from(values))])
            values.append(emit("Reshape", [a, emit("Concat", [emit("Gather", [shape, "first"]), "rest"], axis=0)]))
        else:
            values.append(emit("Add", [a, emit("Exp", [draw(st.sampled_from(sorted(CONSTANTS)))])]))
    outputs = draw(st.lists(st.sampled_from(values[2:]), min_size=1, max_size=2, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    arrays = {k: np.array(v, np.float32) for k, v in CONSTANTS.items()}
    arrays |= {f"w{i}": rng.standard_normal((4, 4)).astype(np.float32) / 2 for i in (1, 2)}
    arrays |= {"first": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    info = lambda n: helper.make_tensor_value_info(n, 1, ["N", 4])  # noqa: E731
    graph = helper.make_graph(
        nodes, "g", [info("x"), info("z")], [info(n) for n in outputs],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_random_graphs_keep_their_outputs(proto):
    before, after = Model.from_proto(proto), Model.from_proto(proto)
    Clean().run(after, None)
    assert count(after) <= count(before)
    onnx.checker.check_model(after.to_proto(), full_check=True)
    assert not Clean().run(after.copy(), None).changed
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        feeds = {n: rng.standard_normal((batch, 4)).astype(np.float32) for n in ("x", "z")}
        want = Runner(before, level="off", threads=1).run(feeds)
        got = Runner(after, level="off", threads=1).run(feeds)
        assert list(want) == list(got)
        assert all(relative_error(got[k], want[k]) <= 1e-5 for k in want)


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(BEST))
def test_no_other_tool_leaves_fewer_nodes(name):
    path = SHARED / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip("no folder ../shared with real models beside the repository")
    model = load(path)
    Clean().run(model, None)
    assert count(model) <= BEST[name]
    assert not Clean().run(model, None).changed


def chain(length: int) -> Model:
    nodes, last = [], "x"
    for i in range(length):
        op = ("Add", "Mul", "Identity")[i % 3]
        out = "y" if i == length - 1 else f"v{i}"
        nodes.append(helper.make_node(op, [last] if op == "Identity" else [last, f"c{i % 7}"], [out]))
        last = out
    info = [helper.make_tensor_value_info(n, 1, ["N", 8]) for n in "xy"]
    weights = [numpy_helper.from_array(np.full(8, 0.5 + i / 7, np.float32), f"c{i}") for i in range(7)]
    graph = helper.make_graph(nodes, "chain", info[:1], info[1:], weights)
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_the_cost_is_linear_in_the_length_of_a_chain(growth: Callable[..., float]):
    assert growth(chain, lambda model: Clean().run(model, None), 500) < 5
