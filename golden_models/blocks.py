"""Structures that are not convolutions, with random weights: a transformer block, an LSTM and a recommender.

Names and shape arithmetic are as torch's exporter writes them, repetitions included: clean-up then has its usual work.
"""

from typing import Any

import numpy as np
import onnx
from builder import Builder, tensor
from onnx import TensorProto, numpy_helper
from texts import generator

SEQUENCE, WIDTH, HEADS, FEED_FORWARD = 16, 32, 4, 64
FEATURES, EMBEDDED, HIDDEN, CLASSES = 8, 16, 16, 4
USERS, ITEMS, EMBEDDING, DENSE = 100, 200, 16, 8


class TorchLike(Builder):
    """A builder with the idioms that torch's exporter repeats."""

    def random(self, name: str, *shape: int, deviation: float | None = None) -> str:
        """A weight of normal numbers; by default of the deviation that keeps the size of x @ w or w @ x."""
        deviation = deviation or 1 / np.sqrt(shape[-1])
        return self.weight(name, generator(f"{self.name}/{name}").normal(0, deviation, shape).astype(np.float32))

    def constant(self, name: str, value: Any, dtype: type[np.generic] = np.int64) -> str:
        """A Constant node."""
        return self.node("Constant", name, [], value=numpy_helper.from_array(np.array(value, dtype), ""))

    def extent(self, name: str, x: str, axis: int) -> str:
        """The length of one axis of x, as int64[1]: Shape, Gather, Unsqueeze."""
        shape = self.node("Shape", f"{name}/Shape", [x])
        index = self.constant(f"{name}/Constant", axis)
        length = self.node("Gather", f"{name}/Gather", [shape, index], axis=0)
        axes = self.constant(f"{name}/Constant_1", [0])
        return self.node("Unsqueeze", f"{name}/Unsqueeze", [length, axes])

    def reshape(self, name: str, x: str, like: str, *tail: int) -> str:
        """Reshape of x to the first two axes of another value and a fixed tail."""
        batch, sequence = (self.extent(f"{name}/size{axis}", like, axis) for axis in (0, 1))
        fixed = [self.constant(f"{name}/Constant_{index}", [length]) for index, length in enumerate(tail)]
        shape = self.node("Concat", f"{name}/Concat", [batch, sequence, *fixed], axis=0)
        return self.node("Reshape", f"{name}/Reshape", [x, shape], allowzero=0)

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        """MatMul and Add: what a linear layer on a value of rank 3 becomes."""
        weight = self.weight(
            f"{name}.weight",
            generator(f"{self.name}/{name}").normal(0, 1 / np.sqrt(inputs), (inputs, outputs)).astype(np.float32),
        )
        product = self.node("MatMul", f"/{name}/MatMul", [x, weight])
        return self.node("Add", f"/{name}/Add", [self.random(f"{name}.bias", outputs, deviation=0.1), product])

    def gemm(self, name: str, x: str, inputs: int, outputs: int, output: str | None = None) -> str:
        """Gemm: a linear layer on a value of rank 2."""
        weight = self.random(f"{name}.weight", outputs, inputs)
        bias = self.random(f"{name}.bias", outputs, deviation=0.1)
        return self.node("Gemm", f"/{name}/Gemm", [x, weight, bias], output, alpha=1.0, beta=1.0, transB=1)

    def layer_norm(self, name: str, x: str, width: int) -> str:
        """LayerNormalization over the last axis, with a scale near one."""
        scale = generator(f"{self.name}/{name}").uniform(0.5, 1.5, width).astype(np.float32)
        weights = [self.weight(f"{name}.weight", scale), self.random(f"{name}.bias", width, deviation=0.1)]
        return self.node("LayerNormalization", f"/{name}/LayerNormalization", [x, *weights], axis=-1, epsilon=1e-5)


def transformer_block() -> onnx.ModelProto:
    """One encoder block, normalised before attention and before the feed-forward part; GELU is written out."""
    b = TorchLike("transformer_block")
    x = b.layer_norm("norm1", "input", WIDTH)
    heads = {}
    for name, perm in {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}.items():
        part = b.linear(f"attention/{name}", x, WIDTH, WIDTH)
        part = b.reshape(f"/attention/{name}", part, x, HEADS, WIDTH // HEADS)
        heads[name] = b.node("Transpose", f"/attention/{name}/Transpose", [part], perm=perm)
    scores = b.node("MatMul", "/attention/MatMul", [heads["query"], heads["key"]])
    root = b.constant("/attention/Constant", np.sqrt(WIDTH // HEADS), np.float32)
    scores = b.node("Div", "/attention/Div", [scores, root])
    weights = b.node("Softmax", "/attention/Softmax", [scores], axis=-1)
    mixed = b.node("MatMul", "/attention/MatMul_1", [weights, heads["value"]])
    mixed = b.node("Transpose", "/attention/Transpose", [mixed], perm=[0, 2, 1, 3])
    mixed = b.reshape("/attention", mixed, x, WIDTH)
    mixed = b.linear("attention/output", mixed, WIDTH, WIDTH)
    x = residual = b.node("Add", "/Add", ["input", mixed])
    x = b.layer_norm("norm2", x, WIDTH)
    x = b.linear("feed_forward/expand", x, WIDTH, FEED_FORWARD)
    scaled = b.node("Div", "/gelu/Div", [x, b.constant("/gelu/Constant", np.sqrt(2), np.float32)])
    erf = b.node("Erf", "/gelu/Erf", [scaled])
    erf = b.node("Add", "/gelu/Add", [erf, b.constant("/gelu/Constant_1", 1, np.float32)])
    x = b.node("Mul", "/gelu/Mul", [x, erf])
    x = b.node("Mul", "/gelu/Mul_1", [x, b.constant("/gelu/Constant_2", 0.5, np.float32)])
    x = b.linear("feed_forward/contract", x, FEED_FORWARD, WIDTH)
    b.node("Add", "/Add_1", [residual, x], "output")
    return b.model([tensor("input", ["N", SEQUENCE, WIDTH])], [tensor("output", ["N", SEQUENCE, WIDTH])])


def lstm() -> onnx.ModelProto:
    """A linear embedding of every step, an LSTM that starts from zeros, and a classifier on its last step."""
    b = TorchLike("lstm")
    x = b.linear("embedding", "input", FEATURES, EMBEDDED)
    x = b.node("Relu", "/Relu", [x])
    lengths = [
        b.constant("/lstm/Constant", [1]),
        b.extent("/lstm/size0", x, 0),
        b.constant("/lstm/Constant_1", [HIDDEN]),
    ]
    shape = b.node("Concat", "/lstm/Concat", lengths, axis=0)
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "")
    states = [b.node("ConstantOfShape", f"/lstm/ConstantOfShape{suffix}", [shape], value=zero) for suffix in ("", "_1")]
    x = b.node("Transpose", "/lstm/Transpose", [x], perm=[1, 0, 2])
    weights = [
        b.random("lstm.W", 1, 4 * HIDDEN, EMBEDDED),
        b.random("lstm.R", 1, 4 * HIDDEN, HIDDEN),
        b.random("lstm.B", 1, 8 * HIDDEN, deviation=0.1),
    ]
    x = b.node("LSTM", "/lstm/LSTM", [x, *weights, "", *states], hidden_size=HIDDEN)
    x = b.node("Squeeze", "/lstm/Squeeze", [x, b.constant("/lstm/Constant_2", [1])])
    x = b.node("Transpose", "/lstm/Transpose_1", [x], perm=[1, 0, 2])
    x = b.node("Gather", "/Gather", [x, b.constant("/Constant", -1)], axis=1)
    b.gemm("classifier", x, HIDDEN, CLASSES, "logits")
    return b.model([tensor("input", ["N", "T", FEATURES])], [tensor("logits", ["N", CLASSES])])


def recommender() -> onnx.ModelProto:
    """Embeddings of a user and an item beside dense features, and three layers on top."""
    b = TorchLike("recommender")
    parts = []
    for name, rows in {"user": USERS, "item": ITEMS}.items():
        table = b.random(f"{name}_embedding.weight", rows, EMBEDDING, deviation=1)
        parts.append(b.node("Gather", f"/{name}_embedding/Gather", [table, name], axis=0))
    x = b.node("Concat", "/Concat", [*parts, "features"], axis=1)
    x = b.node("Relu", "/Relu", [b.gemm("layer1", x, 2 * EMBEDDING + DENSE, 64)])
    x = b.node("Relu", "/Relu_1", [b.gemm("layer2", x, 64, 32)])
    b.node("Sigmoid", "/Sigmoid", [b.gemm("layer3", x, 32, 1)], "score")
    ids = [tensor(name, ["N"], TensorProto.INT64) for name in ("user", "item")]
    return b.model([*ids, tensor("features", ["N", DENSE])], [tensor("score", ["N", 1])])
