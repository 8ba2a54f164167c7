"""Channels that are dead, constant, or orders of magnitude off, through the passes end to end."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.passes.quantize.conftest import fill, normal, samples_for
from zc.backends.onnxruntime import TARGET
from zc.execute import Runner
from zc.ir.model import Model
from zc.measure.tensor_error import sqnr
from zc.passes.quantize.scheme import BIAS_LIMIT
from zc.pipeline.base import Context
from zc.pipeline.manager import Report, run_pipeline

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,3,8,8] x) => (float[N,10] z)
    <float[16,3,3,3] w, float[16] b, float[16,1,3,3] d, float[16] e, float[12,16,1,1] u, float[12] f, float[12,10] v> {
    c1 = Conv <pads = [1,1,1,1]> (x, w, b)
    r1 = Relu (c1)
    c2 = Conv <group = 16, pads = [1,1,1,1]> (r1, d, e)
    r2 = Relu (c2)
    c3 = Conv (r2, u, f)
    r3 = Relu (c3)
    m = GlobalAveragePool (r3)
    g = Flatten (m)
    z = Gemm (g, v)
}"""
INT8 = "quantize:float_if_faster=false:guard=false:equalize=false"  # all in integers, whatever it costs
PIPELINES = (
    f"{INT8}:rounding=nearest",
    f"{INT8}:rounding=second-order",
    f"{INT8}:rounding=nearest:per_channel=false",
    f"equalize,{INT8}:rounding=nearest",
    f"equalize:aim=weights,{INT8}:rounding=nearest",
    f"clip,{INT8}:rounding=nearest",
    "quantize",
)


def times(model: Model, name: str, factors: dict[int, float]) -> None:
    """Multiply the channels of a weight or bias."""
    found = next(c for c in model.constants() if c.name == name)
    by = np.ones(found.shape[0], np.float32)
    for channel, factor in factors.items():
        by[channel] = factor
    found.values = (found.values * by.reshape(-1, *[1] * (len(found.shape) - 1))).astype(np.float32)


def put(model: Model, name: str, values: dict[int, float]) -> None:
    found = next(c for c in model.constants() if c.name == name)
    array = found.values.copy()
    for channel, value in values.items():
        array[channel] = value
    found.values = array


def all_zero(model: Model) -> None:
    """Channels without weights and bias, in a row of layers: what they put out is zero on any input."""
    times(model, "w", {3: 0})
    times(model, "b", {3: 0})
    times(model, "d", {3: 0, 7: 0})
    times(model, "e", {3: 0, 7: 0})
    times(model, "u", {5: 0})
    times(model, "f", {5: 0})


def a_layer_of_zeros(model: Model) -> None:
    """A whole layer without weights."""
    times(model, "u", dict.fromkeys(range(12), 0.0))


def constant(model: Model) -> None:
    """Channels that say their bias whatever comes in."""
    times(model, "w", {2: 0})
    put(model, "b", {2: 1.5})
    times(model, "u", {1: 0})
    put(model, "f", {1: 2.0})


def bias_overflows(model: Model) -> None:
    """Nearly dead channels whose bias, in codes of their own tiny weights, is beyond 32 bits."""
    times(model, "w", {4: 1e-9, 9: 1e-12})
    put(model, "b", {4: 3.0, 9: -2.0})
    times(model, "u", {6: 1e-10})
    put(model, "f", {6: 4.0})


def magnitudes_off(model: Model) -> None:
    """Weights a million times smaller and ten thousand times larger than their neighbours', which later layers undo."""
    off = {1: 1e-6, 8: 1e4, 11: 1e-3}
    times(model, "w", off)
    times(model, "b", off)
    times(model, "d", {channel: 1 / factor for channel, factor in off.items()})


ODD: dict[str, tuple[Callable[[Model], None], float]] = {
    "all zero": (all_zero, 25),
    "a layer of zeros": (a_layer_of_zeros, 25),
    "constant": (constant, 20),
    "bias overflows": (bias_overflows, 20),
}


def through(model: Model, pipeline: str) -> tuple[Report, float]:
    """What the pipeline said, and signal to noise on the samples; every scale must be a normal positive number."""
    want = Runner(model).run(normal(model))["z"]
    samples = samples_for(model, normal(model))
    report = run_pipeline(model, pipeline, Context(TARGET, samples))
    for one in model.constants():
        if one.name.endswith("_scale"):
            assert (one.values >= np.finfo(np.float32).tiny).all(), one.name
            assert np.isfinite(one.values).all()
        elif one.values.dtype == np.int32:
            assert np.abs(one.values.astype(np.int64)).max(initial=0) <= BIAS_LIMIT
    return report, sqnr(Runner(model).run(normal(model))["z"], want)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", ODD)
def test_odd_channels_do_not_spoil_the_others(name, pipeline) -> None:
    make, least = ODD[name]
    model = fill(HEAD + NET)
    make(model)
    _, found = through(model, pipeline)
    assert found > (least if "per_channel" not in pipeline else least - 5)


def test_a_bias_that_overflows_is_told() -> None:
    model = fill(HEAD + NET)
    bias_overflows(model)
    report, _ = through(model, INT8)
    said = {n.where: n.what for n in report.passes[-1].notes if "int32" in n.what}
    assert said["c1"].startswith("2 weight scales were raised")
    assert said["c3"].startswith("1 weight scales were raised")


def test_channels_of_other_magnitudes_are_recovered_by_equalising() -> None:
    plain, off = fill(HEAD + NET), fill(HEAD + NET)
    magnitudes_off(off)
    lost = off.copy()
    _, best = through(plain, PIPELINES[0])
    assert through(lost, PIPELINES[0])[1] < best - 15
    assert through(off, f"equalize,{PIPELINES[0]}")[1] > best - 6


def test_an_input_that_is_always_zero_is_no_obstacle() -> None:
    text = """(float[N,4] x, float[N,4] y) => (float[N,3] z) <float[8,3] w> {
        c = Concat <axis = 1> (x, y)
        z = MatMul (c, w)
    }"""
    model = fill(HEAD + text)
    arrays = normal(model)
    arrays["y"] = np.zeros_like(arrays["y"])
    want = Runner(model).run(arrays)["z"]
    for pipeline in (INT8, f"smooth:insert=true,{INT8}"):
        done = model.copy()
        run_pipeline(done, pipeline, Context(TARGET, samples_for(model, arrays)))
        assert sqnr(Runner(done).run(arrays)["z"], want) > 30
