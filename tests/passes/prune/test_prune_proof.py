"""The proof at run time finds what the analysis gets wrong, and a failed run leaves the model as it was."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.errors import CheckFailed
from zc.ir.graph import Node
from zc.passes.prune import apply
from zc.passes.prune.flow import Flow
from zc.passes.prune.prune import Prune
from zc.passes.prune.rules import RULES, elementwise
from zc.pipeline.base import Context
from zc.target import Target

NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,6] x) => (float[N,4] y) <float[6,8] w1, float[8,8] w2, float[8,4] w3>
{
    a = MatMul (x, w1)
    b = MatMul (a, w2)
    s = Softmax (b)
    y = MatMul (s, w3)
}"""


def test_a_wrong_rule_is_found_and_the_model_stays(graph: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph(NET)
    before = model.weights_digest()
    monkeypatch.setitem(RULES, "Softmax", elementwise.unary)  # as if Softmax did not sum over its axis
    with pytest.raises(CheckFailed, match=r"output 'y' of the pruned model differs by .* a defect of the analysis"):
        Prune(ratio=0.5).run(model, Context(target=Target("test")))
    assert model.weights_digest() == before


def test_a_wrong_cut_is_found(graph: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    right = apply.cut
    monkeypatch.setattr(apply, "cut", lambda *args: right(*args)[..., ::-1])
    with pytest.raises(CheckFailed, match="differs by"):
        Prune(ratio=0.5).run(graph(NET), Context(target=Target("test")))


def test_rounding_of_ill_conditioned_nets_is_no_defect(graph: Callable) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,6] x) => (float[N,4] y) <float[6,64] w1, float[64,4] w2, float big = {3.0e4}>
        {
            a = MatMul (x, w1)
            b = MatMul (a, w2)
            c = Mul (b, big)
            y = Sin (c)
        }""")
    result = Prune(ratio=0.5).run(model, Context(target=Target("test")))
    assert result.changed


def test_infinite_values_in_removed_channels_do_not_spoil_the_proof(graph: Callable, prune_model: Callable) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,6] x) => (float[N,4] y) <float[6,8] w1, float[8,4] w2, float[8] b = {0, 0, 0, 0, 0, 0, 0, -1}>
        {
            a = MatMul (x, w1)
            q = Add (a, b)
            e = Abs (q)
            l = Exp (e)
            y = MatMul (l, w2)
        }""")
    weight = next(c for c in model.constants() if c.name == "w1")
    scaled = np.array(weight.values)
    scaled[:, 7] = 0
    weight.values = scaled
    bias = next(c for c in model.constants() if c.name == "b")
    bias.values = np.where(np.arange(8) == 7, np.float32(1e4), np.float32(0)).astype(np.float32)
    assert prune_model(model, ratio=0.2).shape("w1") == (6, 7)


def test_a_rule_that_raises_stops_what_reaches_it(graph: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from zc.errors import ZcError

    def broken(node: Node, flow: Flow) -> None:
        raise ZcError("cannot be read")

    monkeypatch.setitem(RULES, "Softmax", broken)
    result = Prune(ratio=0.5).run(graph(NET), Context(target=Target("test")))
    assert any(note.what == "cannot be read" for note in result.notes)


def test_a_saturated_softmax_does_not_hide_a_defect(graph: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,6] x) => (float[N,4] y) <float[6,8] w1, float[8,4] w2, float[4] bias = {1.0e6, 0, 0, 0}>
        {
            a = MatMul (x, w1)
            b = MatMul (a, w2)
            c = Add (b, bias)
            d = Sub (c, bias)
            e = Add (d, bias)
            y = Softmax (e)
        }""")
    right = apply.cut
    monkeypatch.setattr(apply, "cut", lambda values, *rest: 1e3 * right(values, *rest))
    with pytest.raises(CheckFailed, match="value 'e'"):
        Prune(ratio=0.5).run(model, Context(target=Target("test")))


def test_codes_of_quantised_activations_may_flip(graph: Callable, prune_model: Callable) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,16] x) => (float[N,16] y) <float[16,64] w1, float[64,16] w2, float s = {0.3}, uint8 z = {128}>
        {
            a = MatMul (x, w1)
            aq = QuantizeLinear (a, s, z)
            ad = DequantizeLinear (aq, s, z)
            b = MatMul (ad, w2)
            bq = QuantizeLinear (b, s, z)
            y = DequantizeLinear (bq, s, z)
        }""")
    assert prune_model(model, ratio=0.5).shape("w2") == (32, 16)


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,6] x, bool way) => (float[N,4] y) <float[6,8] a1, float[8,4] a2, float[6,8] b1, float[8,4] b2> {
    y = If (way) <
        then_branch = left () => (float[N,4] l) { p = MatMul (x, a1) l = MatMul (p, a2) },
        else_branch = right () => (float[N,4] r) { q = MatMul (x, b1) r = MatMul (q, b2) }
    >
}"""


@pytest.mark.parametrize("spoiled", ["a1", "b1"])
def test_a_wrong_cut_in_a_branch_that_no_row_takes_is_found(
    graph: Callable, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    model = graph(BRANCHES)
    values = next(c for c in model.constants() if c.name == spoiled).values
    right = apply.cut
    monkeypatch.setattr(apply, "cut", lambda v, *rest: right(v, *rest)[..., ::-1] if v is values else right(v, *rest))
    with pytest.raises(CheckFailed, match="output 'y' of the pruned model differs"):
        Prune(ratio=0.5).run(model, Context(target=Target("test")))


def test_a_wrong_cut_in_a_part_that_is_computed_and_not_chosen_is_found(
    graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,6] x) => (float[N,4] y)
        <float[6,8] a1, float[8,4] a2, float[6,8] b1, float[8,4] b2, float limit = {1000.0}> {
            p = MatMul (x, a1)
            l = MatMul (p, a2)
            q = MatMul (x, b1)
            r = MatMul (q, b2)
            big = ReduceMax <keepdims = 0> (x)
            way = Greater (big, limit)
            y = Where (way, l, r)
        }""")
    values = next(c for c in model.constants() if c.name == "a1").values
    right = apply.cut
    monkeypatch.setattr(apply, "cut", lambda v, *rest: right(v, *rest)[..., ::-1] if v is values else right(v, *rest))
    with pytest.raises(CheckFailed, match="value 'l' of the pruned model differs"):
        Prune(ratio=0.5).run(model, Context(target=Target("test")))
