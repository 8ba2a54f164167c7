"""Leaves out what the user names: nodes or weights whose output channels stay."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from zc.errors import ZcError, nearest
from zc.ir.graph import describe
from zc.passes.prune.flow import Flow, Product
from zc.passes.prune.layout import Layout

SKIPPED = "was left out with the option skip"


def exclude(flow: Flow, skip: Sequence[str], only: Sequence[str]) -> None:
    """Pin the output channels of what `skip` names, and of all that `only`, when given, does not name.

    Raises:
        ZcError: a pattern matches no node and no weight; the nearest name is given.
    """
    nodes = [describe(node) for scope in flow.model.scopes() for node in scope.nodes]
    weights = [constant.name for constant in flow.constants]
    for option, patterns in (("skip", skip), ("only", only)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in (*nodes, *weights)):
                known = _folders(nodes) if pattern.endswith("*") else nodes + weights
                raise ZcError(f"{option}={pattern} matches no node and no weight{nearest(pattern, known)}")
    made: set[str] = set()
    for product in flow.products:
        made.add(product.weight.name)
        if _named(product, skip):
            flow.labels.pin(product.labels, SKIPPED)
        elif only and not _named(product, only):
            flow.labels.pin(product.labels, "is not named by the option only")
    for constant in flow.constants:
        # A weight that makes no channels of its own: a bias, a scale, a table.
        if constant.name not in made and any(fnmatchcase(constant.name, p) for p in skip):
            _pin(flow, flow.of(constant))


def _folders(names: Sequence[str]) -> list[str]:
    """Patterns for all that begins alike: `/layer1/*` of `/layer1/conv1/Conv`."""
    found = {name[: i + 1] + "*" for name in names for i, letter in enumerate(name) if letter in "/." and i > 0}
    return sorted(found)


def _named(product: Product, patterns: Sequence[str]) -> bool:
    names = (describe(product.node), product.weight.name)
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _pin(flow: Flow, layout: Layout) -> None:
    for block in layout:
        flow.labels.pin(block.labels, SKIPPED)
