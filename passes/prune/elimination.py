"""Backward elimination: which channels can be left out with the least error of what their consumers put out.

Leaving out the inputs R of a layer with the weights W and inputs of covariance S costs, once the other weights are
refitted by least squares, tr(W_R' (inv(S)_RR)^-1 W_R). The cheapest channel goes, inverse and weights are updated as
by refitting, and so on. (Hassibi and Stork, Optimal Brain Surgeon, 1993, for blocks of inputs of linear layers.)
"""

from collections.abc import Sequence

import numpy as np

from zc.ir.graph import Array
from zc.passes.prune.labels import Ints

STEPS = 64
"""Times that the costs are computed anew; of larger groups several channels leave at once."""
DAMPING = 1e-3
"""Added to the covariance, in units of the mean variance."""


class Reader:
    """A linear layer that reads the channels of a group."""

    def __init__(self, roots: Ints, covariance: Array, weights: Array) -> None:
        """Make the inverse.

        roots: int64 [D], the atom of each input. covariance: float64 [D, D]. weights: float64 [D, M].
        """
        level = float(np.trace(covariance)) / len(covariance)
        damped = covariance + (DAMPING * level + 1e-12) * np.eye(len(covariance))
        self.roots = roots
        self.inverse = np.linalg.inv(damped)
        self.weights = weights
        self.scale = max(float((weights * (covariance @ weights)).sum()), 1e-30)
        """Variance of what it puts out, summed over channels."""

    def costs(self, atoms: Ints) -> Array:
        """What each atom costs if it leaves next, as a share of the variance of the output."""
        order = np.argsort(self.roots, kind="stable")
        ordered = self.roots[order]
        starts, ends = np.searchsorted(ordered, atoms), np.searchsorted(ordered, atoms, side="right")
        result = np.zeros(len(atoms))
        counts = ends - starts
        for count in np.unique(counts[counts > 0]):
            mine = np.flatnonzero(counts == count)
            places = order[starts[mine, None] + np.arange(count)]
            blocks = self.inverse[places[:, :, None], places[:, None, :]]
            weights = self.weights[places]
            result[mine] = (weights * np.linalg.solve(blocks, weights)).sum(axis=(1, 2))
        return result / self.scale

    def leave(self, atoms: Ints) -> float:
        """Take atoms out; the cost of all together."""
        out = np.isin(self.roots, atoms)
        if not out.any():
            return 0.0
        cross = self.inverse[np.ix_(~out, out)]
        solved = np.linalg.solve(self.inverse[np.ix_(out, out)], np.hstack([cross.T, self.weights[out]]))
        cost = float((self.weights[out] * solved[:, len(cross) :]).sum())
        self.inverse = self.inverse[np.ix_(~out, ~out)] - cross @ solved[:, : len(cross)]
        self.weights = self.weights[~out] - cross @ solved[:, len(cross) :]
        self.roots = self.roots[~out]
        return cost / self.scale


def eliminate(atoms: Ints, readers: Sequence[Reader]) -> tuple[Ints, Array]:
    """The atoms in the order in which they leave, and the summed cost after each: float64 [atoms + 1].

    The readers are used up.
    """
    left = atoms
    order: list[Ints] = []
    losses = [0.0]
    step = max(1, len(atoms) // STEPS)
    while len(left):
        costs = np.sum([reader.costs(left) for reader in readers], axis=0)
        gone = left[np.lexsort((-left, costs))[:step]]
        total = losses[-1] + sum(reader.leave(gone) for reader in readers)
        losses += list(np.linspace(losses[-1], max(total, losses[-1]), len(gone) + 1)[1:])
        order.append(gone)
        left = left[~np.isin(left, gone)]
    return np.concatenate(order), np.array(losses)
