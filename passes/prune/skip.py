"""Leaves out what the user names: nodes or weights whose output channels stay."""

from collections.abc import Sequence

from zc.ir.graph import describe
from zc.passes.patterns import first_match, require_matches
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
        require_matches(option, patterns, nodes + weights, "node and no weight")
    made: set[str] = set()
    for product in flow.products:
        made.add(product.weight.name)
        if _named(product, skip):
            flow.labels.pin(product.labels, SKIPPED)
        elif only and not _named(product, only):
            flow.labels.pin(product.labels, "is not named by the option only")
    for constant in flow.constants:
        # A weight that makes no channels of its own: a bias, a scale, a table.
        if constant.name not in made and first_match([constant.name], skip) is not None:
            _pin(flow, flow.of(constant))


def _named(product: Product, patterns: Sequence[str]) -> bool:
    return first_match((describe(product.node), product.weight.name), patterns) is not None


def _pin(flow: Flow, layout: Layout) -> None:
    for block in layout:
        flow.labels.pin(block.labels, SKIPPED)
