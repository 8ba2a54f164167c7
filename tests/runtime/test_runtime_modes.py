"""Modes `tflite-*`: TFLite's fixed point, held against its rules and, where it is installed, against LiteRT."""

from typing import Any

import numpy as np
import pytest

from zc.errors import ZcError
from zc.kernels import rules, tflite_rules
from zc.kernels.fixedpoint import Multiplier, Rounding, times
from zc.runtime import Session

F32 = np.float32
ROUNDINGS: tuple[Rounding, ...] = ("single", "double")
CODES = np.arange(-128, 128).astype(np.int8)
LOGISTIC, TANH = (1 / 256, 0), (1 / 128, 128)


class Draw:
    """Random operators on int8 codes, with scales of which many make ties."""

    def __init__(self, qdq: Any, seed: int) -> None:
        self.rng, self.b = np.random.default_rng(seed), qdq(np.int8)
        self.feeds: dict[str, np.ndarray] = {}

    def coding(self) -> tuple[float, int]:
        scale = self.rng.choice([0.5, 0.25, 0.1, 0.3, 0.0123, 0.02, self.rng.uniform(0.005, 0.5)])
        return float(F32(scale)), int(self.rng.choice([0, 1, 100, 127, 128, 254, 255]))

    def codes(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    def input(self, name: str, *shape: int, coding: tuple[float, int] | None = None) -> str:
        self.feeds[f"{name}_q"] = self.codes(*shape)
        return self.b.input(name, list(shape), coding or self.coding())

    def weight(self, shape: tuple[int, ...], axis: int, each: bool) -> str:
        count = (shape[axis],) if each else ()
        scale = np.asarray(self.rng.uniform(0.001, 0.02, count), F32)
        return self.b.weight(
            "w", self.rng.integers(-127, 128, shape).astype(np.int8), scale, np.zeros(count, np.int8), axis
        )


def conv(d: Draw) -> None:
    c, m, s = int(d.rng.integers(1, 20)), int(d.rng.integers(1, 40)), int(d.rng.integers(1, 3))
    x = d.input("x", 2, c, 9, 8)
    d.b.node("Conv", [x, d.weight((m, c, 3, 3), 0, each=bool(s - 1))], "y", pads=[1, 0, 1, 1], strides=[s, s])
    d.b.output("y", d.coding())


def depthwise(d: Draw) -> None:
    x = d.input("x", 2, 20, 7, 7)
    d.b.node("Conv", [x, d.weight((20, 1, 3, 3), 0, each=True)], "y", pads=[1, 1, 1, 1], group=20)
    d.b.output("y", d.coding())


def product(d: Draw) -> None:
    each = bool(d.rng.integers(2))
    if d.rng.integers(2):
        d.b.node("Gemm", [d.input("x", 5, 30), d.weight((20, 30), 0, each)], "y", transB=1)
    else:
        d.b.node("MatMul", [d.input("x", 2, 5, 30), d.weight((30, 20), 1, each)], "y")
    d.b.output("y", d.coding())


def binary(d: Draw) -> None:
    other = (2, 8, 6, 6) if d.rng.integers(2) else (1, 8, 1, 1)
    d.b.node("Add" if d.rng.integers(2) else "Mul", [d.input("x", 2, 8, 6, 6), d.input("z", *other)], "y")
    d.b.output("y", d.coding())


def average(d: Draw) -> None:
    coding, s = d.coding(), int(d.rng.integers(1, 3))
    padded = {"pads": [1, 1, 1, 1], "count_include_pad": 1} if d.rng.integers(2) else {}
    x = d.input("x", 2, 16, 8, 8, coding=coding)
    d.b.node("AveragePool", [x], "y", kernel_shape=[3, 3], strides=[s, s], **padded)
    d.b.output("y", coding if d.rng.integers(2) else d.coding())


def mean(d: Draw) -> None:
    d.b.node("GlobalAveragePool", [d.input("x", 2, 16, 7, 9)], "y")
    d.b.output("y", d.coding())


def table(d: Draw) -> None:
    op = str(d.rng.choice(["Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Relu"]))
    x = d.input("x", 256)
    d.feeds["x_q"] = CODES
    d.b.node(op, [x], "y", **({"alpha": float(d.rng.choice([0.1, 0.3, 1.5]))} if op == "LeakyRelu" else {}))
    fixed = {"Sigmoid": LOGISTIC, "Tanh": TANH}.get(op)
    d.b.output("y", fixed if fixed and d.rng.integers(2) else d.coding())


def softmax(d: Draw) -> None:
    d.b.node("Softmax", [d.input("x", 20, int(d.rng.choice([2, 10, 300])))], "y", axis=-1)
    d.b.output("y", LOGISTIC if d.rng.integers(2) else d.coding())


def concat(d: Draw) -> None:
    d.b.node("Concat", [d.input("x", 2, 4, 5, 5), d.input("z", 2, 3, 5, 5)], "y", axis=1)
    d.b.output("y", d.coding())


OPERATORS = [conv, depthwise, product, binary, average, mean, table, softmax, concat]


@pytest.mark.parametrize("build", OPERATORS)
def test_single_operators_give_the_codes_of_litert(qdq, build: Any) -> None:
    pytest.importorskip("ai_edge_litert", reason="no package ai-edge-litert (zc[tflite])")
    from zc.backends.tflite.emit import TfliteOptions, bundle, flatten
    from zc.backends.tflite.legalise import legalise
    from zc.backends.tflite.litert import LiteRtRunner

    for seed in range(12):
        d = Draw(qdq, seed)
        build(d)
        model = d.b.model()
        data = bundle({"serving_default": flatten(legalise(model), TfliteOptions())})
        want = LiteRtRunner(data, kernels="reference").run(d.feeds)["y_c"]
        np.testing.assert_array_equal(Session(model, mode="tflite-double").run(None, d.feeds)[0], want)


def _memory(codes: np.ndarray) -> np.ndarray:
    return codes.view(np.uint8) ^ np.uint8(128)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("seed", range(8))
def test_kernels_follow_their_rules(qdq, rounding: Rounding, seed: int) -> None:
    """Each kernel against its NumPy twin, which was held against LiteRT where that is installed."""
    from zc.runtime.ops import Binary, Convolution, GlobalAverage, Pool, Product, Softmax

    for build in (conv, depthwise, product, binary, average, mean, softmax):
        d = Draw(qdq, seed)
        build(d)
        session = Session(d.b.model(), mode=f"tflite-{rounding}")
        got = _memory(session.run(None, d.feeds)[0])
        (op,) = session.ops
        a, *rest = (_memory(codes) for codes in d.feeds.values())
        if isinstance(op, Convolution):
            acc = rules.convolve(a, op.x.zero, op.weights.codes, op.strides, op.pads or (), op.dilations, op.group)
            found = tflite_rules.multipliers(op.x.scale, op.weights.scale, op.y.scale)
            want = tflite_rules.requantize(acc.transpose(0, 2, 3, 1), found, op.y.zero, rounding).transpose(0, 3, 1, 2)
        elif isinstance(op, Product):
            acc = rules.multiply_accumulate(a, op.x.zero, op.weights.codes, 0)
            found = tflite_rules.multipliers(op.x.scale, op.weights.scale, op.y.scale)
            if not op.weights.per_channel:
                found = [tflite_rules.shared_multiplier(op.x.scale, op.weights.scale[0], op.y.scale)] * 20
            want = tflite_rules.requantize(acc, found, op.y.zero, "single")
        elif isinstance(op, Binary) and op.kind == "add":
            terms = tflite_rules.Sum.of(op.a.scale, op.a.zero, op.b.scale, op.b.zero, op.y.scale, rounding)
            want = tflite_rules.add(a, np.broadcast_to(rest[0], a.shape), terms, op.y.zero, rounding)
        elif isinstance(op, Binary):
            factor = tflite_rules.product_multiplier(op.a.scale, op.b.scale, op.y.scale)
            want = tflite_rules.multiply(a, op.a.zero, rest[0], op.b.zero, factor, op.y.zero, rounding)
        elif isinstance(op, GlobalAverage):
            factor = tflite_rules.mean_multiplier(op.x.scale, op.y.scale, 63)
            want = tflite_rules.mean(a, op.x.zero, factor, op.y.zero, rounding)
        elif isinstance(op, Softmax):
            want = tflite_rules.softmax(a, tflite_rules.exponentials(op.x.scale, rounding))
            want = want if (op.y.scale, op.y.zero) == LOGISTIC else _recoded(want, LOGISTIC, op.y, rounding)
        else:
            assert isinstance(op, Pool)
            want = _averaged(a, op)
            same = (op.x.scale, op.x.zero) == (op.y.scale, op.y.zero)
            want = want if same else _recoded(want, (op.x.scale, op.x.zero), op.y, rounding)
        np.testing.assert_array_equal(got, want, err_msg=build.__name__)


def _recoded(codes: np.ndarray, made: tuple[float, int], y: Any, rounding: Rounding) -> np.ndarray:
    return tflite_rules.rescale_table(F32(made[0]), made[1], y.scale, y.zero, rounding)[codes]


def _averaged(x: np.ndarray, op: Any) -> np.ndarray:
    top, left, bottom, right = op.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=op.x.zero)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, :: op.strides[0], :: op.strides[1]]
    return tflite_rules.average_window(windows.reshape(*windows.shape[:4], 9).transpose(4, 0, 1, 2, 3), 9)


def test_rounding_once_and_twice_differ() -> None:
    values = np.arange(-(2**20), 2**20)
    once, twice = (times(values, Multiplier.of(0.0123), rounding) for rounding in ROUNDINGS)
    assert 0 < (once != twice).sum() < 0.01 * len(values)
    assert np.abs(once - twice).max() == 1


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_floats_are_rounded_away_from_zero_at_ties(rounding: Rounding) -> None:
    model = _quantizer()
    values = np.array([0.25, 0.75, -0.25, -0.75, 0.24, 1e30, -1e30, np.inf], F32)
    got = Session(model, mode=f"tflite-{rounding}").run(None, {"x": values})[0]
    np.testing.assert_array_equal(got, [1, 2, -1, -2, 0, 127, -128, 127])


def _quantizer() -> Any:
    from zc.ir.model import from_text

    return from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N] x) => (int8[N] y) <float s = {0.5}, int8 z = {0}> { y = QuantizeLinear (x, s, z) }""")


def test_threads_give_the_same_codes(qdq) -> None:
    for build in OPERATORS:
        d = Draw(qdq, 3)
        build(d)
        model = d.b.model()
        want = Session(model, mode="tflite-double").run(None, d.feeds)[0]
        np.testing.assert_array_equal(Session(model, mode="tflite-double", threads=3).run(None, d.feeds)[0], want)


# ---- bad input


def test_an_unknown_mode() -> None:
    with pytest.raises(ZcError, match=r"no mode 'tflite' .*use ort, tflite-single, tflite-double"):
        Session(_quantizer(), mode="tflite")


def test_what_has_no_rule_is_named(qdq) -> None:
    b = qdq(np.int8)
    b.input("x", [1, 4], (0.1, 128))
    b.output(b.node("Sin", ["x"], "y"), (0.1, 128))
    with pytest.raises(
        ZcError, match=r"mode tflite-double: .*Sin 'y' \(TFLite computes it in float\).*--target tflite"
    ):
        Session(b.model(), mode="tflite-double")


def test_float_results_of_codes_are_allowed_and_named() -> None:
    from zc.ir.model import from_text

    session = Session(
        from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y) <float s = {0.5}, int8 z = {0}> {
            q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  y = Softmax (d)
        }"""),
        mode="tflite-double",
    )
    assert [n.op for n in session.float_nodes] == ["Softmax"]
    assert session.run(None, {"x": np.ones((2, 4), F32)})[0].shape == (2, 4)


def test_islands_that_make_codes_are_refused(qdq) -> None:
    b = qdq(np.int8)
    b.input("x", [1, 5, 4], (0.1, 128))
    b.output(b.node("ReduceMean", ["x"], "y", axes=[2]), (0.1, 128))
    with pytest.raises(ZcError, match=r"no rule in integers for ReduceMean .*computes it in float"):
        Session(b.model(), mode="tflite-single")
