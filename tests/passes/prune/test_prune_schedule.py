"""Pruning in rounds with training in between."""

from itertools import pairwise

import pytest

from zc.errors import ZcError
from zc.passes.prune.schedule import kept
from zc.pipeline.spec import effective, parse


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune:macs=0.5:steps=2", "steps=2 needs a pass that trains behind it"),
        ("prune:macs=0.5:steps=2,quantize", "steps=2 needs a pass that trains behind it"),
        ("prune:steps=2,distill", "steps=2 needs a goal to divide: ratio, "),
        ("prune:macs=0.5:steps=0,distill", "steps is 0; it must be at least 1"),
    ],
)
def test_what_is_no_schedule_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ZcError) as caught:
        effective(parse(text))
    assert message in str(caught.value)
