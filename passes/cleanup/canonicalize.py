"""canonicalize: one form for what can be written in several, and nothing for what does nothing."""

from dataclasses import dataclass
from typing import ClassVar

from zc.ir.model import Model
from zc.passes.cleanup import arithmetic, moves, noops
from zc.passes.cleanup.dce import drop_dead_nodes
from zc.passes.cleanup.fuse_idioms import idiom_nodes
from zc.passes.cleanup.operands import OLDEST, too_old
from zc.passes.cleanup.rules import rewrite
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

RULES = (*noops.RULES, *moves.RULES, *arithmetic.RULES)
"""Tried in this order: what can go altogether goes before anything is merged."""


@register
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Drop nodes that change nothing, and write two nodes in a row as one where one can say it.

    before:  x -> Identity -> Transpose(0,2,1) -> Transpose(0,2,1) -> Mul(., 1) -> Reshape(a) -> Reshape(b) -> y
    after:   x -> Reshape(b) -> y

    Main graph and bodies. Whether shapes agree is read from the shapes that were inferred last, see `fold` and `clean`.
    """

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Rewrite until nothing changes; declines with the reason of each rule."""
        return canonicalize(model)


def canonicalize(model: Model) -> PassResult:
    """Apply all rules. See `Canonicalize`."""
    if model.opset < OLDEST:
        return too_old(model)
    outcome = rewrite(model, RULES, idiom_nodes)
    dropped = drop_dead_nodes(model) if outcome.applied else 0
    result = outcome.result()
    if dropped:
        result.stats["dead nodes"] = dropped
    return result
