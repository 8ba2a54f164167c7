"""fuse: arithmetic, pads and transposes move into the layer beside them; idioms become one node."""

from dataclasses import dataclass
from typing import ClassVar

from zc.ir.graph import Node
from zc.ir.model import Model
from zc.passes.cleanup import fuse_affine, fuse_idioms, fuse_pads, fuse_squeeze, tables
from zc.passes.cleanup.dce import drop_dead_nodes
from zc.passes.cleanup.operands import OLDEST, plain, too_old
from zc.passes.cleanup.rules import Match, Rule, Site, always, rewrite
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


def _find_transposed(node: Node, site: Site) -> Match | None:
    for tensor in node.inputs[:2]:
        before = site.producer(tensor, "Transpose")
        if before is not None and site.alone(tensor, node) and plain(before, "perm", [1, 0]) == [1, 0]:
            return (node, before)
    return None


def _turn(match: Match, site: Site) -> None:
    gemm, transpose = match
    side = next(i for i in (0, 1) if gemm.inputs[i] is transpose.outputs[0])
    name = ("transA", "transB")[side]
    gemm.attrs[name] = 1 - plain(gemm, name, 0)
    gemm.inputs[side] = transpose.inputs[0]


WHOLE = (*fuse_idioms.RULES, *tables.RULES)
"""Rules that take an idiom as a whole. Where they leave one written out, the other rules must not take it apart."""
RULES = (
    *fuse_squeeze.RULES,
    *fuse_affine.RULES,
    *fuse_pads.RULES,
    Rule("transpose into Gemm", ("Gemm",), _find_transposed, always, _turn),
)


@register
@dataclass(frozen=True)
class Fuse(Pass):
    """Move arithmetic by channel, pads and transposes into the layers beside them; write idioms as one node.

    before:  x -> Pad(0,0,1,1) -> Conv(w, pads=0) -> BatchNormalization -> Mul(s) -> y;    u -> MatMul(v) -> Add(c) -> z
    after:   x -> Conv(w', b', pads=1) -> y;                                               u -> Gemm(v, c) -> z

    Layers are Conv, ConvTranspose, Gemm and MatMul in float32 or float64. Arithmetic goes into the layer before it,
    else into the layer after it if that is exact: an offset in front of a padded Conv is not. A weight is rewritten
    only if it is a constant, no input of the graph, and read by this layer alone. Activations stay: targets absorb
    them.
    """

    name: ClassVar[str] = "fuse"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Rewrite until nothing changes; declines with the reason of each rule."""
        return fuse(model)


def fuse(model: Model) -> PassResult:
    """Apply all rules. See `Fuse`."""
    if model.opset < OLDEST:
        return too_old(model)
    outcomes = [rewrite(model, WHOLE), rewrite(model, RULES, fuse_idioms.idiom_nodes)]
    result = PassResult(False)
    for outcome in outcomes:
        part = outcome.result()
        result.changed |= part.changed
        result.stats.update(part.stats)
        result.notes.extend(part.notes)
    if result.changed:
        drop_dead_nodes(model)
    return result
