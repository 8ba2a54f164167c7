"""What calibration samples say of the inputs of layers: covariance, means, and how often a channel is zero."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.passes.layers.layers import Layer
from zc.passes.layers.normal import Normal
from zc.passes.layers.rows import choose_positions, padding_of, rows_of
from zc.passes.quantize.calibrate import stream
from zc.pipeline.base import Context

WIDEST = 2400
"""Inputs of a layer, times its window, up to which covariances are held."""
MEMORY = 512 * 2**20
"""Bytes of the covariances of the layers that are looked at in one forward."""


@dataclass(eq=False)
class Observed:
    """Statistics of the inputs of one layer; places as in `Layer`."""

    normal: Normal | None
    """Products of inputs; None for a layer with more than `WIDEST` inputs."""
    mean: Array
    """[groups, D]."""
    variance: Array
    """[groups, D]."""
    zeros: Array
    """Share of rows in which an input is exactly zero, [groups, D]."""


def observe(model: Model, layers: Sequence[Layer], samples: Samples, ctx: Context) -> dict[int, Observed]:
    """What is seen of each layer's input, by id of its node. One forward for as many layers as fit into memory."""
    found: dict[int, Observed] = {}
    chunk: list[Layer] = []
    held = 0
    for layer in layers:
        size = layer.groups * _inputs(layer) ** 2 * 8
        if chunk and held + size > MEMORY:
            found.update(_observe(model, chunk, samples, ctx))
            chunk, held = [], 0
        chunk.append(layer)
        held += size if _inputs(layer) <= WIDEST else 0
    found.update(_observe(model, chunk, samples, ctx) if chunk else {})
    return found


def _inputs(layer: Layer) -> int:
    return layer.weight.size // layer.channels


def _observe(model: Model, layers: Sequence[Layer], samples: Samples, ctx: Context) -> dict[int, Observed]:
    sums = [_Sums() for _ in layers]
    fed = [t.name for t in model.graph.inputs if "mask" in t.name.lower()]
    names = list(dict.fromkeys([*(layer.source.name for layer in layers), *fed]))
    for number, values in enumerate(stream(model, names, samples, ctx, "look at channels")):
        counts = padding_of({name: values[name] for name in fed})
        for place, layer in enumerate(layers):
            source = values[layer.source.name]
            positions = choose_positions(layer, source, 1000 * place + number, counts)
            rows = rows_of(layer, source, positions)
            sums[place].add(rows, _inputs(layer) <= WIDEST)
    return {id(layer.node): one.observed() for layer, one in zip(layers, sums, strict=True)}


class _Sums:
    def __init__(self) -> None:
        self.normal: Normal | None = None
        self.rows = 0
        self.total: Array | float = 0.0
        self.square: Array | float = 0.0
        self.zeros: Array | float = 0.0

    def add(self, rows: Array, joint: bool) -> None:
        if joint:
            self.normal = self.normal or Normal(rows.mean(axis=1, dtype=np.float64))
            self.normal.add(rows)
        self.rows += rows.shape[1]
        self.total = self.total + rows.sum(axis=1, dtype=np.float64)
        self.square = self.square + np.square(rows, dtype=np.float64).sum(axis=1)
        self.zeros = self.zeros + (rows == 0).sum(axis=1)

    def observed(self) -> Observed:
        mean = np.asarray(self.total) / max(self.rows, 1)
        variance = np.maximum(np.asarray(self.square) / max(self.rows, 1) - mean**2, 0)
        return Observed(self.normal, mean, variance, np.asarray(self.zeros) / max(self.rows, 1))
