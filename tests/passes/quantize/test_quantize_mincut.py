"""Minimum cuts against every possible answer, and in the work that they take."""

import itertools
import random
from collections.abc import Callable

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


def test_a_chain_of_four_times_the_questions_takes_about_four_times_the_work(growth: Callable[..., float]) -> None:
    def make(count: int) -> Costs:
        chance = random.Random(0)
        own = [(chance.randrange(1000), chance.randrange(1000)) for _ in range(count)]
        split = [(i + d, i + 1 - d, 300) for i in range(count - 1) for d in (0, 1)]
        return own, split + [(i, chance.randrange(count), 50) for i in range(0, count, 10)]

    assert growth(make, solve, 500) < 8
