"""Which nodes the user wants left in float: globs over node names and operators."""

from collections.abc import Callable
from typing import cast

from zc.ir.graph import Node, describe
from zc.ir.model import Model
from zc.passes.patterns import first_match, require_matches


def float_filter(
    model: Model, skip: tuple[str, ...], only: tuple[str, ...], name: str = "quantize"
) -> Callable[[Node], str | None]:
    """A function that gives the reason why the user wants a node float, or None.

    name: the pass, for the reason. skip: nodes that match stay float. only: if given, nodes that match none stay float.
    A pattern is compared with the node's name, its operator and the names of its outputs; * and ? stand for anything.
    ZcError for one that matches no node of the model, with the nearest name.
    """
    known = [word for scope in model.scopes() for node in scope.nodes for word in words_of(cast(Node, node))]
    for option, patterns in (("skip", skip), ("only", only)):
        require_matches(option, patterns, known, "node")

    def keep_float(node: Node) -> str | None:
        skipped = first_match(words_of(node), skip)
        if skipped is not None:
            return f"{name}:skip={skipped}"
        if only and first_match(words_of(node), only) is None:
            return f"not in {name}:only"
        return None

    return keep_float


def words_of(node: Node) -> list[str]:
    """What a pattern of the user may match of a node: its name, its operator, and the names of its outputs."""
    return [describe(node), node.op, *(t.name for t in node.outputs if t.name)]
