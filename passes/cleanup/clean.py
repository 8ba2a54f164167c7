"""clean: all clean-up passes to a fixed point."""

from dataclasses import dataclass
from typing import ClassVar

from zc.passes.cleanup.dce import drop_dead
from zc.passes.cleanup.fold import fold

from zc.ir.model import Model
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Clean(Pass):
    """Fold, drop what is dead.

    before:  x -> Identity -> Conv -> BatchNormalization -> Add(Mul(1, 2)) -> y
    after:   x -> Conv -> y
    """

    name: ClassVar[str] = "clean"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Clean up."""
        result = fold(model, 1 << 30)
        stats = drop_dead(model)
        result.changed |= any(stats.values())
        return result
