"""Which nodes the user wants left in float: globs over node names and operators."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from zc.errors import ZcError, nearest
from zc.ir.graph import Node, describe
from zc.ir.model import Model


def float_filter(model: Model, skip: tuple[str, ...], only: tuple[str, ...]) -> Callable[[Node], str | None]:
    """A function that gives the reason why the user wants a node float, or None.

    skip: nodes that match stay float. only: if given, nodes that match none stay float. A pattern is compared with the
    node's name, its operator and the names of its outputs; * and ? stand for anything. ZcError for one that matches no
    node of the model, with the nearest name.
    """
    nodes = [n for scope in model.scopes() for n in scope.nodes]
    for option, patterns in (("skip", skip), ("only", only)):
        for pattern in patterns:
            if not any(_matches(node, pattern) for node in nodes):
                known = sorted({w for node in nodes for w in _words(node)})
                raise ZcError(
                    f"{model.name}: quantize:{option}={pattern} matches no node{nearest(pattern, known)}; "
                    "give node names or operators, * and ? stand for anything"
                )

    def keep_float(node: Node) -> str | None:
        for pattern in skip:
            if _matches(node, pattern):
                return f"quantize:skip={pattern}"
        if only and not any(_matches(node, pattern) for pattern in only):
            return "not in quantize:only"
        return None

    return keep_float


def _matches(node: object, pattern: str) -> bool:
    return any(fnmatchcase(word, pattern) for word in _words(node))


def _words(node: object) -> list[str]:
    assert isinstance(node, Node)
    return [describe(node), node.op, *(t.name for t in node.outputs if t.name)]
