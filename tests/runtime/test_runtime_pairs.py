"""Operators of two arguments that onnxruntime leaves in float: every code its own, with ties, zeros and infinities."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zc.errors import ZcError
from zc.runtime import Session

F32 = np.float32
MORE = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
CODING = st.tuples(
    st.sampled_from([0.5, 0.25, 0.125, 0.1, 0.3, 0.0123, 0.7, 1.0]), st.sampled_from([0, 1, 100, 127, 128, 254, 255])
)
SEEDS = st.integers(0, 2**31)
TYPES = st.sampled_from([np.uint8, np.int8])
SHAPES = {"same": (2, 7, 9, 11), "channel": (1, 7, 1, 1), "number": (), "row": (11,), "wider": (3, 1, 7, 1, 11)}


def codes(rng: np.random.Generator, shape: tuple[int, ...], kind: type) -> np.ndarray:
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


@MORE
@given(seed=SEEDS, kind=TYPES, op=st.sampled_from(["Sub", "Div", "Min", "Max"]), a=CODING, b=CODING, y=CODING,
       shape=st.sampled_from(sorted(SHAPES)), threads=st.sampled_from([1, 3]))  # fmt: skip
def test_of_two_computed_values(qdq, agree, seed, kind, op, a, b, y, shape, threads) -> None:
    rng, build = np.random.default_rng(seed), qdq(kind)
    left, right = SHAPES["same"], SHAPES[shape]
    build.input("a", left, a)
    build.input("b", right, b)
    build.output(build.node(op, ["a", "b"], "y"), y)
    feeds = {"a_q": codes(rng, left, kind), "b_q": codes(rng, right, kind)}
    agree(build.model(), feeds, threads=threads)


@pytest.mark.parametrize("op", ["Sub", "Div", "Min", "Max", "PRelu"])
def test_on_every_pair_of_codes(qdq, agree, op: str) -> None:
    a, b = np.mgrid[0:256, 0:256].astype(np.uint8).reshape(2, -1)
    for codings in [((0.5, 3), (0.25, 200), (0.25, 128)), ((0.1, 100), (0.3, 7), (0.0123, 255))]:
        build = qdq()
        for name, coding in zip("ab", codings, strict=False):
            build.input(name, [65536], coding)
        build.output(build.node(op, ["a", "b"], "y"), codings[2])
        agree(build.model(), {"a_q": a, "b_q": b})


@MORE
@given(seed=SEEDS, kind=TYPES, op=st.sampled_from(["Add", "Mul", "Sub", "Div", "Min", "Max", "PRelu"]), x=CODING,
       y=CODING, shape=st.sampled_from(["same", "channel", "number", "row"]), first=st.booleans())  # fmt: skip
def test_of_a_value_and_a_constant_in_float(qdq, agree, seed, kind, op, x, y, shape, first) -> None:
    rng, build = np.random.default_rng(seed), qdq(kind)
    values = rng.choice(F32([0.0, -0.0, 0.5, 0.25, -1.5, 0.1, 3.7, 1e-3]), SHAPES[shape])
    build.input("x", SHAPES["same"], x)
    both = ["x", build.constant("k", F32(values))]
    build.output(build.node(op, both[::-1] if first and op != "PRelu" else both, "y"), y)
    agree(build.model(), {"x_q": codes(rng, SHAPES["same"], kind)})


@pytest.mark.parametrize("channels", [255, 256, 257, 700])
@pytest.mark.parametrize("op", ["PRelu", "Mul"])
def test_a_constant_with_many_values(qdq, agree, op: str, channels: int) -> None:
    rng, build = np.random.default_rng(0), qdq()
    build.input("x", ["N", channels, 3, 5], (0.1, 100))
    slopes = build.constant("k", rng.standard_normal((channels, 1, 1)).astype(F32))
    build.output(build.node(op, ["x", slopes], "y"), (0.07, 30))
    agree(build.model(), {"x_q": codes(rng, (2, channels, 3, 5), np.uint8)})


def test_a_constant_with_many_values_along_two_axes_stays_in_float(qdq, agree) -> None:
    rng, build = np.random.default_rng(0), qdq()
    build.input("x", [2, 30, 30], (0.1, 100))
    build.output(
        build.node("Mul", ["x", build.constant("k", rng.standard_normal((30, 30)).astype(F32))], "y"), (0.07, 30)
    )
    agree(build.model(), {"x_q": codes(rng, (2, 30, 30), np.uint8)}, islands=1)


@pytest.mark.parametrize("power", [2.0, 3.0, 0.5, -1.0, 1.7])
@pytest.mark.parametrize("length", [1, 3, 17, 1000])
def test_a_power(qdq, agree, power: float, length: int) -> None:
    build = qdq()
    build.input("x", [length], (0.1, 100))
    build.output(build.node("Pow", ["x", build.constant("k", F32(power))], "y"), (0.07, 30))
    agree(build.model(), {"x_q": codes(np.random.default_rng(0), (length,), np.uint8)})


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div", "Max"])
def test_of_a_value_and_itself(qdq, agree, op: str) -> None:
    build = qdq()
    build.input("x", [256], (0.1, 100))
    build.output(build.node(op, ["x", "x"], "y"), (0.07, 30))
    agree(build.model(), {"x_q": np.arange(256, dtype=np.uint8)})


@pytest.mark.parametrize("op", ["Add", "Mul", "Max"])
def test_of_codes_of_both_types(qdq, agree, op: str) -> None:
    from onnx import TensorProto, helper

    rng, b = np.random.default_rng(0), qdq()
    b.input("a", [3, 50], (0.1, 100))
    b.inputs.append(helper.make_tensor_value_info("b_q", TensorProto.INT8, [3, 50]))
    parts = [b.constant("b_s", F32(0.03)), b.constant("b_z", np.int8(-5))]
    b.nodes.append(helper.make_node("DequantizeLinear", ["b_q", *parts], ["b"]))
    b.output(b.node(op, ["a", "b"], "y"), (0.07, 30))
    agree(b.model(), {"a_q": codes(rng, (3, 50), np.uint8), "b_q": codes(rng, (3, 50), np.int8)})


def test_around_convolutions(qdq, agree) -> None:
    """PRelu by channel, channels last, into a convolution that pads."""
    rng, b = np.random.default_rng(1), qdq()
    b.input("x", [2, 3, 6, 6], (0.1, 100))
    b.weight("w", rng.integers(-90, 90, (20, 3, 3, 3)).astype(np.int8), F32([0.01])[0], np.int8(0), 0)
    b.node("Conv", ["x", "w"], "c", pads=[1, 1, 1, 1])
    again(b, "c", (0.1, 100))
    slopes = b.constant("k", rng.standard_normal((20, 1, 1)).astype(F32))
    again(b, b.node("PRelu", ["c_d", slopes], "p"), (0.08, 60))
    b.weight("v", rng.integers(-90, 90, (5, 20, 3, 3)).astype(np.int8), F32([0.01])[0], np.int8(0), 0)
    b.output(b.node("Conv", ["p_d", "v"], "y", pads=[1, 2, 2, 1]), (0.3, 100))
    agree(b.model(), {"x_q": codes(rng, (2, 3, 6, 6), np.uint8)})


def again(b: Any, value: str, coding: tuple[float, int]) -> None:
    """Q and DQ."""
    from onnx import helper

    parts = b.parameters(f"{value}_c", coding)
    b.nodes.append(helper.make_node("QuantizeLinear", [value, *parts], [f"{value}_c"]))
    b.nodes.append(helper.make_node("DequantizeLinear", [f"{value}_c", *parts], [f"{value}_d"]))


# ---- bad input


def test_shapes_that_do_not_go_together(qdq) -> None:
    b = qdq()
    b.input("a", ["N", "K"], (0.1, 0))
    b.input("b", ["M", "L"], (0.1, 0))
    b.output(b.node("Sub", ["a", "b"], "y"), (0.1, 0))
    with pytest.raises(ZcError, match=r"node 'y': shapes \[\[2, 3\], \[4, 5\]\] do not go together"):
        Session(b.model()).run(None, {"a_q": np.zeros((2, 3), np.uint8), "b_q": np.zeros((4, 5), np.uint8)})


@pytest.mark.parametrize("op", ["Sub", "Max", "PRelu"])
def test_modes_in_fixed_point_refuse_what_they_have_no_rule_for(qdq, op: str) -> None:
    b = qdq(np.int8)
    b.input("a", [5], (0.1, 0))
    b.input("b", [5], (0.2, 0))
    b.output(b.node(op, ["a", "b"], "y"), (0.1, 0))
    with pytest.raises(ZcError, match=rf"no rule in integers for {op} 'y' \(its rule in fixed point is not written"):
        Session(b.model(), mode="tflite-double")


def test_the_larger_of_two_codes_is_the_same_in_every_arithmetic(qdq, agree) -> None:
    b = qdq(np.int8)
    for name in "ab":
        b.input(name, [65536], (0.1, 100))
    b.output(b.node("Max", ["a", "b"], "y"), (0.1, 100))
    x, z = np.mgrid[-128:128, -128:128].astype(np.int8).reshape(2, -1)
    got = Session(b.model(), mode="tflite-single").run(None, {"a_q": x, "b_q": z})[0]
    np.testing.assert_array_equal(got, np.maximum(x, z))
