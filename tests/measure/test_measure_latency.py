import itertools
import re
from typing import Any

import numpy as np
import pytest

from zc.ir.model import Model, from_text
from zc.ir.quantised import is_quantised
from zc.measure.latency import bench
from zc.measure.slowness import slow_causes

SMALL = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,64] x) => (float[N,64] y) { y = Relu (x) }"""


def chain(length: int) -> Model:
    """Matrix products in a row: twice the length takes about twice the time."""
    names = ["x", *(f"h{i}" for i in range(length - 1)), "y"]
    lines = "\n".join(f"{b} = MatMul ({a}, w)" for a, b in itertools.pairwise(names))
    model = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[64,256] x, float[256,256] w) => (float[64,256] y) {{ {lines} }}""")
    model.graph.inputs[1].to_constant(np.eye(256, dtype=np.float32))
    del model.graph.inputs[1]
    return model


def feed() -> Any:
    return [{"x": np.ones((64, 256), np.float32)}]


def test_the_ratio_says_that_twice_the_work_takes_longer():
    short, long = bench([chain(2), chain(8)], feed(), repeats=15)
    assert short.ratio == 1
    assert 2 < long.ratio < 8
    assert long.ratio_spread[0] <= long.ratio <= long.ratio_spread[1]
    assert long.spread_ms[0] <= long.cpu_ms <= long.spread_ms[1]
    assert (long.repeats, long.threads, long.clock, long.ms) == (15, 1, "cpu", long.cpu_ms)


def test_the_budget_ends_it():
    (spent,) = bench([chain(4)], feed(), budget=0)
    (long,) = bench([chain(4)], feed(), budget=0.5)
    assert spent.repeats == 5 < long.repeats


def test_several_threads_are_timed_by_the_wall():
    (result,) = bench([chain(2)], feed(), repeats=5, threads=2)
    assert (result.clock, result.threads, result.ms) == ("wall", 2, result.wall_ms)


def test_a_run_too_short_for_the_clock_is_repeated_within_a_timing():
    (result,) = bench([from_text(SMALL)], [{"x": np.ones((1, 64), np.float32)}], repeats=5)
    assert 0 < result.cpu_ms < 1


def quantized(code: str) -> Model:
    zero = "uint8 z = {128}" if code == "uint8" else "int8 z = {0}"
    model = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,8,6,6] x, int8[8,1,3,3] w) => (float[1,8,4,4] y) <float s = {{0.02}}, {zero}, float ws = {{0.01}}> {{
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            wd = DequantizeLinear (w, ws)
            c = Conv <group=8> (d, wd)
            cq = QuantizeLinear (c, s, z)
            y = DequantizeLinear (cq, s, z)
        }}""")
    weight = model.graph.inputs.pop(1)
    weight.to_constant(np.ones((8, 1, 3, 3), np.int8))
    return model


def test_a_model_is_quantised_when_something_stands_on_codes():
    assert is_quantised(quantized("uint8"))
    assert not is_quantised(chain(2))


def test_depthwise_convolutions_are_named_as_a_cause():
    assert any("1 of 1 integer convolutions are depthwise" in cause for cause in slow_causes(quantized("uint8")))


def test_signed_activations_are_named_as_a_cause():
    assert slow_causes(quantized("int8"))[0].startswith("2 activations are int8")


def test_with_samples_it_is_told_where_the_time_goes():
    first = slow_causes(quantized("uint8"), [{"x": np.ones((1, 8, 6, 6), np.float32)}])[0]
    assert re.match(r"of its time .*QLinearConv '.*' \d+%.* and conversions between forms \d+%", first)


@pytest.mark.parametrize("op", ["Relu", "Sigmoid"])
def test_there_is_always_a_cause(op: str):
    model = from_text(SMALL.replace("Relu", op))
    assert slow_causes(model)
