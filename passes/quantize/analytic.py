"""What BatchNormalization says of a model's values without any data: mean and deviation of each channel.

    y = scale (x - mean) / sqrt(var + eps) + bias      x: mean, sqrt(var)      y: bias, |scale| sqrt(var / (var + eps))

In training the statistics of x were those of the data, so that both sides of the node are known. (Nagel et al.,
Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.) The model as it came in is
looked at: folding takes the nodes away, but the values that they made keep their names.

The first convolution tells of the input too. Its outputs have the means w * m, linear in the means m of the input's
channels, and the variances w * S * w, linear in their covariance S once it is said how alike neighbouring pixels are:
least squares over its output channels gives m and S.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from zc.ir.graph import Array, Graph, Node, Tensor, attribute, fixed_value
from zc.ir.model import Model

Floats = npt.NDArray[np.float64]
Moments = dict[str, tuple[Array, Array]]
"""By name of a value: mean and standard deviation of each channel (axis 1)."""

LIKENESS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
"""Correlations of neighbouring pixels that are tried; the one that explains the variances best is taken."""


def moments(original: Model) -> Moments:
    """Mean and deviation of each channel, of the values on both sides of every BatchNormalization and of the inputs.

    original: the model before BatchNormalization was folded. Empty where it has none with constant parameters.
    """
    found: Moments = {}
    for node in original.nodes("BatchNormalization"):
        numbers = _parameters(node, original.graph)
        if numbers is None:
            continue
        scale, bias, mean, var = numbers
        share = np.sqrt(var / (var + float(attribute(node, "epsilon", 1e-5))))
        found.setdefault(node.inputs[0].name, (mean, np.sqrt(var)))
        found[node.outputs[0].name] = (bias, np.abs(scale) * share)
    for tensor in original.graph.inputs:
        if tensor.name not in found and tensor.outputs:
            told = _input_moments(tensor, found, original.graph)
            if told is not None:
                found[tensor.name] = told
    return found


def analytic_range(mean: Array, deviation: Array, sigmas: float = 6.0) -> tuple[float, float]:
    """The range that holds all channels of a value up to so many deviations from their means."""
    return float((mean - sigmas * deviation).min()), float((mean + sigmas * deviation).max())


def scale_moments(found: Moments, factors: Mapping[str, Array]) -> None:
    """Follow values whose channels were multiplied by positive factors, by name."""
    for name, factor in factors.items():
        if name in found:
            mean, deviation = found[name]
            whole = np.broadcast_to(np.asarray(factor, np.float64).reshape(-1), mean.shape)
            found[name] = mean * whole, deviation * whole


def _parameters(node: Node, graph: Graph) -> tuple[Floats, Floats, Floats, Floats] | None:
    if attribute(node, "training_mode", 0):
        return None
    values = [fixed_value(t, graph) for t in node.inputs[1:5]]
    if any(v is None or not np.isfinite(v).all() for v in values):
        return None
    scale, bias, mean, var = (np.asarray(v, np.float64).reshape(-1) for v in values)
    return (scale, bias, mean, np.maximum(var, 0)) if len({len(v) for v in (scale, bias, mean, var)}) == 1 else None


def _input_moments(tensor: Tensor, found: Moments, graph: Graph) -> tuple[Floats, Floats] | None:
    """Of an image that convolutions read, from the statistics behind the first of them; None if they do not tell."""
    for node in tensor.outputs:
        told = found.get(node.outputs[0].name) if node.op == "Conv" and node.inputs[0] is tensor else None
        weight = fixed_value(node.inputs[1], graph) if told is not None else None
        if told is None or weight is None or weight.ndim != 4 or attribute(node, "group", 1) != 1:
            continue
        bias = fixed_value(node.inputs[2], graph) if len(node.inputs) > 2 else np.zeros(1)
        if bias is None or len(weight) < weight.shape[1] * (weight.shape[1] + 1) // 2:
            continue
        return _solve(weight.astype(np.float64), told[0] - bias, np.square(told[1]))
    return None


def _solve(weight: Floats, means: Floats, variances: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of the input's channels, from those of the outputs of a convolution [M, C, kh, kw]."""
    mean = np.linalg.lstsq(weight.sum(axis=(2, 3)), means, rcond=None)[0]
    outputs, channels = weight.shape[:2]
    pairs = [(i, j) for i in range(channels) for j in range(i, channels)]
    taps = weight.reshape(outputs, channels, -1)
    at = np.stack(np.unravel_index(np.arange(taps.shape[2]), weight.shape[2:]))
    apart = np.abs(at[:, :, None] - at[:, None, :]).sum(axis=0)
    # Rows count by the size of what they explain: else the largest variances decide alone.
    worth = 1 / np.maximum(variances, 1e-3 * variances.max(initial=1e-30))
    best, deviation = np.inf, np.ones(channels)
    for likeness in LIKENESS:
        near = likeness**apart
        columns = [(2 - (i == j)) * np.einsum("op,oq,pq->o", taps[:, i], taps[:, j], near) for i, j in pairs]
        system = np.stack(columns, axis=1) * worth[:, None]
        solution = np.linalg.lstsq(system, variances * worth, rcond=None)[0]
        own = np.array([solution[pairs.index((c, c))] for c in range(channels)])
        left = float(np.square(system @ solution - variances * worth).sum())
        if (own > 0).all() and left < best:
            best, deviation = left, np.sqrt(own)
    return mean, deviation
