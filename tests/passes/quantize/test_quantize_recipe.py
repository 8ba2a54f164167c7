"""The recipe: options are chosen by what they do to the outputs on rows held back."""

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.measure.agreement import Agreement
from zc.passes.quantize.form import Form
from zc.passes.quantize.recipe import ENOUGH, VISIBLE, choose, noise_of
from zc.passes.quantize.workshop import Workshop, all_allowed
from zc.pipeline.base import Context

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,8,8] x) => (float[N,6,8,8] y)
    <float[8,4,3,3] w1, float[8] b1, float[6,8,1,1] w2> {
    c = Conv <pads = [1,1,1,1]> (x, w1, b1)
    r = Relu (c)
    y = Conv (r, w2)
}"""


@pytest.fixture
def workshop(graph, samples_of):
    model = graph(NET)
    rows = np.random.default_rng(0).standard_normal((100, 4, 8, 8)).astype(np.float32)
    rows[3, 0, 0, 0] = 4000  # one broken pixel: a range over everything spoils the rest
    return Workshop(model, Context(TARGET, samples_of(model, {"x": rows})))


def test_the_value_that_leaves_the_least_error_is_chosen(workshop):
    best, trials = choose(
        workshop, Form(method="minmax", percentile=99.9), {"method": ("minmax", "percentile")}, all_allowed
    )
    assert best.form.method == "percentile"
    assert [t.text for t in trials] == ["", "method=percentile"]
    assert trials[1].noise < 0.1 * trials[0].noise


def test_a_change_that_nobody_would_see_is_not_made(workshop):
    first = Form(method="percentile")
    best, trials = choose(workshop, first, {"percentile": (99.999, 99.9985)}, all_allowed)
    assert VISIBLE * trials[0].noise <= trials[1].noise <= trials[0].noise / VISIBLE
    assert best.form == first


def test_what_cannot_be_built_is_told_and_passed_over(workshop, monkeypatch):
    build = workshop.build

    def failing(form, keep_float):
        if form.method == "mse":
            raise ZcError("no such luck")
        return build(form, keep_float)

    monkeypatch.setattr(workshop, "build", failing)
    best, trials = choose(workshop, Form(method="percentile"), {"method": ("percentile", "mse")}, all_allowed)
    assert best.form.method == "percentile"
    assert trials[1].why == "not taken: no such luck"
    assert trials[1].noise == np.inf


def test_noise_is_the_mean_over_outputs():
    assert noise_of({"a": Agreement(1.0, 20.0), "b": Agreement(1.0, 10.0)}) == pytest.approx(0.055)
    assert noise_of({"a": Agreement(0.0, -np.inf)}) == 10.0
    assert noise_of({}) == 0.0


def test_what_is_good_enough_is_left_alone(graph, samples_of):
    model = graph(NET)
    rows = np.random.default_rng(0).standard_normal((100, 4, 8, 8)).astype(np.float32)
    workshop = Workshop(model, Context(TARGET, samples_of(model, {"x": rows})))
    options = {"percentile": (99.999, 99.998), "method": ("minmax", "percentile")}
    trials = choose(workshop, Form(method="minmax"), options, all_allowed)[1]
    assert trials[0].noise < ENOUGH
    assert "not tried" in trials[2].why
