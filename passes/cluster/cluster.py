"""The cluster pass: weights share a few numbers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zc.errors import ZcError
from zc.ir.edit import Editor, Names, sort_nodes
from zc.ir.graph import Array, describe
from zc.ir.model import Model
from zc.measure.cost import count
from zc.passes.cluster.kmeans import cluster, entropy_bits, nearest
from zc.passes.cluster.packing import bytes_stored, store
from zc.passes.layers.chosen import Moments, Outcome, choose_layers, forget, moments_of
from zc.passes.layers.layers import Layer
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

MOST = 256
"""Entries of a codebook: an index is one byte."""
SPARSE = 0.1
"""Share of zeros from which they stay zeros."""


@register
@dataclass(frozen=True)
class Cluster(Pass):
    """Give the weights of each layer a codebook of a few numbers; what is stored is an index for each weight.

    before:  Conv(x, w float32[64,64,3,3])                                                    147,456 bytes
    after:   Cast(uint8[64,64,3,3]) -> Gather(float32[64], .) -> Conv(x, .)                    37,120 bytes
    16:      Cast(uint8[18432]) -> Gather(float32[256,2], .) -> Reshape -> Conv(x, .)          20,480 bytes

    The codebook is that of least squared error (k-means); with samples an error counts by how much the input varies
    that it meets, and means go into the bias. A byte is the index of as many weights as it can tell apart: of one for
    a codebook of 256, of two for 16, of four for 4, of eight for 2. onnxruntime looks the weights up once, when the
    model is loaded: memory and time are as before.
    """

    name: ClassVar[str] = "cluster"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    size: int = 64
    """Numbers in the codebook of a layer, 2 to 256."""
    store: bool = True
    """Store indices and codebook, so that the file shrinks. false: store the shared numbers themselves, for targets
    that want plain weights; a compressor behind them gets to about the bytes that the statistics name."""
    skip: tuple[str, ...] = ()
    """Layers or weights that stay as they are: names or globs, separated by +."""
    only: tuple[str, ...] = ()
    """Layers or weights that are changed, all others stay: names or globs, separated by +."""

    def __post_init__(self) -> None:
        if not 2 <= self.size <= MOST:
            raise ZcError(f"size is {self.size}; it must be 2 to {MOST}")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """See `Pass.run`."""
        result = PassResult(changed=False)
        outcome = Outcome(model, ctx)
        before = count(model)
        layers = [one for one in choose_layers(model, self.skip, self.only, result) if self._pays(one, result)]
        if not layers:
            result.declined(model.name, "no weight was clustered: no layer is left to change")
            return result
        seen = moments_of(model, layers, outcome.fit, ctx)
        editor, names = Editor(model.graph, Names(model.graph)), Names(model.graph)
        bits, weights = 0.0, 0
        for layer in ctx.track(layers, "cluster", len(layers)):
            codes, book = _clustered(layer, seen.get(id(layer.node)), self.size, names)
            bits += entropy_bits(codes) * codes.size + 8 * book.nbytes
            weights += codes.size
            if self.store:
                store(layer, codes, book, editor, names)
            else:
                layer.weight.values = book[codes]
        editor.finish()
        sort_nodes(model.graph)
        forget(model, [layer.weight for layer in layers])
        result.changed = True
        after = count(model)
        result.stats.update(
            layers=len(layers),
            weights=weights,
            bits_each=round(bits / max(weights, 1), 3),
            bytes_if_packed=round(bits / 8),
            bytes_before=before.bytes,
            bytes_after=after.bytes,
        )
        outcome.tell(model, result)
        return result

    def _pays(self, layer: Layer, result: PassResult) -> bool:
        size, each = layer.weight.size, layer.weight.values.itemsize
        if self.store and bytes_stored(size, self.size, each) >= size * each:
            result.declined(describe(layer.node), f"{size} weights are too few to pay for a codebook of {self.size}")
            return False
        return True


def _clustered(layer: Layer, moments: Moments | None, size: int, names: Names) -> tuple[Array, Array]:
    """Indices of the weight's shape, uint8, and the codebook in its type; the bias takes over what means move."""
    values = layer.weight.values
    matrix = layer.matrix()
    counts = np.ones_like(matrix)
    if moments is not None:
        counts = np.broadcast_to(np.einsum("gdd->gd", moments.matrix)[:, :, None], matrix.shape)
    flat, each = values.astype(np.float64).ravel(), layer.from_matrix(counts).ravel()
    zero = float((flat == 0).mean()) >= SPARSE
    book = cluster(flat, each, size, zero=zero).astype(values.dtype)
    codes = nearest(flat, book.astype(np.float64)).astype(np.uint8).reshape(values.shape)
    if moments is not None and layer.may_shift:
        error = matrix - layer.as_matrix(book[codes])
        layer.set_offset(layer.offset() + (moments.mean[:, None] @ error).reshape(-1), names)
    return codes, book
