"""Refine a model that is quantised already: what `round` and `bias-correct` share."""

from zc.data.split import hold_back
from zc.errors import ZcError
from zc.ir.edit import sort_nodes
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.measure.agreement import Reference
from zc.passes.quantize.form import Rounding
from zc.passes.quantize.recode import DAMPING
from zc.passes.quantize.recognise import coded_layers, float_twin
from zc.passes.quantize.refine import refine
from zc.passes.quantize.select import float_filter
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context, PassResult


def layers_to_mend(
    model: Model, ctx: Context, result: PassResult, name: str, skip: tuple[str, ...], only: tuple[str, ...]
) -> tuple[Model, list[Coded]]:
    """The float model, and the layers with codes that the user does not want left as they are.

    name: the pass. ZcError when there is no float model, or no layer with codes that is known in it.
    """
    leave = float_filter(model, skip, only, name)
    original = float_twin(model, ctx)
    for one in (original, model):
        infer_shapes(one)
        for scope in one.scopes():
            sort_nodes(scope)
    found, lost = coded_layers(model, original, ctx)
    for where, why in lost:
        result.declined(where, f"left as it is: {why}")
    if not found:
        raise ZcError(f"{model.name}: no layer has codes as its weight; quantise it first, as in -p quantize,{name}")
    coded = []
    for layer in found:
        why_left = leave(layer.node)
        if why_left is None:
            coded.append(layer)
        else:
            result.declined(layer.where, why_left)
    return original, coded


def mend(
    model: Model,
    original: Model,
    coded: list[Coded],
    ctx: Context,
    result: PassResult,
    *,
    rounding: Rounding,
    bias: bool,
    rows: int = 0,
    damping: float = DAMPING,
) -> None:
    """Refine the layers in place; figures, measured on rows held back, go into the result.

    rows: most rows to look at; 0: as many as fit into memory. For the rest see `refine`.
    """
    split = hold_back(ctx.need_samples(original))
    fit = split.fit.take(0, min(rows, split.fit.rows)) if rows else split.fit
    reference = Reference(original, split.held, ctx.threads)
    before = reference.agreement(model)
    done = refine(model, original, coded, fit, ctx, rounding=rounding, bias=bias, damping=damping)
    for where, why in done.declined:
        result.declined(where, why)
    after = reference.agreement(model)
    result.changed = bool(done.rounded or done.shifted)
    result.stats |= {
        "weights_rounded": done.rounded,
        "biases_corrected": done.shifted,
        "rows": done.rows,
        "agreement_before": round(before.share, 4),
        "agreement": round(after.share, 4),
        "sqnr_db_before": round(before.sqnr, 2),
        "sqnr_db": round(after.sqnr, 2),
    }
