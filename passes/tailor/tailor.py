"""tailor: the same numbers, in the form that the target runs fastest."""

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zc.execute import Feeds, Runner
from zc.ir.model import Model, load
from zc.ir.shapes import infer_shapes
from zc.passes.tailor.idioms import recognise
from zc.passes.tailor.masks import bound, masked_scores
from zc.passes.tailor.residuals import keep_apart
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.target import Target

_WHOLE = frozenset({"Attention", "MultiHeadAttention", "EmbedLayerNormalization"})

FEEDS = 4
"""Sample rows that are looked at."""


@register
@dataclass(frozen=True)
class Tailor(Pass):
    """Write what the target runs slowly in a form that it runs fast, with the same numbers.

    before:  Tanh(0.8 * (x + 0.04 * x^3)) ... -> y;   scores + mask -> Softmax;   a -> Add(b) -> LayerNormalization
    after:   Gelu(x) -> y, in operator set 20;   scores + mask -> Max(., ReduceMax(.) - 60) -> Softmax;
             a -> Sum(b) -> LayerNormalization

    Which of these a target gains by is in its description. On onnxruntime's CPU: masked likelihoods are subnormal
    numbers, on which processors are slow, wherever the samples mask something; the fusion of a residual sum with the
    normalisation behind it runs slower than the two. `quantize` and `quantize-dynamic` do this by themselves.
    """

    name: ClassVar[str] = "tailor"
    exact: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Rewrite in place; without samples only masks that are constant are bounded."""
        feeds = sample_feeds(ctx)
        result = recognise(model, ctx, bold=False, feed=feeds[0] if feeds else None)
        if not (ctx.target.slow_subnormals or ctx.target.slow_fusions):
            return result
        before = model.copy()
        suit(model, ctx.target, masked(model, ctx.target, feeds), result)
        lost = _fused(before) - _fused(model)
        if lost:
            model.take(before)
            what = ", ".join(sorted(lost))
            result.declined(model.name, f"onnxruntime makes {what} of parts of it, and would not in another form")
        return result


def _fused(model: Model) -> Counter[str]:
    """How many whole attentions and the like onnxruntime makes of a model's nodes."""
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        path = Path(folder) / "optimized.onnx"
        Runner(model, save_optimized=path)
        return Counter(n.op for scope in load(path).scopes() for n in scope.nodes if n.op in _WHOLE)


def sample_feeds(ctx: Context) -> list[Feeds]:
    """A few of the user's rows, each a feed; [] if there are none."""
    if ctx.samples is None:
        return []
    step = ctx.samples.batch or 1
    return list(ctx.samples.take(0, min(ctx.samples.rows, FEEDS * step)).batches(step))


def masked(model: Model, target: Target, feeds: Sequence[Feeds]) -> frozenset[str]:
    """The scores in front of a Softmax that `suit` should bound, seen on a few rows of samples."""
    infer_shapes(model)
    return masked_scores(model, feeds) if target.slow_subnormals else frozenset()


def suit(model: Model, target: Target, scores: Collection[str], result: PassResult) -> None:
    """What needs no other operator set, and may be done to a model that is quantised already.

    scores: what `masked` found in the model, or in the float model that it was made of.
    """
    masks = bound(model, scores)
    sums = keep_apart(model) if "SkipLayerNormalization" in target.slow_fusions else 0
    result.stats["masked Softmax bounded"] = masks
    result.stats["residual sums kept apart"] = sums
    result.changed |= bool(masks or sums)
