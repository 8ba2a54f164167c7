"""Reverse-mode differentiation in NumPy: the few operators that `digits.py` trains with.

Images are [n, height, width, channels] here, so that a convolution is one matrix product over the last axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Var:
    """A value and the gradient of the loss with respect to it."""

    def __init__(self, value: Array) -> None:
        self.value = value
        self.grad: Array = np.zeros_like(value)


@dataclass
class BatchNorm:
    """The parameters and running statistics of one batch normalisation over the last axis."""

    scale: Var
    bias: Var
    mean: Array
    var: Array
    epsilon: float = 1e-5

    @classmethod
    def of(cls, channels: int) -> "BatchNorm":
        """A fresh one, which does nothing yet."""
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return cls(Var(one.copy()), Var(zero.copy()), zero.copy(), one.copy())


@dataclass
class Tape:
    """Records the backward half of every operator, to be played from the end."""

    steps: list[Callable[[], None]] = field(default_factory=list)

    def backward(self) -> None:
        """Adds the gradient of the loss to every Var that took part."""
        for step in reversed(self.steps):
            step()

    def conv(self, x: Var, w: Var) -> Var:
        """Convolution, stride 1, "same" padding; w is [k, k, in, out]."""
        k = w.value.shape[0]
        n, height, width, _ = x.value.shape
        columns = np.concatenate([window for _, _, window in _windows(_pad(x.value, k // 2), k)], axis=-1)
        flat = columns.reshape(-1, columns.shape[-1])
        y = Var((flat @ w.value.reshape(-1, w.value.shape[-1])).reshape(n, height, width, -1))

        def back() -> None:
            dy = y.grad.reshape(flat.shape[0], -1)
            w.grad += (flat.T @ dy).reshape(w.value.shape)
            dcolumns = (dy @ w.value.reshape(flat.shape[1], -1).T).reshape(n, height, width, k * k, -1)
            dx = np.zeros_like(_pad(x.value, k // 2))
            for index, (_, _, window) in enumerate(_windows(dx, k)):
                window += dcolumns[:, :, :, index]
            x.grad += _crop(dx, k // 2)

        self.steps.append(back)
        return y

    def depthwise(self, x: Var, w: Var) -> Var:
        """Depthwise convolution, stride 1, "same" padding; w is [k, k, 1, channels]."""
        k = w.value.shape[0]
        padded = _pad(x.value, k // 2)
        y = Var(np.zeros_like(x.value))
        for i, j, window in _windows(padded, k):
            y.value += window * w.value[i, j, 0]

        def back() -> None:
            dx = np.zeros_like(padded)
            for (i, j, window), (_, _, dwindow) in zip(_windows(padded, k), _windows(dx, k), strict=True):
                w.grad[i, j, 0] += (window * y.grad).sum(axis=(0, 1, 2))
                dwindow += w.value[i, j, 0] * y.grad
            x.grad += _crop(dx, k // 2)

        self.steps.append(back)
        return y

    def batch_norm(self, x: Var, bn: BatchNorm, momentum: float = 0.1) -> Var:
        """Batch normalisation as in training: by the batch's statistics, which the running ones follow."""
        count = x.value.size // x.value.shape[-1]
        mean, var = x.value.mean(axis=(0, 1, 2)), x.value.var(axis=(0, 1, 2))
        bn.mean += momentum * (mean - bn.mean)
        bn.var += momentum * (var * np.float32(count / (count - 1)) - bn.var)
        inverse = 1 / np.sqrt(var + np.float32(bn.epsilon))
        normal = (x.value - mean) * inverse
        y = Var(normal * bn.scale.value + bn.bias.value)

        def back() -> None:
            dscale, dbias = (y.grad * normal).sum(axis=(0, 1, 2)), y.grad.sum(axis=(0, 1, 2))
            bn.scale.grad += dscale
            bn.bias.grad += dbias
            x.grad += bn.scale.value * inverse * (y.grad - (dbias + normal * dscale) / np.float32(count))

        self.steps.append(back)
        return y

    def clip(self, x: Var, high: float = np.inf) -> Var:
        """max(0, min(x, high)): Relu, or Relu6 with high=6."""
        y = Var(np.clip(x.value, np.float32(0), np.float32(high)))

        def back() -> None:
            x.grad += y.grad * ((x.value > 0) & (x.value < high))

        self.steps.append(back)
        return y

    def add(self, a: Var, b: Var) -> Var:
        """Sum of two values of one shape."""
        y = Var(a.value + b.value)

        def back() -> None:
            a.grad += y.grad
            b.grad += y.grad

        self.steps.append(back)
        return y

    def concat(self, parts: Sequence[Var]) -> Var:
        """Concatenation of the channels."""
        y = Var(np.concatenate([part.value for part in parts], axis=-1))

        def back() -> None:
            start = 0
            for part in parts:
                end = start + part.value.shape[-1]
                part.grad += y.grad[..., start:end]
                start = end

        self.steps.append(back)
        return y

    def max_pool(self, x: Var) -> Var:
        """Maximum over 2x2 tiles; the first of equal entries takes the gradient."""
        n, height, width, channels = x.value.shape
        tiles = x.value.reshape(n, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
        flat = tiles.reshape(n, height // 2, width // 2, channels, 4)
        best = flat.argmax(axis=-1)[..., None]
        y = Var(np.take_along_axis(flat, best, axis=-1)[..., 0])

        def back() -> None:
            dflat = np.zeros_like(flat)
            np.put_along_axis(dflat, best, y.grad[..., None], axis=-1)
            dtiles = dflat.reshape(n, height // 2, width // 2, channels, 2, 2)
            x.grad += dtiles.transpose(0, 1, 4, 2, 5, 3).reshape(x.value.shape)

        self.steps.append(back)
        return y

    def mean_pool(self, x: Var) -> Var:
        """Mean over height and width: [n, channels]."""
        y = Var(x.value.mean(axis=(1, 2)))

        def back() -> None:
            x.grad += y.grad[:, None, None, :] / np.float32(x.value.shape[1] * x.value.shape[2])

        self.steps.append(back)
        return y

    def linear(self, x: Var, w: Var, bias: Var) -> Var:
        """Product and sum x @ w + bias, with w [in, out]."""
        y = Var(x.value @ w.value + bias.value)

        def back() -> None:
            w.grad += x.value.T @ y.grad
            bias.grad += y.grad.sum(axis=0)
            x.grad += y.grad @ w.value.T

        self.steps.append(back)
        return y

    def cross_entropy(self, logits: Var, target: Array) -> float:
        """Mean cross entropy against a distribution per row, which starts the backward pass."""
        shifted = logits.value - logits.value.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

        def back() -> None:
            logits.grad += (np.exp(log_probability) - target) / np.float32(len(target))

        self.steps.append(back)
        return float(-(target * log_probability).sum(axis=1).mean())


def _pad(x: Array, by: int) -> Array:
    return np.pad(x, ((0, 0), (by, by), (by, by), (0, 0)))


def _crop(x: Array, by: int) -> Array:
    return x[:, by : x.shape[1] - by, by : x.shape[2] - by]


def _windows(padded: Array, k: int) -> list[tuple[int, int, Array]]:
    """The k * k shifted views that a convolution's taps see."""
    height, width = padded.shape[1] - k + 1, padded.shape[2] - k + 1
    return [(i, j, padded[:, i : i + height, j : j + width]) for i in range(k) for j in range(k)]
