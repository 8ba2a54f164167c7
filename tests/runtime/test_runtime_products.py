"""Matrix products of two computed values, and those whose results stay float: every number onnxruntime's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from zc.errors import ZcError
from zc.runtime import Session

F32 = np.float32
MORE = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SCALES = st.sampled_from([0.5, 0.25, 0.125, 0.1, 0.0123, 0.02])
ZEROS = st.sampled_from([0, 1, 100, 127, 128, 254, 255])
CODING = st.tuples(SCALES, ZEROS)
SIZES = st.integers(1, 80)
BATCHES = st.sampled_from([((), ()), ((3,), (3,)), ((2, 3), ()), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (4,))])


def codes(rng: np.random.Generator, shape: tuple[int, ...], kind: type) -> np.ndarray:
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def float_output(b: Any, name: str) -> None:
    b.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def again(b: Any, value: str, like: str) -> str:
    """Q and DQ with the scale of an input."""
    b.nodes.append(helper.make_node("QuantizeLinear", [value, f"{like}_s", f"{like}_z"], [f"{value}_c"]))
    b.nodes.append(helper.make_node("DequantizeLinear", [f"{value}_c", f"{like}_s", f"{like}_z"], [f"{value}_d"]))
    return f"{value}_d"


@MORE
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from([np.uint8, np.int8]),
    a=CODING,
    b=CODING,
    y=st.none() | CODING,
    batch=BATCHES,
    sizes=st.tuples(SIZES, SIZES, SIZES),
    turned=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
def test_both_factors_are_computed(qdq, agree, seed, kind, a, b, y, batch, sizes, turned, threads) -> None:
    rng, model, (m, k, n) = np.random.default_rng(seed), qdq(kind), sizes
    left, right = (*batch[0], m, k), (*batch[1], *((n, k) if turned else (k, n)))
    model.input("a", list(left), a)
    second = model.input("b", list(right), b)
    if turned:
        rank = len(right)
        order = [*range(rank - 2), rank - 1, rank - 2]
        second = again(model, model.node("Transpose", [second], "turned", perm=order), "b")
    out = model.node("MatMul", ["a", second], "y")
    if y is None:
        float_output(model, out)
    else:
        model.output(out, y)
    agree(model.model(), {"a_q": codes(rng, left, kind), "b_q": codes(rng, right, kind)}, threads=threads)


def test_as_an_operator_on_codes(qdq, agree) -> None:
    rng, b = np.random.default_rng(0), qdq()
    for name, shape in (("a", [2, 7, 9]), ("b", [2, 9, 5])):
        b.inputs.append(helper.make_tensor_value_info(f"{name}_q", b.kind, shape))
    inputs = [
        "a_q",
        *b.parameters("a", (0.05, 3)),
        "b_q",
        *b.parameters("b", (0.02, 200)),
        *b.parameters("y", (0.1, 9)),
    ]
    b.nodes.append(helper.make_node("QLinearMatMul", inputs, ["y_q"]))
    b.outputs.append(helper.make_tensor_value_info("y_q", b.kind, None))
    agree(b.model(), {"a_q": codes(rng, (2, 7, 9), np.uint8), "b_q": codes(rng, (2, 9, 5), np.uint8)})


@pytest.mark.parametrize("tail", ["Mul", "Div", "Softmax", "Transpose"])
@pytest.mark.parametrize("computed", [True, False])
def test_what_reads_a_float_result(qdq, agree, tail: str, computed: bool) -> None:
    """onnxruntime computes the product in integers, whatever follows it but an Add."""
    rng, b = np.random.default_rng(1), qdq()
    feeds = {"a_q": codes(rng, (2, 20, 30), np.uint8)}
    b.input("a", [2, 20, 30], (0.05, 120))
    if computed:
        b.input("w", [2, 30, 25], (0.02, 100))
        feeds["w_q"] = codes(rng, (2, 30, 25), np.uint8)
    else:
        w = rng.integers(-127, 128, (30, 25)).astype(np.int8)
        b.weight("w", w, np.asarray(F32(0.01)), np.asarray(np.int8(0)), 1)
    more = [b.constant("eighth", F32(0.125))] if tail in ("Mul", "Div") else []
    float_output(b, b.node(tail, [b.node("MatMul", ["a", "w"], "p"), *more], "y"))
    agree(b.model(), feeds, islands=1)


@pytest.mark.parametrize("computed", [True, False])
def test_a_bias_in_float_keeps_the_product_in_float(qdq, agree, computed: bool) -> None:
    """onnxruntime makes a float Gemm of a MatMul and an Add before it looks for codes."""
    rng, b = np.random.default_rng(2), qdq()
    feeds = {"a_q": codes(rng, (20, 30), np.uint8)}
    b.input("a", [20, 30], (0.05, 120))
    if computed:
        b.input("w", [30, 25], (0.02, 100))
        feeds["w_q"] = codes(rng, (30, 25), np.uint8)
    else:
        w = rng.integers(-127, 128, (30, 25)).astype(np.int8)
        b.weight("w", w, np.asarray(F32(0.01)), np.asarray(np.int8(0)), 1)
    bias = b.constant("bias", rng.standard_normal(25).astype(F32))
    float_output(b, b.node("Add", [b.node("MatMul", ["a", "w"], "p"), bias], "y"))
    agree(b.model(), feeds, islands=2)


def test_shapes_that_have_no_product(qdq) -> None:
    b = qdq()
    b.input("a", ["N", "K"], (0.1, 0))
    b.input("b", ["L", 5], (0.1, 0))
    b.output(b.node("MatMul", ["a", "b"], "y"), (0.1, 0))
    with pytest.raises(ZcError, match=r"node 'y': codes of shapes \[2, 3\] and \[4, 5\] have no product"):
        Session(b.model()).run(None, {"a_q": np.zeros((2, 3), np.uint8), "b_q": np.zeros((4, 5), np.uint8)})
