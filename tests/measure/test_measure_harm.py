"""What the error of each layer alone does to the outputs."""

from typing import Any

import numpy as np
import pytest

from zc.execute import Runner
from zc.ir.model import Model, from_text
from zc.measure.harm import Harm, harms
from zc.testing import samples_of

ROWS = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)
LAYERS = "a = MatMul (x, w) b = Relu (a) c = MatMul (b, v) s = Add (c, x) y = MatMul (s, u)"


def weight(name: str, rows: int, columns: int, error: float = 0.0) -> str:
    numbers = np.random.default_rng(ord(name[0])).standard_normal((rows, columns))
    numbers = numbers + error * np.random.default_rng(1).standard_normal((rows, columns))
    return f"float[{rows},{columns}] {name} = {{{', '.join(f'{n:.6f}' for n in numbers.ravel())}}}"


def net(layers: str = LAYERS, *more: str, w: float = 0, v: float = 0, u: float = 0) -> Model:
    weights = ", ".join([weight("w", 8, 8, w), weight("v", 8, 8, v), weight("u", 8, 4, u), *more])
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,4] y)'
    return from_text(f"{head} <{weights}> {{ {layers} }}")


def found(a: Model, b: Model, **options: Any) -> dict[str, Harm]:
    return {h.value: h for h in harms(a, b, samples_of(a, {"x": ROWS}), threads=1, **options)}


def outputs(model: Model) -> Any:
    return Runner(model, threads=1).run({"x": ROWS})["y"].astype(np.float64)


def noise(b: Model) -> float:
    """Squared error over variance of the whole model."""
    got, want = outputs(b), outputs(net())
    return float(((got - want) ** 2).sum() / ((want - want.mean(axis=0)) ** 2).sum())


def test_each_harm_is_that_of_the_model_in_which_only_this_layer_errs():
    all_of_them = found(net(), net(w=0.02, v=0.05, u=0.01))
    assert all_of_them["a"].noise == pytest.approx(noise(net(w=0.02)), rel=1e-3)
    assert all_of_them["c"].noise == pytest.approx(noise(net(v=0.05)), rel=1e-3)
    assert all_of_them["y"].noise == pytest.approx(noise(net(u=0.01)), rel=1e-3)
    assert all_of_them["b"].noise == 0


def test_the_rounding_of_what_a_layer_reads_is_part_of_its_harm():
    codes = "x_q = QuantizeLinear (x, step, z) x_dq = DequantizeLinear (x_q, step, z) a = MatMul (x_dq, w)"
    coded = net(LAYERS.replace("a = MatMul (x, w)", codes), "float step = {0.1}", "uint8 z = {128}")
    exact = net(LAYERS.replace("MatMul (x, w)", "MatMul (r, w)").replace("a =", "r = Identity (x) a ="))
    assert found(exact, coded)["a"].noise == pytest.approx(noise(coded), rel=0.01)


def test_shifted_means_do_not_count_when_biases_make_up_for_them():
    shifted = net(LAYERS.replace("c = MatMul (b, v)", "m = MatMul (b, v) c = Add (m, shift)"), "float shift = {0.5}")
    assert found(net(), shifted)["c"].noise > 1e-3
    assert found(net(), shifted, centred=True)["c"].noise == pytest.approx(0, abs=1e-9)


def test_layers_that_are_not_wanted_are_not_run():
    assert list(found(net(), net(w=0.1, v=0.1), wanted=lambda layer: "MatMul" in layer.op)) == ["a", "c", "y"]


def test_few_rows_are_run_where_a_layer_is_dear():
    few = found(net(), net(w=0.02), work=1)["a"].noise
    assert few != found(net(), net(w=0.02))["a"].noise
    assert few == pytest.approx(noise(net(w=0.02)), rel=1)


def test_what_enters_the_last_softmax_is_looked_at():
    """Likelihoods that are sure of themselves hide an error of a tenth."""
    sharp = LAYERS.replace("y = MatMul (s, u)", "t = MatMul (s, u) h = Mul (t, k) y = Softmax (h)")
    result = found(net(sharp, "float k = {100}"), net(sharp, "float k = {100}", u=0.1))
    assert result["t"].noise > 1e-3
    assert 0.7 < result["t"].share <= 1
