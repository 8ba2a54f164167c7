"""What stays float because it is faster so: the cheapest choice, against every other, and what the user hears."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.quantize.conftest import fill
from zc.backends.onnxruntime import TARGET
from zc.ir.shapes import infer_shapes, static_shape
from zc.passes.quantize.ledger import Ledger
from zc.passes.quantize.placement import place
from zc.target import Step

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
BLOCKED, PLAIN, CODES, LAST = range(4)


@dataclass(frozen=True)
class Prices:
    """A made-up cost table: microseconds by operator or name of the first output, in float and in integers."""

    own: dict[str, tuple[float, float]] = field(default_factory=dict)
    turn: float = 0.0
    """Of one change of form, for a value of any size."""
    codes: int = CODES

    def step(self, node, integer, given, shapes):
        us = self.own.get(node.outputs[0].name, self.own.get(node.op, (0.0, 0.0)))
        conv = node.op == "Conv"
        form = (LAST if conv else CODES) if integer else (BLOCKED if conv else PLAIN)
        return Step(form, form, us[integer]) if node.outputs[0].name in shapes else None

    def convert(self, low, rising, shape):
        return self.turn


def target(**prices):
    return replace(TARGET, costs=Prices(**prices), integer_runtime_ops=frozenset())


CHAIN = (
    HEAD
    + """(float[N,4,8,8] x) => (float[N,4,8,8] d)
    <float[4,4,1,1] w, float[4,4,1,1] v, float[4,4,1,1] u, float[4,4,1,1] t> {
    a = Conv (x, w)
    r = Relu (a)
    b = Conv (r, v)
    c = Conv (b, u)
    d = Conv (c, t)
}"""
)


def test_a_layer_that_takes_longer_in_integers_stays_float(quantize_model, graph):
    q = quantize_model(graph(CHAIN), target=target(own={"Conv": (300.0, 100.0), "a": (100.0, 300.0)}, turn=1.0))
    assert q.node("a").inputs[1].dtype == np.float32
    assert not q.node("a").inputs[1].inputs
    assert q.node("a").inputs[0].name == "x"
    assert q.result.stats["weighted_in_integers"] == 3
    assert "a: float is faster here: 103 us against 302 us by the table of ort-cpu" in q.reasons()
    told = next(n.what for n in q.result.notes if n.where == "float_if_faster")
    assert told.startswith("1 layer in float for speed, 48 B more; predicted time 406 us")


def test_it_does_not_when_its_borders_cost_more(quantize_model, graph):
    own = {"Conv": (300.0, 100.0), "b": (100.0, 300.0)}
    cheap, dear = (quantize_model(graph(CHAIN), target=target(own=own, turn=turn)) for turn in (10.0, 60.0))
    assert cheap.result.stats["weighted_in_integers"] == 3
    assert dear.result.stats["weighted_in_integers"] == 4


@pytest.mark.parametrize("own", [(100.0, 104.0), (5.0, 24.0)])
def test_what_saves_little_stays_in_integers(quantize_model, graph, own):
    q = quantize_model(graph(CHAIN), target=target(own={"Conv": (3000.0, 1000.0), "a": own}))
    assert q.result.stats["weighted_in_integers"] == 4


def test_the_user_may_want_integers_all_the_same(quantize_model, graph):
    prices = target(own={"Conv": (100.0, 300.0)})
    assert quantize_model(graph(CHAIN), target=prices, float_if_faster=False).result.stats["weighted_in_integers"] == 4


def test_where_integers_pay_nowhere_the_model_stays_and_says_so(quantize_model, graph):
    q = quantize_model(graph(CHAIN), target=target(own={"Conv": (100.0, 300.0)}, turn=1.0))
    assert q.ops() == ["Conv", "Relu", "Conv", "Conv", "Conv"]
    assert "integers pay nowhere" in q.reasons()
    assert "float_if_faster=false" in q.reasons()


def test_sizes_that_are_open_are_those_of_the_samples(quantize_model, graph):
    model = graph(CHAIN.replace("[N,4,8,8]", "[N,4,H,W]"))
    q = quantize_model(model, target=target(own={"Conv": (300.0, 100.0), "a": (100.0, 300.0)}))
    assert q.result.stats["weighted_in_integers"] == 3


BODIES = [
    "a = Conv (x, w) b = Conv (a, v) c = Conv (b, u) d = Conv (c, t)",
    "a = Conv (x, w) r = Relu (a) b = Conv (r, v) e = Add (r, b) d = Conv (e, t)",
    "a = Conv (x, w) b = Conv (x, v) m = Mul (a, b) f = Transpose <perm = [0, 1, 3, 2]> (m) d = Conv (f, t)",
    "a = Conv (x, w) s = Softmax (a) b = Conv (s, v) e = Add (b, a) c = Conv (b, u) q = Add (e, c) d = Conv (q, t)",
    "a = Conv (x, w) p = MaxPool <kernel_shape = [1, 1]> (a) g = Sigmoid (p) m = Mul (p, g) d = Conv (m, t)",
]
NET = (
    HEAD
    + """(float[1,4,8,8] x) => (float[1,4,8,8] d)
    <float[4,4,1,1] w, float[4,4,1,1] v, float[4,4,1,1] u, float[4,4,1,1] t> {{ {body} }}"""
)


def ledger(text, prices):
    model = fill(text)
    infer_shapes(model)
    tensors = [*model.graph.inputs, *(t for n in model.graph.nodes for t in n.outputs)]
    shapes = {t.name: static_shape(t) for t in tensors}
    return Ledger(place(model.graph, prices, lambda node: None), prices, shapes)


def allowed(book, floats):
    """Could a placement be so? Only weighted operators have floats rounded for them; others serve somebody."""
    for value in book.values:
        as_float = value.maker is None or value.maker in floats
        integer = [u for u, _ in value.readers if u is not None and u not in floats]
        if as_float and any(not u.weighted for u in integer):
            return False
        if not as_float and value.maker.wanted and len(value.readers) == 1 and not integer:
            return False
    return True


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BODIES), st.integers(0, 10**6), st.integers(0, 30))
def test_no_other_choice_costs_less(body, seed, turn):
    rng = np.random.default_rng(seed)
    own = {name: tuple(rng.integers(0, 60, 2).astype(float)) for name in "abcdefgmpqr"}
    book = ledger(NET.format(body=body), target(own=own, turn=float(turn)))
    found = book.total(book.cheapest((), preference=0.0))
    choices = itertools.product((False, True), repeat=len(book.units))
    every = [{u for u, one in zip(book.units, some, strict=True) if one} for some in choices]
    assert found == pytest.approx(min(book.total(floats) for floats in every if allowed(book, floats)))


def test_a_value_that_many_read_is_turned_once():
    book = ledger(
        NET.format(body="a = Conv (x, w) b = Conv (a, v) c = Conv (a, u) e = Add (b, c) d = Conv (e, t)"),
        target(own={"Add": (7.0, 7.0)}, turn=1.0),
    )
    first = next(u for u in book.units if u.node.name == "a")
    # x is turned once for a, a three times for b and c together; b, c and e once each around the sum; d twice.
    assert book.total([first]) == 7 + 1 + 3 + 3 + 2
    assert book.near([first], [first]) == 1 + 3


def test_a_net_of_four_times_the_layers_takes_about_four_times_the_work(growth):
    def make(count: int) -> Ledger:
        lines = " ".join(f"y{i} = Conv (z{i}, w) z{i + 1} = Relu (y{i})" for i in range(count))
        rng = np.random.default_rng(0)
        own = {f"y{i}": tuple(rng.integers(0, 60, 2).astype(float)) for i in range(count)}
        text = NET.format(body=f"z0 = Relu (x) {lines} d = Conv (z{count}, t)")
        return ledger(text, target(own=own, turn=2.0))

    def decide(book: Ledger) -> None:
        assert 0 < len(book.cheapest((), preference=0.1)) < len(book.units)

    assert growth(make, decide, 250) < 6


def test_a_large_weight_stays_small_for_a_little_time(quantize_model, graph):
    body = CHAIN.replace("float[4,4,1,1] t>", "float[400,4,1,1] t>")
    model = graph(body.replace("(float[N,4,8,8] d)", "(float[N,400,8,8] d)"))
    little, much = ({"Conv": (300.0, 100.0), "d": (100.0, us)} for us in (125.0, 900.0))
    assert quantize_model(model.copy(), target=target(own=little)).result.stats["weighted_in_integers"] == 4
    assert quantize_model(model.copy(), target=target(own=much)).result.stats["weighted_in_integers"] == 3
