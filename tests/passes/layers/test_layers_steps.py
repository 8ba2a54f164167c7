"""A net that runs in steps: weights and values may change before the next one."""

import numpy as np
import pytest

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.edit import sort_nodes
from zc.ir.model import Model, from_text
from zc.ir.shapes import infer_shapes
from zc.passes.layers.steps import Steps

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = (
    HEAD
    + """(float[N,4] x) => (float[N,2] z, float[N,3] side)
    <float[4,4] w1 = {1,2,0,1, 0,1,1,0, 3,0,1,1, 1,1,0,2}, float[4,2] w2 = {1,0, 2,1, 0,1, 1,1},
     float[4,3] w3 = {1,0,1, 0,1,0, 2,0,1, 1,1,1}> {
        a = MatMul (x, w1)
        r = Relu (a)
        b = Neg (r)
        s = Add (b, x)
        z = MatMul (s, w2)
        side = MatMul (r, w3)
    }"""
)


@pytest.fixture
def net() -> Model:
    model = from_text(NET)
    sort_nodes(model.graph)
    return model


def value(model, name):
    return next(t for n in model.graph.nodes for t in n.outputs if t.name == name)


def feeds(*rows):
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((k, 4)).astype(np.float32)} for k in rows]


def test_steps_give_what_the_whole_gives(net):
    batches = feeds(3, 2)
    whole = Runner(net, outputs=["r", "s", "z"])
    steps = Steps(net, batches)
    for name in ("r", "s", "z"):
        steps.advance([value(net, name)])
        for feed, held in zip(batches, steps.held, strict=True):
            np.testing.assert_allclose(held[name], whole.run(feed)[name], rtol=1e-5, atol=1e-6)


def test_a_change_between_two_steps_counts_for_what_follows(net):
    steps = Steps(net, feeds(2))
    steps.advance([value(net, "s")])
    steps.held[0]["s"] = np.ones((2, 4), np.float32)
    weight = next(c for c in net.constants() if c.name == "w2")
    weight.values = np.full((4, 2), 5, np.float32)
    steps.advance([value(net, "z")])
    np.testing.assert_array_equal(steps.held[0]["z"], np.full((2, 2), 20, np.float32))


def test_only_what_is_still_read_is_held(net):
    steps = Steps(net, feeds(1))
    steps.advance([value(net, "a")])
    assert set(steps.held[0]) == {"x", "a"}
    steps.advance([value(net, "s")])
    assert set(steps.held[0]) == {"r", "s"}
    steps.advance([value(net, "side")])
    assert set(steps.held[0]) == {"s", "side"}


def test_nothing_runs_that_is_not_asked_for(net):
    steps = Steps(net, feeds(1))
    assert [n.op for n in steps.missing([value(net, "side")])] == ["MatMul", "Relu", "MatMul"]
    steps.advance([value(net, "r")])
    assert [n.op for n in steps.missing([value(net, "side")])] == ["MatMul"]


def test_a_sequence_between_two_steps_is_an_error():
    model = from_text(
        HEAD
        + """(float[N,4] x) => (float[M,4] y) {
            q = SequenceConstruct (x, x)
            a = Neg (x)
            y = ConcatFromSequence <axis = 0> (q)
        }"""
    )
    infer_shapes(model)
    steps = Steps(model, feeds(1))
    with pytest.raises(ZcError, match="value 'q' is no tensor"):
        steps.advance([value(model, "q")])
