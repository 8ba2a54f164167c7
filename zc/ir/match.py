"""Which node of one model is which node of another: by what it computes, by name, and by what stands around it.

Names alone mislead (two exports number their nodes differently), structure alone does too (repeated blocks look alike),
so the evidence is used strongest first. Everything is linear in the size of the models:

1. equal content and surroundings: colours refined over producers and consumers (Weisfeiler and Leman 1968), starting
   from operator, attributes and the digests of weights;
2. names with the same operator, before step 3 unless step 1 showed that names are not to be trusted;
3. the neighbours of matched nodes, along the edges;
4. their neighbours behind nodes that only one model has: folded, absorbed or inserted ones;
5. colours again, without weights and attributes;
6. the same output name and first input, with another operator.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import AttributeProto

from zc.ir.graph import Constant, Graph, Tensor
from zc.ir.text import short_digest

_ROUNDS = 3
_SKIPPED = 4
"""Nodes that may stand in one model between two that are neighbours in the other."""
Pairs = deque[tuple[gs.Node, gs.Node]]


class Matching:
    """The pairs found so far, in all scopes: nodes, and the values that are the same in both models."""

    def __init__(self) -> None:
        self.nodes: dict[int, gs.Node] = {}
        """id of a node of the first model -> node of the second."""
        self.back: dict[int, gs.Node] = {}
        self.values: dict[int, Tensor] = {}
        """id of a run-time value of the first model -> value of the second."""
        self._colours: dict[Hashable, int] = {}
        self._digests: dict[int, str] = {}

    def colour(self, content: Hashable) -> int:
        """A small number that stands for a content: equal in both models."""
        return self._colours.setdefault(content, len(self._colours))

    def digest(self, constant: Constant) -> str:
        """The short digest of a constant; a shared one is read once."""
        key = id(constant._values)
        if key not in self._digests:
            self._digests[key] = short_digest(constant)
        return self._digests[key]

    def pair(self, a: gs.Node, b: gs.Node) -> bool:
        """Match two nodes unless one of them is taken."""
        if id(a) in self.nodes or id(b) in self.back:
            return False
        self.nodes[id(a)], self.back[id(b)] = b, a
        for mine, other in zip(a.outputs, b.outputs, strict=False):
            if mine.name and other.name:
                self.values[id(mine)] = other
        return True

    def scopes(self, a: Graph, b: Graph) -> None:
        """Match the nodes of two scopes. Scopes around them must have been matched before."""
        self._ends(a, b)
        sides = _Side(a, self), _Side(b, self)
        strong = self._by_colour(sides, lambda n: _content(n, self), _ROUNDS) + self._by_weights(sides)
        agree = sum(_same_name(x, y) for x, y in strong)
        trusted = agree * 2 >= len(strong)
        if trusted:
            self._by_name(sides)
        self._along_edges(sides)
        if not trusted:
            self._by_name(sides)
            self._along_edges(sides)
        self._behind(sides)
        # A Constant node without a matched consumer is another one unless it holds the same.
        if self._by_colour(sides, lambda n: _content(n, self) if n.op == "Constant" else self.colour(_kind(n)), 2):
            self._along_edges(sides)
        outputs = {_first_output(n): n for n in self.free(b)}
        for node in self.free(a):
            other = outputs.get(_first_output(node))
            if other is not None and _kind(node) != _kind(other) and self._same_place(node, other):
                self.pair(node, other)

    def free(self, graph: gs.Graph) -> list[gs.Node]:
        """The nodes of a scope that are not matched."""
        return [n for n in graph.nodes if id(n) not in self.nodes and id(n) not in self.back]

    def _same_place(self, a: gs.Node, b: gs.Node) -> bool:
        """Do both take the same value first?"""
        first = [n.inputs[0] if n.inputs else None for n in (a, b)]
        return first[0] is not None and self.values.get(id(first[0])) is first[1]

    def _ends(self, a: Graph, b: Graph) -> None:
        """Inputs are the same by name; what is left over, by place."""
        named = {t.name: t for t in b.inputs}
        for tensor in a.inputs:
            if tensor.name in named:
                self.values[id(tensor)] = named.pop(tensor.name)
        rest = [t for t in a.inputs if id(t) not in self.values]
        if len(rest) == len(named):
            self.values.update({id(t): other for t, other in zip(rest, named.values(), strict=True)})

    # ---- the kinds of evidence

    def _by_colour(
        self, sides: "tuple[_Side, _Side]", start: Callable[[gs.Node], int], rounds: int
    ) -> list[tuple[gs.Node, gs.Node]]:
        """Match nodes that look alike within `rounds` edges, then within fewer, down to one."""
        history = [side.refine(start, rounds) for side in sides]
        found = []
        for step in range(rounds, 0, -1):
            groups = [_grouped(self.free(s.graph), h[step]) for s, h in zip(sides, history, strict=True)]
            for colour, mine in groups[0].items():
                found += self._pair_group(mine, groups[1].get(colour, []))
        return found

    def _by_weights(self, sides: "tuple[_Side, _Side]") -> list[tuple[gs.Node, gs.Node]]:
        """Match nodes with weights that no other node has, whatever stands around them."""
        groups = []
        for side in sides:
            nodes = [n for n in self.free(side.graph) if any(isinstance(t, Constant) and t.size > 1 for t in n.inputs)]
            groups.append(_grouped(nodes, {id(n): _content(n, self) for n in nodes}))
        single = [(mine, groups[1].get(colour, [])) for colour, mine in groups[0].items() if len(mine) == 1]
        return [pair for mine, others in single if len(others) == 1 for pair in self._pair_group(mine, others)]

    def _pair_group(self, mine: list[gs.Node], others: list[gs.Node]) -> list[tuple[gs.Node, gs.Node]]:
        """Among nodes that look alike: those of the same name, and the rest in order if there are equally many."""
        found = []
        if len(mine) > 1 or len(others) > 1:
            named = {_first_output(n): n for n in others}
            for node in mine:
                other = named.get(_first_output(node))
                if other is not None and self.pair(node, other):
                    found.append((node, other))
            mine = [n for n in mine if id(n) not in self.nodes]
            others = [n for n in others if id(n) not in self.back]
        if len(mine) == len(others):
            found += [pair for pair in zip(mine, others, strict=True) if self.pair(*pair)]
        return found

    def _by_name(self, sides: "tuple[_Side, _Side]") -> None:
        """Constant nodes aside: exporters number them, so they are known by their consumers."""
        for key in (_first_output, lambda n: n.name):
            others = {(_kind(n), key(n)): n for n in self.free(sides[1].graph) if key(n) and n.op != "Constant"}
            for node in self.free(sides[0].graph):
                other = others.get((_kind(node), key(node)))
                if other is not None:
                    self.pair(node, other)

    def _along_edges(self, sides: "tuple[_Side, _Side]") -> None:
        """From matched nodes and inputs to their unmatched neighbours of the same operator."""
        a, b = sides
        queue = deque((n, self.nodes[id(n)]) for n in a.graph.nodes if id(n) in self.nodes)
        self._spread(queue, sides)
        for mine in a.graph.inputs:
            if id(mine) in self.values:
                self._consumers(mine, self.values[id(mine)], sides, queue)
        for mine, other in zip(a.graph.outputs, b.graph.outputs, strict=False):
            self._producers(mine, other, sides, queue)
        self._spread(queue, sides)

    def _behind(self, sides: "tuple[_Side, _Side]") -> None:
        """From matched nodes past unmatched ones with one data input to the first of the same operator.

        a:  Conv -> BatchNormalization -> Relu          b:  Conv -> Relu
        """
        queue = deque((n, self.nodes[id(n)]) for n in sides[0].graph.nodes if id(n) in self.nodes)
        while queue:
            pair = queue.popleft()
            found: Pairs = deque()
            for values in zip(pair[0].inputs, pair[1].inputs, strict=False):
                self._meet(_before(values[0], sides[0], self.nodes), _before(values[1], sides[1], self.back), found)
            for values in zip(pair[0].outputs, pair[1].outputs, strict=False):
                self._meet(_after(values[0], sides[0], self.nodes), _after(values[1], sides[1], self.back), found)
            queue.extend(found)
            self._spread(found, sides, queue)

    def _meet(self, mine: list[gs.Node], others: list[gs.Node], queue: Pairs) -> None:
        """Pair the first nodes of two chains that have the same operator."""
        places = [(i, j) for i in range(len(mine)) for j in range(len(others)) if _kind(mine[i]) == _kind(others[j])]
        for i, j in sorted(places, key=lambda p: (sum(p), p))[:1]:
            if self.pair(mine[i], others[j]):
                queue.append((mine[i], others[j]))

    def _spread(self, queue: Pairs, sides: "tuple[_Side, _Side]", visited: Pairs | None = None) -> None:
        """Along the edges of the pairs in the queue; all pairs that are found go into `visited`."""
        given = len(queue)
        while queue:
            node, twin = queue.popleft()
            given -= 1
            if visited is not None and given < 0:
                visited.append((node, twin))
            for mine, other in zip(node.inputs, twin.inputs, strict=False):
                self._producers(mine, other, sides, queue)
            for mine, other in zip(node.outputs, twin.outputs, strict=False):
                self._consumers(mine, other, sides, queue)

    def _producers(self, mine: Tensor, other: Tensor, sides: "tuple[_Side, _Side]", queue: Pairs) -> None:
        if len(mine.inputs) != 1 or len(other.inputs) != 1:
            return
        a, b = mine.inputs[0], other.inputs[0]
        local = id(a) in sides[0].local and id(b) in sides[1].local
        if local and _kind(a) == _kind(b) and _place(a, mine) == _place(b, other) and self.pair(a, b):
            queue.append((a, b))

    def _consumers(self, mine: Tensor, other: Tensor, sides: "tuple[_Side, _Side]", queue: Pairs) -> None:
        if isinstance(mine, Constant) or isinstance(other, Constant):
            return
        groups = []
        for tensor, side, taken in ((mine, sides[0], self.nodes), (other, sides[1], self.back)):
            free = {id(n): n for n in tensor.outputs if id(n) in side.local and id(n) not in taken}
            ordered = sorted(free.values(), key=lambda n, side=side: side.local[id(n)])  # type: ignore[misc]
            groups.append(_grouped(ordered, {id(n): (_kind(n), _first_use(n, tensor)) for n in ordered}))
        for kind, nodes in groups[0].items():
            queue.extend(self._pair_group(nodes, groups[1].get(kind, [])))


class _Side:
    """One of the two scopes."""

    def __init__(self, graph: Graph, matching: Matching) -> None:
        self.graph = graph
        self.matching = matching
        self.local = {id(n): i for i, n in enumerate(graph.nodes)}
        self.ends = {id(t): i for i, t in enumerate(graph.outputs)}

    def refine(self, start: Callable[[gs.Node], int], rounds: int) -> list[dict[int, int]]:
        """The colour of each node (by id) after 0, 1, ... `rounds` rounds."""
        colours = {id(n): start(n) for n in self.graph.nodes}
        history = [colours]
        for _ in range(rounds):
            colours = {id(n): self.matching.colour(self._surroundings(n, colours)) for n in self.graph.nodes}
            history.append(colours)
        return history

    def _surroundings(self, node: gs.Node, colours: dict[int, int]) -> Hashable:
        sources: list[Hashable] = []
        for tensor in node.inputs:
            if isinstance(tensor, Constant) or not tensor.name:
                sources.append(bool(tensor.name))
            elif len(tensor.inputs) == 1 and id(tensor.inputs[0]) in self.local:
                producer = tensor.inputs[0]
                sources.append((colours[id(producer)], _place(producer, tensor)))
            else:
                sources.append(tensor.name)
        uses: Counter[Hashable] = Counter()
        for place, tensor in enumerate(node.outputs):
            if id(tensor) in self.ends:
                uses[(place, "end", self.ends[id(tensor)])] += 1
            for consumer in tensor.outputs:
                if id(consumer) in self.local:
                    uses[(place, colours[id(consumer)])] += 1
        return colours[id(node)], tuple(sources), frozenset(uses.items())


def attribute_key(value: Any) -> Hashable:
    """What an attribute says, comparable between models; a body by its operators alone."""
    if isinstance(value, gs.Constant):
        return "tensor", np.dtype(value.dtype).str, tuple(value.shape), short_digest(value)
    if isinstance(value, gs.Graph):
        return "graph", tuple(n.op for n in value.nodes)
    if isinstance(value, AttributeProto):
        return "proto", value.SerializeToString(deterministic=True)
    if isinstance(value, list | tuple | np.ndarray):
        return "list", tuple(repr(v) for v in value)
    return "one", repr(value)


def _content(node: gs.Node, matching: Matching) -> int:
    weights = tuple(
        (i, t.dtype.str, tuple(t.shape), matching.digest(t))
        for i, t in enumerate(node.inputs)
        if isinstance(t, Constant)
    )
    attributes = tuple(sorted((name, attribute_key(value)) for name, value in node.attrs.items()))
    return matching.colour((_kind(node), attributes, weights))


def _kind(node: gs.Node) -> tuple[str, str]:
    return node.domain or "", node.op


def _before(tensor: Tensor, side: _Side, taken: dict[int, gs.Node]) -> list[gs.Node]:
    """The unmatched nodes that lead to a value, the nearest first, up to one with several data inputs."""
    chain: list[gs.Node] = []
    while len(tensor.inputs) == 1 and len(chain) <= _SKIPPED:
        node = tensor.inputs[0]
        if id(node) in taken or id(node) not in side.local:
            break
        chain.append(node)
        data = _data(node)
        if len(data) != 1:
            break
        tensor = data[0]
    return chain


def _after(tensor: Tensor, side: _Side, taken: dict[int, gs.Node]) -> list[gs.Node]:
    """The unmatched nodes that a value leads to, the nearest first, as long as each is its only reader."""
    chain: list[gs.Node] = []
    while not isinstance(tensor, Constant) and len(tensor.outputs) == 1 and len(chain) <= _SKIPPED:
        node = tensor.outputs[0]
        if id(node) in taken or id(node) not in side.local:
            break
        chain.append(node)
        if len(_data(node)) != 1 or not node.outputs:
            break
        tensor = node.outputs[0]
    return chain


def _data(node: gs.Node) -> list[Tensor]:
    return [t for t in node.inputs if t.name and not isinstance(t, Constant)]


def _place(node: gs.Node, output: Tensor) -> int:
    return next(i for i, t in enumerate(node.outputs) if t is output)


def _first_use(node: gs.Node, value: Tensor) -> int:
    return next(i for i, t in enumerate(node.inputs) if t is value)


def _first_output(node: gs.Node) -> str:
    return next((t.name for t in node.outputs if t.name), "")


def _same_name(a: gs.Node, b: gs.Node) -> bool:
    return _first_output(a) == _first_output(b)


def _grouped(nodes: Iterable[gs.Node], keys: Any) -> dict[Any, list[gs.Node]]:
    groups: dict[Any, list[gs.Node]] = {}
    for node in nodes:
        groups.setdefault(keys[id(node)], []).append(node)
    return groups
