"""Every operator of the int8 executor on random codes against onnxruntime's default level: how many codes differ?

    python benchmarks/exactness.py [--minutes 10] [--seed 0] [--only conv,add]

Each turn draws, for each operator, a model of its own: a shape, scales (half of them powers of two, so that many
results are ties), zero points, uint8 or int8 codes, as Q/DQ and, where there is one, as an operator on codes; it runs
on several feeds. The table has the outputs compared, those that differ, and how many models ran in float (their results
are onnxruntime's own). onnxruntime runs with the options of `zc.runtime.reference`.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zc.execute import Runner
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.runtime import Session
from zc.runtime.recognize import TABLED
from zc.runtime.reference import session_options

F32 = np.float32
MICROSOFT = "com.microsoft"


@dataclass
class Coded:
    """A value in the graph: its codes, and the names of scale and zero point."""

    codes: str
    parameters: list[str]


@dataclass
class Draw:
    """A random model of one operator, and feeds for it."""

    rng: np.random.Generator
    kind: type = np.uint8
    on_codes: bool = False
    """As an operator on codes, where there is one."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: dict[str, Array] = field(default_factory=dict)

    def upto(self, most: int, least: int = 1) -> int:
        """A whole number, both bounds included."""
        return int(self.rng.integers(least, most + 1))

    def one_of(self, *choices: Any) -> Any:
        """One of them."""
        return choices[int(self.rng.integers(len(choices)))]

    def constant(self, values: Any) -> str:
        """A constant's name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values), f"k{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, op: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """A node's output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def scale(self) -> float:
        """Of activations."""
        return 2.0 ** self.upto(0, -7) if self.rng.integers(2) else float(F32(np.exp(self.rng.uniform(-5, 0.5))))

    def coding(self, scale: float | None = None, zero: int | None = None) -> list[str]:
        """Names of a scale and a zero point (counted from the lowest code)."""
        zero = self.one_of(0, 1, 127, 128, 255, self.upto(255, 0)) if zero is None else zero
        lowest = int(np.iinfo(self.kind).min)
        return [self.constant(F32(self.scale() if scale is None else scale)), self.constant(self.kind(zero + lowest))]

    def array(self, *shape: int) -> Array:
        """Random codes."""
        info = np.iinfo(self.kind)
        return self.rng.integers(info.min, info.max + 1, shape).astype(self.kind)

    def input(self, *shape: int) -> Coded:
        """Codes that are fed."""
        name, values = f"x{len(self.inputs)}", self.array(*shape)
        self.feeds[name] = values
        element = helper.np_dtype_to_tensor_dtype(values.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, element, [None, *shape[1:]] if shape else []))
        return Coded(name, self.coding())

    def real(self, x: Coded, axis: int = 1) -> str:
        """What codes stand for."""
        return self.node("DequantizeLinear", [x.codes, *x.parameters], axis=axis)

    def weight(self, *shape: int, axis: int, whole: bool = False) -> Coded:
        """Constant int8 codes, with a scale for each channel (or for all)."""
        count = 1 if whole else shape[axis]
        exact = bool(self.rng.integers(2))
        scale = 2.0 ** self.rng.integers(-10, -4, count) if exact else self.rng.uniform(0.001, 0.03, count)
        scale = F32(scale.reshape(()) if whole else scale)
        codes = self.rng.integers(-128, 128, shape).astype(np.int8)
        return Coded(self.constant(codes), [self.constant(scale), self.constant(np.zeros(scale.shape, np.int8))])

    def bias(self, x: Coded, w: Coded, count: int) -> Coded:
        """int32, in units of both scales."""
        values = {k.name: numpy_helper.to_array(k) for k in self.constants}
        scale = np.broadcast_to(values[x.parameters[0]] * values[w.parameters[0]], (count,)).astype(F32)
        codes = self.rng.integers(-4000, 4000, count).astype(np.int32)
        return Coded(self.constant(codes), [self.constant(scale), self.constant(np.zeros(count, np.int32))])

    def end(self, value: str, element: int | None = None) -> None:
        """An output of the model."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind)) if element is None else element
        self.outputs.append(helper.make_tensor_value_info(value, element, None))

    def rounded(self, value: str, parameters: list[str] | None = None) -> None:
        """Q, and the end."""
        self.end(self.node("QuantizeLinear", [value, *(parameters or self.coding())]))

    def model(self) -> Model:
        """The model."""
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
        return Model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


# ---- operators


def convolution(d: Draw, group: int, per_in: int, per_out: int, dims: int = 2) -> None:
    """Any kernel, stride, dilation, padding."""
    x, kernel = (
        d.input(d.upto(2), group * per_in, *(d.upto(14, 10) for _ in range(dims))),
        [d.upto(4) for _ in range(dims)],
    )
    w = d.weight(group * per_out, per_in, *kernel, axis=0, whole=d.one_of(True, False))
    how = {
        "strides": [d.upto(3) for _ in kernel],
        "dilations": [d.upto(2) for _ in kernel],
        "pads": [d.upto(2, 0) for _ in range(2 * dims)],
        "group": group,
    }
    bias = d.one_of(None, d.bias(x, w, group * per_out))
    if d.on_codes:
        inputs = [x.codes, *x.parameters, w.codes, *w.parameters, *d.coding()]
        d.end(d.node("QLinearConv", [*inputs, *([] if bias is None else [bias.codes])], **how))
        return
    inputs = [d.real(x), d.real(w, 0), *([] if bias is None else [d.real(bias, 0)])]
    d.rounded(d.node("Conv", inputs, **how))


def matrix(d: Draw) -> None:
    """Gemm or MatMul with constant weights."""
    rows, k, n = d.upto(40), d.upto(200), d.upto(150)
    x = d.input(rows, k)
    if d.one_of(True, False):
        w = d.weight(k, n, axis=1, whole=True)
        if d.on_codes:
            d.end(d.node("QLinearMatMul", [x.codes, *x.parameters, w.codes, *w.parameters, *d.coding()]))
        else:
            d.rounded(d.node("MatMul", [d.real(x), d.real(w)]))
        return
    w = d.weight(n, k, axis=0, whole=d.one_of(True, False))
    bias = d.bias(x, w, n)
    if d.on_codes:
        inputs = [x.codes, *x.parameters, w.codes, *w.parameters, bias.codes, *d.coding()]
        d.end(d.node("QGemm", inputs, domain=MICROSOFT, transB=1))
    else:
        value = d.node("Gemm", [d.real(x), d.real(w, 0), d.real(bias, 0)], transB=1)
        if d.one_of(True, False):
            d.rounded(value)
        else:
            d.end(value, TensorProto.FLOAT)


def two_computed(d: Draw) -> None:
    """MatMul of two activations."""
    m, k, n, batch = d.upto(40), d.upto(90), d.upto(60), d.upto(3)
    a, b = d.input(batch, m, k), d.input(batch, k, n)
    if d.on_codes:
        d.end(d.node("QLinearMatMul", [a.codes, *a.parameters, b.codes, *b.parameters, *d.coding()]))
    else:
        d.rounded(d.node("MatMul", [d.real(a), d.real(b)]))


def binary(d: Draw, op: str) -> None:
    """Of two values, broadcast."""
    shape = (2, d.upto(40), d.upto(12), d.upto(12))
    a, b = d.input(*shape), d.input(*d.one_of(shape, (1, shape[1], 1, 1), (1, 1, 1, shape[3])))
    if d.on_codes and op in ("Add", "Mul"):
        inputs = [a.codes, *a.parameters, b.codes, *b.parameters, *d.coding()]
        d.end(d.node(f"QLinear{op}", inputs, domain=MICROSOFT))
    else:
        d.rounded(d.node(op, [d.real(a), d.real(b)]))


def with_constant(d: Draw, op: str) -> None:
    """Of a value and a constant in float, by channel or alone."""
    shape = (2, d.upto(300), d.upto(8), d.upto(8))
    k = d.constant(F32(d.rng.standard_normal(d.one_of((), (shape[1], 1, 1)))))
    d.rounded(d.node(op, [d.real(d.input(*shape)), k]))


def unary(d: Draw, op: str, shape: tuple[int, ...], **how: Any) -> None:
    """Of one value."""
    x = d.input(*shape)
    if d.on_codes and op in ON_CODES:
        domain = {"channels_last": 0} if op == "GlobalAveragePool" else {}
        d.end(d.node(f"QLinear{op}", [x.codes, *x.parameters, *d.coding()], domain=MICROSOFT, **how, **domain))
    else:
        d.rounded(d.node(op, [d.real(x)], **how))


ON_CODES = ("Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool")


def pool(d: Draw, op: str) -> None:
    """Windows of any kind."""
    kernel = [d.upto(4), d.upto(4)]
    how: dict[str, Any] = {"kernel_shape": kernel, "strides": [d.upto(3), d.upto(3)]}
    how["pads"] = [d.upto(k - 1, 0) for k in (*kernel, *kernel)]
    how |= {"count_include_pad": d.upto(1, 0)} if op == "AveragePool" else {"ceil_mode": d.upto(1, 0)}
    unary(d, op, (2, d.upto(80), d.upto(12, 6), d.upto(12, 6)), **how)


def softmax(d: Draw) -> None:
    """Along any axis."""
    x, axis = d.input(2, d.upto(30), d.upto(30)), d.one_of(1, 2, -1)
    levels = d.coding(d.one_of(1 / 256, 1 / 255, 0.01), 0)
    if d.on_codes:
        d.end(d.node("QLinearSoftmax", [x.codes, *x.parameters, *levels], domain=MICROSOFT, axis=axis, opset=13))
    else:
        d.rounded(d.node("Softmax", [d.real(x)], axis=axis), levels)


def concat(d: Draw) -> None:
    """Of two or three values in scales of their own."""
    shape, axis = [2, d.upto(30), d.upto(9), d.upto(9)], d.upto(3, 1)
    parts = [d.input(*(d.upto(9) if a == axis else n for a, n in enumerate(shape))) for _ in range(d.upto(3, 2))]
    if d.on_codes:
        inputs = [name for x in parts for name in (x.codes, *x.parameters)]
        d.end(d.node("QLinearConcat", [*d.coding(), *inputs], domain=MICROSOFT, axis=axis))
    else:
        d.rounded(d.node("Concat", [d.real(x) for x in parts], axis=axis))


def quantise(d: Draw) -> None:
    """Floats to codes: many halves."""
    shape, scale = (d.upto(5), d.upto(900)), d.scale()
    d.feeds["f"] = F32(d.rng.integers(-700, 700, shape) * (scale / 2) * d.one_of(1, 1.0001))
    d.inputs.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, shape))
    d.rounded("f", d.coding(scale))


def dequantise(d: Draw) -> None:
    """Codes to floats."""
    d.end(d.real(d.input(d.upto(5), d.upto(900))), TensorProto.FLOAT)


def requantise(d: Draw) -> None:
    """From one scale to another."""
    d.rounded(d.real(d.input(d.upto(5), d.upto(900))))


def resize(d: Draw, mode: str) -> None:
    """Of images."""
    size, to = [d.upto(9), d.upto(9)], [d.upto(20), d.upto(20)]
    scales = F32([1, 1, *((t + 0.4) / s for t, s in zip(to, size, strict=True))])
    hows = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    how = {"mode": mode, "coordinate_transformation_mode": d.one_of(*hows)}
    if mode == "nearest":
        how["nearest_mode"] = d.one_of("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    x = d.input(2, d.upto(40), *size)
    d.rounded(d.node("Resize", [d.real(x), "", d.constant(scales)], **how))


def moved(d: Draw) -> None:
    """What moves codes, into the same scale or another."""
    x = d.input(2, 8, 6, 6)
    op, how, more = d.one_of(
        ("Transpose", {"perm": d.one_of([0, 2, 3, 1], [3, 1, 0, 2], [1, 0, 2, 3])}, []),
        ("Reshape", {}, [np.array([2, -1, 6])]),
        ("Slice", {}, [np.array([1, 0]), np.array([6, 99]), np.array([2, 3]), np.array([d.upto(3), 1])]),
        ("Pad", {"mode": d.one_of("constant", "edge", "reflect")}, [np.array([0, 0, 1, 2, 0, 0, 0, 3])]),
        ("DepthToSpace", {"blocksize": 2, "mode": d.one_of("DCR", "CRD")}, []),
        ("SpaceToDepth", {"blocksize": 2}, []),
        ("Gather", {"axis": 1}, [d.rng.integers(-8, 8, 10)]),
        ("Tile", {}, [np.array([1, d.upto(3), d.upto(3), 1])]),
        ("Expand", {}, [np.array([3, 1, 8, 6, 6])]),
    )
    value = d.node(op, [d.real(x), *map(d.constant, more)], **how)
    d.rounded(value, d.one_of(x.parameters, None))


def tabled(d: Draw) -> None:
    """An operator of one argument."""
    op = d.one_of(*sorted(TABLED - {"Clip", "Mish"}))
    unary(d, op, (d.upto(5), d.upto(900)))


OPERATORS: dict[str, Callable[[Draw], None]] = {
    "conv": lambda d: convolution(d, 1, d.upto(70), d.upto(130)),
    "conv, grouped": lambda d: convolution(d, d.upto(4, 2), d.upto(20), d.upto(40)),
    "conv, depthwise": lambda d: convolution(d, d.upto(130, 2), 1, 1),
    "conv, 1-D": lambda d: convolution(d, d.one_of(1, 4), d.upto(20), d.upto(40), dims=1),
    "gemm, matmul": matrix,
    "matmul of two values": two_computed,
    **{op.lower(): lambda d, op=op: binary(d, op) for op in ("Add", "Mul", "Sub", "Div", "Min", "Max")},  # type: ignore[misc]
    "with a constant": lambda d: with_constant(d, d.one_of("Add", "Mul", "Sub", "Div", "Min", "Max", "PRelu")),
    "average pool": lambda d: pool(d, "AveragePool"),
    "max pool": lambda d: pool(d, "MaxPool"),
    "global average": lambda d: unary(d, "GlobalAveragePool", (2, d.upto(150), d.upto(12), d.upto(12))),
    "global max": lambda d: unary(d, "GlobalMaxPool", (2, d.upto(150), d.upto(12), d.upto(12))),
    "softmax": softmax,
    "concat": concat,
    "tables": tabled,
    "sigmoid, leaky relu": lambda d: unary(d, d.one_of("Sigmoid", "LeakyRelu"), (d.upto(5), d.upto(900))),
    "requantise": requantise,
    "quantise": quantise,
    "dequantise": dequantise,
    "resize, nearest": lambda d: resize(d, "nearest"),
    "resize, linear": lambda d: resize(d, "linear"),
    "moves": moved,
}


@dataclass
class Tally:
    """Of one operator."""

    models: int = 0
    outputs: int = 0
    wrong: int = 0
    in_float: int = 0
    seeds: list[int] = field(default_factory=list)
    """Of models with wrong codes."""


FEEDS = 12


def check(name: str, seed: int, tally: Tally) -> None:
    """One model, on `FEEDS` feeds."""
    rng = np.random.default_rng([sorted(OPERATORS).index(name), seed])
    d = Draw(rng, kind=np.uint8 if seed % 3 else np.int8, on_codes=seed % 2 == 1)
    OPERATORS[name](d)
    model = d.model()
    ours = Session(model)
    theirs = Runner(model, threads=1, config=session_options(signed=ours.signed))
    tally.models += 1
    tally.in_float += bool(ours.float_nodes)
    for turn in range(FEEDS):
        if turn:
            d.feeds |= {n: d.array(*a.shape) for n, a in d.feeds.items() if a.dtype == d.kind}
        for got, want in zip(ours.run(None, d.feeds), theirs.run(d.feeds).values(), strict=True):
            same = got.shape == want.shape and got.dtype == want.dtype
            wrong = int((got != want).sum()) if same else want.size
            tally.outputs += want.size
            tally.wrong += wrong
            if wrong and seed not in tally.seeds:
                tally.seeds.append(seed)


def main() -> int:
    """The table; 1 if a code differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operators, with commas (their first words do)")
    args = parser.parse_args()
    only = [w for w in args.only.split(",") if w]
    tallies = {n: Tally() for n in OPERATORS if not only or any(n.startswith(w) for w in only)}
    end, seed = time.monotonic() + 60 * args.minutes, args.seed
    while time.monotonic() < end:
        for name, tally in tallies.items():
            check(name, seed, tally)
        seed += 1
    print("| operator | models | outputs compared | wrong | models in float |\n|---|---|---|---|---|")
    for name, t in tallies.items():
        print(f"| {name} | {t.models} | {t.outputs:,} | {t.wrong} | {t.in_float} |")
        for one in t.seeds[:5]:
            print(f"  {name}: --seed {one}", file=sys.stderr)
    print(f"| all | {sum(t.models for t in tallies.values())} | {sum(t.outputs for t in tallies.values()):,} | "
          f"{sum(t.wrong for t in tallies.values())} | {sum(t.in_float for t in tallies.values())} |")  # fmt: skip
    return int(any(t.wrong for t in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
