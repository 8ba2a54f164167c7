"""Edges against a plain model of them: each node a list of values, each value the nodes that read it."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zc.ir import links
from zc.ir.graph import Node, Variable

picks = st.integers(0, 3)
places = st.integers(0, 7)


@pytest.fixture(autouse=True)
def _short_lists_are_long() -> Iterator[None]:
    """The index of long consumer lists is what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "_INDEX_FROM", 3)
        yield


class Edges(RuleBasedStateMachine):
    """Four nodes read four values."""

    @initialize()
    def start(self) -> None:
        links._INDEX_FROM = 3
        self.values = [Variable(f"v{i}") for i in range(4)]
        self.nodes = [Node("Op", f"n{i}") for i in range(4)]
        self.reads: list[list[int]] = [[] for _ in self.nodes]

    @rule(n=picks, v=picks)
    def append(self, n: int, v: int) -> None:
        self.nodes[n].inputs.append(self.values[v])
        self.reads[n].append(v)

    @rule(n=picks, vs=st.lists(picks, max_size=5))
    def extend(self, n: int, vs: list[int]) -> None:
        self.nodes[n].inputs.extend(self.values[v] for v in vs)
        self.reads[n].extend(vs)

    @rule(n=picks, v=picks, at=places)
    def insert(self, n: int, v: int, at: int) -> None:
        self.nodes[n].inputs.insert(at, self.values[v])
        self.reads[n].insert(at, v)

    @rule(n=picks, v=picks, at=places)
    def replace(self, n: int, v: int, at: int) -> None:
        if at < len(self.reads[n]):
            self.nodes[n].inputs[at] = self.values[v]
            self.reads[n][at] = v
        else:
            with pytest.raises(IndexError):
                self.nodes[n].inputs[at] = self.values[v]

    @rule(n=picks, vs=st.lists(picks, max_size=3), start=places, stop=places)
    def replace_slice(self, n: int, vs: list[int], start: int, stop: int) -> None:
        self.nodes[n].inputs[start:stop] = [self.values[v] for v in vs]
        self.reads[n][start:stop] = vs

    @rule(n=picks, vs=st.lists(picks, max_size=3))
    def replace_every_other(self, n: int, vs: list[int]) -> None:
        try:
            self.reads[n][::2] = vs
        except ValueError:
            with pytest.raises(ValueError, match="extended slice"):
                self.nodes[n].inputs[::2] = [self.values[v] for v in vs]
        else:
            self.nodes[n].inputs[::2] = [self.values[v] for v in vs]

    @rule(n=picks, at=places)
    def delete(self, n: int, at: int) -> None:
        if at < len(self.reads[n]):
            del self.nodes[n].inputs[at]
            del self.reads[n][at]

    @rule(n=picks, start=places, stop=places)
    def delete_slice(self, n: int, start: int, stop: int) -> None:
        del self.nodes[n].inputs[start:stop]
        del self.reads[n][start:stop]

    @rule(n=picks, v=picks)
    def remove(self, n: int, v: int) -> None:
        if v in self.reads[n]:
            self.nodes[n].inputs.remove(self.values[v])
            self.reads[n].remove(v)
        else:
            with pytest.raises(ValueError, match="not linked"):
                self.nodes[n].inputs.remove(self.values[v])

    @rule(n=picks)
    def pop(self, n: int) -> None:
        if self.reads[n]:
            assert self.nodes[n].inputs.pop() is self.values[self.reads[n].pop()]

    @rule(n=picks)
    def clear(self, n: int) -> None:
        self.nodes[n].inputs.clear()
        self.reads[n].clear()

    @rule(n=picks, vs=st.lists(picks, max_size=5))
    def assign(self, n: int, vs: list[int]) -> None:
        self.nodes[n].inputs = [self.values[v] for v in vs]
        self.reads[n] = list(vs)

    @rule(n=picks)
    def assign_itself(self, n: int) -> None:
        self.nodes[n].inputs = self.nodes[n].inputs

    @rule(n=picks, m=picks)
    def assign_those_of_another(self, n: int, m: int) -> None:
        self.nodes[n].inputs = self.nodes[m].inputs
        self.reads[n] = list(self.reads[m])

    @rule(v=picks)
    def cut_from_the_other_end(self, v: int) -> None:
        self.values[v].outputs.clear()
        self.reads = [[one for one in reads if one != v] for reads in self.reads]

    @rule(n=picks, v=picks)
    def cut_one_from_the_other_end(self, n: int, v: int) -> None:
        if v in self.reads[n]:
            self.values[v].outputs.remove(self.nodes[n])
            self.reads[n].remove(v)

    @rule(v=picks)
    def consumers_are_shuffled_behind_our_back(self, v: int) -> None:
        list.reverse(self.values[v].outputs)

    @invariant()
    def both_ends_agree(self) -> None:
        if not hasattr(self, "nodes"):
            return
        for node, reads in zip(self.nodes, self.reads, strict=True):
            assert [self.values.index(v) for v in node.inputs] == reads
        for v, value in enumerate(self.values):
            want = {f"n{n}": reads.count(v) for n, reads in enumerate(self.reads) if v in reads}
            assert Counter(node.name for node in value.outputs) == want


Edges.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestEdges = Edges.TestCase


def test_cutting_consumers_from_a_shared_constant_is_linear(growth: Callable[..., float]) -> None:
    def make(n: int) -> list[Node]:
        shared = Variable("shared")
        return [Node("Op", f"n{i}", inputs=[shared, Variable(f"v{i}")]) for i in range(n)]

    def cut(nodes: list[Node]) -> None:
        for node in reversed(nodes):  # a scan finds each at the end
            node.inputs.clear()

    assert growth(make, cut, 500) < 5


def test_cutting_a_node_of_thousands_of_inputs_is_linear(growth: Callable[..., float]) -> None:
    def make(n: int) -> Node:
        return Node("Concat", "c", inputs=[Variable(f"v{i}") for i in range(n)])

    assert growth(make, lambda node: node.inputs.clear(), 500) < 5
