"""Rules of a place of deployment, as values: what must hold, where that stands, what breaks it, what mends it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from zc.ir.graph import Node, describe
from zc.ir.model import Model

Severity = Literal["error", "slow"]
"""error: the place refuses the model, or computes something else. slow: it runs, but not as fast as it could."""

Found = tuple[str, str]
"""Where a rule is broken (a node or value), and what stands there."""


@dataclass(frozen=True)
class Rule:
    """One thing that a place demands."""

    name: str
    """As `bias-in-float`; unique within its place."""
    what: str
    """What must hold, in a sentence."""
    source: str
    """Where that stands: the document and its section."""
    fix: str
    """What the user can do."""
    find: Callable[[Model], Iterable[Found]]
    """Where a model breaks it, in graph order."""
    severity: Severity = "error"


@dataclass(frozen=True)
class Violation:
    """One place where a model breaks a rule."""

    rule: str
    node: str
    what: str
    """What stands there, and what should."""
    source: str
    fix: str
    severity: Severity = "error"

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.rule}: {self.node}: {self.what} ({self.source}); {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def find_violations(rules: Sequence[Rule], model: Model) -> list[Violation]:
    """Where a model breaks the rules: errors first, then in the order of the rules and of the graph."""
    found = [
        Violation(one.name, where, what, one.source, one.fix, one.severity)
        for one in rules
        for where, what in one.find(model)
    ]
    return sorted(found, key=lambda v: v.severity != "error")


def at_nodes(broken: Callable[[Node], str | None], *ops: str) -> Callable[[Model], Iterable[Found]]:
    """The `find` of a rule that looks at one node at a time: `broken` says what is wrong with a node, or None.

    ops: operators to look at, in any scope and domain; all by default.
    """

    def find(model: Model) -> Iterable[Found]:
        for node in [cast(Node, n) for scope in model.scopes() for n in scope.nodes]:
            why = broken(node) if not ops or node.op in ops else None
            if why is not None:
                yield describe(node), why

    return find
