"""quantize-weights: weights stored as codes, arithmetic in float."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, load
from zc.passes.quantize.quantize_weights import QuantizeWeights
from zc.passes.quantize.textbook import dequantise, quantise
from zc.passes.quantize.weight_rows import Layout, code_rows
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import find

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = (
    HEAD
    + """(float[N,8,10,10] x) => (float[N,6] z)
    <float[24,8,3,3] w1, float[24] b1, float[24,1,3,3] w2, float[20,24,1,1] w3, float[20,12,2,2] w4, float[12,40] w5,
     float[40] b5, float[6,40] w6, float[6] b6> {
        c1 = Conv (x, w1, b1)
        r1 = Relu (c1)
        c2 = Conv <group = 24, pads = [1, 1, 1, 1]> (r1, w2)
        c3 = Conv (c2, w3)
        c4 = ConvTranspose <strides = [2, 2]> (c3, w4)
        p = GlobalAveragePool (c4)
        f = Flatten (p)
        m5 = MatMul (f, w5)
        a5 = Add (m5, b5)
        r5 = Relu (a5)
        z = Gemm <transB = 1> (r5, w6, b6)
    }"""
)
WORDS = (
    HEAD
    + """(int64[S,2] i) => (float[S,1,2,16] y, float[S,2,48] q)
    <float[50,32] table, float[1,64,32] w, float[1,64,16] r, float[48,32] left, float[32,2] v> {
        e = Gather (table, i)
        y = LSTM <hidden_size = 16> (e, w, r)
        t = Transpose <perm = [0, 2, 1]> (e)
        k = MatMul (left, t)
        q = Transpose <perm = [0, 2, 1]> (k)
    }"""
).replace(", float[32,2] v", "")


class Stored:
    def __init__(self, model: Model, before: Model, result: PassResult, arrays: dict) -> None:
        self.model, self.before, self.result, self.arrays = model, before, result, arrays

    def error(self) -> float:
        """Largest error of any output, over the largest number of the float model's."""
        got, want = Runner(self.model).run(self.arrays), Runner(self.before).run(self.arrays)
        return max(float(np.abs(got[k] - want[k]).max() / np.abs(want[k]).max()) for k in want)

    def sqnr(self, name: str) -> float:
        got, want = (Runner(m).run(self.arrays)[name] for m in (self.model, self.before))
        return float(10 * np.log10(np.square(want).sum() / np.square(got - want).sum()))

    def ops(self) -> list[str]:
        return [n.op for n in self.model.graph.nodes]

    def notes(self, kind: str) -> str:
        return "\n".join(f"{n.where}: {n.what}" for n in self.result.notes if n.kind == kind)


@pytest.fixture
def store(graph, samples_for, smooth) -> Callable[..., Stored]:
    def make(
        text: str = NET, *, samples: bool = False, target=TARGET, arrays=None, rows: int = 96, **options
    ) -> Stored:
        model = graph(text)
        before = model.copy()
        arrays = smooth(model, rows) if arrays is None else arrays
        ctx = Context(target, samples_for(model, arrays) if samples else None)
        result = QuantizeWeights(**{"min_size": 1, **options}).run(model, ctx)
        onnx.checker.check_model(model.to_proto(), full_check="MatMulNBits" not in {n.op for n in model.nodes()})
        return Stored(model, before, result, arrays)

    return make


FORMS = ["multiply", "dequantize", "auto", "nbits"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bits", "block", "symmetric"), [(8, 0, True), (8, 16, False), (4, 0, True), (4, 32, False)])
def test_every_form_says_the_same(store, form, bits, block, symmetric) -> None:
    options = {"bits": bits, "block": block, "symmetric": symmetric, "min_size": 100}
    got, plain = store(form=form, **options), store(form="multiply", **options)
    assert got.result.stats["weights_stored"] == 6
    assert got.error() < {8: 0.03, 4: 0.6}[bits]
    if "nbits" not in form:  # that one rounds activations too
        a, b = (Runner(s.model).run(s.arrays)["z"] for s in (got, plain))
        np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bits", "block"), [(8, 0), (4, 16)])
def test_tables_and_recurrent_weights(store, form, bits, block) -> None:
    arrays = {"i": np.random.default_rng(0).integers(0, 50, (7, 2))}
    got = store(WORDS, arrays=arrays, form=form, bits=bits, block=block)
    assert got.result.stats["weights_stored"] == 4
    assert got.error() < {8: 0.02, 4: 0.3}[bits]


@pytest.mark.parametrize(("bits", "block", "share"), [(8, 0, 0.27), (4, 0, 0.15), (4, 64, 0.17)])
@pytest.mark.parametrize("form", FORMS)
def test_the_file_shrinks_as_promised(store, tmp_path, form, bits, block, share) -> None:
    text = HEAD + "(float[N,256] x) => (float[N,512] y) <float[256,512] w> { y = MatMul (x, w) }"
    stored = store(text, form=form, bits=bits, block=block)
    stored.model.save(tmp_path / "small.onnx")
    stored.before.save(tmp_path / "float.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < share * (tmp_path / "float.onnx").stat().st_size
    got = Runner(load(tmp_path / "small.onnx")).run(stored.arrays)["y"]
    np.testing.assert_array_equal(got, Runner(stored.model).run(stored.arrays)["y"])


def test_what_is_computed_at_loading_costs_nothing_at_run_time(store, tmp_path) -> None:
    stored = store(form="multiply", bits=4, block=16, min_size=100)
    Runner(stored.model, save_optimized=tmp_path / "runs.onnx")
    ops = {n.op_type for n in onnx.load(tmp_path / "runs.onnx").graph.node}
    assert not ops & {"Cast", "Mul", "Sub", "Slice", "Reshape", "DequantizeLinear"}


def test_auto_takes_packed_kernels_for_few_rows_only(store) -> None:
    text = """(float[{rows},64] x) => (float[{rows},32] y) <float[64,32] w> {{ y = MatMul (x, w) }}"""
    assert store(HEAD + text.format(rows="4")).ops() == ["MatMulNBits"]
    assert store(HEAD + text.format(rows="N")).ops() == ["MatMulNBits"]  # a batch: one row
    assert store(HEAD + text.format(rows="64")).ops() == ["Cast", "Mul", "MatMul"]


def test_a_target_that_folds_gets_dequantize_linear(store) -> None:
    target = replace(TARGET, folds_dequantize=True, nbits=frozenset())
    stored = store(target=target, min_size=100)
    assert set(stored.ops()) & {"Cast", "MatMulNBits", "DequantizeLinear"} == {"DequantizeLinear"}
    assert "turn into floats once, when the file is loaded" in stored.notes("info")
    with pytest.raises(ZcError, match="has no MatMulNBits of 8 bits; leave form=auto"):
        store(target=target, form="nbits")


def test_dequantize_linear_warns_where_it_runs_every_time(store) -> None:
    what = store(form="dequantize", min_size=100).notes("warning")
    assert "turns 6 weights into floats at every run, which is slower than float; form=multiply does so once" in what


def test_samples_choose_codes_and_biases(store) -> None:
    plain, best = (store(samples=on, bits=4, form="multiply", min_size=100) for on in (False, True))
    assert best.sqnr("z") > plain.sqnr("z") + 3
    assert best.result.stats["weights_rounded"] == 6
    assert best.result.stats["biases_corrected"] == 6
    assert "weights_rounded" not in plain.result.stats


@pytest.mark.parametrize("form", FORMS)
def test_chosen_codes_survive_the_change_of_form(store, form) -> None:
    options = {"bits": 4, "block": 16, "samples": True, "min_size": 100}
    assert abs(store(form=form, **options).sqnr("z") - store(form="multiply", **options).sqnr("z")) < 3


def test_round_again_finds_the_stored_weights(store, samples_for) -> None:
    for form in ("multiply", "dequantize"):
        stored = store(bits=4, form=form, block=16, min_size=100)
        before = stored.sqnr("z")
        ctx = Context(TARGET, samples_for(stored.before, stored.arrays), float_model=stored.before)
        result = find("round")().run(stored.model, ctx)
        assert result.stats["weights_rounded"] == 6
        assert stored.sqnr("z") > before + 2


def test_clean_does_not_undo_it(store) -> None:
    for form in ("multiply", "dequantize"):
        stored = store(bits=4, form=form, block=16, min_size=100)
        size = stored.model.nbytes()
        find("clean")().run(stored.model, Context(TARGET))
        assert stored.model.nbytes() <= size


def test_what_stays_float_and_why(store) -> None:
    text = """(float[N,8,8] x) => (float[N,8,8] y, float[N,8,8] z) <float[8,8] w, float[8,8] v, float[8,8] u> {
        a = MatMul (x, w)
        b = Add (a, w)
        y = MatMul (b, v)
        c = MatMul (y, u)
        z = Relu (c)
    }"""
    stored = store(HEAD + text, skip=("c",))
    assert stored.result.stats["weights_stored"] == 1
    assert "weight 'w' stays float: Add 'b' reads it in another way" in stored.notes("declined")
    assert "weight 'u' stays float: quantize-weights:skip=c" in stored.notes("declined")


def test_a_weight_that_two_layers_share_is_stored_once(store) -> None:
    text = "(float[N,8,8] x) => (float[N,8,8] y) <float[8,8] w> { a = MatMul (x, w) r = Relu (a) y = MatMul (r, w) }"
    for form in FORMS:
        stored = store(HEAD + text, form=form)
        assert stored.result.stats["weights_stored"] == 1
        assert stored.error() < 0.05
        assert len([c for c in stored.model.constants() if c.name.startswith("w_q")]) == 1


def test_small_models_are_left_alone(store) -> None:
    stored = store(min_size=100_000)
    assert not stored.result.changed
    assert "no weight of 100000 elements or more" in stored.notes("warning")
    assert stored.model.opset == 17


def test_weights_in_branches(graph, store) -> None:
    text = (
        HEAD
        + """(float[N,16] x, bool c) => (float[N,16] y) <float[16,16] w, float[16,16] v> {
        y = If (c) <
            then_branch = t () => (float[N,16] p) { p = MatMul (x, w) },
            else_branch = e () => (float[N,16] n) { n = MatMul (x, v) }
        >
    }"""
    )
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    for form in ("multiply", "dequantize", "nbits"):
        model = graph(text)
        before = model.copy()
        result = QuantizeWeights(min_size=1, form=form).run(model, Context(TARGET))
        assert result.stats["weights_stored"] == 2
        for c in (True, False):
            feed = {"x": x, "c": np.array(c)}
            got, want = (Runner(m).run(feed)["y"] for m in (model, before))
            assert np.abs(got - want).max() < 0.03 * np.abs(want).max()


@pytest.mark.parametrize("block", [8, 48, 512])
def test_other_blocks_are_refused(block) -> None:
    with pytest.raises(ZcError, match=f"block is {block}; give one of 0, 16, 32, 64, 128, 256"):
        QuantizeWeights(block=block)


# ---- rows

SHAPES = st.sampled_from([Layout((6, 4, 3), 0), Layout((10, 7), 1), Layout((4, 5, 2, 2), 1), Layout((2, 3, 9), 0, 2)])


@given(SHAPES, st.integers(0, 50))
def test_rows_are_put_back_where_they_were(layout, seed) -> None:
    values = np.random.default_rng(seed).standard_normal(layout.shape)
    rows = layout.to_rows(values)
    assert rows.shape == (layout.rows, layout.inputs)
    np.testing.assert_array_equal(layout.from_rows(rows), values)
    beside = layout.beside(np.arange(layout.rows)[:, None])
    np.testing.assert_array_equal(layout.to_rows(np.broadcast_to(beside, layout.shape))[:, 0], np.arange(layout.rows))


@given(st.integers(1, 5), st.integers(1, 70), st.sampled_from([0, 16, 32]), st.booleans(), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_codes_of_rows_are_those_of_the_textbook(count, inputs, block, symmetric, seed) -> None:
    rows = np.random.default_rng(seed).standard_normal((count, inputs)).astype(np.float32)
    coded = code_rows(rows, 8, block, symmetric)
    size = min(block, inputs) or inputs
    for start in range(0, inputs, size):
        part = rows[:, start : start + size]
        # An incomplete block is filled up with zeros, which every range holds.
        back = dequantise(quantise(part, 8, symmetric=symmetric, axis=0))
        np.testing.assert_allclose(coded.values()[:, start : start + size], back, atol=1e-2 * np.abs(part).max())


@given(st.integers(1, 4), st.integers(1, 40), st.booleans(), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_clipping_never_costs_more_than_the_whole_range(count, inputs, symmetric, seed) -> None:
    rows = np.random.default_rng(seed).standard_t(3, (count, inputs))
    coded = code_rows(rows, 4, 16, symmetric)
    size = min(16, inputs)
    for start in range(0, inputs, size):
        part = rows[:, start : start + size]
        plain = np.square(dequantise(quantise(part, 4, symmetric=symmetric, axis=0)) - part).sum()
        assert np.square(coded.values()[:, start : start + size] - part).sum() <= plain * (1 + 1e-5) + 1e-12
