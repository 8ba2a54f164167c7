"""Quantisation without samples: what BatchNormalization tells stands in for them."""

import numpy as np
import pytest

from tests.passes.quantize.conftest import fill, samples_for
from zc.backends.onnxruntime import TARGET
from zc.execute import Runner
from zc.ir.model import Model
from zc.ir.text import print_model
from zc.measure.tensor_error import sqnr
from zc.passes.quantize.analytic import analytic_range, moments, scale_moments
from zc.passes.quantize.datafree import DRAWN, cut_at, free_of_data, join
from zc.passes.quantize.equalize import Equalize
from zc.passes.quantize.fields import Known
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,3,16,16] x) => (float[N,6] z)
    <float[16,3,3,3] w1, float[16] g1, float[16] b1, float[16] m1, float[16] v1,
     float[16,1,3,3] w2, float[16] g2, float[16] b2, float[16] m2, float[16] v2,
     float[24,16,1,1] w3, float[24] g3, float[24] b3, float[24] m3, float[24] v3,
     float[6,24,1,1] w4, float lo = {0.0}, float hi = {6.0}> {
    c1 = Conv <pads = [1,1,1,1]> (x, w1)
    n1 = BatchNormalization (c1, g1, b1, m1, v1)
    r1 = Clip (n1, lo, hi)
    c2 = Conv <group = 16, pads = [1,1,1,1]> (r1, w2)
    n2 = BatchNormalization (c2, g2, b2, m2, v2)
    r2 = Clip (n2, lo, hi)
    c3 = Conv (r2, w3)
    n3 = BatchNormalization (c3, g3, b3, m3, v3)
    r3 = Relu (n3)
    c4 = Conv (r3, w4)
    p = GlobalAveragePool (c4)
    z = Flatten (p)
}"""


def images(rows: int, seed: int = 0) -> np.ndarray:
    """Smooth, with channels that are alike, of means and deviations of their own."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((rows, 4, 16, 16)))
    near = np.hypot(*np.meshgrid(np.fft.rfftfreq(16), np.fft.fftfreq(16)))
    field = np.fft.irfft2(spectrum / (0.05 + near), s=(16, 16))
    field = field / field.std()
    mixed = 0.8 * field[:, :1] + 0.6 * field[:, 1:]
    shift, size = np.array([0.5, -1.0, 2.0]), np.array([1.0, 2.0, 0.5])
    return (np.clip(mixed, -2, 2) * size[:, None, None] + shift[:, None, None]).astype(np.float32)


def trained() -> Model:
    """The net with the statistics that training on the images would have left, and weights that are hard to round."""
    model = fill(HEAD + NET)
    constants = {c.name: c for c in model.constants()}
    rng = np.random.default_rng(3)
    feed = {"x": images(256)}
    for k in (1, 2, 3):
        width = constants[f"g{k}"].values.size
        constants[f"w{k}"].values = constants[f"w{k}"].values * np.exp(
            rng.standard_normal(constants[f"w{k}"].values.shape)
        ).astype(np.float32)
        constants[f"g{k}"].values = rng.uniform(0.3, 1.5, width).astype(np.float32)
        constants[f"b{k}"].values = rng.uniform(-0.5, 1.0, width).astype(np.float32)
        found = Runner(model, outputs=[f"c{k}"]).run(feed)[f"c{k}"]
        constants[f"m{k}"].values = found.mean(axis=(0, 2, 3))
        constants[f"v{k}"].values = found.var(axis=(0, 2, 3))
    return model


def without_samples(original: Model) -> tuple[Model, Context]:
    """The folded model, and a context that knows the one before."""
    model, ctx = original.copy(), Context(TARGET)
    run_pipeline(model, "clean", ctx, verify="off")
    return model, ctx


def on_images(model: Model, original: Model) -> float:
    feed = {"x": images(64, seed=9)}
    return sqnr(Runner(model).run(feed)["z"], Runner(original).run(feed)["z"])


def test_both_sides_of_a_normalisation_are_known() -> None:
    model = trained()
    values = Runner(model, outputs=["c2", "n2"]).run({"x": images(256)})
    found = moments(model)
    for name in ("c2", "n2"):
        np.testing.assert_allclose(found[name][0], values[name].mean(axis=(0, 2, 3)), atol=1e-3)
        np.testing.assert_allclose(found[name][1], values[name].std(axis=(0, 2, 3)), rtol=1e-2)


def test_a_channel_that_never_moves_has_no_deviation() -> None:
    model = trained()
    next(c for c in model.constants() if c.name == "v1").values = np.zeros(16, np.float32)
    assert not moments(model)["n1"][1].any()


def test_the_first_convolution_tells_of_the_input() -> None:
    mean, deviation = moments(trained())["x"]
    x = images(256)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3)), atol=0.2)  # the border of the image is padded
    np.testing.assert_allclose(deviation, x.std(axis=(0, 2, 3)), rtol=0.4)


def test_a_model_without_normalisation_tells_nothing() -> None:
    model, ctx = without_samples(trained())
    assert moments(model) == {}
    ctx.original, ctx.moments = None, None
    assert free_of_data(model, ctx) is None


def test_samples_go_first() -> None:
    original = trained()
    model, ctx = without_samples(original)
    ctx.samples = samples_for(model, {"x": images(8)})
    assert free_of_data(model, ctx) is None


def test_a_range_holds_all_channels() -> None:
    assert analytic_range(np.array([0.0, 2.0]), np.array([1.0, 0.5]), 4.0) == (-4.0, 4.0)


def test_fields_have_the_moments_and_are_the_same_in_any_batch() -> None:
    known = Known("v", np.array([1.0, -3.0], np.float32), np.array([0.5, 2.0], np.float32), (2, 20, 20))
    rows = np.stack([known.draw(np.random.default_rng(i)) for i in range(300)])
    np.testing.assert_allclose(rows.mean(axis=(0, 2, 3)), known.mean, atol=0.1)
    np.testing.assert_allclose(rows.std(axis=(0, 2, 3)), known.deviation, rtol=0.05)
    model, ctx = without_samples(trained())
    free = free_of_data(model, ctx)
    assert free is not None
    whole = free.samples.reader.read(0, 6)
    parts = [free.samples.reader.read(a, b) for a, b in ((0, 1), (1, 6))]
    for name, value in whole.items():
        np.testing.assert_array_equal(value, np.concatenate([part[name] for part in parts]))


def test_ranges_are_nearly_those_of_real_data() -> None:
    original = trained()
    model, ctx = without_samples(original)
    free = free_of_data(model, ctx)
    assert free is not None
    names = ["r1", "r2", "r3"]
    drawn = Runner(free.model, outputs=names).run(next(free.samples.batches(32)))
    real = Runner(original, outputs=names).run({"x": images(64, seed=9)})
    for name in names:
        assert 0.7 < np.quantile(drawn[name], 0.999) / np.quantile(real[name], 0.999) < 1.5


def test_it_beats_random_inputs_by_far() -> None:
    original = trained()
    model, ctx = without_samples(original)
    blind = model.copy()
    result = Quantize().run(model, ctx)
    Quantize().run(blind, Context(TARGET))
    assert on_images(model, original) > on_images(blind, original) + 6
    assert on_images(model, original) > 20
    said = next(n.what for n in result.notes if n.where == "calibration")
    assert said.startswith("no samples: 4 values were drawn from BatchNormalization statistics (x: from those behind")
    assert "1 from what their layers make of these (c4)" in said


def test_biases_are_corrected_by_what_is_expected() -> None:
    original = trained()
    feed = {"x": images(64, seed=9)}
    off = []
    for correct in (True, False):
        model, ctx = without_samples(original)
        exact = Runner(model, outputs=["n3"]).run(feed)["n3"].mean(axis=(0, 2, 3))
        Quantize(bias_correct=correct, rounding="nearest", equalize=False, float_if_faster=False).run(model, ctx)
        raw = next(n.outputs[0].name for n in model.graph.nodes if n.name == "c3")
        off.append(np.abs(Runner(model, outputs=[raw]).run(feed)[raw].mean(axis=(0, 2, 3)) - exact).mean())
    assert off[0] < 0.6 * off[1]


def test_equalising_first_keeps_what_is_known_true() -> None:
    original = trained()
    model, ctx = without_samples(original)
    result = Equalize(clips="samples").run(model, ctx)
    assert result.changed
    assert ctx.moments is not None
    values = Runner(model, outputs=["n1", "n3"]).run({"x": images(256)})
    for name, value in values.items():
        np.testing.assert_allclose(ctx.moments[name][0], value.mean(axis=(0, 2, 3)), rtol=1e-2, atol=1e-2)
    result = Quantize().run(model, ctx)
    assert not any(n.kind == "warning" and "statistics do not fit" in n.what for n in result.notes)


def test_statistics_that_do_not_fit_any_more_are_told_and_not_used() -> None:
    model, ctx = without_samples(trained())
    weight = next(c for c in model.constants() if c.name.startswith("w2"))
    weight.values = weight.values * np.float32(50)
    free = free_of_data(model, ctx)
    assert free is not None
    assert free.disbelieved == ("n2",)
    result = Quantize().run(model, ctx)
    assert any(n.where == "n2" and "do not fit the weights in front of it" in n.what for n in result.notes)


def test_a_cut_is_mended_without_a_trace() -> None:
    model, _ = without_samples(trained())
    before = print_model(model)
    tensors = {t.name: t for n in model.graph.nodes for t in n.outputs}
    cuts = cut_at(model, {tensors[name]: name + DRAWN for name in ("n1", "n2")})
    assert [t.name for t in model.graph.inputs] == ["x", "n1_drawn", "n2_drawn"]
    join(model, cuts)
    assert print_model(model) == before


def test_factors_scale_what_is_known() -> None:
    found = {"v": (np.array([1.0, 2.0]), np.array([3.0, 4.0]))}
    scale_moments(found, {"v": np.array([[[[2.0]], [[0.5]]]]), "other": np.ones(1)})
    np.testing.assert_array_equal(found["v"][0], [2.0, 1.0])
    np.testing.assert_array_equal(found["v"][1], [6.0, 2.0])


@pytest.mark.parametrize("rounding", ["nearest", "second-order"])
def test_the_same_seed_gives_the_same_weights(rounding) -> None:
    original = trained()
    texts = []
    for _ in range(2):
        model, ctx = without_samples(original)
        Quantize(rounding=rounding).run(model, ctx)
        texts.append(print_model(model))
    assert texts[0] == texts[1]
