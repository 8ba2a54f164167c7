"""Normal equations in a stream: what least squares needs of any number of rows, in memory for one matrix.

Rows come in batches. They are shifted by the means of the first batch before their products are summed, so that float32
products keep what matters when a mean is large beside the deviation.
"""

import numpy as np

from zc.ir.graph import Array


class Normal:
    """Sums of products of rows with a constant appended, and with targets.

    `gram` is float64 [groups, D + 1, D + 1], `cross` [groups, D + 1, M], of shifted rows and of targets as they are.
    """

    def __init__(self, shift: Array) -> None:
        """shift: [groups, D], subtracted from every row."""
        groups, size = shift.shape
        self.shift = shift
        self.gram = np.zeros((groups, size + 1, size + 1))
        self.cross: Array | None = None
        self.square = 0.0
        """Sum of the squares of all targets."""
        self.rows = 0

    def add(self, rows: Array, targets: Array | None = None) -> None:
        """rows: [groups, R, D]; targets: [groups, R, M]."""
        ones = np.ones((*rows.shape[:2], 1), rows.dtype)
        full = np.concatenate([rows - self.shift[:, None].astype(rows.dtype), ones], axis=2)
        turned = full.transpose(0, 2, 1)
        self.gram += turned @ full
        self.rows += rows.shape[1]
        if targets is not None:
            product = (turned @ targets.astype(rows.dtype)).astype(np.float64)
            self.cross = product if self.cross is None else self.cross + product
            self.square += float(np.square(targets, dtype=np.float64).sum())

    def merged(self, other: "Normal") -> "Normal":
        """The sums of both, which have the same shift."""
        result = Normal(self.shift)
        result.gram, result.square = self.gram + other.gram, self.square + other.square
        result.rows = self.rows + other.rows
        parts = [one for one in (self.cross, other.cross) if one is not None]
        result.cross = np.sum(parts, axis=0) if parts else None
        return result

    def covariance(self) -> Array:
        """Of the rows, [groups, D, D]."""
        mean = self.gram[:, :-1, -1] / max(self.rows, 1)
        return self.gram[:, :-1, :-1] / max(self.rows, 1) - mean[:, :, None] * mean[:, None, :]

    def moments(self, free: bool) -> Array:
        """What errors of weights cost, [groups, D, D]: the covariance where a bias is free to make up for means.

        Without a bias means count as well; the shift must be 0 then.
        """
        return self.covariance() if free else np.asarray(self.gram[:, :-1, :-1] / max(self.rows, 1))

    def shrunk(self) -> Array:
        """The covariance drawn towards its diagonal, the more the fewer rows there are for its size."""
        found = self.covariance()
        size = found.shape[1]
        kept = self.rows / (self.rows + size)
        diagonal = np.einsum("gdd->gd", found)[:, :, None] * np.eye(size)
        return np.asarray(kept * found + (1 - kept) * diagonal)

    def mean(self) -> Array:
        """Of the rows, [groups, D]."""
        return self.shift + self.gram[:, :-1, -1] / max(self.rows, 1)

    def solve(self, old: Array, ridge: float, free: bool = True) -> Array:
        """The weights and bias [groups, D + 1, M] of least squared error, drawn towards `old` by `ridge`.

        old: [groups, D, M]. ridge: in units of the mean variance of the inputs; infinite: the weights stay.
        free: may there be a bias? If not the shift must be 0.
        """
        assert self.cross is not None
        mean = self.gram[:, :-1, -1:] / self.rows * free
        target = self.cross[:, -1:] / self.rows * free
        weights = old
        if np.isfinite(ridge):
            covariance = self.gram[:, :-1, :-1] / self.rows - mean * mean.transpose(0, 2, 1)
            level = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / covariance.shape[1]
            cross = self.cross[:, :-1] / self.rows - mean * target
            # Channels that are dead on these rows must not get weights out of rounding errors.
            least = FLOOR * level.mean() + 1e-12
            damped = covariance + (ridge * level + least) * np.eye(covariance.shape[1])
            weights = old + np.linalg.solve(damped, cross - covariance @ old)
        return np.concatenate([weights, target - mean.transpose(0, 2, 1) @ weights], axis=1)

    def loss(self, solution: Array) -> float:
        """Sum of squared errors of a solution on these rows."""
        assert self.cross is not None
        fitted = (solution * (self.gram @ solution)).sum()
        return float(fitted - 2 * (solution * self.cross).sum() + self.square)


RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, np.inf)
FLOOR = 1e-5
"""The least ridge, in units of the mean variance of all groups of a layer."""
CAUTIOUS = 1e-1
"""The ridge where no rows can be held back to choose one."""


def choose_ridge(train: Normal, held: Normal, old: Array, free: bool = True) -> float:
    """The ridge of `RIDGES` with which what `train` teaches does best on the rows held back."""
    if not held.rows:
        return CAUTIOUS
    return min(RIDGES, key=lambda ridge: held.loss(train.solve(old, ridge, free)))


def fit(train: Normal, held: Normal, old: Array, free: bool = True) -> tuple[Array, Array]:
    """Weights [groups, D, M] and bias [groups, M] in unshifted inputs; the ridge is the one that held-back rows like.

    train, held: sums of two parts of the rows. old: the weights as they are. free: may there be a bias?
    """
    solution = train.merged(held).solve(old, choose_ridge(train, held, old, free), free)
    weights = solution[:, :-1]
    bias = solution[:, -1] - (train.shift[:, None] @ weights)[:, 0]
    return weights, bias
