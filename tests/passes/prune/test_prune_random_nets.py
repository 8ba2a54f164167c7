"""Networks composed at random from the blocks that real ones are made of: each is pruned, and the proof must hold."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from zc.ir.model import Model
from zc.passes.prune.prune import analyse

SIDE = 4


class Net:
    """Builds a network of images [N, channels, 4, 4]; each block maps one value to the next."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {"x": 3}
        self.inputs = ["x"]
        self.outputs: dict[str, int] = {}

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        scale = np.sqrt(max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 1.0
        return self.constant((self.rng.standard_normal(shape) / scale).astype(np.float32))

    def positive(self, size: int) -> str:
        return self.constant(self.rng.uniform(0.5, 1.5, size).astype(np.float32))

    def add(self, op: str, inputs: list[str], channels: int, outputs: int = 1, **attrs: object) -> str:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}", **attrs))
        self.channels.update(dict.fromkeys(names, channels))
        return names[0]

    # ---- layers

    def conv(self, x: str, out: int, kernel: int = 1, group: int = 1, bias: bool = True) -> str:
        weight = self.weight(out, self.channels[x] // group, kernel, kernel)
        inputs = [x, weight, self.weight(out)] if bias else [x, weight]
        pads = [kernel // 2] * 4
        return self.add("Conv", inputs, out, group=group, pads=pads)

    def relu(self, x: str) -> str:
        op = ["Relu", "HardSwish", "Sigmoid", "Tanh", "LeakyRelu"][int(self.rng.integers(5))]
        return self.add(op, [x], self.channels[x])

    # ---- blocks

    def plain(self, x: str) -> str:
        return self.relu(self.conv(x, int(self.rng.choice([6, 8, 12])), 3))

    def residual(self, x: str) -> str:
        c = self.channels[x]
        inner = self.conv(self.relu(self.conv(x, 6, 3)), c, 1)
        return self.relu(self.add("Add", [x, inner], c))

    def projection(self, x: str) -> str:
        c = 2 * self.channels[x]
        return self.add("Add", [self.conv(x, c, 1), self.conv(x, c, 3)], c)

    def zero_padded_shortcut(self, x: str) -> str:
        c = self.channels[x]
        pads = self.ints(0, 2, 0, 0, 0, 3, 0, 0)
        padded = self.add("Pad", [x, pads], c + 5)
        return self.add("Add", [padded, self.conv(x, c + 5, 3)], c + 5)

    def dense(self, x: str) -> str:
        for _ in range(2):
            new = self.relu(self.conv(x, 4, 3))
            x = self.add("Concat", [x, new], self.channels[x] + 4, axis=1)
        return self.norm(x)

    def norm(self, x: str) -> str:
        c = self.channels[x]
        return self.add(
            "BatchNormalization", [x, self.positive(c), self.weight(c), self.weight(c), self.positive(c)], c
        )

    def inception(self, x: str) -> str:
        pooled = self.add("MaxPool", [x], self.channels[x], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        parts = [self.conv(x, 4, 1), self.conv(self.conv(x, 6, 1), 4, 3), self.conv(pooled, 4, 1)]
        return self.add("Concat", parts, 12, axis=1)

    def squeeze_excite(self, x: str) -> str:
        c = self.channels[x]
        gate = self.add("GlobalAveragePool", [x], c)
        gate = self.add("Sigmoid", [self.conv(self.relu(self.conv(gate, 4)), c)], c)
        return self.add("Mul", [x, gate], c)

    def split_concat(self, x: str) -> str:
        x = self.conv(x, 12, 1)
        left = self.add("Split", [x, self.ints(4, 8)], 4, 2, axis=1)
        right = left[:-1] + "1"
        self.channels[right] = 8
        right = self.residual(right)
        return self.add("Concat", [right, left], 12, axis=1)

    def shuffle(self, x: str) -> str:
        x = self.relu(self.conv(self.conv(x, 24, 1), 24, 1, group=2))
        y = self.add("Reshape", [x, self.ints(0, 2, 12, SIDE, SIDE)], 24)
        y = self.add("Transpose", [y], 24, perm=[0, 2, 1, 3, 4])
        y = self.add("Reshape", [y, self.ints(-1, 24, SIDE, SIDE)], 24)
        y = self.conv(y, 24, 3, group=24)
        return self.add("Add", [x, self.conv(y, 24, 1, group=2)], 24)

    def grouped(self, x: str) -> str:
        x = self.conv(x, 16, 1)
        return self.conv(self.relu(self.conv(x, 24, 3, group=4)), 8, 1)

    def inverted_residual(self, x: str) -> str:
        c = self.channels[x]
        y = self.relu(self.conv(x, 12, 1))
        y = self.relu(self.conv(y, 12, 3, group=12))
        return self.add("Add", [x, self.conv(y, c, 1)], c)

    def down_and_up(self, x: str) -> str:
        low = self.add("AveragePool", [x], self.channels[x], kernel_shape=[2, 2], strides=[2, 2])
        low = self.conv(low, 6, 1)
        up = self.add("ConvTranspose", [low, self.weight(6, 8, 2, 2), self.weight(8)], 8, strides=[2, 2])
        return self.add("Concat", [x, up], self.channels[x] + 8, axis=1)

    def sub_pixels(self, x: str) -> str:
        y = self.conv(x, 16, 1)
        y = self.add("DepthToSpace", [y], 4, blocksize=2)
        y = self.add("SpaceToDepth", [self.relu(y)], 16, blocksize=2)
        return self.conv(y, 8, 1)

    def parametric(self, x: str) -> str:
        c = self.channels[x]
        y = self.add("PRelu", [x, self.weight(c, 1, 1)], c)
        return self.add("InstanceNormalization", [y, self.positive(c), self.weight(c)], c)

    def group_norm(self, x: str) -> str:
        x = self.conv(x, 12, 3)
        y = self.add("Reshape", [x, self.ints(0, 4, -1)], 12)
        y = self.add("InstanceNormalization", [y, self.positive(4), self.weight(4)], 12)
        y = self.add("Reshape", [y, self.add("Shape", [x], 0)], 12)
        return self.add("Mul", [y, self.weight(12, 1, 1)], 12)

    def permuted(self, x: str) -> str:
        order = self.rng.permutation(self.channels[x])
        return self.add("Gather", [x, self.ints(*order.tolist())], self.channels[x], axis=1)

    def tiled(self, x: str) -> str:
        return self.add("Concat", [x, self.add("Neg", [x], self.channels[x]), x], 3 * self.channels[x], axis=1)

    def sliced(self, x: str) -> str:
        c = self.channels[x]
        args = [self.ints(1), self.ints(-1), self.ints(1), self.ints(1)]
        part = self.add("Slice", [x, *args], c - 2)
        pads = self.ints(0, 1, 0, 0, 0, 1, 0, 0)
        return self.add("Add", [x, self.add("Pad", [part, pads], c)], c)

    def attention(self, x: str) -> str:
        tokens = self.add("Reshape", [x, self.ints(0, 0, -1)], 0)
        tokens = self.add("Transpose", [tokens], 0, perm=[0, 2, 1])
        heads = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            y = self.add("MatMul", [tokens, self.weight(self.channels[x], 12)], 12)
            y = self.add("Add", [y, self.weight(12)], 12)
            y = self.add("Reshape", [y, self.ints(0, 0, 3, 4)], 12)
            heads.append(self.add("Transpose", [y], 12, perm=perm))
        scores = self.add("Softmax", [self.add("MatMul", heads[:2], 0)], 0, axis=-1)
        y = self.add("Transpose", [self.add("MatMul", [scores, heads[2]], 0)], 0, perm=[0, 2, 1, 3])
        y = self.add("MatMul", [self.add("Reshape", [y, self.ints(0, 0, -1)], 0), self.weight(12, self.channels[x])], 0)
        y = self.add("Transpose", [self.add("Add", [tokens, y], 0)], 0, perm=[0, 2, 1])
        return self.add("Reshape", [y, self.ints(0, 0, SIDE, SIDE)], self.channels[x])

    def recurrent(self, x: str) -> str:
        op, gates = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][int(self.rng.integers(3))]
        c, both = self.channels[x], int(self.rng.integers(1, 3))
        steps = self.add("Transpose", [self.add("Reshape", [x, self.ints(0, 0, -1)], 0)], 0, perm=[2, 0, 1])
        weights = [self.weight(both, gates * 6, c), self.weight(both, gates * 6, 6), self.weight(both, 2 * gates * 6)]
        kind = {"hidden_size": 6, "direction": ["forward", "bidirectional"][both - 1]}
        y = self.add("Transpose", [self.add(op, [steps, *weights], 0, **kind)], 0, perm=[2, 1, 3, 0])
        return self.add("Reshape", [y, self.ints(0, 6 * both, SIDE, SIDE)], 6 * both)

    def fused_attention(self, x: str) -> str:
        c = self.channels[x]
        tokens = self.add("Transpose", [self.add("Reshape", [x, self.ints(0, 0, -1)], 0)], 0, perm=[0, 2, 1])
        inner = [tokens, self.weight(c, 36), self.weight(36)]
        y = self.add("Attention", inner, 12, domain="com.microsoft", num_heads=3)
        y = self.add("Einsum", [y, self.weight(12, 8)], 8, equation="bth,ho->bot")
        return self.add("Reshape", [y, self.ints(0, 0, SIDE, SIDE)], 8)

    def hidden_rows(self, x: str) -> str:
        flat = self.add("Flatten", [x], 0)
        hidden = self.add(
            "Gemm", [flat, self.weight(10, self.channels[x] * SIDE * SIDE), self.weight(10)], 10, transB=1
        )
        image = self.add("MatMul", [self.relu(hidden), self.weight(10, 8 * SIDE * SIDE)], 0)
        return self.add("Reshape", [image, self.ints(-1, 8, SIDE, SIDE)], 8)

    def fused_heads(self, x: str) -> str:
        c = self.channels[x]
        tokens = self.tokens(x)
        parts = [self.add("MatMul", [tokens, self.weight(c, 12)], 12) for _ in range(3)]
        y = self.add("MultiHeadAttention", [*parts, self.weight(36)], 12, domain="com.microsoft", num_heads=3)
        return self.image(self.add("MatMul", [y, self.weight(12, 8)], 8), 8)

    def einsum_attention(self, x: str) -> str:
        c, heads = self.channels[x], []
        tokens = self.tokens(x)
        for _ in range(3):
            y = self.add("Einsum", [tokens, self.weight(c, 12)], 12, equation="btc,ch->bth")
            heads.append(self.add("Reshape", [y, self.ints(0, 0, 3, 4)], 12))
        scores = self.add("Softmax", [self.add("Einsum", heads[:2], 0, equation="bqhd,bkhd->bhqk")], 0, axis=-1)
        y = self.add("Einsum", [scores, heads[2]], 12, equation="bhqk,bkhd->bqhd")
        return self.image(self.add("Einsum", [y, self.weight(3, 4, 8)], 8, equation="bqhd,hdo->bqo"), 8)

    def feed_forward(self, x: str) -> str:
        """LayerNormalization and GELU as one node, fused with what is beside them, or written out."""
        c, form = self.channels[x], int(self.rng.integers(3))
        tokens = self.tokens(x)
        if form == 2:
            sums = [tokens, tokens, self.positive(c), self.weight(c)]
            y = self.add("SkipLayerNormalization", sums, c, domain="com.microsoft")
        else:
            y = (self.layer_norm if form else self.layer_norm_written_out)(tokens, c)
        hidden = self.add("MatMul", [y, self.weight(c, 20)], 20)
        if form == 2:
            hidden = self.add("BiasGelu", [hidden, self.weight(20)], 20, domain="com.microsoft")
        else:
            hidden = self.add("Add", [hidden, self.weight(20)], 20)
            hidden = self.gelu(hidden) if form == 0 else self.add("Gelu", [hidden], 20, domain="com.microsoft")
        return self.image(self.add("Add", [tokens, self.add("MatMul", [hidden, self.weight(20, c)], c)], c), c)

    def layer_norm(self, x: str, c: int) -> str:
        return self.add("LayerNormalization", [x, self.positive(c), self.weight(c)], c)

    def layer_norm_written_out(self, x: str, c: int) -> str:
        centred = self.add("Sub", [x, self.add("ReduceMean", [x], 1, axes=[-1])], c)
        square = self.add("Mul", [centred, centred], c)
        spread = self.add("Add", [self.add("ReduceMean", [square], 1, axes=[-1]), self.number(1e-5)], 1)
        y = self.add("Div", [centred, self.add("Sqrt", [spread], 1)], c)
        return self.add("Add", [self.add("Mul", [y, self.positive(c)], c), self.weight(c)], c)

    def gelu(self, x: str) -> str:
        c = self.channels[x]
        part = self.add("Erf", [self.add("Div", [x, self.number(2**0.5)], c)], c)
        y = self.add("Mul", [x, self.add("Add", [part, self.number(1.0)], c)], c)
        return self.add("Mul", [y, self.number(0.5)], c)

    def tokens(self, x: str) -> str:
        flat = self.add("Reshape", [x, self.ints(0, 0, -1)], 0)
        return self.add("Transpose", [flat], self.channels[x], perm=[0, 2, 1])

    def image(self, tokens: str, c: int) -> str:
        y = self.add("Transpose", [tokens], c, perm=[0, 2, 1])
        return self.add("Reshape", [y, self.ints(0, 0, SIDE, SIDE)], c)

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def quantised(self, x: str) -> str:
        """Codes between convolutions whose weights and biases are codes."""
        for out in (10, 8):
            scale, zero = self.number(0.05), self.constant(np.array(128, np.uint8))
            codes = self.add("QuantizeLinear", [x, scale, zero], 0)
            x_real = self.add("DequantizeLinear", [codes, scale, zero], self.channels[x])
            weight = self.constant(self.rng.integers(-127, 128, (out, self.channels[x], 1, 1)).astype(np.int8))
            scales = self.rng.uniform(0.5, 1.0, out).astype(np.float32) / (100 * self.channels[x])
            real = self.add("DequantizeLinear", [weight, self.constant(scales)], 0, axis=0)
            bias = self.constant(self.rng.integers(-3000, 3000, out).astype(np.int32))
            shift = self.add("DequantizeLinear", [bias, self.constant(scales * np.float32(0.05))], 0, axis=0)
            x = self.add("Relu", [self.add("Conv", [x_real, real, shift], out)], out)
        return x

    def shared_weight(self, x: str) -> str:
        c = self.channels[x]
        weight, bias = self.weight(c, c, 1, 1), self.weight(c)
        y = self.relu(self.add("Conv", [x, weight, bias], c))
        return self.add("Conv", [y, weight, bias], c)

    def computed_shapes(self, x: str) -> str:
        """Sizes that are read from values: a flat view and back, and zeros of the same size."""
        c = self.channels[x]
        shape = self.add("Shape", [x], 0)
        head, tail = ([self.ints(a), self.ints(b), self.ints(0)] for a, b in ((0, 2), (2, 4)))
        first, last = self.add("Slice", [shape, *head], 0), self.add("Slice", [shape, *tail], 0)
        flat = self.add("Reshape", [x, self.add("Concat", [first, self.ints(-1)], 0, axis=0)], c)
        y = self.add("Reshape", [flat, self.add("Concat", [first, last], 0, axis=0)], c)
        return self.add("Add", [y, self.add("Expand", [self.number(0.5), shape], c)], c)

    def resized(self, x: str) -> str:
        """A U-Net's step down and up, with Resize by sizes of the skipped value."""
        c = self.channels[x]
        low = self.conv(self.add("MaxPool", [x], c, kernel_shape=[2, 2], strides=[2, 2]), 6, 1)
        side = self.add("Slice", [self.add("Shape", [x], 0), self.ints(2), self.ints(4), self.ints(0)], 0)
        head = self.add("Slice", [self.add("Shape", [low], 0), self.ints(0), self.ints(2), self.ints(0)], 0)
        sizes = self.add("Concat", [head, side], 0, axis=0)
        up = self.add("Resize", [low, "", "", sizes], 6, mode="nearest")
        return self.conv(self.add("Concat", [x, up], c + 6, axis=1), 8, 3)

    def second_input(self, x: str) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(name)
        self.channels[name] = 3
        c = self.channels[x]
        return self.add("Concat", [self.add("Add", [x, self.conv(name, c, 3)], c), name], c + 3, axis=1)

    def second_output(self, x: str) -> str:
        inner = self.relu(self.conv(x, 10, 3))
        self.outputs[self.conv(inner, 4)] = 4
        return inner

    def head(self, x: str) -> Model:
        y = self.relu(self.conv(x, 16, 3))
        y = self.add("GlobalAveragePool", [y], 16)
        y = self.add("Flatten", [y], 16)
        self.nodes.append(helper.make_node("Gemm", [y, self.weight(16, 3)], ["y"], name="fc"))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, SIDE, SIDE]) for n in self.inputs],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
                *(
                    helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, *"HW"])
                    for n, c in self.outputs.items()
                ),
            ],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return Model.from_proto(proto)


BLOCKS = [
    "plain", "residual", "projection", "zero_padded_shortcut", "dense", "inception", "squeeze_excite", "split_concat",
    "shuffle", "grouped", "inverted_residual", "down_and_up", "sub_pixels", "parametric", "group_norm", "permuted",
    "tiled", "sliced", "attention", "recurrent", "fused_attention", "hidden_rows", "fused_heads", "einsum_attention",
    "feed_forward", "quantised", "shared_weight", "computed_shapes", "resized", "second_input", "second_output",
]  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
def test_each_kind_of_block_prunes_to_the_masked_original(prune_model: Callable, block: str) -> None:
    for seed in range(3):  # some blocks choose among forms
        assert prune_model(build([block], seed), ratio=0.5).result.changed


def build(blocks: list[str], seed: int) -> Model:
    net = Net(seed)
    x = net.plain("x")
    for block in blocks:
        x = getattr(net, block)(x)
        if net.channels[x] > 64:
            x = net.conv(x, 16, 1)
    return net.head(x)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5),
    st.integers(0, 2**16),
    st.sampled_from([0.2, 0.3, 0.5, 0.75]),
    st.sampled_from([1, 2]),
    st.sampled_from(["l1", "l2"]),
)
@example(["hidden_rows", "recurrent", "hidden_rows"], 0, 0.3, 1, "l1")  # steps in time are no channels
def test_any_composition_prunes_to_the_masked_original(
    prune_model: Callable, blocks: list[str], seed: int, ratio: float, round_to: int, criterion: str
) -> None:
    pruned = prune_model(build(blocks, seed), ratio=ratio, round_to=round_to, criterion=criterion)
    assert pruned.result.changed


def test_the_analysis_grows_with_the_graph_and_no_faster() -> None:
    sizes = []
    for repeats in (20, 40):
        model = build(["residual", "squeeze_excite", "shuffle", "dense", "attention"] * repeats, 0)
        flow = analyse(model).flow
        held = sum(block.labels.nbytes for block in flow.blocks if block.labels.flags.owndata)
        sizes.append((len(model.graph.nodes), flow.labels.count, len(flow.blocks), held))
    assert all(large <= 2.2 * small for small, large in zip(*sizes, strict=True))
