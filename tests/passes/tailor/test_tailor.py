"""What `tailor` rewrites, what it leaves, and that no number moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from zc.backends.onnxruntime import TARGET
from zc.data import Samples, load_samples
from zc.execute import Runner, relative_error
from zc.ir.model import Model, from_text, load
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import find
from zc.target import Target


def tailor(model: Model, samples: Samples | None = None, target: Target = TARGET) -> PassResult:
    return find("tailor")().run(model, Context(target, samples))


def ops(model: Model) -> list[str]:
    return [n.op for n in model.graph.nodes]


SCORES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,6] q, float[N,6] keep) => (float[N,4,6] y) <float one = {1.0}, float low = {LOW}, int64[1] middle = {1}> {
    drop = Sub (one, keep)
    mask = Mul (drop, low)
    wide = Unsqueeze (mask, middle)
    scores = Add (q, wide)
    y = Softmax <axis = -1> (scores)
}"""


def masked(tmp_path: Path, keep: list[int], low: str = "-3.4e38", opset: int = 17) -> tuple[Model, Samples]:
    text = SCORES.replace("LOW", low).replace('"" : 17', f'"" : {opset}')
    model = from_text(text)
    q = np.random.default_rng(0).standard_normal((8, 4, 6)).astype(np.float32) * 3
    np.savez(tmp_path / "s.npz", q=q, keep=np.broadcast_to(np.array(keep, np.float32), (8, 6)))
    return model, load_samples(str(tmp_path / "s.npz"), model.inputs)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_a_masked_softmax_has_no_subnormal_numbers_and_the_same_likelihoods(tmp_path, opset):
    model, samples = masked(tmp_path, [1, 1, 1, 0, 0, 0], opset=opset)
    before = model.copy()
    tailor(model, samples)
    feed = next(samples.batches(8))
    was, now = Runner(before).run(feed)["y"], Runner(model).run(feed)["y"]
    assert np.array_equal(was[..., :3], now[..., :3])
    tiny = np.finfo(np.float32).tiny
    assert (was[..., 3:] < tiny).all()
    assert (now[..., 3:] > tiny).all()
    assert now[..., 3:].max() < 1e-20


def test_a_row_that_is_masked_as_a_whole_stays_uniform(tmp_path):
    model, samples = masked(tmp_path, [1, 0, 0, 0, 0, 0])
    before = model.copy()
    tailor(model, samples)
    feed = {**next(samples.batches(8)), "keep": np.zeros((8, 6), np.float32)}
    assert np.array_equal(Runner(before).run(feed)["y"], Runner(model).run(feed)["y"])


def test_a_softmax_of_which_the_samples_mask_nothing_stays(tmp_path):
    model, samples = masked(tmp_path, [1] * 6)
    tailor(model, samples)
    assert "Max" not in ops(model)


def test_a_weak_mask_is_no_mask(tmp_path):
    model, samples = masked(tmp_path, [1, 0, 0, 0, 0, 0], low="-100.0")
    tailor(model, samples)
    assert "Max" not in ops(model)


def test_a_constant_mask_is_bounded_without_samples():
    low = ", ".join("0.0" if j <= i else "-1e9" for i in range(4) for j in range(4))
    model = from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4,4] q) => (float[N,4,4] y) <float[4,4] mask = {{{low}}}> {{
            scores = Add (q, mask)
            y = Softmax <axis = -1> (scores)
        }}"""
    )
    tailor(model)
    assert ops(model) == ["Add", "ReduceMax", "Sub", "Max", "Softmax"]
    again = tailor(model)
    assert not again.changed


def test_a_target_that_is_quick_with_subnormal_numbers_keeps_its_softmax(tmp_path):
    model, samples = masked(tmp_path, [1, 0, 0, 0, 0, 0])
    tailor(model, samples, replace(TARGET, slow_subnormals=False))
    assert "Max" not in ops(model)


RESIDUAL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,4,8] a, float[2,4,8] b) => (float[2,4,8] y) <float[8] w = {1, 1, 1, 1, 1, 1, 1, 1}> {
    s = Add (a, b)
    y = LayerNormalization (s, w, w)
}"""


def test_a_residual_sum_is_not_fused_with_the_normalisation_behind_it(tmp_path):
    def runs(model: Model) -> set[str]:
        Runner(model, save_optimized=tmp_path / "o.onnx")
        return {n.op_type for n in onnx.load(tmp_path / "o.onnx").graph.node}

    model = from_text(RESIDUAL)
    assert runs(model) == {"SkipLayerNormalization"}
    tailor(model)
    assert runs(model) == {"Sum", "LayerNormalization"}


def test_a_bias_in_front_of_a_normalisation_stays_an_add():
    model = from_text(RESIDUAL.replace("float[2,4,8] b)", "float[2,4,8] unused)").replace("(a, b)", "(a, w)"))
    tailor(model)
    assert ops(model) == ["Add", "LayerNormalization"]


TANH = """<ir_version: 8, opset_import: ["" : 15]> g (float[N,8] x) => (float[N,8] y)
<float c = {0.044715}, float k = {0.7978846}, float one = {1.0}, float half = {0.5}> {
    q = Mul (x, x) z = Mul (x, q) e = Mul (c, z) s = Add (x, e) u = Mul (s, k) t = Tanh (u)
    v = Add (t, one) w = Mul (x, half) y = Mul (w, v)
}"""


def test_the_operator_set_is_raised_for_a_gelu_that_the_runtime_does_not_know():
    model = from_text(TANH)
    before = model.copy()
    result = tailor(model)
    assert ops(model) == ["Gelu"]
    assert model.opset == 20
    assert any("opset raised to 20" in n.what for n in result.notes)
    x = {"x": np.linspace(-6, 6, 16, dtype=np.float32).reshape(2, 8)}
    assert relative_error(Runner(model).run(x)["y"], Runner(before).run(x)["y"]) < 1e-6


def test_the_operator_set_stays_where_the_runtime_knows_the_gelu_or_the_target_has_none():
    erf = TANH.replace("{0.7978846}", "{0.70710677}")
    erf = erf[: erf.index("q =")] + "u = Mul (x, k) t = Erf (u) v = Add (t, one) w = Mul (x, half) y = Mul (w, v) }"
    for model, target in ((from_text(erf), TARGET), (from_text(TANH), replace(TARGET, idiom_opset=0))):
        opset = model.opset
        tailor(model, target=target)
        assert model.opset == opset
        assert "Gelu" not in ops(model)


@pytest.mark.real
def test_a_sentence_encoder_keeps_its_numbers(shared: Path) -> None:
    model = load(shared / "models" / "minilm_l6_trim.onnx")
    samples = load_samples(str(shared / "data" / "minilm.npz"), model.inputs, rows="0:16")
    before = model.copy()
    find("clean")().run(model, Context(TARGET, samples))
    result = tailor(model, samples)
    assert result.stats["masked Softmax bounded"] == 6
    assert result.stats["residual sums kept apart"] == 13
    feed = next(samples.batches(16))
    was, now = (next(iter(Runner(m).run(feed).values())) for m in (before, model))
    assert relative_error(now, was) < 1e-5
