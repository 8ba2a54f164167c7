"""Raise the operator set of a model for idioms that its own has no operator for.

A GELU by erf and a layer normalisation along the last axis are recognised by runtimes when they are written out: such a
model keeps its operator set. A GELU by tanh and a normalisation in another form are not, and cost five to ten nodes.
"""

from collections.abc import Mapping

from zc.errors import ZcError
from zc.execute import Runner, relative_error
from zc.ir.edit import Names
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.cleanup.clean import Clean
from zc.passes.cleanup.fuse_idioms import BOLD, idioms, since
from zc.passes.cleanup.gelu import Gelu
from zc.passes.cleanup.layernorm import LayerNorm
from zc.passes.cleanup.operands import computing_scopes, overridable, rank_of
from zc.passes.cleanup.rules import Site, rewrite
from zc.passes.quantize.opset import raise_opset
from zc.pipeline.base import Context, PassResult

SAME = 1e-4
"""Largest relative difference between the outputs before and after an operator set is raised."""


def recognise(model: Model, ctx: Context, *, bold: bool, feed: Mapping[str, Array] | None = None) -> PassResult:
    """Write GELUs and layer normalisations as one node each, in a later operator set where that takes one.

    bold: also normalisations whose variance loses digits, which moves the outputs by what was lost.
    feed: one sample row, on which the raised model is compared with the given one.
    """
    result = PassResult(False)
    knows = ctx.target.knows_idioms
    unknown = [one for one in _written_out(model) if not (knows and _left_to_runtime(one)) and (bold or _stable(one))]
    if not unknown:
        return result
    wanted = max(since(one) for one in unknown)
    if model.opset < wanted:
        if ctx.target.idiom_opset < wanted:
            return result
        raised = model.copy()
        try:
            raise_opset(raised, ctx.target.idiom_opset, "operator for a GELU or layer normalisation")
            _compare(raised, model, feed)
        except ZcError as err:
            result.declined(model.name, str(err).removeprefix(f"{model.name}: "))
            return result
        model.take(raised)
        result.info(model.name, f"opset raised to {model.opset} for {len(unknown)} GELUs or layer normalisations")
    infer_shapes(model)
    outcome = rewrite(model, BOLD) if bold else None
    Clean().run(model, ctx)
    result.changed = True
    result.stats["idioms in one node"] = sum((outcome.applied if outcome else {}).values()) or len(unknown)
    return result


def _written_out(model: Model) -> list[Gelu | LayerNorm]:
    infer_shapes(model)
    names, loose = Names(model.graph), overridable(model)
    return [one for scope in computing_scopes(model) for one in idioms(Site(scope, names, loose))]


def _left_to_runtime(one: Gelu | LayerNorm) -> bool:
    """Does onnxruntime recognise it by itself?"""
    if isinstance(one, Gelu):
        return one.approximate == "none"
    return one.stable and one.axes == ((rank_of(one.source) or 0) - 1,) and one.offset is not None


def _stable(one: Gelu | LayerNorm) -> bool:
    return isinstance(one, Gelu) or one.stable


def _compare(raised: Model, model: Model, feed: Mapping[str, Array] | None) -> None:
    """ZcError when conversion changed what the model computes."""
    if feed is None:
        return
    want, got = Runner(model).run(feed), Runner(raised).run(feed)
    for name in want:
        moved = relative_error(got[name], want[name])
        if moved > SAME:
            raise ZcError(f"raising its operator set to {raised.opset} moves output '{name}' by {moved:.2g}")
