"""Refine a quantised net layer by layer: round its weights for what they say, then shift its biases to the true mean.

    float net:      x ----------> Conv(W, b) -> y         both nets run in step, on the same samples
    quantised net:  x' -> Q/DQ -> Conv(V, c) -> y'        x' has the errors of all layers before

One sweep in the order of the graph. Before a layer runs, its weights are drawn towards those that make y of x' (least
squares; how far, rows held back decide), so that it also mends what earlier layers spoiled, and the codes are chosen
for the error that they make on x' (`rounding`). Then it runs, and the mean of y - y' in each channel goes into its
bias: rounding shifts means, by another amount in each channel, and the shifts would add up through the net.
(Frantar et al., GPTQ, 2022; Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019,
section 4.2, measured on samples instead of estimated.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zc.data import Samples
from zc.execute import Feeds
from zc.ir.graph import Array, Tensor, describe
from zc.ir.model import Model
from zc.passes.layers.layers import Layer, by_value, find_layers
from zc.passes.layers.normal import Normal
from zc.passes.layers.rows import choose_positions, padding_of, rows_of, values_at
from zc.passes.layers.steps import HELD_BACK, Steps, hold
from zc.passes.quantize.biases import Kept, bias_values, kept_layers, shift_bias
from zc.passes.quantize.find_codes import weight_codes, what_is_read
from zc.passes.quantize.form import Rounding
from zc.passes.quantize.recode import DAMPING, Parts, recode
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context


@dataclass
class Refined:
    """What was refined."""

    rounded: int = 0
    """Weights whose codes were chosen for what their layer says."""
    shifted: int = 0
    """Biases that were corrected."""
    rows: int = 0
    """Rows that were looked at."""
    declined: list[tuple[str, str]] = field(default_factory=list)
    """Layers whose weights stay rounded to the nearest code, and why."""


def refine(
    model: Model,
    original: Model,
    coded: Sequence[Coded],
    samples: Samples,
    ctx: Context,
    *,
    rounding: Rounding = "second-order",
    bias: bool = True,
    damping: float = DAMPING,
    special: Mapping[str, tuple[Rounding, bool]] | None = None,
) -> Refined:
    """Refine a quantised model in place.

    original: the float model with the same value names. coded: operators of the main graph with codes as weights, in
    graph order. rounding: nearest leaves codes as they are. bias: correct the biases of those that have one, and of
    layers in float behind them. damping: see `recode`. special: other rounding and bias for some operators, by
    `Coded.where`. ZcError when a value between two layers is a sequence or a map.
    """
    ways = {c.where: (special or {}).get(c.where, (rounding, bias)) for c in coded}
    layers: list[Coded | Kept] = [
        c for c in coded if ways[c.where][0] != "nearest" or (ways[c.where][1] and c.bias is not None)
    ]
    done = Refined()
    if not layers:
        return done
    if bias:
        order = {id(n): i for i, n in enumerate(model.graph.nodes)}
        known = {t.name for n in original.graph.nodes for t in n.outputs}
        kept = [one for one in kept_layers(model, coded) if one.float_name in known]
        layers = sorted([*layers, *kept], key=lambda one: order[id(one.node)])
    sweep = _Sweep(model, original, layers, samples, ctx, done)
    for one in ctx.track(layers, "refine", len(layers)):
        sweep.advance(one)
        how, shifted = ways[one.where] if isinstance(one, Coded) else ("nearest", True)
        if isinstance(one, Coded) and how != "nearest":
            sweep.round(one, shifted and one.bias is not None, damping)
        if shifted and one.bias is not None:
            sweep.shift(one)
    return done


class _Sweep:
    """Two nets that run in step; the quantised one is edited as it goes."""

    def __init__(
        self,
        model: Model,
        original: Model,
        coded: Sequence[Coded | Kept],
        samples: Samples,
        ctx: Context,
        done: Refined,
    ) -> None:
        found, refused = find_layers(original, spreading=True)
        self.layers = by_value(found)
        self.refused = {t.name: why for node, why in refused for t in node.outputs}
        self.values: dict[str, Tensor] = {t.name: t for n in original.graph.nodes for t in n.outputs}
        self.done = done
        feeds, done.rows = hold(original, [self.values[c.float_name] for c in coded], samples)
        self.masks = [padding_of(feed) for feed in feeds]
        self.first, self.second = Steps(original, feeds, ctx.threads), Steps(model, feeds, ctx.threads)
        for one in coded:  # several products may read a value whose codes are made at run time, once
            self.second.expect(what_is_read(one.node))
        self.turn = 0

    def advance(self, one: Coded | Kept) -> None:
        """Run the float net up to what the layer says, the quantised one up to what it reads."""
        self.turn += 1
        layer = self.layers.get(one.float_name)
        self.first.advance([self.values[one.float_name], *([layer.source] if layer else [])])
        self.second.advance([what_is_read(one.node)])
        self.second.release(what_is_read(one.node))

    def round(self, one: Coded, free: bool, damping: float) -> None:
        """Choose the codes of the layer's weight. free: will its bias make up for means?"""
        layer, codes = self.layers.get(one.float_name), weight_codes(one.node)
        if layer is None or isinstance(codes, str):
            why = codes if isinstance(codes, str) else self.refused.get(one.float_name, "it was not found")
            self.done.declined.append((one.where or describe(one.node), f"rounded to the nearest codes: {why}"))
            return
        if one.node.op == "MatMulInteger" and layer.turned:
            codes = codes.turned()
        free = free and not layer.spreads  # one bias cannot make up for the means of many taps
        train, held = self._equations(one, layer, free)
        recode(one, layer, codes, train, held, free, damping)
        self.done.rounded += 1

    def _equations(self, one: Coded, layer: Layer, free: bool) -> tuple[Normal, Normal]:
        """What the layer reads in the quantised net and says in the float net, in two parts of the rows."""
        sums: list[Normal] = []
        parts = Parts.of(layer)
        for turn, (exact, now) in enumerate(zip(self.first.held, self.second.held, strict=True)):
            source = now[what_is_read(one.node).name]
            positions = choose_positions(layer, source, 1000 * self.turn + turn, self.masks[turn])
            rows = parts.split(rows_of(layer, source, positions), 2)
            if not sums:
                shift = rows.mean(axis=1, dtype=np.float64) * free
                sums = [Normal(shift), Normal(shift)]
            part = sums[turn % HELD_BACK == HELD_BACK - 1]
            if parts.count > 1 or layer.spreads:  # what several rows, or parts of them, say together is no target
                part.add(rows)
                continue
            said = values_at(layer, exact[one.float_name], positions)
            if not free:
                said = said - bias_values(one)
            part.add(rows, said.reshape(len(said), rows.shape[0], -1).transpose(1, 0, 2))
        return sums[0], sums[1]

    def shift(self, one: Coded | Kept) -> None:
        """Run the layer; what its means lack goes into its bias, and into the value at hand."""
        self.second.advance([one.output])
        want = self._mean(self.first.held, one.float_name, one.channel_axis)
        got = self._mean(self.second.held, one.output.name, one.channel_axis)
        added = shift_bias(one, want - got)
        for values in self.second.held:
            value = values[one.output.name]
            axes = [-1 if a == one.channel_axis % value.ndim else 1 for a in range(value.ndim)]
            values[one.output.name] = value + added.reshape(axes)
        self.done.shifted += 1

    def _mean(self, held: Sequence[Feeds], name: str, axis: int) -> Array:
        """By channel, over all rows and positions; tokens of padding, and what is not finite, do not count."""
        total: Array | float = 0.0
        count = 0
        for values, mask in zip(held, self.masks, strict=True):
            moved = np.moveaxis(values[name], axis, -1)
            rows = moved[mask] if mask is not None and mask.shape == moved.shape[:-1] else moved
            rows = rows.reshape(-1, moved.shape[-1])
            part = rows.sum(axis=0, dtype=np.float64)
            if not np.isfinite(part).all():
                rows = rows[np.isfinite(rows).all(axis=1)]
                part = rows.sum(axis=0, dtype=np.float64)
            total, count = total + part, count + len(rows)
        return np.asarray(total / max(count, 1))
