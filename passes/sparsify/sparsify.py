"""The sparsify pass: single weights become zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from zc.errors import ZcError
from zc.ir.edit import Names
from zc.ir.graph import Array, describe
from zc.ir.model import Model
from zc.passes.layers.chosen import Moments, Outcome, choose_layers, moments_of, plain_moments
from zc.passes.layers.layers import Layer
from zc.passes.sparsify.masks import Pattern, by_pattern, by_share, read_pattern
from zc.passes.sparsify.surgeon import carve
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

Criterion = Literal["auto", "magnitude", "second-order"]


@register
@dataclass(frozen=True)
class Sparsify(Pass):
    """Set single weights of Conv, Gemm and MatMul to zero: a share of them anywhere, or N of each M neighbours.

    before:  w = [ .9 -.1  .2 .05 | .3 -.7  .1  .6 ]        after (pattern=2of4):  w = [ .9  0  .2  0 | 0 -.7  0  .6 ]

    With samples what leaves is chosen by what the layer's outputs miss, and the weights that stay make up for it; means
    of what left go into the bias. Zeros are stored like other numbers and take as long on most targets: what this saves
    is bytes behind a compressor (the statistics say how many), or time on sparse tensor cores, which take 2of4.
    """

    name: ClassVar[str] = "sparsify"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    ratio: float | None = None
    """Share of the weights that become zero, 0 < ratio < 1; 0.5 where nothing is stated."""
    pattern: str = ""
    """NofM: of each M neighbouring input channels N stay, such as 2of4 for TensorRT's sparse kernels."""
    criterion: Criterion = "auto"
    """magnitude: the smallest leave. second-order: those that the outputs miss least. auto: that, with samples."""
    allot: Literal["uniform", "global"] = "uniform"
    """uniform: the same share of each layer; global: most where it costs least."""
    skip: tuple[str, ...] = ()
    """Layers or weights that stay as they are: names or globs, separated by +."""
    only: tuple[str, ...] = ()
    """Layers or weights that are changed, all others stay: names or globs, separated by +."""

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise ZcError(f"ratio is {self.ratio:g}; it must be above 0 and below 1")
        if self.pattern:
            read_pattern(self.pattern)
            if self.ratio is not None or self.allot == "global":
                other = "ratio" if self.ratio is not None else "allot=global"
                raise ZcError(f"pattern and {other} exclude each other: {self.pattern} says how many leave everywhere")
        if self.criterion not in ("auto", "magnitude", "second-order"):
            raise ZcError(f"criterion is {self.criterion!r}; it must be magnitude, second-order or auto")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """See `Pass.run`."""
        result = PassResult(changed=False)
        outcome = Outcome(model, ctx)
        if self.criterion == "second-order" and outcome.fit is None:
            raise ZcError("criterion=second-order looks at activations: give samples with --calib")
        pattern = read_pattern(self.pattern) if self.pattern else None
        layers = self._layers(model, pattern, result)
        if not layers:
            result.declined(model.name, "no weight was set to zero: no layer is left to change")
            return result
        seen = {} if self.criterion == "magnitude" else moments_of(model, layers, outcome.fit, ctx)
        for layer in layers:
            if outcome.fit is not None and self.criterion != "magnitude" and id(layer.node) not in seen:
                result.info(describe(layer.node), "too many inputs to look at together: its smallest weights leave")
        shares = self._shares(layers, seen)
        names = Names(model.graph)
        for layer, share in ctx.track(list(zip(layers, shares, strict=True)), "sparsify", len(layers)):
            _sparsify(layer, seen.get(id(layer.node)), share, pattern, names)
        result.changed = True
        result.stats.update(_stats(layers))
        if pattern is not None:
            result.stats["layers_in_pattern"] = sum(pattern.follows(one.matrix()) for one in layers)
        outcome.tell(model, result)
        result.info(
            model.name,
            "zeros are stored and multiplied like other numbers: the file is as large as before until it is compressed"
            + ("; TensorRT has faster kernels for 2 of 4" if pattern == Pattern(2, 4) else ""),
        )
        return result

    def _layers(self, model: Model, pattern: Pattern | None, result: PassResult) -> list[Layer]:
        layers = choose_layers(model, self.skip, self.only, result)
        fitting = []
        for layer in layers:
            why = None if pattern is None else pattern.why_not(layer)
            if why is None:
                fitting.append(layer)
            else:
                result.declined(describe(layer.node), why)
        return fitting

    def _shares(self, layers: Sequence[Layer], seen: dict[int, Moments]) -> list[float]:
        """The share of each layer that becomes zero."""
        ratio = 0.5 if self.ratio is None else self.ratio
        if self.allot == "uniform":
            return [ratio] * len(layers)
        scores = [_scores(one, seen.get(id(one.node)) or plain_moments(one)) for one in layers]
        level = [s / max(float(s.sum()), 1e-30) for s in scores]  # of what each layer says
        keep = by_share(np.concatenate([part.ravel() for part in level]), ratio)
        ends = np.cumsum([s.size for s in scores])[:-1]
        return [min(1 - float(part.mean()), 1 - 1 / part.size) for part in np.split(keep, ends)]


def _scores(layer: Layer, moments: Moments) -> Array:
    """What each weight says at the outputs: its square times the moment of its input, [groups, D, M]."""
    return np.asarray(np.square(layer.matrix()) * np.einsum("gdd->gd", moments.matrix)[:, :, None])


def _sparsify(layer: Layer, moments: Moments | None, share: float, pattern: Pattern | None, names: Names) -> None:
    before = layer.matrix()
    if moments is None:
        scores = np.abs(before)
        keep = by_share(scores, share) if pattern is None else by_pattern(scores, pattern)
        layer.set_matrix(before * keep)
        return
    after = carve(before, moments.matrix, share, pattern)
    if layer.may_shift:
        moved = (moments.mean[:, None] @ (before - after)).reshape(-1)
        layer.set_offset(layer.offset() + moved, names)
    layer.set_matrix(after)


def _stats(layers: Sequence[Layer]) -> dict[str, int | float | str]:
    values = [one.weight.values for one in layers]
    whole, zeros = sum(v.size for v in values), sum(int((v == 0).sum()) for v in values)
    stored = sum(v.nbytes for v in values)
    packed = sum(int((v != 0).sum()) * v.itemsize + -(-v.size // 8) for v in values)
    return {
        "layers": len(layers),
        "weights": whole,
        "zeros": round(zeros / max(whole, 1), 4),
        "bytes_stored": stored,
        "bytes_if_packed": packed,
    }
