"""Rewrite rules as values: a pattern, a check that gives a reason, a rewrite; tried by root until none applies.

A rule's pattern is cheap and says where the rule is meant; a node that it does not find is none of its business.
What is found but must not be rewritten has a reason, and the reader of the result sees it. The engine keeps a queue:
after a rewrite only the nodes around it are looked at again, so the cost is linear in the graph and in the rewrites.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.edit import Editor, Names, detach
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, describe
from zc.ir.model import Model
from zc.passes.cleanup.dce import discard
from zc.passes.cleanup.operands import computing_scopes, fixed, made_by, overridable, plain
from zc.pipeline.base import PassResult

Match = tuple[Node, ...]
"""The nodes of a match, the root first."""


@dataclass(frozen=True)
class Rule:
    """One rewrite. `find` gives the nodes it is meant for, `check` the reason not to rewrite them, `apply` rewrites."""

    name: str
    roots: tuple[str, ...]
    find: Callable[[Node, "Site"], Match | None]
    check: Callable[[Match, "Site"], str | None]
    apply: Callable[[Match, "Site"], None]


class Site:
    """One scope under rewriting, with what rules ask and do."""

    def __init__(self, graph: Graph, names: Names, loose: frozenset[int]) -> None:
        self.graph, self.names, self.loose = graph, names, loose
        self.opset = int(graph.opset)
        self.editor = Editor(graph, names)
        self.together: frozenset[int] = frozenset()
        """Ids of nodes that no rule may take apart."""
        self.computed: set[int] = set()
        """Ids of values that rewrites compute from constants; `fold` makes constants of them."""
        self.planned: dict[int, Any] = {}
        """What a check has computed for the rewrite that follows it, by the id of the root."""

    def fixed(self, tensor: Tensor | None, limit: int | None = None) -> Array | None:
        """The array of a value that never changes at run time, else None."""
        return None if tensor is None else fixed(tensor, self.loose, limit)

    def ints(self, node: gs.Node, name: str, index: int) -> tuple[int, ...] | None:
        """Numbers that are an attribute in old operator sets, an input in new ones; () if absent, None if not fixed."""
        if name in node.attrs:
            value = plain(node, name)
            return None if value is None else tuple(int(v) for v in value)
        if index >= len(node.inputs) or node.inputs[index].is_empty():
            return ()
        array = self.fixed(node.inputs[index], 512)
        return None if array is None else tuple(int(v) for v in array.reshape(-1))

    def set_ints(self, node: gs.Node, name: str, index: int, numbers: Sequence[int], since: int) -> None:
        """Write numbers as an attribute before operator set `since`, else as a new constant input."""
        if self.opset < since:
            node.attrs[name] = [int(n) for n in numbers]
            return
        constant = self.names.constant(f"{node.outputs[0].name}_{name}", np.array(numbers, np.int64))
        while len(node.inputs) <= index:
            node.inputs.append(Variable(""))
        node.inputs[index] = constant

    def alone(self, tensor: Tensor, consumer: gs.Node) -> bool:
        """Does nobody but this node (once) see the value?"""
        return self.editor.sole_use(tensor) is consumer

    def private(self, tensor: Tensor, owner: gs.Node) -> bool:
        """Is the tensor a constant of which this node is the only reader, so that its array may be replaced?"""
        return isinstance(tensor, Constant) and id(tensor) not in self.loose and self.alone(tensor, owner)

    def producer(self, tensor: Tensor, *ops: str) -> Node | None:
        """The standard node of this scope that makes the value, when it is one of `ops`."""
        node = made_by(tensor)
        return node if node is not None and node.op in ops and node.standard and self.editor.local(node) else None

    def forward(self, node: Node, value: Tensor) -> str | None:
        """Let `value` stand for the first output of the node, which dies. A reason when that is impossible."""
        why = self.editor.forward(node.outputs[0], value)
        if why is None:
            discard(node)
        return why

    def can_forward(self, old: Tensor, new: Tensor) -> str | None:
        """What `forward` would say, without doing it."""
        return self.editor.cannot_forward(old, new)

    def take_over(self, node: Node, old: Node) -> None:
        """Let `node` write what `old` wrote; `old` and the value that `node` wrote die."""
        output = old.outputs[0]
        discard(old)
        node.outputs[0] = output

    def replace(self, old: Node, op: str, inputs: Iterable[Tensor], attrs: dict[str, Any]) -> Node:
        """A new node in the place of an old one, with its name and first output."""
        output, name, operands = old.outputs[0], old.name, list(inputs)
        new = Node(op, name, attrs, operands)
        new.doc, new.metadata = old.doc, old.metadata
        detach(old)
        new.outputs.append(output)
        return self.editor.add(new)


@dataclass
class Outcome:
    """What a set of rules did: how often each applied, and what was found but left."""

    applied: Counter[str] = field(default_factory=Counter)
    left: dict[tuple[int, str], tuple[Node, str]] = field(default_factory=dict)

    def result(self) -> PassResult:
        """As the result of a pass; reasons of nodes that are gone are dropped."""
        result = PassResult(bool(self.applied), dict(sorted(self.applied.items())))
        for (_, rule), (node, why) in self.left.items():
            if node.outputs:
                result.declined(describe(node), f"{rule}: {why}")
        return result


def rewrite(model: Model, rules: Sequence[Rule], together: Callable[[Site], frozenset[int]] | None = None) -> Outcome:
    """Apply rules to the main graph and the bodies in it until none applies. Linear in nodes and rewrites.

    together: gives the ids of nodes that no rule may take apart; a match that holds one of them is passed over.
    """
    by_root: dict[str, list[Rule]] = {}
    for rule in rules:
        for op in rule.roots:
            by_root.setdefault(op, []).append(rule)
    names, loose, outcome = Names(model.graph), overridable(model), Outcome()
    for scope in computing_scopes(model):
        if any(n.op in by_root for n in scope.nodes):
            site = Site(scope, names, loose)
            if together is not None:
                site.together = together(site)
            _settle(site, by_root, outcome)
            site.editor.finish()
    return outcome


def _settle(site: Site, by_root: dict[str, list[Rule]], outcome: Outcome) -> None:
    queue: deque[Node] = deque(cast(Iterable[Node], site.graph.nodes))
    waiting = {id(n) for n in queue}
    while queue:
        node = queue.popleft()
        waiting.discard(id(node))
        if not node.outputs or not node.standard:
            continue
        for rule in by_root.get(node.op, ()):
            match = rule.find(node, site)
            if match is None or (site.together and not site.together.isdisjoint(map(id, match))):
                continue
            why = rule.check(match, site)
            if why is not None:
                outcome.left[id(node), rule.name] = (node, why)
                continue
            around = _around(match)
            known = len(site.graph.nodes)
            rule.apply(match, site)
            outcome.applied[rule.name] += 1
            outcome.left.pop((id(node), rule.name), None)
            for near in (*around, *_around(match), *cast(Iterable[Node], site.graph.nodes[known:])):
                if near.outputs and id(near) not in waiting and site.editor.local(near):
                    waiting.add(id(near))
                    queue.append(near)
            break


def _around(match: Match) -> list[Node]:
    """The nodes of a match, their producers and their consumers: what a rewrite may have made a match of."""
    found = {id(n): n for n in match}
    for node in match:
        for tensor in node.inputs:
            if not isinstance(tensor, Constant):
                found.update({id(p): cast(Node, p) for p in tensor.inputs})
        for tensor in node.outputs:
            found.update({id(c): cast(Node, c) for c in tensor.outputs})
    return list(found.values())


def after(*ops: str, at: int = 0, alone: bool = True) -> Callable[[Node, Site], Match | None]:
    """Pattern: the root takes at input `at` what a node of `ops` makes (for it alone)."""

    def find(node: Node, site: Site) -> Match | None:
        if at >= len(node.inputs):
            return None
        before = site.producer(node.inputs[at], *ops)
        if before is None or before.outputs[0] is not node.inputs[at]:
            return None
        return (node, before) if not alone or site.alone(node.inputs[at], node) else None

    return find


def always(match: Match, site: Site) -> str | None:
    """Check: nothing speaks against it."""
    return None
