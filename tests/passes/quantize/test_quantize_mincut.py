"""Minimum cuts against every possible answer, and against the clock."""

import itertools
import random
import time

from hypothesis import given
from hypothesis import strategies as st

from zc.passes.quantize.mincut import NEVER, MinCut

Costs = tuple[list[tuple[int, int]], list[tuple[int, int, int]]]


@st.composite
def problems(draw: st.DrawFn) -> Costs:
    count = draw(st.integers(1, 6))
    own = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=count, max_size=count))
    node = st.integers(0, count - 1)
    cost = st.integers(0, 9) | st.just(NEVER)
    return own, draw(st.lists(st.tuples(node, node, cost), max_size=12))


def price(costs: Costs, yes: tuple[bool, ...]) -> int:
    own, split = costs
    alone = sum(if_yes if answer else if_no for (if_yes, if_no), answer in zip(own, yes, strict=True))
    return alone + sum(cost for a, b, cost in split if yes[a] and not yes[b])


def solve(costs: Costs) -> tuple[bool, ...]:
    own, split = costs
    cut = MinCut()
    nodes = [cut.node() for _ in own]
    for node, (if_yes, if_no) in zip(nodes, own, strict=True):
        cut.if_yes(node, if_yes)
        cut.if_no(node, if_no)
    for a, b, cost in split:
        cut.if_split(nodes[a], nodes[b], cost)
    answers = cut.solve()
    return tuple(answers[node] for node in nodes)


@given(problems())
def test_no_answers_cost_less(costs: Costs) -> None:
    found = solve(costs)
    every = list(itertools.product((False, True), repeat=len(found)))
    least = min(price(costs, yes) for yes in every)
    assert price(costs, found) == least
    assert sum(found) == max(sum(yes) for yes in every if price(costs, yes) == least)


def test_a_chain_of_thousands_takes_no_time() -> None:
    chance = random.Random(0)
    own = [(chance.randrange(1000), chance.randrange(1000)) for _ in range(5000)]
    split = [(i + d, i + 1 - d, 300) for i in range(4999) for d in (0, 1)]
    split += [(i, chance.randrange(5000), 50) for i in range(0, 5000, 10)]
    started = time.process_time()
    solve((own, split))
    assert time.process_time() - started < 5
