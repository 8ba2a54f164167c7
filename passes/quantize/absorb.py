"""High biases: what a channel says at least, whatever it reads, moves into the biases of the layers behind it.

before:  x -> Conv(w, b)     -> Relu -> r -> Conv(v, d)
after:   x -> Conv(w, b - c) -> Relu -> r -> Conv(v, d + v c)         c = max(0, mean - 3 deviations) of each channel

Relu(u - c) = Relu(u) - c while u >= c, which holds for all but one in a thousand. The range of r shrinks by c; that
matters after factors have raised biases along with weights. A convolution that pads would see zeros in the place of
c at the border and is left alone.
(Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.1.3.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from zc.ir.edit import Editor, Names
from zc.ir.graph import Array, Node, Tensor, attribute
from zc.ir.model import Model
from zc.passes.layers.layers import Layer, find_layers
from zc.passes.quantize.analytic import Moments
from zc.passes.quantize.calibrate import stream
from zc.passes.quantize.trial import Source
from zc.pipeline.base import Context

REACH = 3.0
"""Deviations below the mean down to which a channel is taken to reach."""

MATTERS = 0.05
"""What is absorbed must be at least this share of the largest value of its channels, mean and 3 deviations."""


@dataclass(frozen=True, eq=False)
class _Place:
    """A layer, its output before and after Relu, and the layers that read it."""

    layer: Layer
    before: Tensor
    after: Tensor
    readers: list[Layer]


@dataclass
class Absorbed:
    """What was absorbed."""

    channels: int = 0
    declined: list[tuple[str, str]] = field(default_factory=list)
    """Values with high biases that stay, and why."""


def absorb_biases(model: Model, source: Source, known: Moments, ctx: Context) -> Absorbed:
    """Absorb high biases in place. known: moments of values that need not be measured; they follow what changes."""
    done = Absorbed()
    places = _places(model, done)
    missing = {p.before.name: p.layer.channels for p in places if p.before.name not in known}
    found = {**_measure(source, missing, _axes(places), ctx), **known}
    names = Names(model.graph)
    for place in places:
        mean, deviation = found[place.before.name]
        constant = np.maximum(mean - REACH * deviation, 0.0)
        largest = float((mean + REACH * deviation).max(initial=0.0))
        constant = np.where(constant > MATTERS * largest, constant, 0.0)
        if not constant.any():
            continue
        place.layer.set_offset(place.layer.offset() - constant, names)
        for reader in place.readers:
            columns = reader.columns(constant)[:, :, None]
            reader.set_offset(reader.offset() + (reader.matrix() * columns).sum(axis=1).reshape(-1), names)
        if place.before.name in known:
            known[place.before.name] = (mean - constant, deviation)
        done.channels += int((constant > 0).sum())
    return done


def _places(model: Model, done: Absorbed) -> list[_Place]:
    """Layers with Relu behind them, all of whose readers can take what their channels say at least."""
    layers = [one for one in find_layers(model)[0] if one.may_shift]
    readers: dict[int, list[Layer]] = {}
    for one in layers:
        readers.setdefault(id(one.source), []).append(one)
    editor = Editor(model.graph, Names(model.graph))
    found = []
    for layer in layers:
        node = editor.sole_use(layer.end)
        if not isinstance(node, Node) or node.op != "Relu" or not node.standard or editor.is_output(node.outputs[0]):
            continue
        after = node.outputs[0]
        mine = readers.get(id(after), [])
        if len(mine) != len(after.outputs):
            others = ", ".join(sorted({n.op for n in after.outputs if n not in [one.node for one in mine]}))
            done.declined.append((f"'{after.name}'", f"keeps its biases: {others or 'something'} reads it"))
        elif any(_pads(one.node) for one in mine):
            done.declined.append((f"'{after.name}'", "keeps its biases: a convolution that reads it pads with zeros"))
        else:
            found.append(_Place(layer, layer.end, after, mine))
    return found


def _pads(node: Node) -> bool:
    return any(attribute(node, "pads", None) or ())


def _axes(places: list[_Place]) -> dict[str, int]:
    return {p.before.name: 1 if p.layer.convolves else -1 for p in places}


def _measure(source: Source, channels: Mapping[str, int], axes: Mapping[str, int], ctx: Context) -> Moments:
    """Mean and deviation of the channels of values, on samples."""
    sums = {name: np.zeros((2, size)) for name, size in channels.items()}
    counts = dict.fromkeys(channels, 0)
    for batch in stream(source.model, list(channels), source.samples, ctx, "biases") if channels else ():
        for name, total in sums.items():
            rows: Array = np.moveaxis(batch[name], axes[name], -1).reshape(-1, total.shape[1])
            total[0] += rows.sum(axis=0, dtype=np.float64)
            total[1] += np.square(rows, dtype=np.float64).sum(axis=0)
            counts[name] += len(rows)
    found: Moments = {}
    for name, total in sums.items():
        mean, square = total / max(counts[name], 1)
        found[name] = mean, np.sqrt(np.maximum(square - mean**2, 0))
    return found
