"""Refinement of a quantised net: weights rounded for what layers say, biases shifted to the true mean."""

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.execute import Runner
from zc.passes.quantize import recode
from zc.passes.quantize.form import Form
from zc.passes.quantize.workshop import Workshop
from zc.pipeline.base import Context

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,4,8,8] x) => (float[N,3] z)
    <float[12,4,3,3] w1, float[12] b1, float[12,1,3,3] w2, float[12,6,3,3] w3, float[10,12,1,1] w4, float[10] b4,
     float[10,16] w5, float[16,3] w6, float[3] b6> {
        c1 = Conv (x, w1, b1)
        r1 = Relu (c1)
        c2 = Conv <group = 12, pads = [1, 1, 1, 1]> (r1, w2)
        c3 = Conv <group = 2, pads = [1, 1, 1, 1], strides = [2, 2]> (c2, w3)
        r3 = Relu (c3)
        c4 = Conv (r3, w4, b4)
        p = GlobalAveragePool (c4)
        f = Flatten (p)
        m5 = MatMul (f, w5)
        r5 = Relu (m5)
        z = Gemm (r5, w6, b6)
    }"""


@pytest.fixture
def workshop(graph, samples_for, smooth):
    def make(text: str, rows: int = 96) -> Workshop:
        model = graph(HEAD + text)
        return Workshop(model, Context(TARGET, samples_for(model, smooth(model, rows))))

    return make


def codes_of(built) -> dict[str, np.ndarray]:
    return {one.where: one.weight.values for one in built.coded}


def test_what_the_net_says_is_nearer_to_the_float_net(workshop) -> None:
    shop = workshop(NET)
    plain, best = (shop.build(Form(rounding=r)) for r in ("nearest", "second-order"))
    assert (best.refined.rounded, best.refined.shifted) == (6, 5)
    assert best.refined.declined == []
    assert shop.agreement(best).sqnr > shop.agreement(plain).sqnr + 0.3


def test_every_kind_of_layer_gets_other_codes(workshop) -> None:
    shop = workshop(NET)
    plain, best = (codes_of(shop.build(Form(rounding=r, bias_correct=False))) for r in ("nearest", "second-order"))
    assert set(plain) == set(best)
    for where, codes in plain.items():
        assert codes.dtype == best[where].dtype == np.int8
        assert codes.shape == best[where].shape
        assert (codes != best[where]).any(), where
        assert np.abs(best[where].astype(int)).max() <= 127


def test_wide_layers_are_rounded_in_parts(workshop, monkeypatch) -> None:
    shop = workshop(NET)
    plain = shop.build(Form())
    monkeypatch.setattr(recode, "WIDEST", 13)
    best = shop.build(Form(rounding="second-order"))
    assert best.refined.rounded == 6
    assert shop.agreement(best).sqnr > shop.agreement(plain).sqnr


def test_a_shared_weight_stays_as_it_is_and_is_said(workshop) -> None:
    shop = workshop(
        """(float[N,8] x) => (float[N,8] z) <float[8,8] w, float[8,8] v> {
            a = MatMul (x, w)
            r = Relu (a)
            b = MatMul (r, w)
            s = Relu (b)
            z = MatMul (s, v)
        }"""
    )
    plain, best = (shop.build(Form(rounding=r)) for r in ("nearest", "second-order"))
    assert best.refined.rounded == 1
    assert [where for where, _ in best.refined.declined] == ["a", "b"]
    assert all("is shared" in why for _, why in best.refined.declined)
    np.testing.assert_array_equal(codes_of(plain)["a"], codes_of(best)["a"])


def test_the_same_every_time(workshop) -> None:
    shop = workshop(NET)
    digests = {shop.build(Form(rounding="second-order")).model.weights_digest() for _ in range(2)}
    assert len(digests) == 1


def test_an_accumulator_that_could_overflow_keeps_its_codes(workshop, monkeypatch) -> None:
    shop = workshop(NET)
    plain = codes_of(shop.build(Form(bias_correct=False)))
    monkeypatch.setattr(recode, "BIAS_LIMIT", 1)
    best = codes_of(shop.build(Form(rounding="second-order", bias_correct=False)))
    assert all(np.array_equal(codes, best[where]) for where, codes in plain.items())


def test_the_option_reaches_the_layers(quantize) -> None:
    q = quantize(HEAD + NET, rounding="second-order")
    assert q.result.stats["weights_rounded"] == 6
    got, want = q.outputs()
    assert np.abs(got["z"] - want["z"]).max() < 0.1 * np.abs(want["z"]).max()
    assert "QLinearConv" in q.runs()


def test_a_layer_in_float_between_is_run_as_it_is(workshop) -> None:
    shop = workshop(
        """(float[N,4,6,6] x) => (float[N,2,2,2] z) <float[4,4,3,3] w, float[4,4,1,1] u, float[2,4,3,3] v> {
            a = Conv (x, w)
            t = Tanh (a)
            b = Conv (t, u)
            z = Conv (b, v)
        }"""
    )
    keep = shop.build(Form(rounding="second-order"), lambda node: "kept" if node.name == "b" else None)
    assert keep.refined.rounded == 2
    feed = next(shop.split.held.batches(8))
    got, want = (Runner(m).run(feed)["z"] for m in (keep.model, shop.model))
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()
