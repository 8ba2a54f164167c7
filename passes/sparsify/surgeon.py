"""Second-order sparsity: what leaves is what the layer's outputs miss least, and what stays makes up for it.

Optimal brain surgery along the columns of a weight: with the inverse of the moments H of the inputs, zeroing weight i
costs w_i^2 / (H^-1)_ii, and the weights behind it move by -w_i (H^-1)_i. / (H^-1)_ii. The walk along the Cholesky
factor keeps the inverse of what is left at hand (Hassibi and Stork, 1993; Frantar and Alistarh, SparseGPT, 2023).
"""

import numpy as np

from zc.ir.graph import Array
from zc.passes.sparsify.masks import Bools, Pattern, by_pattern, by_share

BLOCK = 128
"""Inputs among which it is chosen at once what leaves."""


def carve(weights: Array, moments: Array, share: float, pattern: Pattern | None) -> Array:
    """Weights with zeros [groups, D, M], the rest moved to make up for them; never worse than without moving it.

    moments: [groups, D, D], positive definite. share: of the weights that become zero, where there is no pattern.
    """
    return np.stack([_carve(w, h, share, pattern) for w, h in zip(weights, moments, strict=True)])


def _carve(weights: Array, moments: Array, share: float, pattern: Pattern | None) -> Array:
    size = len(weights)
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T  # upper; its rows are the inverses of what is left
    diagonal = np.diag(factor)
    left = weights.astype(np.float64).copy()
    block = BLOCK if pattern is None else max(BLOCK // pattern.of, 1) * pattern.of
    for start in range(0, size, block):
        stop = min(start + block, size)
        keep = _choose(left[start:stop], diagonal[start:stop], share, pattern)
        errors = np.zeros((stop - start, left.shape[1]))
        for i in range(start, stop):
            error = np.where(keep[i - start], 0.0, left[i]) / diagonal[i]
            left[i:stop] -= np.outer(factor[i, i:stop], error)
            left[i] = np.where(keep[i - start], left[i], 0.0)
            errors[i - start] = error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    # What was moved onto weights that left later is lost: where that was too much, the rest stays as it was.
    plain = np.where(left == 0, 0.0, weights)
    return np.where(_cost(weights - left, moments) <= _cost(weights - plain, moments), left, plain)


def _cost(error: Array, moments: Array) -> Array:
    """Of each output, [M]."""
    return np.asarray((error * (moments @ error)).sum(axis=0))


def _choose(weights: Array, diagonal: Array, share: float, pattern: Pattern | None) -> Bools:
    scores = np.square(weights / diagonal[:, None])
    if pattern is not None:
        return np.asarray(by_pattern(scores[None], pattern)[0])
    return by_share(scores, share)
