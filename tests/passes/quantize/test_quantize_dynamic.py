"""`quantize-dynamic`: what it writes, what it leaves in float, and that onnxruntime fuses it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from zc.backends.onnxruntime import TARGET
from zc.data import load_samples
from zc.execute import Runner
from zc.ir.model import Model, load
from zc.measure.tensor_error import sqnr
from zc.passes.quantize import quantize_dynamic
from zc.passes.quantize.quantize_dynamic import QuantizeDynamic
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import find

Fill = Callable[[str], Model]


@pytest.fixture(autouse=True)
def weights_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs here are small."""
    monkeypatch.setattr(quantize_dynamic, "SMALLEST", 0)
    monkeypatch.setattr(quantize_dynamic, "SMALLEST_LSTM", 0)


def dynamic(model: Model, **options: Any) -> PassResult:
    result = QuantizeDynamic(**options).run(model, Context(TARGET))
    onnx.checker.check_model(model.to_proto(), full_check=True)
    return result


def runs(model: Model, folder: Path) -> list[str]:
    Runner(model, save_optimized=folder / "optimized.onnx")
    return [n.op_type for n in onnx.load(folder / "optimized.onnx").graph.node]


def agree(before: Model, model: Model, decibels: float) -> None:
    rng = np.random.default_rng(1)
    feed = {
        s.name: rng.standard_normal([d if isinstance(d, int) else 5 for d in s.shape]).astype(np.float32)
        for s in before.inputs
    }
    want, got = Runner(before).run(feed), Runner(model).run(feed)
    for name, value in want.items():
        assert sqnr(got[name], value) > decibels


HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
PROJECT = f"""{HEAD} g (float[N,7,16] x) => (float[N,7,24] y) <float[16,24] w, float[24] b> {{
    p = MatMul (x, w)
    y = Add (BIAS)
}}"""


@pytest.mark.parametrize("order", ["p, b", "b, p"])
@pytest.mark.parametrize("shape", ["24", "1,1,24"])
def test_a_product_and_its_bias_run_in_one_kernel(graph: Fill, tmp_path: Path, order: str, shape: str) -> None:
    model = graph(PROJECT.replace("BIAS", order).replace("float[24] b", f"float[{shape}] b"))
    before = model.copy()
    result = dynamic(model)
    assert result.stats["products_in_integers"] == 1
    assert runs(model, tmp_path) == ["DynamicQuantizeMatMul"]
    agree(before, model, 35)


def test_products_of_one_value_share_its_codes(graph: Fill, tmp_path: Path) -> None:
    model = graph(
        f"""{HEAD} g (float[N,7,16] x) => (float[N,7,24] q, float[N,7,24] k)
        <float[16,24] w, float[16,24] v, float[24] b> {{
            p = MatMul (x, w)  q = Add (p, b)  k = MatMul (x, v)
        }}"""
    )
    before = model.copy()
    dynamic(model)
    assert sorted(runs(model, tmp_path)) == ["DynamicQuantizeLinear", "MatMulIntegerToFloat", "MatMulIntegerToFloat"]
    agree(before, model, 35)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_keeps_its_factors(graph: Fill, tmp_path: Path, transposed: int) -> None:
    shape = "24,16" if transposed else "16,24"
    model = graph(
        f"""{HEAD} g (float[N,16] x) => (float[N,24] y) <float[{shape}] w, float[1,24] c> {{
            y = Gemm <transB = {transposed}, alpha = 0.5, beta = 3.0> (x, w, c)
        }}"""
    )
    before = model.copy()
    dynamic(model)
    assert runs(model, tmp_path) == ["DynamicQuantizeMatMul"]
    agree(before, model, 35)


def test_one_scale_for_the_whole_weight(graph: Fill, tmp_path: Path) -> None:
    model = graph(PROJECT.replace("BIAS", "p, b"))
    before = model.copy()
    dynamic(model, per_channel=False)
    assert [c.values.shape for c in model.constants() if c.name == "w_scale"] == [()]
    assert runs(model, tmp_path) == ["DynamicQuantizeMatMul"]
    agree(before, model, 30)


def test_a_weight_that_two_products_share_is_written_once(graph: Fill) -> None:
    model = graph(
        f"""{HEAD} g (float[N,16] x, float[N,16] z) => (float[N,24] a, float[N,24] b) <float[16,24] w> {{
            a = MatMul (x, w)  b = MatMul (z, w)
        }}"""
    )
    before = model.copy()
    dynamic(model)
    assert sum(c.values.size == 16 * 24 for c in model.constants()) == 1
    agree(before, model, 35)


LSTM = f"""{HEAD} g (float[5,2,16] x, float[D,2,24] h) => (float[5,D,2,24] y, float[D,2,24] last)
<float[D,96,16] w, float[D,96,24] r, float[D,192] b> {{
    y, last = LSTM <hidden_size = 24 DIRECTION> (x, w, r, b, , h)
}}"""


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("directions", "more"), [("1", ""), ("2", ', direction = "bidirectional"')])
def test_an_lstm_runs_in_integers(graph: Fill, tmp_path: Path, per_channel: bool, directions: str, more: str) -> None:
    model = graph(LSTM.replace("D,", f"{directions},").replace("DIRECTION", more))
    before = model.copy()
    result = dynamic(model, per_channel=per_channel)
    assert result.stats["lstms_in_integers"] == 1
    assert runs(model, tmp_path) == ["DynamicQuantizeLSTM"]
    agree(before, model, 30)


def test_a_product_in_a_loop_is_quantised_too(graph: Fill) -> None:
    model = graph(
        f"""{HEAD} g (int64 n, bool go, float[2,16] x) => (float[2,16] y) <float[16,16] w> {{
            y = Loop (n, go, x) <body = step (int64 i, bool c, float[2,16] s) => (bool d, float[2,16] t) {{
                d = Identity (c)
                p = MatMul (s, w)
                t = Tanh (p)
            }}>
        }}"""
    )
    before = model.copy()
    result = dynamic(model)
    assert result.stats["products_in_integers"] == 1
    feed = {"n": np.array(3), "go": np.array(True), "x": np.ones((2, 16), np.float32)}
    assert sqnr(Runner(model).run(feed)["y"], Runner(before).run(feed)["y"]) > 25


def test_what_stays_float_has_its_reason(graph: Fill) -> None:
    model = graph(
        f"""{HEAD} g (float[N,3,8,8] x, float[N,4,36] z) => (float[N,4,4] y, float[N,4,24] k)
        <float[4,3,3,3] w, float[36,24] v> {{
            c = Conv (x, w)  s = Shape (z)  f = Reshape (c, s)  t = Transpose <perm = [0, 2, 1]> (z)
            y = MatMul (f, t)  k = MatMul (f, v)
        }}"""
    )
    why = {n.where: n.what for n in dynamic(model, skip=("k",)).notes if n.kind == "declined"}
    assert "ConvInteger" in why["Conv (1 node)"]
    assert "at run time" in why["y"]
    assert "quantize-dynamic:skip=k" in why["k"]


def test_a_small_weight_stays_float(graph: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_dynamic, "SMALLEST", 16 * 24 + 1)
    result = dynamic(graph(PROJECT.replace("BIAS", "p, b")))
    assert not result.changed
    assert any("384 numbers" in n.what for n in result.notes)


def test_an_embedding_table_becomes_codes_unless_its_rows_are_picked_too_often(graph: Fill) -> None:
    text = f"{HEAD} g (int64[N,LENGTH] i) => (float[N,LENGTH,32] y) <float[64,32] table> {{ y = Gather (table, i) }}"
    assert dynamic(graph(text.replace("LENGTH", "8"))).stats["tables_in_integers"] == 1
    often = dynamic(graph(text.replace("LENGTH", "65")))
    assert not often.changed
    assert any("picks 65 of its 64 rows" in n.what for n in often.notes)


@pytest.mark.parametrize(("name", "dtype", "what"), [("half", "float16", "float16"), ("codes", "float", "already")])
def test_models_that_are_not_float32_are_left_with_one_line(graph: Fill, name: str, dtype: str, what: str) -> None:
    model = graph(PROJECT.replace("BIAS", "p, b").replace("float[", f"{dtype}["))
    if name == "codes":
        dynamic(model)
    result = dynamic(model)
    assert not result.changed
    (note,) = result.notes
    assert what in note.what


def test_an_old_operator_set_is_raised(graph: Fill) -> None:
    model = graph(PROJECT.replace("BIAS", "p, b").replace('"" : 17', '"" : 9'))
    before = model.copy()
    result = dynamic(model)
    assert model.opset == 13
    assert any("opset raised" in n.what for n in result.notes)
    agree(before, model, 35)


def test_the_same_model_gives_the_same_bytes(graph: Fill) -> None:
    one, other = (graph(LSTM.replace("D,", "1,").replace("DIRECTION", "")) for _ in range(2))
    dynamic(one)
    dynamic(other)
    assert one.to_proto().SerializeToString(deterministic=True) == other.to_proto().SerializeToString(
        deterministic=True
    )


@pytest.mark.real
def test_a_sentence_encoder_keeps_its_sentences_apart(shared: Path) -> None:
    model = load(shared / "models" / "minilm_l6_trim.onnx")
    samples = load_samples(str(shared / "data" / "minilm.npz"), model.inputs, rows="0:32")
    find("clean")().run(model, Context(TARGET, samples))
    before = model.copy()
    result = QuantizeDynamic().run(model, Context(TARGET, samples))
    assert (result.stats["products_in_integers"], result.stats["tables_in_integers"]) == (36, 2)
    feed = next(samples.batches(1))
    a, b = (next(iter(Runner(m).run(feed).values()))[0] for m in (before, model))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98
    assert model.nbytes() < 0.26 * before.nbytes()
