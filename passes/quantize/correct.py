"""Bias correction: shift each channel's bias so that its mean is the float model's.

Rounding weights shifts the mean of what a layer puts out, by another amount in each channel, and the shifts add up
through the net. Layer after layer, on a net whose earlier layers are already quantised and corrected, the mean over
samples and positions is measured and the difference to the float model's goes into the int32 bias.
(Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.2, measured on
samples instead of estimated.)
"""

from collections.abc import Sequence

import numpy as np

from zc.data import Samples
from zc.execute import Feeds, Runner
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.passes.quantize.scheme import BIAS_LIMIT
from zc.passes.quantize.stepwise import cut, run_pieces
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context

MOST_ROWS = 256
MEMORY = 512 * 2**20
"""Bytes that held values may take."""


def correct_biases(model: Model, original: Model, coded: Sequence[Coded], samples: Samples, ctx: Context) -> int:
    """Correct the biases of a quantised model in place; the number of layers corrected.

    original: the float model with the same value names. coded: its weighted operators, in graph order; those with a
    bias are corrected.
    """
    layers = {id(one.output): one for one in coded if one.bias is not None}
    if not layers:
        return 0
    names = {one.float_name: one.channel_axis for one in layers.values()}
    feeds = _hold(original, list(names), samples)
    want = _float_means(original, names, feeds, ctx)
    pieces = cut(model, [one.output for one in layers.values()])
    done = 0
    for piece, held in ctx.track(run_pieces(model, pieces, feeds), "correct biases", len(pieces)):
        layer = layers[id(piece.stop)]
        name = piece.stop.name
        got = _mean([values[name] for values in held], layer.channel_axis)
        shift = _shift(layer, want[layer.float_name] - got)
        for values in held:
            values[name] = values[name] + _along(shift, values[name].ndim, layer.channel_axis)
        done += 1
    return done


def _shift(layer: Coded, wanted: Array) -> Array:
    """Add to the bias of a layer, by channel; what was really added, float32."""
    assert layer.bias is not None  # those without were left out
    before = layer.bias.values
    if layer.bias_scales is None:
        layer.bias.values = before + wanted.astype(np.float32).reshape(before.shape)
        return wanted.astype(np.float32)
    scales = layer.bias_scales.astype(np.float64)
    after = np.clip(before + np.rint(wanted / scales), -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)
    layer.bias.values = after
    return np.asarray((after.astype(np.int64) - before) * scales, np.float32)


def _hold(original: Model, names: Sequence[str], samples: Samples) -> list[Feeds]:
    """As many batches as may be held while the model runs piece by piece."""
    first = next(samples.batches(1))
    values = Runner(original, outputs=list(names)).run(first)
    # About two layers' outputs are alive at once, as codes of one byte for each float32, and one in float.
    row = sum(v.nbytes for v in first.values()) + 2 * max(v.nbytes for v in values.values())
    rows = max(1, min(MOST_ROWS, MEMORY // row))
    feeds: list[Feeds] = []
    taken = 0
    for feed in samples.batches(32):
        feeds.append(feed)
        taken += 1 if samples.reader.whole else samples.batch or min(32, samples.rows - taken)
        if taken >= rows:
            break
    return feeds


def _float_means(original: Model, names: dict[str, int], feeds: Sequence[Feeds], ctx: Context) -> dict[str, Array]:
    runner = Runner(original, outputs=list(names), threads=ctx.threads)
    sums: dict[str, Array] = {}
    counts = dict.fromkeys(names, 0)
    for feed in feeds:
        for name, value in runner.run(feed).items():
            total, count = _sum(value, names[name])
            sums[name] = sums[name] + total if name in sums else total
            counts[name] += count
    return {name: sums[name] / counts[name] for name in names}


def _mean(values: Sequence[Array], axis: int) -> Array:
    pairs = [_sum(value, axis) for value in values]
    return np.asarray(sum(total for total, _ in pairs) / sum(count for _, count in pairs))


def _sum(value: Array, axis: int) -> tuple[Array, int]:
    """Sum by channel in float64, and how many elements each sum has."""
    moved = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
    return moved.sum(axis=1, dtype=np.float64), moved.shape[1]


def _along(per_channel: Array, rank: int, axis: int) -> Array:
    return per_channel.reshape([-1 if a == axis % rank else 1 for a in range(rank)])
