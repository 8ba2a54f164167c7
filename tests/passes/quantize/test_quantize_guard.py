"""The guard: no bad file is handed over, cheap accuracy is kept, and demands are met or refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import GateMissed
from zc.ir.model import Model
from zc.measure.agreement import Agreement
from zc.measure.gate import Verdict
from zc.passes.quantize.guard import collapsed
from zc.passes.quantize.mixed import worth
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context, PassResult
from zc.pipeline.options import printed
from zc.pipeline.spec import parse, step_text
from zc.testing import samples_of

PLAIN = replace(TARGET, costs=None)
"""Without a cost table a layer in float costs what its multiply-accumulates are."""

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,12,12] x) => (float[N,4,12,12] y)
    <float[16,4,3,3] w1, float[16,16,3,3] w2, float[4,16,1,1] w3> {
        a = Conv <pads=[1,1,1,1]> (x, w1)
        b = Relu (a)
        c = Conv <pads=[1,1,1,1]> (b, w2)
        d = Relu (c)
        y = Conv (d, w3)
    }"""


def rows(model: Model, count: int = 100) -> dict[str, Any]:
    shape = [d for d in model.inputs[0].shape or () if isinstance(d, int)]
    return {model.inputs[0].name: np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)}


def spoilt(model: Model, factor: float = 3000.0) -> Model:
    """The second layer has weights that leave no codes for the others, on a channel that says next to nothing."""
    for constant in model.constants():
        values = constant.values.copy()
        if constant.name == "w2":
            values[:, 0] *= factor
            constant.values = values
        if constant.name == "w1":
            values[0] *= 1e-3 / factor
            constant.values = values
    return model


@pytest.fixture
def run(graph: Callable[[str], Model]) -> Callable[..., tuple[Model, PassResult]]:
    def quantise(model: Model | str, target: Any = PLAIN, gate: Any = None, **options: Any) -> tuple[Model, PassResult]:
        model = graph(model) if isinstance(model, str) else model
        ctx = Context(target, samples_of(model, rows(model)), threads=1, gate=gate)
        plain = {"rounding": "nearest", "equalize": False}  # the guard has nothing to do where they help
        return model, Quantize(**plain | options).run(model, ctx)

    return quantise


def in_float(model: Model) -> list[str]:
    """Convolutions whose weight is no code."""
    return [n.name for n in model.nodes("Conv") if not n.inputs[1].inputs]


def said(result: PassResult) -> str:
    return "\n".join(f"{n.kind} {n.where}: {n.what}" for n in result.notes)


def test_a_layer_that_spoils_the_outputs_stays_float_and_the_user_is_told(graph, run):
    model, result = run(spoilt(graph(NET)))
    assert "c" in in_float(model)
    assert "a" not in in_float(model)
    assert "keeps" not in said(result)  # no choice among classes
    assert "it holds with" in said(result)
    assert result.stats["agreement"] > 0.99


def test_without_the_guard_all_is_in_integers(graph, run):
    model, result = run(spoilt(graph(NET)), guard=False)
    assert in_float(model) == []
    assert result.stats["agreement"] < 0.9
    assert "skip" not in step_text(result.chose)


def test_a_net_that_quantises_well_is_left_alone(run):
    model, result = run(NET, method="minmax")
    assert in_float(model) == []
    assert "guard" not in said(result)


def test_what_was_chosen_is_a_pass_that_does_the_same(graph, run):
    model, result = run(spoilt(graph(NET)))
    text = step_text(result.chose)
    assert "skip=c" in text
    (again,) = parse(text).passes
    assert again == result.chose
    other, repeated = run(spoilt(graph(NET)), **again.options())
    assert other.weights_digest() == model.weights_digest()
    assert repeated.chose is None


def test_layers_that_too_few_bits_would_spoil_get_eight(graph, run):
    def codes(model: Model) -> list[int]:
        return sorted(
            int(np.abs(c.values.astype(int)).max())
            for c in model.constants()
            if c.name[0] == "w" and c.name.endswith("_q")
        )

    model, result = run(NET, weight_bits=3)
    assert any("it holds with weights of 8 bits in 2 layers (" in n.what for n in result.notes if n.kind == "warning")
    assert codes(model) == [3, 127, 127]
    assert [text.split()[1:] for text in result.chose.overrides] == [["weight_bits=8"]] * 2
    again = graph(NET)
    result.chose.run(again, Context(PLAIN, samples_of(again, rows(again)), threads=1))
    assert again.weights_digest() == model.weights_digest()


def test_a_drop_that_is_allowed_is_held(graph, run):
    loose, result = run(NET, method="minmax", per_channel=False)
    share = float(result.stats["agreement"])
    tight, result = run(NET, method="minmax", per_channel=False, max_drop=(1 - share) * 0.7)
    assert in_float(loose) == []
    assert in_float(tight)
    assert float(result.stats["agreement"]) >= 1 - (1 - share) * 0.7
    assert "it holds with" in said(result)


def test_a_drop_that_cannot_be_held_is_an_error_with_the_worst_layers(graph):
    model = graph(NET)
    before = model.weights_digest()
    ctx = Context(PLAIN, samples_of(model, rows(model)), threads=1)
    with pytest.raises(GateMissed, match=r"those that cost most: \w+ \(\d+ dB\), .*zc sensitivity"):
        Quantize(max_drop=0.0).run(model, ctx)
    assert model.weights_digest() == before


def test_a_gate_decides_and_is_asked_seldom(graph, run):
    asked = []

    def gate(model: Model) -> Verdict:
        """Any model in which `c` is float will do."""
        asked.append(model)
        ok = any(n.op == "Conv" and n.name == "c" and not n.inputs[1].inputs for n in model.nodes())
        return Verdict(ok, f"top1 of {len(asked)}", 0.0)

    model, _ = run(spoilt(graph(NET)), gate=gate, guard=False)
    assert "c" in in_float(model)
    assert len(asked) < 10


def test_a_gate_that_the_float_model_misses_is_no_reason_to_search(run):
    asked = []

    def gate(model: Model) -> Verdict:
        asked.append(model)
        return Verdict(False, "top1 90 -> 10 %", 80)

    _, result = run(NET, gate=gate)
    assert len(asked) == 1
    assert "missed before anything is quantised (top1 90 -> 10 %)" in said(result)


def test_a_gate_that_no_choice_passes_is_an_error(graph):
    model = graph(NET)
    verdicts = iter([True, *[False] * 20])
    ctx = Context(PLAIN, samples_of(model, rows(model)), threads=1)
    ctx.gate = lambda model: Verdict(next(verdicts), "top1 90 -> 80 %", 10)
    with pytest.raises(GateMissed, match="top1 90 -> 80 %, and no choice"):
        Quantize().run(model, ctx)


def test_the_price_of_noise_is_that_of_the_cost_table(run):
    """With times by onnxruntime's table a last layer of a thousandth of the work is left in float for little."""
    model, result = run("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,32,24,24] x) => (float[N,10] y)
        <float[64,32,3,3] w1, float[64,64,3,3] w2, float[64,10] w3> {
            a = Conv <pads=[1,1,1,1]> (x, w1)
            b = Relu (a)
            c = Conv <pads=[1,1,1,1]> (b, w2)
            d = Relu (c)
            p = GlobalAveragePool (d)
            f = Flatten (p)
            y = MatMul (f, w3)
        }""", target=TARGET)  # fmt: skip
    assert in_float(model) == []
    assert "% of the float model's time" in said(result)
    assert any(n.op == "MatMul" and not n.inputs[1].inputs for n in model.nodes())


def test_noise_is_worth_a_tenth_of_the_time_if_there_is_much_of_it():
    assert (worth(1.0), worth(3e-3), worth(3e-4), worth(0)) == (0.1, 0.1, pytest.approx(0.01), 0)


@pytest.mark.parametrize(
    ("one", "bad"),
    [
        (Agreement(0.96, 15, noise=0.04), False),
        (Agreement(0.94, 10, noise=0.06), True),
        (Agreement(0.85, 20, noise=0.02, classes=True), True),
        (Agreement(0.85, 30, noise=0.005, classes=True), False),  # unsure of every row as it is
        (Agreement(0.99, 10, noise=0.06, classes=True), True),
    ],
)
def test_when_an_output_has_collapsed(one: Agreement, bad: bool):
    assert collapsed(one) == bad


def test_options_are_printed_only_where_they_differ():
    assert printed(Quantize()) == {}
    assert printed(Quantize(max_drop=0.01, guard=False)) == {"guard": "false", "max_drop": "0.01"}
