"""clean: all clean-up passes to a fixed point."""

from dataclasses import dataclass
from typing import ClassVar

from zc.ir.garbage import without_gc
from zc.ir.model import Model
from zc.passes.cleanup.canonicalize import canonicalize
from zc.passes.cleanup.dce import drop_dead
from zc.passes.cleanup.dedup import dedup
from zc.passes.cleanup.fold import fold
from zc.passes.cleanup.fuse import fuse
from zc.passes.cleanup.inline import inline
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

_ROUNDS = 16


@register
@dataclass(frozen=True)
class Clean(Pass):
    """inline, fold, canonicalize, fuse, dedup and dce until none of them finds anything more; shapes are inferred.

    before:  x -> Identity -> Conv -> BatchNormalization -> Reshape(., Concat(Shape(x)[0], 32)) -> y
    after:   x -> Conv -> Reshape(., [0, 32]) -> y

    Numbers, names, order, types and dynamic dimensions of inputs and outputs are kept.
    """

    name: ClassVar[str] = "clean"
    exact: ClassVar[bool] = True

    limit: int = 1 << 30
    """Bytes by which folded values may enlarge the model in all."""

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Clean up; warns if the passes still found something after the last round."""
        with without_gc():
            return self._clean(model)

    def _clean(self, model: Model) -> PassResult:
        before, rounds = _count(model), 0
        total = PassResult(False)
        functions = inline(model)
        _add(total, "inline", functions)
        changed = True
        while changed and rounds < _ROUNDS:
            # What the passes declined in the last round is what holds; what else they told stays.
            total.notes = [*functions.notes, *(n for n in total.notes if n.kind != "declined")]
            changed = self._round(model, total, first=rounds == 0)
            rounds += 1
        if changed:
            total.warn(model.name, f"not stable after {_ROUNDS} rounds; run clean again")
        total.stats = {"nodes before": before, "nodes after": _count(model), "rounds": rounds, **total.stats}
        return total

    def _round(self, model: Model, total: PassResult, first: bool) -> bool:
        """Every pass once; whether one of them changed something."""
        changed = False
        parts = {
            "fold": fold(model, self.limit, inferred=not first),
            "canonicalize": canonicalize(model),
            "fuse": fuse(model),
        }
        parts["dedup"] = dedup(model)
        dead = {k: v for k, v in drop_dead(model).items() if v}
        parts["dce"] = PassResult(bool(dead), dict(dead))
        for name, part in parts.items():
            changed |= part.changed
            _add(total, name, part)
        return changed


def _add(total: PassResult, name: str, part: PassResult) -> None:
    for key, value in part.stats.items():
        old = total.stats.get(f"{name}: {key}", 0)
        total.stats[f"{name}: {key}"] = int(old) + int(value)
    seen = set(total.notes)
    total.notes.extend(n for n in part.notes if n not in seen)
    total.changed |= part.changed


def _count(model: Model) -> int:
    """Nodes of all scopes; Constant nodes are values, not work."""
    return sum(node.op != "Constant" for scope in model.scopes() for node in scope.nodes)
