"""Ranges of activations, read from one sketch: what the codes shall represent, and what they may cut off.

minmax      all that was seen
percentile  all but the rarest values at both ends
entropy     what tells most of the distribution in the codes at hand (Migacz, 8-bit Inference with TensorRT, 2017)
mse         the least squared error of rounding and clipping together; clipping may count more than its square

Exact zeros have a code of their own in every range, so that entropy and mse look at the other values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError
from zc.kernels.grid import HALF
from zc.passes.quantize.sketch import Sketch

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
Range = tuple[float, float]
Floats = npt.NDArray[np.float64]

PARTS = 2048
"""Intervals, at the least, in which `entropy` looks at a range."""
MOST_LEVELS = 1024
"""Codes up to which `entropy` means something: finer ones than the bins of a sketch lose nothing that it shows."""
Span = tuple[float, float]
"""Powers of two about a number that are searched, up and down, and how far from one to the next."""
NEAR: tuple[Span, ...] = ((0.5, 1 / 8), (1 / 8, 1 / 32))
WHOLE: tuple[Span, ...] = ((10, 0.5), *NEAR)
"""A range may be a thousandth of what was seen: then it still spans hundreds of bins."""


@dataclass(frozen=True)
class Codes:
    """The codes that a range is for."""

    levels: int = 256
    symmetric: bool = False
    """Is the middle of the range zero? Then one of the codes is not used, and both sides reach equally far."""

    def grid(self, low: float, high: float) -> tuple[float, float, float]:
        """Step, and the lowest and highest code counted from the one of zero, for low <= 0 <= high, not both zero."""
        if self.symmetric:
            most = self.levels // 2 - 1
            return max(-low, high) / most, -most, most
        step = (high - low) / (self.levels - 1)
        zero = float(np.rint(-low / step))
        return step, -zero, self.levels - 1 - zero


UINT8 = Codes()


@dataclass(frozen=True)
class Rule:
    """How ranges are read from sketches."""

    method: Method = "minmax"
    percentile: float = 99.999
    """With method=percentile: per cent of the values that a range must hold."""
    clip_cost: float = 1.0
    """With method=mse: how many times the squared error of what is cut off counts."""

    def __str__(self) -> str:
        """As the options of `quantize` are written."""
        option = {"percentile": f":percentile={self.percentile:g}", "mse": f":clip_cost={self.clip_cost:g}"}
        return f"method={self.method}{option.get(self.method, '')}"


def find_range(sketch: Sketch, rule: Rule | Method = "minmax", codes: Codes = UINT8) -> Range:
    """Lowest and highest value to represent.

    percentile: as many values are spared at either end, to the nearest edge of a bin outward. entropy and mse: ranges
    within what was seen; they hold zero. ZcError when nothing was seen.
    """
    rule = rule if isinstance(rule, Rule) else Rule(rule)
    method = rule.method
    if sketch.count == 0:
        raise ZcError("no finite value was seen")
    if method == "minmax" or sketch.zeros == sketch.count:
        return sketch.low, sketch.high
    if method == "percentile":
        return _percentile(sketch, rule.percentile)
    if method == "entropy" and codes.levels > MOST_LEVELS:
        return sketch.low, sketch.high
    return _search(sketch, _cost(sketch, rule, codes), codes)


def _percentile(sketch: Sketch, percentile: float) -> Range:
    spared = int(sketch.count * (1 - percentile / 100))
    below = np.cumsum(sketch.bins)
    first = int(np.searchsorted(below, spared, side="right"))
    last = int(np.searchsorted(below, sketch.count - spared, side="left"))
    edges = sketch.edges()
    return max(sketch.low, float(edges[first])), min(sketch.high, float(edges[last + 1]))


# ---- searches

Cost = Callable[[float, float], float]


def _cost(sketch: Sketch, rule: Rule, codes: Codes) -> Cost:
    """What a range costs."""
    from zc.kernels.rangecosts import divergence, squared_error

    left, right, mass = occupied(sketch)
    parts = max(8, -(-PARTS // codes.levels))

    @cache
    def cost(low: float, high: float) -> float:
        step, lowest, highest = codes.grid(low, high)
        if rule.method == "mse":
            return float(squared_error(left, right, mass, step, lowest, highest, rule.clip_cost))
        return float(divergence(left, right, mass, step, lowest, highest, parts))

    return cost


def occupied(sketch: Sketch) -> tuple[Floats, Floats, Floats]:
    """Left and right edges and counts of the bins with values other than zero; the outermost end at the extremes."""
    mass = sketch.bins.astype(np.float64)
    mass[HALF] -= sketch.zeros
    kept = np.flatnonzero(mass)
    edges = sketch.edges()
    left, right = np.maximum(edges[kept], sketch.low), np.minimum(edges[kept + 1], sketch.high)
    # The extremes may be the edges: a bin of no width stands for one number, and a little width does not matter.
    return left, np.maximum(right, left + np.maximum(np.abs(left), 1e-30) * 1e-7), mass[kept]


def _search(sketch: Sketch, cost: Cost, codes: Codes) -> Range:
    """The cheapest range: of equal reach to both sides first, then one end after the other."""
    lowest, highest = low, high = min(sketch.low, 0.0), max(sketch.high, 0.0)
    widest = max(-low, high)
    reach = _line(lambda r: cost(max(low, -r), min(high, r)), widest, widest, WHOLE)
    low, high = max(low, -reach), min(high, reach)
    if codes.symmetric or not low < 0 < high:
        return low, high
    for _ in range(2):
        before = low, high
        high = _line(lambda x, low=low: cost(low, x), high, highest, NEAR)  # type: ignore[misc]
        low = -_line(lambda x, high=high: cost(-x, high), -low, -lowest, NEAR)  # type: ignore[misc]
        if (low, high) == before:
            break
    return low, high


def _line(cost: Callable[[float], float], start: float, most: float, spans: Sequence[Span]) -> float:
    """The cheapest of the numbers about `start`, coarsely and then finer; none above `most`. Of equals the first."""
    best, least = start, cost(start)
    for octaves, step in spans:
        centre = best
        for power in np.arange(octaves, -octaves - step / 2, -step).tolist():
            one = min(centre * 2.0**power, most)
            found = cost(one)
            if found < least:
                best, least = one, found
    return best
