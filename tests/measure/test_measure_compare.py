"""Comparison of the values inside two models: which stands for which, in isolation and accumulated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text, load
from zc.measure import compare
from zc.measure.compare import ComparedValue, ValueComparison, compare_values
from zc.measure.compare_page import render_html, summary, to_json
from zc.measure.tensor_error import cosine, sqnr
from zc.testing import run_pass, samples_of

LAYERS = """
    a = MatMul (x, w)
    b = Relu (a)
    c = MatMul (b, v)
    d = Relu (c)
    y = MatMul (d, u)
"""


def weight(name: str, *shape: int, factor: float = 1.0) -> str:
    """A random constant, the same for each name."""
    numbers = np.random.default_rng(ord(name[0])).standard_normal(shape) * factor
    return f"float[{','.join(map(str, shape))}] {name} = {{{', '.join(f'{n:.6f}' for n in numbers.ravel())}}}"


WEIGHTS = {"w": weight("w", 8, 8), "v": weight("v", 8, 6), "u": weight("u", 6, 4)}


def net(layers: str = LAYERS, *more: str, end: str = "y", **weights: str) -> Model:
    given = ", ".join((WEIGHTS | weights).values()) + "".join(f", {text}" for text in more)
    head = f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,4] {end})'
    return from_text(f"{head} <{given}> {{ {layers} }}")


ROWS = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)


def rows(model: Model) -> Samples:
    return samples_of(model, {"x": ROWS})


def compared(a: Model, b: Model) -> ValueComparison:
    return compare_values(a, b, rows(a), threads=1)


def by_name(result: ValueComparison) -> dict[str, ComparedValue]:
    return {v.name: v for v in result.values}


def values(model: Model, *names: str) -> list[Any]:
    return list(Runner(model, outputs=names).run({"x": ROWS}).values())


def test_equal_models_differ_nowhere():
    result = compared(net(), net())
    assert [v.name for v in result.values] == ["a", "b", "c", "d", "y"]
    assert all(v.exact and v.total.cosine == pytest.approx(1) for v in result.values)
    assert result.first_bad(20) is None
    assert result.biggest_fall() is None


def test_an_error_shows_alone_where_it_is_made_and_accumulated_behind_it():
    broken = WEIGHTS["v"].replace("= {", "= {9").replace("{9-", "{-9")
    other = net(v=broken)
    result = compared(net(), other)
    found = by_name(result)
    assert [v.name for v in result.values if not v.exact] == ["c"]
    got, want = values(other, "c", "d", "y"), values(net(), "c", "d", "y")
    for value, g, w in zip((found["c"], found["d"], found["y"]), got, want, strict=True):
        assert value.total.sqnr_db == pytest.approx(sqnr(g, w), abs=1e-3)
        assert value.total.cosine == pytest.approx(cosine(g, w), abs=1e-6)
    first, fall = result.first_bad(20), result.biggest_fall()
    assert first is not None
    assert first.name == "c"
    assert fall is not None
    assert fall.before_db == float("inf")


CODES = "float s = {0.05}, uint8 z = {128}"


def coded(value: str, out: str) -> str:
    return f"{value}_q = QuantizeLinear ({value}, s, z) {out} = DequantizeLinear ({value}_q, s, z)"


def test_a_value_of_a_quantised_model_is_what_its_codes_stand_for():
    """x -> Q -> DQ; the Relu is in the range of the codes; b keeps its name behind DequantizeLinear."""
    layers = f"""
        {coded("x", "x_dq")}
        a = MatMul (x_dq, w)
        b_q = QuantizeLinear (a, t, zero)
        b = DequantizeLinear (b_q, t, zero)
        c = MatMul (b, v)
        d = Relu (c)
        y = MatMul (d, u)
    """
    other = net(layers, CODES, "float t = {0.04}", "uint8 zero = {0}")
    result = compared(net(), other)
    found = by_name(result)
    assert list(found) == ["x", "b", "c", "d", "y"]
    assert result.only_a == ("a",)
    assert (found["b"].op, found["b"].node) == ("MatMul+Relu", "a")
    (b,) = values(other, "b")
    (exact,) = values(net(), "b")
    assert found["b"].total.sqnr_db == pytest.approx(sqnr(b, exact), abs=1e-3)
    rounded = np.clip(np.rint(exact / np.float32(0.04)), 0, 255) * np.float32(0.04)
    assert found["b"].alone is not None
    assert found["b"].alone.sqnr_db == pytest.approx(sqnr(rounded, exact), abs=0.01)  # the rounding of x left out
    assert found["c"].exact
    assert found["x"].op == ""


def test_layers_that_run_on_the_codes_themselves():
    """b_q -> Reshape -> DQ: the codes are fed, and dequantised to be looked at."""
    float_layers = "a = MatMul (x, w) b = Relu (a) c = Reshape (b, to) y = MatMul (c, u8)"
    codes_layers = """a = MatMul (x, w) b_q = QuantizeLinear (a, s, z) c_q = Reshape (b_q, to)
                      c = DequantizeLinear (c_q, s, z) y = MatMul (c, u8)"""
    more = ("int64[2] to = {-1, 8}", weight("u8", 8, 4))
    result = compared(net(float_layers, *more), net(codes_layers, *more, "float s = {0.04}", "uint8 z = {0}"))
    found = by_name(result)
    assert list(found) == ["b", "c", "y"]
    assert found["c"].total == found["b"].total
    assert found["c"].alone == found["b"].alone


def test_qlinear_operators_are_what_they_compute():
    q = run_pass("quantize", net())
    assert len(compared(net(), q).values) > 3
    layers = """
        x_q = QuantizeLinear (x, s, z)
        a_q = QLinearMatMul (x_q, s, z, w_q, t, wz, s2, z)
        y = DequantizeLinear (a_q, s2, z)
    """
    text = ", ".join(str(i % 11 - 5) for i in range(32))
    more = (CODES, f"int8[8,4] w_q = {{{text}}}", "float t = {0.02}", "int8 wz = {0}", "float s2 = {0.01}")
    exact = net("y = MatMul (x, f)", f"float[8,4] f = {{{', '.join(str((i % 11 - 5) * 0.02) for i in range(32))}}}")
    found = by_name(compared(exact, net(layers, *more)))
    assert list(found) == ["x", "y"]
    assert found["y"].total.sqnr_db > 20


def test_renamed_values_and_a_folded_batch_normalisation_are_found():
    more = [f"float[8] {n} = {{{', '.join(['0.5'] * 8)}}}" for n in ("g", "k", "m", "q")]
    a = net(
        "a = MatMul (x, w) n = BatchNormalization (a, g, k, m, q) b = Relu (n) y = MatMul (b, u8)",
        *more,
        weight("u8", 8, 4),
    )
    scaled = weight("w", 8, 8, factor=0.5 / np.sqrt(0.5 + 1e-5))
    bias = f"float[8] k2 = {{{', '.join([str(0.5 - 0.5 * 0.5 / np.sqrt(0.5 + 1e-5))] * 8)}}}"
    b = net("t1 = Gemm (x, w, k2) t2 = Relu (t1) y = MatMul (t2, u8)", bias, weight("u8", 8, 4), w=scaled)
    result = compared(a, b)
    pairs = {v.name: v.other for v in result.values}
    assert pairs["b"] == "t2"
    assert all(v.total.sqnr_db > 60 for v in result.values if v.name in ("b", "y"))


def test_a_scale_that_moved_into_the_next_layer_is_divided_out():
    b = net(w=weight("w", 8, 8, factor=0.25), v=weight("v", 8, 6, factor=4.0))
    result = compared(net(), b)
    assert [v.name for v in result.values if v.scaled] == ["a", "b"]
    assert all(v.total.sqnr_db > 80 and v.alone.sqnr_db > 80 for v in result.values)
    assert any("scaled by a constant" in line for line in summary(result, 20))


def test_a_clipped_channel_is_no_scale():
    """One huge channel that is cut off spoils the value; the others are as they were."""
    big = net(
        "a = MatMul (x, w) h = Mul (a, huge) y = MatMul (h, u8)",
        "float[8] huge = {1,1,1,1,1,1,1,900}",
        weight("u8", 8, 4),
    )
    cut = net(
        "a = MatMul (x, w) p = Mul (a, huge) h = Clip (p, low, high) y = MatMul (h, u8)",
        "float[8] huge = {1,1,1,1,1,1,1,900}", "float low = {-9}", "float high = {9}", weight("u8", 8, 4),
    )  # fmt: skip
    result = compared(big, cut)
    assert not any(v.scaled for v in result.values)
    first = result.first_bad(20)
    assert first is not None
    assert first.name == "h"


def test_values_of_another_size_are_told_and_what_lies_between_equal_ones_is_one_layer():
    b = net(v=weight("v", 8, 5), u=weight("u", 5, 4))
    result = compared(net(), b)
    assert result.other_shape == (("c", (1, 6), (1, 5)), ("d", (1, 6), (1, 5)))
    assert [(v.name, v.op) for v in result.values] == [("a", "MatMul"), ("b", "Relu"), ("y", "MatMul+Relu+MatMul")]
    assert any("2 values are of another size" in line for line in summary(result, 20))


def test_values_that_match_nothing_are_told():
    result = compared(net(), net("a = MatMul (x, w) b = Relu (a) y = MatMul (b, u8)", weight("u8", 8, 4)))
    assert result.only_a == ("c", "d")
    assert any("only in" in line for line in summary(result, 20))


def test_neither_batches_nor_several_passes_change_the_figures(monkeypatch: pytest.MonkeyPatch):
    q = run_pass("quantize", net())
    whole = compared(net(), q)
    monkeypatch.setattr(compare, "MEMORY", 400)  # a few values at a time, one row a batch
    parts = compared(net(), q)
    assert [v.name for v in parts.values] == [v.name for v in whole.values]
    for one, other in zip(parts.values, whole.values, strict=True):
        assert one.total.sqnr_db == pytest.approx(other.total.sqnr_db, abs=0.05)
        assert one.alone.sqnr_db == pytest.approx(other.alone.sqnr_db, abs=0.05)


def test_bodies_read_the_values_around_them():
    """The If reads b from outside; b is fed to it."""
    layers = """
        a = MatMul (x, w)
        b = Relu (a)
        some = ReduceMax <keepdims = 0> (b)
        zero = Constant <value = float {0}> ()
        yes = Greater (some, zero)
        c = If (yes) <
            then_branch = t () => (float[N,6] p) { p = MatMul (b, v) },
            else_branch = e () => (float[N,6] q) { r = MatMul (b, v) q = Neg (r) }
        >
        y = MatMul (c, u)
    """
    broken = WEIGHTS["w"].replace("= {", "= {9").replace("{9-", "{-9")
    found = by_name(compared(net(layers), net(layers, w=broken)))
    assert found["c"].exact
    assert found["c"].total.sqnr_db < 40


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[N,8] z) => (float[N,8] y) { y = Relu (z) }", "no input 'x'"),
        ("g (float[N,9] x) => (float[N,9] y) { y = Relu (x) }", "takes x: float32"),
        ("g (float[N,8] x, float[N] k) => (float[N,8] y) { y = Relu (x) }", "also takes 'k'"),
    ],
)
def test_models_with_other_inputs_are_refused(text: str, words: str):
    other = from_text(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    with pytest.raises(ZcError, match=words):
        compared(net(), other)


def test_the_page_and_the_json_hold_every_value():
    result = compared(net(), run_pass("quantize", net()))
    page = render_html(result, 20)
    plain = to_json(result, 20)
    assert [v["value"] for v in plain["values"]] == [v.name for v in result.values]
    assert page.count("<tr") == len(result.values) + 1
    assert page.count('<circle class="total"') == len(result.values)
    assert "<script" not in page
    assert "http" not in page


@pytest.mark.real
def test_mobilenet_is_followed_layer_by_layer(shared: Path):
    model = load(shared / "models" / "mobilenetv1_025_imagenet.onnx")
    from zc.data import load_samples

    data = load_samples(str(shared / "data" / "imagenet500"), model.inputs, rows="0:16", prep="pm1 crop=224")
    result = compare_values(model, run_pass("quantize", model, data), data.take(0, 4))
    assert len(result.values) >= 32
    assert all(v.alone is not None and v.alone.sqnr_db > 20 for v in result.values)
    assert result.only_b == ()
