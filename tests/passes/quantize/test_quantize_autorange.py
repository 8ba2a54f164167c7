"""`auto`: the rule for ranges that least disturbs the outputs."""

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.execute import Runner
from zc.passes.quantize import autorange
from zc.passes.quantize.autorange import LADDER, choose_rule
from zc.passes.quantize.form import Form
from zc.passes.quantize.quantize import Quantize
from zc.passes.quantize.ranges import Rule
from zc.passes.quantize.rounded import FLOAT_KERNELS, round_activations
from zc.passes.quantize.scheme import Scale
from zc.passes.quantize.workshop import Workshop
from zc.pipeline.base import Context

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
# Behind the second layer the largest of 64 positions counts: what is cut off there is lost whole.
POOLED = """(float[N,4,8,8] x) => (float[N,8,1,1] z) <float[8,4,1,1] w, float[8,8,1,1] v, float[8,8,1,1] u> {
    a = Conv (x, w)
    b = Relu (a)
    c = Conv (b, v)
    m = GlobalMaxPool (c)
    z = Conv (m, u)
}"""
PLAIN = """(float[N,64] x) => (float[N,8] y) <float[64,64] w, float[64,8] v> {
    a = MatMul (x, w)
    b = Relu (a)
    y = MatMul (b, v)
}"""


def heavy(shape, seed=0):
    """Values of which a few are large."""
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


def workshop_of(model, samples, threads=1):
    return Workshop(model, Context(TARGET, samples, threads=threads))


def choice_of(model, samples):
    workshop = workshop_of(model, samples)
    workshop.build(Form())
    return workshop.ranging.choices["static"]


def test_the_chosen_rule_is_the_quietest_but_for_the_margin(graph, samples_of):
    model = graph(HEAD + POOLED)
    choice = choice_of(model, samples_of(model, {"x": heavy((64, 4, 8, 8))}))
    assert set(choice.noise) == set(LADDER)
    assert choice.noise[choice.rule] <= min(choice.noise.values()) + autorange.MARGIN


def test_a_planted_outlier_in_one_row_does_not_outvote_the_others(graph, samples_of):
    model = graph(HEAD + PLAIN)
    x = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    x[5, 7] = 3000
    choice = choice_of(model, samples_of(model, {"x": x}))
    assert choice.rule == Rule("entropy")
    assert choice.noise[choice.rule] < choice.noise[Rule("minmax")] - 10


def test_no_rule_is_much_better_than_auto_at_the_outputs(graph, samples_of, quantize_model):
    for text, shape in ((POOLED, (200, 4, 8, 8)), (PLAIN, (200, 64))):
        model = graph(HEAD + text)
        found = {}
        for method in ("auto", "minmax", "percentile", "entropy", "mse"):
            q = quantize_model(model.copy(), {"x": heavy(shape)}, method=method, float_if_faster=False)
            found[method] = q.result.stats["sqnr_db"]
        assert found["auto"] >= max(found.values()) - 1.0


def test_the_order_of_the_samples_does_not_show(graph, samples_of):
    model = graph(HEAD + POOLED)
    x = heavy((64, 4, 8, 8))
    shuffled = np.random.default_rng(1).permutation(x)
    one, other = (choice_of(model, hashed(samples_of(model, {"x": rows}))) for rows in (x, shuffled))
    assert one == other


def test_what_was_chosen_is_told_and_stands_in_the_effective_options(graph, samples_of):
    model = graph(HEAD + POOLED)
    samples = samples_of(model, {"x": heavy((64, 4, 8, 8))})
    result = Quantize(float_if_faster=False).run(model.copy(), Context(TARGET, samples, threads=1))
    (told,) = [n.what for n in result.notes if n.where == "ranges"]
    assert "disturbs the outputs least" in told
    assert result.chose.method != "auto"
    again = model.copy()
    result.chose.run(again, Context(TARGET, samples, threads=1))
    once = model.copy()
    Quantize(float_if_faster=False).run(once, Context(TARGET, samples, threads=1))
    assert again.to_proto().SerializeToString() == once.to_proto().SerializeToString()


def test_a_net_whose_outputs_cannot_be_compared_gets_the_first_rule(graph, samples_of):
    text = """(float[N,8] x) => (int64[N,4] y) <float[8,8] w, float[8,4] v> {
        a = MatMul (x, w)
        b = Relu (a)
        c = MatMul (b, v)
        y = Cast <to = 7> (c)
    }"""
    model = graph(HEAD + text)
    choice = choice_of(model, samples_of(model, {"x": heavy((32, 8))}))
    assert (choice.rule, choice.noise, choice.why) == (LADDER[0], {}, "no output can be compared")


def test_a_net_that_fails_on_rounded_values_gets_the_first_rule(graph, samples_of, monkeypatch):
    def fail(*_):
        raise ZcError("no box is left")

    monkeypatch.setattr(autorange, "_run", fail)
    model = graph(HEAD + PLAIN)
    choice = choice_of(model, samples_of(model, {"x": heavy((32, 64))}))
    assert (choice.rule, choice.why) == (LADDER[0], "no box is left")


def test_it_is_settled_once_for_many_builds(graph, samples_of, monkeypatch):
    calls = []
    monkeypatch.setattr("zc.passes.quantize.ranging.choose_rule", lambda *a: calls.append(1) or choose_rule(*a))
    model = graph(HEAD + PLAIN)
    workshop = workshop_of(model, samples_of(model, {"x": heavy((32, 64))}))
    for keep in (lambda node: None, lambda node: "kept" if node.name == "y" else None):
        workshop.build(Form(), keep)
    assert calls == [1]


def test_activations_alone_are_rounded(graph):
    model = graph(HEAD + PLAIN)
    workshop = workshop_of(model, None)
    (place,) = workshop.places()
    scales = {key: Scale(np.float32(0.5), 128, "uint8") for key in place.groups}
    rounded, renamed = round_activations(workshop.model, place, scales)
    x = heavy((3, 64))
    values = {c.name: c.values for c in model.constants()}
    b = np.maximum(np.rint(x * 2) / 2 @ values["w"], 0)
    want = np.rint(b * 2) / 2 @ values["v"]
    assert np.abs(Runner(rounded, config=FLOAT_KERNELS).run({"x": x})["y"] - want).max() < 1e-3
    assert "y" not in renamed


def hashed(samples):
    """The samples with a fingerprint of their content."""
    rows = samples.reader

    class Hashed(type(rows)):
        def fingerprint(self, start, stop):
            for array in self.arrays.values():
                yield array[start:stop].tobytes()

    return type(samples)(samples.inputs, Hashed(rows.arrays), samples.name, samples.start, samples.stop)


@pytest.mark.parametrize("cost", [0, -1])
def test_a_clip_cost_that_is_not_positive_is_an_error(cost):
    with pytest.raises(ZcError, match="clip_cost"):
        Quantize(clip_cost=cost)
