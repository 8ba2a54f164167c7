"""Edits: fresh names, sorting, replacing and removing. All linear, all by identity."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import cast

import onnx_graphsurgeon as gs

from zc.errors import ZcError
from zc.ir.garbage import without_gc
from zc.ir.graph import Array, Constant, Node, Tensor, Variable, describe, scopes


class Names:
    """Fresh names for values and nodes: one scan of the graph (all scopes) for the first, then constant time a name."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._next: dict[str, int] = {}

    @cached_property
    def used(self) -> set[str]:
        """The names in use."""
        found: set[str] = set()
        for scope in scopes(self._graph):
            found.update(t.name for t in (*scope.inputs, *scope.outputs))
            found.update(c.name for c in getattr(scope, "declared", ()))
            for node in scope.nodes:
                found.update(_names_of(node))
        return found

    def see(self, node: gs.Node) -> None:
        """Take note of a node that was added with names of its own."""
        self.used.update(_names_of(node))

    def take(self, stem: str) -> str:
        """`stem` itself when it is free, else `stem_1`, `stem_2`, ..."""
        name, count = stem, self._next.get(stem, 0)
        while not name or name in self.used:
            count += 1
            name = f"{stem}_{count}"
        self._next[stem] = count
        self.used.add(name)
        return name

    def constant(self, stem: str, values: Array) -> Constant:
        """A new constant."""
        return Constant(self.take(stem), values)

    def variable(self, stem: str, like: Tensor | None = None) -> Variable:
        """A new run-time value, with the type and shape of `like`."""
        if like is None:
            return Variable(self.take(stem))
        return Variable(self.take(stem), like.dtype, None if like.shape is None else list(like.shape))


def _names_of(node: gs.Node) -> Iterator[str]:
    yield node.name
    yield from (t.name for t in node.inputs)
    yield from (t.name for t in node.outputs)


def outer_values(node: gs.Node) -> Iterator[Tensor]:
    """The values that the bodies inside a node take from the scopes around them (and some of their own: harmless)."""
    for body in node.subgraphs(recursive=True):
        for inner in body.nodes:
            yield from inner.inputs
        yield from body.outputs


def needs(node: gs.Node) -> Iterator[Tensor]:
    """Every value that must exist before the node runs: its inputs and what its bodies take from outside."""
    yield from node.inputs
    if node.attrs:
        yield from outer_values(node)


def ancestors(values: Iterable[Tensor], given: Iterable[Tensor]) -> set[int]:
    """The nodes that values depend on where some are given, by id."""
    known = {id(t) for t in given}
    found: set[int] = set()
    stack = [node for t in values if id(t) not in known for node in t.inputs]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found.add(id(node))
            stack.extend(p for t in needs(node) if id(t) not in known for p in t.inputs)
    return found


def sort_nodes(graph: gs.Graph) -> bool:
    """Put every node after its producers, keeping the given order wherever it may be kept. True if anything moved.

    Iterative and linear; bodies inside nodes are sorted too. ZcError when the graph has a cycle, naming a node of it.
    """
    with without_gc():
        return _sort(graph)


def _sort(graph: gs.Graph) -> bool:
    moved = False
    for node in graph.nodes:
        for body in node.subgraphs():
            moved |= _sort(body)
    order = {id(n): i for i, n in enumerate(graph.nodes)}
    done: dict[int, bool] = {}  # False while its producers are being placed
    result: list[gs.Node] = []

    def producers(node: gs.Node) -> list[gs.Node]:
        found = {id(p): p for t in needs(node) for p in t.inputs if id(p) in order}
        return sorted(found.values(), key=lambda p: order[id(p)], reverse=True)

    for root in graph.nodes:
        stack: list[tuple[gs.Node, list[gs.Node]]] = []
        if id(root) not in done:
            stack.append((root, producers(root)))
            done[id(root)] = False
        while stack:
            node, todo = stack[-1]
            if not todo:
                stack.pop()
                done[id(node)] = True
                result.append(node)
                continue
            nxt = todo.pop()
            state = done.get(id(nxt))
            if state is False and nxt is not node:
                raise ZcError(f"node '{describe(nxt)}' is part of a cycle: it needs its own output")
            if state is False:
                raise ZcError(f"node '{describe(node)}' takes its own output as an input")
            if state is None:
                done[id(nxt)] = False
                stack.append((nxt, producers(nxt)))
    # A node that was listed twice is listed once now.
    moved |= len(result) < len(graph.nodes) or any(a is not b for a, b in zip(result, graph.nodes, strict=True))
    graph.nodes[:] = result
    return moved


def detach(node: gs.Node) -> None:
    """Cut all edges of a node. It is dead then; `sweep` takes it out of its graph."""
    node.inputs.clear()
    node.outputs.clear()


def sweep(graph: gs.Graph) -> int:
    """Drop the nodes that were detached from one scope; their number."""
    before = len(graph.nodes)
    graph.nodes[:] = [n for n in graph.nodes if n.outputs or n.inputs]  # an operator may return nothing
    return before - len(graph.nodes)


def replace_uses(old: Tensor, new: Tensor, only: Callable[[gs.Node], bool] | None = None) -> int:
    """Let the consumers of `old` (in every scope) take `new`; graph outputs stay. The number of inputs changed."""
    count = 0
    for consumer in list({id(c): c for c in old.outputs}.values()):
        if only is not None and not only(consumer):
            continue
        for i, tensor in enumerate(consumer.inputs):
            if tensor is old:
                consumer.inputs[i] = new
                count += 1
    return count


class Editor:
    """Edits one scope of a model: what would cost a scan a time is looked up once here.

    `finish` drops the nodes that were detached and restores the order of the nodes that were added.
    """

    def __init__(self, graph: gs.Graph, names: Names) -> None:
        self.graph = graph
        self.names = names
        self._outputs = {id(t) for t in graph.outputs}
        self._results = {id(t) for node in graph.nodes for body in node.subgraphs(recursive=True) for t in body.outputs}
        self._local = {id(n) for n in graph.nodes}
        self._added = False

    def is_output(self, tensor: Tensor) -> bool:
        """Is the tensor one of the scope's outputs?"""
        return id(tensor) in self._outputs

    def sole_use(self, tensor: Tensor) -> gs.Node | None:
        """The only consumer of a value that nothing else sees (no output, no body's result), else None."""
        if len(tensor.outputs) != 1 or id(tensor) in self._outputs or id(tensor) in self._results:
            return None
        return tensor.outputs[0]

    def local(self, node: gs.Node) -> bool:
        """Is the node of this scope (and not of one around or inside it)?"""
        return id(node) in self._local

    def add(self, node: Node) -> Node:
        """Append a node; `finish` moves it to where it belongs."""
        self.graph.nodes.append(node)
        self._local.add(id(node))
        self._added = True
        return node

    def forward(self, old: Tensor, new: Tensor) -> str | None:
        """Let `new` stand for `old` everywhere, so that the producer of `old` can go. None, or the reason why not.

        A graph output keeps its name and object: then the producer of `new` is made to write `old`, and the other
        consumers of `new` follow. That is impossible when `new` is a graph input or constant, or an output itself.

            before:  new -> P -> old -> C          after:  new -> C
        """
        why = self.cannot_forward(old, new)
        if why is not None:
            return why
        if id(old) not in self._outputs:
            replace_uses(old, new)
            return None
        producer = new.inputs[0]
        for owner in list(old.inputs):
            # An empty output keeps the others in their places.
            owner.outputs[next(i for i, t in enumerate(owner.outputs) if t is old)] = Variable("")
        producer.outputs[next(i for i, t in enumerate(producer.outputs) if t is new)] = old
        replace_uses(new, old)
        return None

    def cannot_forward(self, old: Tensor, new: Tensor) -> str | None:
        """The reason why `forward` would do nothing, or None."""
        if id(old) in self._results:
            return "its output is the result of a subgraph body"
        if id(old) not in self._outputs:
            return None
        if not new.inputs or isinstance(new, gs.Constant):
            return "it connects a graph input or constant to a graph output"
        if id(new) in self._outputs or id(new) in self._results:
            return "it connects two graph outputs"
        return None if self.local(new.inputs[0]) else "it connects an outer value to a graph output"

    def finish(self) -> None:
        """Drop dead nodes and sort if nodes were added."""
        sweep(self.graph)
        if self._added:
            sort_nodes(self.graph)


def make_constant(tensor: Tensor, values: Array) -> Constant:
    """Turn a run-time value into a constant in place: its producer loses it, its consumers see the constant."""
    tensor.inputs.clear()
    return cast(Variable, tensor).to_constant(values)
