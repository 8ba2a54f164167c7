"""equalize and smooth: planted outliers are recovered, numbers stay, and what is left alone says why."""

from dataclasses import replace

import numpy as np
import pytest

from tests.passes.quantize.conftest import fill, normal, samples_for
from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.execute import Runner, relative_error
from zc.ir.model import Model
from zc.measure.tensor_error import sqnr
from zc.passes.quantize.equalize import Equalize, equalise
from zc.passes.quantize.quantize import Quantize
from zc.passes.quantize.smooth import Smooth, smooth
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.manager import run_pipeline
from zc.pipeline.spec import effective, parse

PLAIN = Quantize(method="minmax", bias_correct=False, rounding="nearest", equalize=False, guard=False)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,3,8,8] x) => (float[N,5,4,4] z)
    <float[16,3,3,3] w, float[16] b, float[16,1,3,3] d, float[16] e, float[5,16,1,1] v> {
    c = Conv <pads = [1,1,1,1]> (x, w, b)
    r = Relu (c)
    f = Conv <group = 16, pads = [1,1,1,1]> (r, d, e)
    s = Relu (f)
    p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (s)
    z = Conv (p, v)
}"""
CLIPPED = """(float[N,3,8,8] x) => (float[N,5,8,8] z)
    <float[8,3,1,1] w, float[8] b, float[5,8,1,1] v, float lo = {0.0}, float hi = {6.0}> {
    c = Conv (x, w, b)
    r = Clip (c, lo, hi)
    z = Conv (r, v)
}"""
NORM = """(float[N,6,32] x) => (float[N,6,8] y, float[N,6,8] z)
    <float[32] g, float[32] b, float[32,8] v, float[32,8] u> {
    n = LayerNormalization (x, g, b)
    y = MatMul (n, v)
    z = MatMul (n, u)
}"""
GELU = """(float[N,6,16] x) => (float[N,6,8] z) <float[16,32] w, float[32] b, float[32,8] v> {
    m = MatMul (x, w)
    a = Add (m, b)
    s = Tanh (a)
    g = Mul (a, s)
    z = MatMul (g, v)
}"""


def context(model: Model, arrays: dict[str, np.ndarray] | None = None) -> Context:
    return Context(TARGET, samples_for(model, normal(model) if arrays is None else arrays))


def times(model: Model, name: str, factor: np.ndarray) -> None:
    """Multiply a weight, which a test then calls planted."""
    found = next(c for c in model.constants() if c.name == name)
    found.values = (found.values * factor).astype(np.float32)


def plant(model: Model, *, channels: int = 16) -> None:
    """Make two channels of each hidden value 300 times as large, and the weights behind them as much smaller."""
    big = np.ones(channels, np.float32)
    big[[2, 5]] = 300
    for name, shape in (("w", (-1, 1, 1, 1)), ("b", -1)):
        times(model, name, big.reshape(shape))
    other = np.roll(big, 4)
    times(model, "d", (other / big).reshape(-1, 1, 1, 1))
    times(model, "e", other)
    times(model, "v", (1 / other).reshape(1, -1, 1, 1))


def int8_sqnr(model: Model, *before: Pass) -> float:
    """Of the outputs after quantisation, against the float model."""
    want = Runner(model).run(normal(model))
    quantised = model.copy()
    for one in (*before, PLAIN):
        one.run(quantised, context(quantised))
    got = Runner(quantised).run(normal(model))
    return min(sqnr(got[k], want[k]) for k in want)


def reasons(result: PassResult) -> str:
    return "\n".join(f"{n.where}: {n.what}" for n in result.notes if n.kind == "declined")


def test_planted_outlier_channels_are_recovered() -> None:
    plain, planted = fill(HEAD + NET), fill(HEAD + NET)
    plant(planted)
    assert int8_sqnr(plain) > 30
    assert int8_sqnr(planted) < 12
    assert int8_sqnr(planted, Equalize()) > int8_sqnr(plain) - 1
    assert int8_sqnr(planted, Equalize(alpha=0.5)) > int8_sqnr(planted) + 15


def test_outlier_weights_that_share_one_scale_are_recovered() -> None:
    plain, planted = fill(HEAD + NET), fill(HEAD + NET)
    plant(planted)
    by_tensor = replace(PLAIN, per_channel=False)

    def error(model: Model, *before: Pass) -> float:
        want = Runner(model).run(normal(model))["z"]
        done = model.copy()
        for one in (*before, by_tensor):
            one.run(done, context(done))
        return sqnr(Runner(done).run(normal(model))["z"], want)

    assert error(planted) < 8
    assert error(planted, Equalize(aim="weights")) > error(plain) - 1.5
    model = planted.copy()
    result = Equalize(aim="weights").run(model, Context(TARGET))
    assert result.stats["spread_before"] > 50
    assert result.stats["spread_after"] < 3


def test_the_manager_proves_that_the_outputs_stay() -> None:
    model = fill(HEAD + NET)
    plant(model)
    report = run_pipeline(model, "equalize", context(model))
    run = report.passes[-1]
    assert run.changed
    assert run.exact
    assert run.movement is not None
    assert run.movement.relative < 1e-5


def test_clean_does_not_run_again_behind_it() -> None:
    assert str(effective(parse("smooth,equalize,quantize"))) == "clean,smooth,equalize,quantize"


def test_a_value_that_gains_nothing_keeps_its_scale() -> None:
    text = "(float[N,4] x) => (float[N,4] z) <float[4,4] w, float[4,4] v> { m = MatMul (x, w)  z = MatMul (m, v) }"
    model = fill(HEAD + text)
    for constant in model.constants():
        constant.values = np.eye(4, dtype=np.float32)  # channels are alike as they are
    arrays = {"x": np.random.default_rng(0).uniform(-1, 1, (200, 4)).astype(np.float32)}
    result = Equalize().run(model, context(model, arrays))
    assert not result.changed
    assert "'m': keeps its scale: rounding leaves" in reasons(result)


def test_channels_behind_a_clip_stay_by_default() -> None:
    model = fill(HEAD + CLIPPED)
    result = Equalize().run(model, context(model))
    assert not result.changed
    assert "z: its input keeps its scale: it reaches Clip 'r', whose bounds are the same for all" in reasons(result)


def test_channels_behind_a_clip_grow_to_its_bound_on_the_samples() -> None:
    model = fill(HEAD + CLIPPED)
    small = np.full(8, 0.02, np.float32)
    small[3] = 20  # reaches the bound
    times(model, "w", small.reshape(-1, 1, 1, 1))
    times(model, "b", small)
    before = model.copy()
    way = Equalize(clips="samples", alpha=1.0)
    assert not way.proven
    assert Equalize().proven
    assert way.run(model, context(model)).changed
    feeds = normal(model)
    inner = Runner(model, outputs=["r"]).run(feeds)["r"].max(axis=(0, 2, 3))
    np.testing.assert_allclose(inner, 6.0, rtol=1e-4)  # every channel fills the range
    want, got = Runner(before).run(feeds)["z"], Runner(model).run(feeds)["z"]
    assert relative_error(got, want) < 1e-5
    further = {"x": feeds["x"] * 3}
    assert relative_error(Runner(model).run(further)["z"], Runner(before).run(further)["z"]) > 1e-3


def test_skip_keeps_what_it_names() -> None:
    model = fill(HEAD + NET)
    plant(model)
    result = Equalize(skip=("f",)).run(model, context(model))
    assert not result.changed
    assert "z: its input keeps its scale: it belongs to 'f', which was left out" in reasons(result)
    with pytest.raises(ZcError, match="skip=nothing matches no node"):
        Equalize(skip=("nothing",)).run(model, context(model))


def test_options_out_of_range_are_errors() -> None:
    for way in (Equalize, Smooth):
        with pytest.raises(ZcError, match="alpha is 2; give 0 to 1, or auto"):
            way(alpha=2.0)


def test_a_net_without_two_layers_says_so() -> None:
    model = fill(HEAD + "(float[N,4] x) => (float[N,2] z) <float[4,2] v> { z = MatMul (x, v) }")
    result = Equalize().run(model, context(model))
    assert not result.changed
    assert "no channel can be scaled" in reasons(result)


def test_a_dead_channel_and_a_constant_one_are_no_obstacle() -> None:
    model = fill(HEAD + NET)
    alive = np.ones(16, np.float32)
    alive[[1, 7]] = 0
    times(model, "w", alive.reshape(-1, 1, 1, 1))
    times(model, "b", np.where(np.arange(16) == 1, 0, 1))
    want = Runner(model).run(normal(model))["z"]
    Equalize(alpha=1.0).run(model, context(model))
    assert all(np.isfinite(c.values).all() for c in model.constants() if c.values.dtype.kind == "f")
    assert relative_error(Runner(model).run(normal(model))["z"], want) < 1e-5


BIASED = """(float[N,3,8,8] x) => (float[N,5,8,8] z, float[N,4,8,8] y)
    <float[8,3,1,1] w, float[8] b, float[5,8,1,1] v, float[5] d, float[4,5,3,3] u> {
    c = Conv (x, w, b)
    r = Relu (c)
    a = Conv (r, v, d)
    z = Relu (a)
    y = Conv <pads = [1,1,1,1]> (z, u)
}"""


def test_high_biases_are_absorbed_by_the_layer_behind() -> None:
    model = fill(HEAD + BIASED)
    put = next(c for c in model.constants() if c.name == "b")
    put.values = np.where(np.arange(8) == 6, 60, put.values).astype(np.float32)
    want, before = Runner(model).run(normal(model)), model.copy()
    way = Equalize(absorb=True, alpha=1.0, skip=("r",))
    assert not way.proven
    result = way.run(model, context(model))
    assert result.stats["biases_absorbed"] == 1
    got = Runner(model).run(normal(model))
    assert all(sqnr(got[k], want[k]) > 40 for k in want)
    ranges = [Runner(one, outputs=["r"]).run(normal(model))["r"].max() for one in (before, model)]
    assert ranges[1] < 0.2 * ranges[0]
    assert "keeps its biases" not in reasons(result)


def test_a_bias_in_front_of_padding_stays() -> None:
    text = BIASED.replace("(float[N,5,8,8] z, float[N,4,8,8] y)", "(float[N,4,8,8] y)")
    model = fill(HEAD + text)
    result = Equalize(absorb=True).run(model, context(model))
    assert "'z': keeps its biases: a convolution that reads it pads with zeros" in reasons(result)


def test_as_a_function_it_tells_what_it_chose() -> None:
    model = fill(HEAD + NET)
    plant(model)
    ctx = context(model)
    plan = equalise(model, ctx.need_samples(model), ctx)
    assert [c.values for c in plan.choices] == [("r",), ("p",)]
    assert all(c.alpha is not None and c.after < 0.01 * c.before for c in plan.choices)


# ---- smooth


def test_outliers_behind_a_normalisation_move_into_the_weights() -> None:
    model = fill(HEAD + NORM)
    plain = int8_sqnr(model)
    spike = np.ones(32, np.float32)
    spike[[3, 11]] = 100
    times(model, "g", spike)
    times(model, "b", spike)
    times(model, "v", 1 / spike[:, None])
    times(model, "u", 1 / spike[:, None])
    assert int8_sqnr(model) < plain - 15
    assert int8_sqnr(model, Smooth()) > plain - 2
    assert run_pipeline(model, "smooth", context(model)).passes[-1].stats["values_scaled"] == 1


def test_convolutions_are_left_to_equalize() -> None:
    model = fill(HEAD + NET)
    plant(model)
    result = Smooth().run(model, context(model))
    assert not result.changed


def test_a_mul_is_put_in_only_where_it_is_asked_for_and_pays() -> None:
    spike = np.ones(32, np.float32)
    spike[[3, 11]] = 40
    model = fill(HEAD + GELU)
    times(model, "w", spike)
    times(model, "v", 1 / spike[:, None])
    assert not Smooth().run(model.copy(), context(model)).changed
    assert int8_sqnr(model, Smooth(insert=True)) > int8_sqnr(model) + 6
    with_mul = model.copy()
    result = Smooth(insert=True).run(with_mul, context(model))
    assert result.stats["operators_inserted"] == 1
    even = fill(HEAD + GELU)
    nodes = len(even.graph.nodes)
    result = Smooth(insert=True).run(even, context(even))
    assert result.stats["operators_inserted"] == 0
    assert len(even.graph.nodes) == nodes


def test_quantize_smooths_where_it_is_let_and_pays() -> None:
    spike = np.ones(32, np.float32)
    spike[[3, 11]] = 40
    model = fill(HEAD + GELU)
    times(model, "w", spike)
    times(model, "v", 1 / spike[:, None])
    done = model.copy()
    result = replace(PLAIN, smooth="auto").run(done, context(model))
    assert result.chose == replace(PLAIN, smooth=True, activations=result.chose.activations)
    want, got = (next(iter(Runner(m).run(normal(model)).values())) for m in (model, done))
    assert sqnr(got, want) > int8_sqnr(model) + 6
    even = fill(HEAD + GELU)
    assert replace(PLAIN, smooth="auto").run(even, context(even)).chose.smooth is False


def test_smooth_as_a_function() -> None:
    model = fill(HEAD + NORM)
    ctx = context(model)
    plan = smooth(model, ctx.need_samples(model), ctx, alpha=0.8)
    assert [(c.values, c.alpha) for c in plan.choices] == [(("n",), 0.8)]
