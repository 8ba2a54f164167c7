"""The session: calling convention, islands, shapes, and input that it must refuse."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text
from zc.runtime import Session

MIXED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4,S,S] x) => (float[N,8,H,W] y, float[N,4,S,S] z)
    <float s = {0.05}, uint8 zero = {100}, int8[8,4,3,3] w = {WEIGHTS}, float ws = {0.01}, int8 wz = {0}> {
        xq = QuantizeLinear (x, s, zero)
        xd = DequantizeLinear (xq, s, zero)
        wd = DequantizeLinear (w, ws, wz)
        c = Conv <pads = [1,1,1,1], strides = [2,2]> (xd, wd)
        cq = QuantizeLinear (c, s, zero)
        cd = DequantizeLinear (cq, s, zero)
        n = LayerNormalization <axis = -1> (cd, one)
        nq = QuantizeLinear (n, s, zero)
        nd = DequantizeLinear (nq, s, zero)
        a = Add (cd, nd)
        aq = QuantizeLinear (a, s, zero)
        y = DequantizeLinear (aq, s, zero)
        z = Sin (xd)
    }"""


@pytest.fixture(scope="module")
def mixed() -> Model:
    """A Conv and an Add in integers, a LayerNormalization between them and a Sin beside them in float."""
    numbers = np.random.default_rng(0).integers(-127, 128, 288)
    text = MIXED.replace("WEIGHTS", ",".join(map(str, numbers))).replace(
        "float ws", "float[4] one = {1,1,1,1}, float ws"
    )
    return from_text(text)


def image(rows: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 4, 8, 8)).astype(np.float32)


def test_islands_run_in_onnxruntime_and_are_named(mixed: Model) -> None:
    session = Session(mixed)
    assert [n.op for n in session.float_nodes] == ["LayerNormalization", "Sin"]
    assert "LayerNormalization has no kernel on codes" in session.float_nodes[0].reason
    want = Runner(mixed).run({"x": image()})
    for got, name in zip(session.run(None, {"x": image()}), want, strict=True):
        np.testing.assert_array_equal(got, want[name])


def test_outputs_by_name_in_the_order_asked_for(mixed: Model) -> None:
    z, y = Session(mixed).run(["z", "y"], {"x": image()})
    assert z.shape == (2, 4, 8, 8)
    assert y.shape == (2, 8, 4, 4)


def test_any_batch_and_many_plans(mixed: Model) -> None:
    session, runner = Session(mixed), Runner(mixed)
    for rows in (1, 5, 2, 17, 3, 4, 6, 7, 8, 9, 1):
        feeds = {"x": image(rows, seed=rows)}
        np.testing.assert_array_equal(session.run(["y"], feeds)[0], runner.run(feeds)["y"])


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_give_the_same_codes(mixed: Model, threads: int) -> None:
    feeds = {"x": image(3)}
    want = Session(mixed).run(["y"], feeds)[0]
    session = Session(mixed, threads=threads)
    for _ in range(20):
        np.testing.assert_array_equal(session.run(["y"], feeds)[0], want)


def test_calls_from_several_threads_do_not_disturb_each_other(mixed: Model) -> None:
    session = Session(mixed)
    feeds = [{"x": image(2, seed)} for seed in range(8)]
    want = [session.run(["y"], f)[0] for f in feeds]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda f: session.run(["y"], f)[0], feeds * 4))
    for a, b in zip(got, want * 4, strict=True):
        np.testing.assert_array_equal(a, b)


def test_results_do_not_change_when_the_session_runs_again(mixed: Model) -> None:
    session = Session(mixed)
    first = session.run(["y"], {"x": image(2, 1)})[0]
    kept = first.copy()
    session.run(["y"], {"x": image(2, 2)})
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous(mixed: Model) -> None:
    session = Session(mixed)
    turned = np.ascontiguousarray(image().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(session.run(["y"], {"x": turned})[0], session.run(["y"], {"x": image()})[0])


def test_memory_is_shared_by_values_that_live_at_different_times(qdq, agree) -> None:
    b = qdq()
    b.input("x0", [1, 64, 16, 16], (0.1, 128))
    rng = np.random.default_rng(0)
    for i in range(8):
        w = rng.integers(-20, 20, (64, 64, 1, 1)).astype(np.int8)
        b.weight(f"w{i}", w, np.full(64, 0.01, np.float32), np.zeros(64, np.int8), 0)
        b.node("Conv", [f"x{i}", f"w{i}"], f"c{i}")
        if i < 7:
            b.nodes.append(_node("QuantizeLinear", [f"c{i}", *b.parameters(f"q{i}", (0.1, 128))], f"q{i}"))
            b.nodes.append(_node("DequantizeLinear", [f"q{i}", f"q{i}_s", f"q{i}_z"], f"x{i + 1}"))
    b.output("c7", (0.1, 128))
    codes = rng.integers(0, 256, (1, 64, 16, 16)).astype(np.uint8)
    agree(b.model(), {"x0_q": codes})
    session = Session(b.model())
    session.run(None, {"x0_q": codes})
    arena = session.plan({"x0_q": codes.shape}).arena
    assert arena.size <= 1.5 * arena.alive
    assert arena.size < 3 * 64 * 256


def _node(op: str, inputs: list[str], output: str) -> Any:
    from onnx import helper

    return helper.make_node(op, inputs, [output])


# ---- bad input


def test_strict_refuses_islands_by_name(mixed: Model) -> None:
    with pytest.raises(ZcError, match=r"strict: 2 nodes have no kernel on codes: LayerNormalization .*Sin"):
        Session(mixed, strict=True)


def test_a_float_model_is_offered_quantize() -> None:
    model = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }')
    with pytest.raises(ZcError, match=r"not quantised.*-p quantize"):
        Session(model)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is not fed"),
        ({"x_": image()}, r"no input 'x_' \(did you mean 'x'\?\)"),
        ({"x": image().astype(np.float64)}, "takes float32, not float64"),
        ({"x": image()[:, :3]}, "not shape"),
        ({"x": image()[0]}, "not shape"),
        ({"x": image()[:, :, :, :5]}, "not shape"),
        ({"x": image()[:0]}, "holds nothing"),
    ],
)
def test_wrong_feeds(mixed: Model, feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ZcError, match=message):
        Session(mixed).run(None, feeds)


def test_wrong_output_name(mixed: Model) -> None:
    with pytest.raises(ZcError, match="no output 'yy'"):
        Session(mixed).run(["yy"], {"x": image()})


def test_an_image_smaller_than_the_filter_is_no_crash(qdq: Callable[..., Any]) -> None:
    b = qdq()
    b.input("x", [1, 4, "H", "W"], (0.1, 128))
    b.weight("w", np.ones((8, 4, 5, 5), np.int8), np.full(8, 0.01, np.float32), np.zeros(8, np.int8), 0)
    b.output(b.node("Conv", ["x", "w"], "y"), (0.1, 128))
    with pytest.raises(ZcError, match=r"node 'y'.*holds nothing"):
        Session(b.model()).run(None, {"x_q": np.zeros((1, 4, 3, 3), np.uint8)})


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, -0.1, 1e-42])
def test_a_scale_that_cannot_be_computed_with(qdq: Callable[..., Any], scale: float) -> None:
    b = qdq()
    b.input("x", [1, 4], (scale, 128))
    b.output(b.node("Sigmoid", ["x"], "y"), (0.1, 128))
    with pytest.raises(ZcError, match="is not a positive, finite, normal number"):
        Session(b.model())


def test_no_threads(mixed: Model) -> None:
    with pytest.raises(ZcError, match="threads must be at least 1"):
        Session(mixed, threads=0)


def test_codes_that_may_leave_32_bits_stay_in_onnxruntime(qdq: Callable[..., Any]) -> None:
    b = qdq()
    b.input("x", [1, 4], (1e3, 0))
    b.weight("w", np.full((4, 4), 127, np.int8), np.full(4, 1e3, np.float32), np.zeros(4, np.int8), 1)
    b.output(b.node("MatMul", ["x", "w"], "y"), (1e-3, 0))
    (node,) = Session(b.model()).float_nodes
    assert "may not fit into 32 bits" in node.reason


def test_float_sums_that_integers_cannot_repeat_stay_in_onnxruntime(qdq: Callable[..., Any]) -> None:
    b = qdq()
    b.input("x", [2, 5, 3], (0.1, 128))
    b.output(b.node("ReduceMean", ["x"], "y", axes=[2]), (0.1, 0))
    codes = np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
    session = Session(b.model())
    assert "onnxruntime computes it in float" in session.float_nodes[0].reason
    np.testing.assert_array_equal(session.run(None, {"x_q": codes})[0], Runner(b.model()).run({"x_q": codes})["y_c"])


def test_weights_of_4_bits_run_in_integers() -> None:
    codes = np.random.default_rng(1).integers(-7, 8, 72)
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,2,S,S] x) => (float[N,4,H,W] y)
        <float s = {0.05}, uint8 zero = {100}, int8[4,2,3,3] w = {WEIGHTS}, float[4] ws = {0.1, 0.2, 0.3, 0.4}> {
            xq = QuantizeLinear (x, s, zero)
            xd = DequantizeLinear (xq, s, zero)
            w8 = Cast <to = 3> (w)
            wd = DequantizeLinear <axis = 0> (w8, ws)
            c = Conv (xd, wd)
            cq = QuantizeLinear (c, s, zero)
            y = DequantizeLinear (cq, s, zero)
        }""".replace("WEIGHTS", ",".join(map(str, codes)))
    )
    weight = next(c for c in model.constants() if c.name == "w")
    weight.values = weight.values.astype(ml_dtypes.int4)
    session = Session(model, strict=True)
    feed = {"x": np.random.default_rng(2).standard_normal((3, 2, 8, 8)).astype(np.float32)}
    np.testing.assert_array_equal(session.run(None, feed)[0], Runner(model).run(feed)["y"])
