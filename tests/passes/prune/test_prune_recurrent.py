"""Hidden units of recurrent layers, heads of fused attention, Einsum as a product. The pass proves equivalence."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.errors import ZcError
from zc.measure.cost import count
from zc.passes.prune.plan import resources_of
from zc.passes.prune.prune import Prune, analyse
from zc.pipeline.base import Context
from zc.target import Target

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, directions: int, rest: str = "", inputs: str = "", weights: str = "") -> str:
    gates = GATES[op]
    outs = "h, last, cell" if op == "LSTM" else "h, last"
    direction = ', direction = "bidirectional"' if directions == 2 else ""
    return (
        HEAD
        + f"""g (float[6,N,4] x) => (float[6,N,3] y)
        <float[4,12] w0, float[{directions},{gates * 8},12] w, float[{directions},{gates * 8},8] r,
         float[{directions},{2 * gates * 8}] b, float[{directions * 8},12] fc1, float[12,3] fc2,
         int64[4] s = {{0, 2, 1, 3}}, int64[3] t = {{6, -1, {directions * 8}}} {weights}>
        {{
            i = MatMul (x, w0)
            {inputs}
            {outs} = {op} <hidden_size = 8{direction}{rest}> (i, w, r, b{", , h0" if inputs else ""})
            p = Transpose <perm = [0, 2, 1, 3]> (h)
            q = Reshape (p, t)
            f = MatMul (q, fc1)
            k = Relu (f)
            y = MatMul (k, fc2)
        }}"""
    )


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_hidden_units_leave(prune: Callable, op: str, directions: int) -> None:
    pruned = prune(recurrent(op, directions), ratio=0.5)
    gates = GATES[op]
    assert pruned.shape("w") == (directions, gates * 4, 6)
    assert pruned.shape("r") == (directions, gates * 4, 4)
    assert pruned.shape("b") == (directions, 2 * gates * 4)
    assert pruned.shape("fc1") == (directions * 4, 6)
    assert next(n for n in pruned.model.graph.nodes if n.op == op).attrs["hidden_size"] == 4


def test_a_gru_that_resets_before_its_product(prune: Callable) -> None:
    assert prune(recurrent("GRU", 1, ", linear_before_reset = 1"), ratio=0.25).shape("r") == (1, 18, 6)


def test_a_constant_first_state_shrinks_too(prune: Callable) -> None:
    text = recurrent(
        "LSTM", 1, inputs="h0 = Expand (state, batch)", weights=", float[1,1,8] state, int64[3] batch = {1, 4, 8}"
    )
    pruned = prune(text.replace("N,", "4,"), ratio=0.5)
    assert pruned.shape("state") == (1, 1, 4)
    assert pruned.shape("r") == (1, 16, 4)


def test_units_that_are_put_out_stay(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[6,N,4] x) => (float[6,1,N,8] h) <float[4,12] w0, float[1,32,12] w, float[1,32,8] r>
        {
            i = MatMul (x, w0)
            h = LSTM <hidden_size = 8> (i, w, r)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w"), pruned.shape("r")) == ((1, 32, 6), (1, 32, 8))
    assert "h: reaches 'h', an output of the model" in pruned.reasons()


FUSED = (
    HEAD
    + """g (float[N,5,12] x) => (float[N,5,3] y)
    <float[12,16] w0, float[16,48] wa, float[48] ba, float[16,10] w1, float[10,3] w2>
    {
        i = MatMul (x, w0)
        a = com.microsoft.Attention <num_heads = 4 SIZES> (i, wa, ba)
        b = MatMul (a, w1)
        c = Tanh (b)
        y = MatMul (c, w2)
    }"""
)


@pytest.mark.parametrize("sizes", ["", ", qkv_hidden_sizes = [16, 16, 16]"])
def test_heads_of_fused_attention_leave(prune: Callable, sizes: str) -> None:
    pruned = prune(FUSED.replace("SIZES", sizes), ratio=0.5)
    assert (pruned.shape("wa"), pruned.shape("ba"), pruned.shape("w1")) == ((8, 24), (24,), (8, 5))
    node = next(n for n in pruned.model.graph.nodes if n.op == "Attention")
    assert node.attrs["num_heads"] == 2
    assert not sizes or node.attrs["qkv_hidden_sizes"] == [8, 8, 8]


def test_heads_of_multi_head_attention_leave_with_their_projections(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,5,12] x) => (float[N,5,12] y)
        <float[12,16] wq, float[12,16] wk, float[12,16] wv, float[48] b, float[16,12] wo>
        {
            q = MatMul (x, wq)
            k = MatMul (x, wk)
            v = MatMul (x, wv)
            a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v, b)
            y = MatMul (a, wo)
        }""",
        ratio=0.5,
    )
    assert {pruned.shape(w) for w in ("wq", "wk", "wv")} == {(12, 8)}
    assert (pruned.shape("b"), pruned.shape("wo")) == ((24,), (8, 12))
    assert next(n for n in pruned.model.graph.nodes if n.op == "MultiHeadAttention").attrs["num_heads"] == 2


def test_einsum_as_a_layer(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,5,12] x) => (float[N,5,3] y) <float[12,16] w1, float[4,16] w2, float[4,3] w3>
        {
            a = Einsum <equation = "bth,ho->bto"> (x, w1)
            r = Relu (a)
            c = Einsum <equation = "bth, oh -> bto"> (r, w2)
            y = MatMul (c, w3)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1"), pruned.shape("w2"), pruned.shape("w3")) == ((12, 8), (2, 8), (2, 3))


def test_einsum_as_attention(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[2,5,12] x) => (float[2,5,12] y)
        <float[12,4,6] wq, float[12,4,6] wk, float[12,4,6] wv, float[4,6,12] wo>
        {
            q = Einsum <equation = "btc,chd->bthd"> (x, wq)
            k = Einsum <equation = "btc,chd->bthd"> (x, wk)
            v = Einsum <equation = "btc,chd->bthd"> (x, wv)
            s = Einsum <equation = "bqhd,bkhd->bhqk"> (q, k)
            p = Softmax (s)
            o = Einsum <equation = "bhqk,bkhd->bqhd"> (p, v)
            y = Einsum <equation = "bqhd,hdc->bqc"> (o, wo)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("wq")[1] == pruned.shape("wk")[1] == pruned.shape("wv")[1] == pruned.shape("wo")[0] == 2


@pytest.mark.parametrize("equation", ["bii,io->bo", "bti,io->bo", "...i,io->...o"])
def test_other_einsums_are_left_with_the_reason(prune: Callable, equation: str) -> None:
    square = "bii" in equation
    shape = "N,6,6" if square else "N,5,6"
    out = "N,5,4" if equation.startswith(".") else "N,4"
    try:
        pruned = prune(
            HEAD
            + f"""g (float[{shape}] x) => (float[{out}] y) <float[6,6] w0, float[6,4] w1>
            {{
                a = MatMul (x, w0)
                y = Einsum <equation = "{equation}"> (a, w1)
            }}""",
            ratio=0.5,
        )
    except ZcError as err:  # onnxruntime itself refuses some forms
        pytest.skip(str(err))
    assert pruned.shape("w0") == (6, 6)
    assert "no product of two matrices" in pruned.reasons()


@pytest.mark.parametrize("op", GATES)
def test_the_forecast_of_macs_knows_the_recurrence(graph: Callable, op: str) -> None:
    model = graph(recurrent(op, 1).replace("N,", "2,"))
    groups = analyse(model.copy())
    cost = count(model)
    forecast = resources_of(groups, cost)["macs"].left(np.full(len(groups.groups), 0.5))
    Prune(ratio=0.5).run(model, Context(Target("test")))
    assert forecast == pytest.approx(count(model).macs)


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_a_bias_inside_a_fused_gelu_leaves_with_its_units(prune: Callable, op: str) -> None:
    pruned = prune(
        HEAD
        + f"""g (float[N,5,12] x) => (float[N,5,3] y) <float[12,16] up, float[16] b, float[16,3] down>
        {{
            a = MatMul (x, up)
            c = com.microsoft.{op} (a, b)
            y = MatMul (c, down)
        }}""",
        ratio=0.5,
    )
    assert (pruned.shape("up"), pruned.shape("b"), pruned.shape("down")) == ((12, 8), (8,), (8, 3))
