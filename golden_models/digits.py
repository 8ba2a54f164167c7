"""Trains the digit classifier on scikit-learn's 8x8 digits and writes it with and without BatchNormalization.

                                                               +-> conv 1x1 -+
    input -> stem -> residual -> pool -> depthwise -> pointwise -+             +-> Concat -> head -> mean -> Gemm
                                                               +-> conv 3x3 -+

Training is in NumPy, float32, from fixed seeds and on one thread, so two runs on one machine give the same bytes.
Another type of CPU, or another build of NumPy's linear algebra, rounds differently, and training amplifies that: expect
other weights there and an accuracy within about a percent. The committed files are the reference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from builder import Builder, tensor
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from tape import Array, BatchNorm, Tape, Var
from texts import generator
from threadpoolctl import threadpool_limits

TEST_ROWS = 500
CALIBRATION_ROWS = 256
EPOCHS = 60
BATCH = 64
PEAK_RATE = 0.1
WEIGHT_DECAY = 5e-4
MOMENTUM = 0.9
SMOOTHING = 0.05

# name -> (kernel, channels in, channels out); a depthwise one has 1 channel in, as ONNX's weight has.
CONVS = {
    "stem": (3, 1, 16),
    "res1": (3, 16, 16),
    "res2": (3, 16, 16),
    "depthwise": (3, 1, 16),
    "pointwise": (1, 16, 32),
    "branch1x1": (1, 32, 16),
    "branch3x3": (3, 32, 16),
    "head": (3, 32, 32),
}
DEPTHWISE = "depthwise"


@dataclass(frozen=True)
class Split:
    """Images [n, 1, 8, 8] in 0..1, and their digits."""

    x: Array
    y: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What goes into the .npz."""
        return {"x": self.x, "y": self.y}


@dataclass(frozen=True)
class Data:
    """The three parts of the data set; no row is in two of them."""

    train: Split
    calibration: Split
    test: Split


class Net:
    """The parameters, and the forward pass over them as training sees it."""

    def __init__(self) -> None:
        self.kernels: dict[str, Var] = {}
        self.norms: dict[str, BatchNorm] = {}
        for name, (k, channels_in, channels_out) in CONVS.items():
            deviation = np.sqrt(2 / (k * k * channels_in))
            value = generator(name).normal(0, deviation, (k, k, channels_in, channels_out))
            self.kernels[name] = Var(value.astype(np.float32))
            self.norms[name] = BatchNorm.of(channels_out)
        self.weight = Var(generator("classifier").normal(0, 0.1, (32, 10)).astype(np.float32))
        self.bias = Var(np.zeros(10, np.float32))

    def parameters(self) -> Iterator[tuple[Var, bool]]:
        """Every trained value, and whether weight decay applies to it."""
        for name, kernel in self.kernels.items():
            yield kernel, True
            yield self.norms[name].scale, False
            yield self.norms[name].bias, False
        yield self.weight, True
        yield self.bias, False

    def logits(self, tape: Tape, images: Array) -> Var:
        """The forward pass on [n, 8, 8, 1]."""

        def block(x: Var, name: str) -> Var:
            conv = tape.depthwise if name == DEPTHWISE else tape.conv
            return tape.batch_norm(conv(x, self.kernels[name]), self.norms[name])

        x = tape.clip(block(Var(images), "stem"))
        x = tape.clip(tape.add(block(tape.clip(block(x, "res1")), "res2"), x))
        x = tape.max_pool(x)
        x = tape.clip(block(x, "depthwise"), 6)
        x = tape.clip(block(x, "pointwise"), 6)
        x = tape.concat([tape.clip(block(x, "branch1x1")), tape.clip(block(x, "branch3x3"))])
        x = tape.clip(block(x, "head"))
        return tape.linear(tape.mean_pool(x), self.weight, self.bias)


def load() -> Data:
    """scikit-learn's 1797 digits, shuffled once and cut in three."""
    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    y = labels.astype(np.int64)
    order = generator("split").permutation(len(x))
    cuts = [TEST_ROWS, TEST_ROWS + CALIBRATION_ROWS]
    test, calibration, train = (Split(x[rows], y[rows]) for rows in np.split(order, cuts))
    return Data(train, calibration, test)


def train(split: Split) -> Net:
    """Stochastic gradient descent with momentum, one cosine of learning rate, images shifted by up to one pixel."""
    net = Net()
    random = generator("training")
    images = np.pad(split.x.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    targets = np.eye(10, dtype=np.float32)[split.y] * np.float32(1 - SMOOTHING) + np.float32(SMOOTHING / 10)
    velocity = [np.zeros_like(var.value) for var, _ in net.parameters()]
    batches = len(images) // BATCH
    with threadpool_limits(limits=1):
        for step in range(EPOCHS * batches):
            if step % batches == 0:
                order = random.permutation(len(images))
            rows = order[step % batches * BATCH :][:BATCH]
            tape = Tape()
            tape.cross_entropy(net.logits(tape, _shifted(images[rows], random)), targets[rows])
            tape.backward()
            rate = PEAK_RATE * _schedule(step / (EPOCHS * batches))
            for (var, decays), speed in zip(net.parameters(), velocity, strict=True):
                gradient = var.grad + np.float32(WEIGHT_DECAY) * var.value if decays else var.grad
                speed *= np.float32(MOMENTUM)
                speed += gradient
                var.value -= np.float32(rate) * speed
                var.grad[...] = 0
    return net


def model(net: Net, *, fold: bool) -> onnx.ModelProto:
    """The trained network as ONNX, with BatchNormalization folded into the convolutions or kept."""
    b = Builder("digits_cnn" if fold else "digits_cnn_bn")
    zero, six = b.weight("zero", np.array(0, np.float32)), b.weight("six", np.array(6, np.float32))

    def block(x: str, name: str) -> str:
        k = CONVS[name][0]
        kernel = net.kernels[name].value.transpose(3, 2, 0, 1)  # ONNX: [out, in, k, k]
        bn = net.norms[name]
        attributes: dict[str, Any] = {
            "kernel_shape": [k, k],
            "pads": [k // 2] * 4,
            "strides": [1, 1],
            "dilations": [1, 1],
        }
        attributes["group"] = kernel.shape[0] if name == DEPTHWISE else 1
        if fold:
            # In float64 and rounded once: the twins then differ by the order of float32 sums alone.
            factor = bn.scale.value / np.sqrt(bn.var.astype(np.float64) + bn.epsilon)
            weight = b.weight(f"{name}_weight", (kernel * factor[:, None, None, None]).astype(np.float32))
            bias = b.weight(f"{name}_bias", (bn.bias.value - bn.mean * factor).astype(np.float32))
            return b.node("Conv", f"{name}_conv", [x, weight, bias], **attributes)
        weight = b.weight(f"{name}_weight", kernel)
        x = b.node("Conv", f"{name}_conv", [x, weight], **attributes)
        statistics = {"scale": bn.scale.value, "bias": bn.bias.value, "mean": bn.mean, "var": bn.var}
        names = [b.weight(f"{name}_bn_{key}", value) for key, value in statistics.items()]
        return b.node("BatchNormalization", f"{name}_bn", [x, *names], epsilon=bn.epsilon)

    def relu(x: str, name: str) -> str:
        return b.node("Relu", f"{name}_relu", [x])

    def relu6(x: str, name: str) -> str:
        return b.node("Clip", f"{name}_relu6", [x, zero, six])

    x = stem = relu(block("input", "stem"), "stem")
    x = block(relu(block(x, "res1"), "res1"), "res2")
    x = relu(b.node("Add", "res_add", [x, stem]), "res")
    x = b.node("MaxPool", "pool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = relu6(block(x, "depthwise"), "depthwise")
    x = relu6(block(x, "pointwise"), "pointwise")
    branches = [relu(block(x, name), name) for name in ("branch1x1", "branch3x3")]
    x = b.node("Concat", "concat", branches, axis=1)
    x = relu(block(x, "head"), "head")
    x = b.node("GlobalAveragePool", "mean", [x])
    x = b.node("Flatten", "flatten", [x], axis=1)
    weight = b.weight("classifier_weight", net.weight.value.T)
    bias = b.weight("classifier_bias", net.bias.value)
    b.node("Gemm", "classifier", [x, weight, bias], "logits", alpha=1.0, beta=1.0, transA=0, transB=1)
    return b.model([tensor("input", ["N", 1, 8, 8])], [tensor("logits", ["N", 10])])


def _schedule(progress: float) -> float:
    """A fraction of the peak rate: up over the first tenth of training, then down along a cosine to zero."""
    return progress / 0.1 if progress < 0.1 else 0.5 + 0.5 * float(np.cos(np.pi * (progress - 0.1) / 0.9))


def _shifted(padded: Array, random: np.random.Generator) -> Array:
    """Each [10, 10] image cut to [8, 8] at one of the nine places."""
    i, j = random.integers(0, 3, (2, len(padded), 1, 1))
    cut: Array = padded[np.arange(len(padded))[:, None, None], i + np.arange(8)[:, None], j + np.arange(8)]
    return cut
