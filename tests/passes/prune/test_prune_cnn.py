"""Plain and residual convolutional networks, and the options of the pass."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.prune.prune import Prune
from zc.pipeline.base import Context
from zc.pipeline.spec import parse
from zc.target import Target

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,5] y)
<float[16,3,3,3] w1, float[16] b1, float[16] scale, float[16] shift, float[16] mean, float[16] var,
 float[8,16,3,3] w2, float[5,8] fc, float[5] fc_b>
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    n = BatchNormalization (a, scale, shift, mean, var)
    r = Relu (n)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    c = Conv (p, w2)
    g = GlobalAveragePool (c)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, fc, fc_b)
}"""

RESIDUAL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,8,8,8] y)
<float[16,3,3,3] w1, float[16,16,3,3] w2, float[12,16,3,3] w3, float[16,12,3,3] w4, float[8,16,1,1] w5>
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    b = Conv <pads = [1, 1, 1, 1]> (a, w2)
    s = Add (a, b)
    r = Relu (s)
    c = Conv <pads = [1, 1, 1, 1]> (r, w3)
    d = Conv <pads = [1, 1, 1, 1]> (c, w4)
    t = Add (r, d)
    y = Conv (t, w5)
}"""


def test_a_removed_channel_leaves_every_weight_that_holds_it(prune: Callable) -> None:
    pruned = prune(CHAIN, ratio=0.5)
    assert pruned.shape("w1") == (8, 3, 3, 3)
    assert {pruned.shape(w) for w in ("b1", "scale", "shift", "mean", "var")} == {(8,)}
    assert pruned.shape("w2") == (4, 8, 3, 3)
    assert pruned.shape("fc") == (5, 4)


def test_the_outputs_of_the_model_stay_and_the_reason_is_told(prune: Callable) -> None:
    assert "y: reaches 'y', an output of the model" in prune(CHAIN).reasons()


def test_a_residual_trunk_shrinks_everywhere(prune: Callable) -> None:
    pruned = prune(RESIDUAL, ratio=0.25)
    shapes = [pruned.shape(w)[:2] for w in ("w1", "w2", "w3", "w4", "w5")]
    assert shapes == [(12, 3), (12, 12), (9, 12), (12, 9), (8, 12)]


def test_the_weakest_channels_leave(graph: Callable, prune_model: Callable) -> None:
    model = graph(CHAIN)
    weight = next(c for c in model.constants() if c.name == "w1")
    strong = [1, 2, 5, 7, 8, 11, 13, 15]
    scaled = weight.values * 1e-3
    scaled[strong] = weight.values[strong]
    weight.values = scaled
    prune_model(model, ratio=0.5)
    after = next(c for c in model.constants() if c.name == "w1").values
    assert np.array_equal(after, scaled[strong])


def test_same_input_same_result(graph: Callable, prune_model: Callable) -> None:
    first, second = (prune_model(graph(RESIDUAL), ratio=0.3).model.weights_digest() for _ in range(2))
    assert first == second


def test_ties_of_importance_take_the_last_channels(graph: Callable, prune_model: Callable) -> None:
    model = graph(CHAIN)
    for constant in model.constants():
        values = np.ones(constant.shape, np.float32)
        if constant.name == "b1":
            values = np.arange(16, dtype=np.float32)
        constant.values = values
    prune_model(model, ratio=0.5)
    bias = next(c for c in model.constants() if c.name == "b1").values
    assert bias.tolist() == list(range(8))


@pytest.mark.parametrize(("round_to", "kept"), [(1, 11), (4, 12), (8, 16), (5, 15)])
def test_round_to_leaves_multiples_and_never_removes_more_than_asked(prune: Callable, round_to: int, kept: int) -> None:
    assert prune(CHAIN, ratio=0.35, round_to=round_to).shape("w1")[0] == kept


def test_round_to_auto_is_the_step_of_the_target(graph: Callable) -> None:
    model = graph(CHAIN)
    Prune(ratio=0.4, round_to="auto").run(model, Context(target=Target("wide", channel_step=4)))
    assert next(c.shape[0] for c in model.constants() if c.name == "w1") == 12


def test_min_channels_stay(prune: Callable) -> None:
    pruned = prune(CHAIN, ratio=0.9, min_channels=6)
    assert pruned.shape("w1")[0] == 6
    assert pruned.shape("w2")[0] == 6


def test_a_ratio_near_one_leaves_a_channel(prune: Callable) -> None:
    assert prune(CHAIN, ratio=0.999).shape("w2")[:2] == (1, 1)


@pytest.mark.parametrize("name", ["c", "w2"])
def test_skip_keeps_the_output_channels_of_a_node_or_weight(prune: Callable, name: str) -> None:
    pruned = prune(CHAIN, ratio=0.5, skip=(name,))
    assert pruned.shape("w2") == (8, 8, 3, 3)
    assert "left out with the option skip" in pruned.reasons()


def test_only_keeps_all_other_channels(prune: Callable) -> None:
    pruned = prune(CHAIN, ratio=0.5, only=("c",))
    assert (pruned.shape("w1")[0], pruned.shape("w2")[0]) == (16, 4)


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name(graph: Callable) -> None:
    with pytest.raises(ZcError, match=r"skip=w22 matches no node and no weight \(did you mean 'w2'\?\)"):
        Prune(skip=("w22",)).run(graph(CHAIN), Context(target=Target("test")))


def test_a_glob_that_matches_nothing_is_told_the_nearest_folder(graph: Callable) -> None:
    model = graph(CHAIN)
    for node in model.graph.nodes:
        node.name = f"/layer1/{node.name}"
    with pytest.raises(ZcError, match=r"only=/layer9/\* matches no node and no weight \(did you mean '/layer1/\*'\?\)"):
        Prune(only=("/layer9/*",)).run(model, Context(target=Target("test")))


@pytest.mark.parametrize(
    "options", [{"ratio": 1.0}, {"ratio": -0.1}, {"round_to": 0}, {"min_channels": 0}, {"criterion": "l3"}]
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ZcError, match=next(iter(options))):
        Prune(**options)


def test_options_survive_pipeline_text() -> None:
    text = "prune:ratio=0.3:round_to=8:skip=/layer1/*+fc"
    assert str(parse(text)) == text
    assert parse(text).passes[0] == Prune(ratio=0.3, round_to=8, skip=("/layer1/*", "fc"))


def test_nan_in_a_weight_is_an_error_that_names_it(graph: Callable) -> None:
    model = graph(CHAIN)
    weight = next(c for c in model.constants() if c.name == "w2")
    weight.values = np.full(weight.shape, np.nan, np.float32)
    with pytest.raises(ZcError, match="weight 'w2' of node 'c' has NaN"):
        Prune().run(model, Context(target=Target("test")))


def test_a_model_where_nothing_may_leave_says_so_and_stays(graph: Callable, prune_model: Callable) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,1,1] w> { y = Conv (x, w) }""")
    before = model.weights_digest()
    pruned = prune_model(model)
    assert not pruned.result.changed
    assert "no channel was removed: all channels are pinned" in pruned.reasons()
    assert model.weights_digest() == before


def test_a_weight_that_the_caller_may_override_stays(graph: Callable, prune_model: Callable) -> None:
    model: Model = graph(CHAIN)
    model.graph.inputs.append(next(c for c in model.constants() if c.name == "w1"))
    pruned = prune_model(model, ratio=0.5)
    assert pruned.shape("w1") == (16, 3, 3, 3)
    assert pruned.shape("w2") == (4, 16, 3, 3)
    assert "weight 'w1' is a graph input" in pruned.reasons()


def test_a_weight_of_two_nodes_ties_what_they_make(prune: Callable) -> None:
    pruned = prune(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,4,4] x, float[N,3,4,4] z) => (float[N,4,4,4] y, float[N,4,4,4] v)
        <float[16,3,1,1] w, float[4,16,1,1] u1, float[4,16,1,1] u2>
        {
            a = Conv (x, w)
            b = Conv (z, w)
            y = Conv (a, u1)
            v = Conv (b, u2)
        }""",
        ratio=0.5,
    )
    assert {pruned.shape(w)[1] for w in ("u1", "u2")} == {8}
    assert pruned.shape("w")[0] == 8


def test_a_vector_shared_by_chance_does_not_tie_layers(prune: Callable) -> None:
    pruned = prune(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,4,4] x) => (float[N,4,4,4] y)
        <float[8,3,1,1] w1, float[8,8,1,1] w2, float[4,8,1,1] w3, float[8] zeros = {0, 0, 0, 0, 0, 0, 0, 0}>
        {
            a = Conv (x, w1, zeros)
            b = Conv (a, w2, zeros)
            y = Conv (b, w3)
        }""",
        ratio=0.5,
        only=("a",),
    )
    assert [pruned.shape(w)[:2] for w in ("w1", "w2", "w3")] == [(4, 3), (8, 4), (4, 8)]
    assert sorted(c.shape for c in pruned.model.constants() if c.name.startswith("zeros")) == [(4,), (8,)]


def test_shared_vectors_that_are_cut_alike_stay_one(prune: Callable) -> None:
    pruned = prune(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,4,4] x) => (float[N,4,4,4] y)
        <float[8,3,1,1] w1, float[8,8,1,1] w2, float[4,8,1,1] w3, float[8] zeros = {0, 0, 0, 0, 0, 0, 0, 0}>
        {
            a = Conv (x, w1, zeros)
            b = Conv (a, w2, zeros)
            y = Conv (b, w3)
        }""",
        ratio=0.5,
    )
    assert [c.shape for c in pruned.model.constants() if c.name.startswith("zeros")] == [(4,)]


def test_a_ratio_that_takes_nothing_says_so(prune: Callable) -> None:
    pruned = prune(CHAIN, ratio=0.01)
    assert not pruned.result.changed
    assert "a: a ratio of 0.01 takes none of 16" in pruned.reasons()
    assert "no channel was removed: every group is too narrow for the options" in pruned.reasons()


def test_a_model_without_weights_has_nothing_to_prune(prune: Callable) -> None:
    pruned = prune("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }""")
    assert "no convolution or matrix product makes channels" in pruned.reasons()


def test_nodes_in_any_order(graph: Callable, prune_model: Callable) -> None:
    model = graph(RESIDUAL)
    model.graph.nodes.reverse()
    work = model.copy()
    work.graph.toposort()
    model.take(work)
    assert prune_model(model, ratio=0.25).shape("w1")[0] == 12
