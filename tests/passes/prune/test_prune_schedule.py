"""Pruning in rounds with training in between."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.prune.prune import Prune
from zc.passes.prune.schedule import alternate, kept, prune_and_train
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.spec import effective, parse
from zc.target import Target

MLP = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8] x) => (float[N,3] y) <float[64,8] w1, float[64] b1, float[3,64] w2, float[3] b2> {
  h = Gemm<transB=1>(x, w1, b1)
  a = Relu(h)
  y = Gemm<transB=1>(a, w2, b2)
}"""


def test_a_schedule_is_written_out_and_shares_the_budget() -> None:
    steps = effective(parse("prune:macs=0.5:steps=2:skip=stem,distill:steps=100:checkpoint=a.pt,quantize"))
    assert [one.name for one in steps.passes if one.name != "clean"] == [
        "prune",
        "distill",
        "prune",
        "distill",
        "quantize",
    ]
    first, second = (one.options() for one in steps.passes if one.name == "prune")
    assert first["macs"] == 0.5625  # 1 - 0.5 * (1 - 0.5^3)
    assert first["macs"] * second["macs"] == pytest.approx(0.5, rel=1e-5)
    assert (first["steps"], first["skip"]) == (1, ("stem",))
    trained = [one.options() for one in steps.passes if one.name == "distill"]
    assert [(t["share"], t["checkpoint"]) for t in trained] == [(0.5, "a.pt.1"), (0.5, "a.pt.2")]
    assert str(effective(parse(str(steps)))) == str(steps)


def test_ratios_multiply_to_the_whole() -> None:
    steps = effective(parse("prune:ratio=0.6:steps=3,finetune"))
    left = 1.0
    for one in steps.passes:
        if one.name == "prune":
            left *= 1 - one.options()["ratio"]
    assert left == pytest.approx(0.4, rel=1e-4)


def test_early_rounds_cut_more() -> None:
    left = [1.0, *kept(0.4, 4)]
    cuts = [a - b for a, b in pairwise(left)]
    assert cuts == sorted(cuts, reverse=True)
    assert left[-1] == pytest.approx(0.4)


def test_linear_rounds_cut_alike() -> None:
    assert kept(0.4, 3, "linear") == pytest.approx([0.8, 0.6, 0.4])
    steps = effective(parse("prune:params=0.4:steps=3:schedule=linear,distill"))
    goals = [one.options()["params"] for one in steps.passes if one.name == "prune"]
    assert goals == pytest.approx([0.8, 0.75, 0.6667], rel=1e-4)


@dataclass(frozen=True)
class Own(Pass):
    """A pass of somebody else that trains."""

    name: ClassVar[str] = "own"
    share: float = 1.0

    def run(self, model: Model, ctx: Context) -> PassResult:
        return PassResult(changed=False)


def test_any_pass_with_a_share_trains_between_the_rounds() -> None:
    passes = alternate(Prune(macs=0.5, steps=4), Own())
    assert [(one.name, one.options().get("share")) for one in passes] == [("prune", None), ("own", 0.25)] * 4


def test_a_function_trains_between_the_rounds(graph: Callable[[str], Model]) -> None:
    model, seen = graph(MLP), []

    def train(now: Model, number: int) -> None:
        weight = next(c for c in now.constants() if c.name == "w2")
        seen.append((number, weight.shape[1]))
        weight.values = weight.values + np.float32(1)

    prune_and_train(model, Prune(ratio=0.5, steps=2, schedule="linear", round_to=1), train, Context(Target("test")))
    assert seen == [(1, 48), (2, 32)]
    weight = next(c for c in model.constants() if c.name == "w2")
    assert weight.shape == (3, 32)
    assert weight.values.min() > 1  # it was added twice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune:macs=0.5:steps=2", "steps=2 needs a pass that trains behind it"),
        ("prune:macs=0.5:steps=2,quantize", "steps=2 needs a pass that trains behind it"),
        ("prune:steps=2,distill", "steps=2 needs a goal to divide: ratio, "),
        ("prune:macs=0.5:steps=0,distill", "steps is 0; it must be at least 1"),
        ("prune:macs=0.5:schedule=linear", "schedule=linear divides a goal among rounds; say how many with steps"),
    ],
)
def test_what_is_no_schedule_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ZcError) as caught:
        effective(parse(text))
    assert message in str(caught.value)
