"""Ranking of layers by what quantising each alone costs, and models with the worst in float."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.data import Samples
from zc.execute import Runner
from zc.ir.model import Model
from zc.passes.quantize.form import Form
from zc.passes.quantize.sensitivity import Sensitive, accumulate, leave, rank
from zc.passes.quantize.workshop import Workshop, all_allowed
from zc.pipeline.base import Context
from zc.testing import samples_of

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,6] x) => (float[N,3] y)
    <float[6,4,3,3] w1, float[6,6,1,1] w2, float[6,1,3,3] w3, float[6,3] w4> {
        a = Conv <pads=[1,1,1,1]> (x, w1)
        b = Relu (a)
        c = Conv (b, w2)
        d = Relu (c)
        e = Conv <group=6, pads=[1,1,1,1]> (d, w3)
        s = Add (e, b)
        p = GlobalAveragePool (s)
        f = Flatten (p)
        y = MatMul (f, w4)
    }"""


@pytest.fixture
def workshop(graph: Callable[[str], Model]) -> Workshop:
    model = graph(NET)
    return Workshop(model, Context(TARGET, rows(model), threads=1))


def rows(model: Model) -> Samples:
    x = np.random.default_rng(0).standard_normal((100, 4, 6, 6)).astype(np.float32)
    return samples_of(model, {"x": x})


def noise(workshop: Workshop, model: Model) -> float:
    feed = next(workshop.split.held.take(0, 16).batches(16))
    got, want = (Runner(m, threads=1).run(feed)["y"].astype(np.float64) for m in (model, workshop.model))
    return float(((got - want) ** 2).sum() / ((want - want.mean(axis=0)) ** 2).sum())


def ranked(workshop: Workshop) -> list[Sensitive]:
    form = Form(bias_correct=False)
    return rank(workshop, workshop.build(form), all_allowed)


def test_every_operator_in_integers_is_ranked_the_worst_first(workshop: Workshop):
    ranking = ranked(workshop)
    assert sorted(one.where for one in ranking) == ["a", "c", "e", "p", "s", "y"]
    assert [one.noise for one in ranking] == sorted((one.noise for one in ranking), reverse=True)
    assert {one.where: one.macs for one in ranking}["c"] == 6 * 6 * 36


def test_the_cost_is_that_of_a_model_in_which_only_this_layer_is_quantised(workshop: Workshop):
    for one in ranked(workshop):
        if one.where not in ("a", "c", "y"):
            continue
        only = {one.where, "b", "d"}  # with the Relu behind it
        alone = workshop.build(Form(bias_correct=False), lambda n, only=only: None if n.name in only else "float")
        assert one.noise == pytest.approx(noise(workshop, alone.model), rel=0.25), one.where


def test_a_layer_with_spoilt_weights_is_the_worst(graph: Callable[[str], Model]):
    model = graph(NET)
    for constant in model.constants():
        if constant.name == "w2":
            values = constant.values.copy()
            values[:, 0] *= 300  # in each channel one weight leaves no steps for the others
            constant.values = values
        if constant.name == "w1":
            constant.values = constant.values * np.r_[1e-3, [1] * 5].astype(np.float32).reshape(-1, 1, 1, 1)
    workshop = Workshop(model, Context(TARGET, rows(model), threads=1))
    assert ranked(workshop)[0].where == "c"


def test_layers_are_left_in_float_for_a_reason(workshop: Workshop):
    worst = ranked(workshop)[:2]
    keep = leave(worst, lambda node: "asked for" if node.op == "MatMul" else None, "too dear")
    reasons = {n.name: keep(n) for n in workshop.model.nodes() if keep(n)}
    assert reasons == {"y": "asked for"} | {one.where: "too dear" for one in worst if one.where != "y"}


def test_accumulation_ends_where_nothing_is_left(workshop: Workshop):
    ranking = ranked(workshop)
    built = workshop.build(Form())
    steps = accumulate(workshop, built, all_allowed, ranking, most=100, score=lambda model: float(len(model.nodes())))
    assert [step.floats for step in steps] == [0, 1, 2, 4]
    assert steps[-1].agreement.sqnr > steps[0].agreement.sqnr
    assert steps[0].score == len(built.model.nodes())
    assert [s.floats for s in accumulate(workshop, built, all_allowed, ranking, most=1)] == [0, 1]


def test_the_layers_in_branches_are_ranked_as_the_if_around_them(graph: Callable[[str], Model]):
    model = graph("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,4] y)
        <float[8,8] w, float[8,4] v, float[8,4] u> {
            some = ReduceSum <keepdims = 0> (x)
            zero = Constant <value = float {0}> ()
            yes = Greater (some, zero)
            h = MatMul (x, w)
            y = If (yes) <then_branch = t () => (float[N,4] p) { ["then"] p = MatMul (h, v) },
                          else_branch = e () => (float[N,4] q) { ["else"] q = MatMul (h, u) }>
        }""")
    x = np.random.default_rng(0).standard_normal((90, 1, 8)).astype(np.float32)
    whole = samples_of(model, {"x": x.reshape(90, 8)})
    workshop = Workshop(model, Context(TARGET, whole, threads=1))
    found = {one.where: one.names for one in rank(workshop, workshop.build(Form(bias_correct=False)), all_allowed)}
    assert set(found["y"]) <= {"then", "else"}
    assert found["h"] == ("h",)
