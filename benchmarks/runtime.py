"""The int8 executor against onnxruntime on the same quantised models, turn by turn in one process.

    python benchmarks/runtime.py [MODEL.onnx ...] [--threads 1] [--turns 25] [--ops] [--nets] [--evaluator]

Without models: single operators (`--ops`), and whole nets (`--nets`): ResNet-18, ResNet-50 and MobileNetV2-224 with
random weights, and those of the folder `shared/models` beside the repository, all quantised by zc. A ratio is
onnxruntime's time over ours, the median of ratios of neighbouring turns; above 1 we are faster. One thread: processor
time of the thread; several: elapsed time, and processor time of the process beside it. The codes are compared first.
int8 activations: onnxruntime with session.qdqisint8allowed = 1. `--evaluator` times onnx's reference evaluator too.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zc.data import load_samples, synthesize
from zc.execute import Runner
from zc.ir.graph import Array
from zc.ir.model import Model, load
from zc.runtime import Session
from zc.runtime.reference import session_options
from zc.testing import run_pass

SHARED = Path(__file__).resolve().parents[2] / "shared"
SECONDS_A_TURN = 0.02
Case = tuple[str, Model, dict[str, Array]]


# ---- single operators


class Maker:
    """Builds graphs of operators between DQ and Q."""

    def __init__(self, signed: bool = False) -> None:
        self.rng = np.random.default_rng(0)
        self.kind = np.int8 if signed else np.uint8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: Array) -> str:
        """The name of a new constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        """The output of a new node."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def coding(self, scale: float) -> list[str]:
        """A scale and a zero point."""
        return [self.constant(np.float32(scale)), self.constant(self.kind(0 if self.kind is np.int8 else 120))]

    def weight(self, *shape: int) -> str:
        """Random int8 weights with a scale for each channel, read by DQ."""
        codes = self.constant(self.rng.integers(-127, 128, shape).astype(np.int8))
        scale = self.rng.uniform(0.001, 0.01, shape[0]).astype(np.float32)
        return self.add(
            "DequantizeLinear", [codes, self.constant(scale), self.constant(np.zeros(shape[0], np.int8))], axis=0
        )

    def case(self, label: str, op: str, shape: list[int], weight: tuple[int, ...] = (), **attributes: object) -> Case:
        """DQ -> op -> Q."""
        coding = self.coding(0.05)
        inputs = [self.add("DequantizeLinear", ["x", *coding])]
        if weight:
            inputs.append(self.weight(*weight))
        elif op in ("Add", "Mul"):
            inputs.append(self.add("DequantizeLinear", ["z", *self.coding(0.03)]))
        out = self.add("QuantizeLinear", [self.add(op, inputs, **attributes), *self.coding(0.9)])
        fed = ["x", "z"][: 1 + (len(inputs) > 1 and not weight)]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(n, kind, shape) for n in fed],
            [helper.make_tensor_value_info(out, kind, None)],
            self.constants,
        )
        model = Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
        info = np.iinfo(self.kind)
        return label, model, {n: self.rng.integers(info.min, info.max + 1, shape).astype(self.kind) for n in fed}


def operators() -> Iterator[Case]:
    """Shapes of ResNets and MobileNets."""
    for c, m, size in ((64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7)):
        how = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        yield Maker().case(f"conv 3x3 {c}->{m} {size}x{size}", "Conv", [1, c, size, size], (m, c, 3, 3), **how)
    for c, m, size in ((64, 256, 56), (512, 128, 28), (1024, 256, 14), (512, 2048, 7), (96, 24, 56)):
        yield Maker().case(f"conv 1x1 {c}->{m} {size}x{size}", "Conv", [1, c, size, size], (m, c, 1, 1))
    how = {"kernel_shape": [7, 7], "strides": [2, 2], "pads": [3, 3, 3, 3]}
    yield Maker().case("stem 7x7/2 3->64 224x224", "Conv", [1, 3, 224, 224], (64, 3, 7, 7), **how)
    for c, size, stride in ((96, 112, 2), (144, 56, 1), (192, 28, 1), (576, 14, 1), (960, 7, 1)):
        how = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride] * 2, "group": c}
        yield Maker().case(f"depthwise 3x3/{stride} {c} {size}x{size}", "Conv", [1, c, size, size], (c, 1, 3, 3), **how)
    yield Maker().case("depthwise 5x5 144 28x28", "Conv", [1, 144, 28, 28], (144, 1, 5, 5), pads=[2] * 4, group=144)
    yield Maker().case("gemm 256x2304x256", "Gemm", [256, 2304], (256, 2304), transB=1)
    yield Maker(signed=True).case("gemm 256x2304x256 s8", "Gemm", [256, 2304], (256, 2304), transB=1)
    how = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    yield Maker(signed=True).case("conv 3x3 128->128 28x28 s8", "Conv", [1, 128, 28, 28], (128, 128, 3, 3), **how)
    for op in ("Add", "Mul", "Sigmoid", "LeakyRelu", "GlobalAveragePool"):
        yield Maker().case(f"{op} 256 28x28", op, [1, 256, 28, 28])
    how = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    yield Maker().case("AveragePool 3x3/2 64 56x56", "AveragePool", [1, 64, 56, 56], **how)


# ---- whole nets


class Net:
    """A float net with random weights."""

    def __init__(self) -> None:
        self.maker = Maker()
        self.channels = {"x": 3}

    def conv(self, x: str, m: int, k: int, stride: int = 1, group: int = 1, relu: str = "Relu") -> str:
        """Conv and an activation."""
        c = self.channels[x]
        w = self.maker.rng.standard_normal((m, c // group, k, k)) * np.sqrt(2 / (c // group * k * k))
        inputs = [x, self.maker.constant(w.astype(np.float32)), self.maker.constant(np.full(m, 0.1, np.float32))]
        how = {"kernel_shape": [k, k], "strides": [stride] * 2, "pads": [k // 2] * 4, "group": group}
        y = self.maker.add("Conv", inputs, **how)
        y = self.maker.add(relu, [y]) if relu else y
        self.channels[y] = m
        return y

    def plus(self, a: str, b: str, relu: bool) -> str:
        """A residual."""
        y = self.maker.add("Add", [a, b])
        y = self.maker.add("Relu", [y]) if relu else y
        self.channels[y] = self.channels[a]
        return y

    def model(self, x: str, classes: int = 1000) -> Model:
        """With a classifier behind x."""
        c = self.channels[x]
        flat = self.maker.add("Flatten", [self.maker.add("GlobalAveragePool", [x])])
        w = self.maker.constant((self.maker.rng.standard_normal((classes, c)) * 0.03).astype(np.float32))
        out = self.maker.add("Gemm", [flat, w, self.maker.constant(np.zeros(classes, np.float32))], transB=1)
        graph = helper.make_graph(
            self.maker.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["N", classes])],
            self.maker.constants,
        )
        return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def resnet(depth: int) -> Model:
    """ResNet-18 or ResNet-50."""
    net = Net()
    x = net.conv("x", 64, 7, 2)
    y = net.maker.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    net.channels[y], x = 64, y
    counts = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
    for stage, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            out = width if depth == 18 else 4 * width
            if depth == 18:
                y = net.conv(net.conv(x, width, 3, stride), width, 3, relu="")
            else:
                y = net.conv(net.conv(net.conv(x, width, 1), width, 3, stride), out, 1, relu="")
            same = stride == 1 and net.channels[x] == out
            x = net.plus(y, x if same else net.conv(x, out, 1, stride, relu=""), relu=True)
    return net.model(x)


def mobilenet_v2() -> Model:
    """MobileNetV2 with width 1, 224 x 224."""
    net = Net()
    x = net.conv("x", 32, 3, 2)
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for wider, width, count, first in stages:
        for block in range(count):
            stride, c = (first if block == 0 else 1), net.channels[x]
            y = net.conv(x, c * wider, 1) if wider > 1 else x
            y = net.conv(net.conv(y, c * wider, 3, stride, group=c * wider), width, 1, relu="")
            x = net.plus(x, y, relu=False) if stride == 1 and c == width else y
    return net.model(net.conv(x, 1280, 1))


def nets() -> Iterator[Case]:
    """Random ones, then the shared ones."""
    for label, model in (("ResNet-18", resnet(18)), ("ResNet-50", resnet(50)), ("MobileNetV2-224", mobilenet_v2())):
        samples = synthesize(model.inputs, 2)
        yield label, run_pass("quantize", model, samples), next(samples.batches(1))
    shared = {"superres_espcn": "superres.npz", "vww_mobilenetv1_025": "vww.npz"}
    images = ["resnet8_cifar10", "resnet20_cifar10", "resnet56_cifar10", "squeezenet10_imagenet"]
    images += ["mobilenetv1_025_imagenet", "mobilenetv2_10_imagenet_qatsrc"]
    for name in (*images, *shared):
        path = SHARED / "models" / f"{name}.onnx"
        if path.is_file():
            model = load(path)
            data = shared.get(name) or ("cifar10_test4k.npz" if "cifar" in name else "imagenet500")
            prep = None if name in shared else "pm1"
            samples = load_samples(str(SHARED / "data" / data), model.inputs, rows="0:8", prep=prep)
            yield name, run_pass("quantize", model, samples), next(samples.batches(1))


# ---- measuring


def measure(case: Case, threads: int, turns: int, evaluator: bool) -> None:
    """Print one line."""
    label, model, feeds = case
    ours = Session(model, threads=threads)
    # Its threads may wait busily within a run, but not into our turn, where they would hold a core.
    alone = {"session.force_spinning_stop": "1"}
    theirs = Runner(model, threads=threads, config=alone | session_options(signed=ours.signed))
    wrong = sum(int((a != b).sum()) for a, b in zip(ours.run(None, feeds), theirs.run(feeds).values(), strict=True))
    runs: list[Callable[[], object]] = [
        lambda: ours.run(None, feeds),
        lambda: theirs.session.run(None, feeds),
    ]
    clock = time.thread_time if threads == 1 else time.perf_counter
    counts = []
    for run in runs:
        run()
        start = clock()
        run()
        counts.append(max(1, int(SECONDS_A_TURN / max(clock() - start, 1e-6))))
    times = np.zeros((turns, 2, 2))
    for turn in range(turns):
        for i, run in enumerate(runs):
            start, cpu = clock(), time.process_time()
            for _ in range(counts[i]):
                run()
            times[turn, i] = (clock() - start) / counts[i], (time.process_time() - cpu) / counts[i]
    ratio, cpu_ratio = (statistics.median(times[:, 1, k] / times[:, 0, k]) for k in (0, 1))
    mine, other = np.median(times[:, :, 0], axis=0) * 1e3
    extra = f"  processor {cpu_ratio:5.2f}" if threads > 1 else ""
    if evaluator:
        from onnx.reference import ReferenceEvaluator

        newer = model.copy()
        newer.set_opset(19)  # it has no DequantizeLinear of older sets; these graphs mean the same in both
        slow = ReferenceEvaluator(newer.to_proto())
        start = time.perf_counter()
        slow.run(None, feeds)
        extra += f"  evaluator {(time.perf_counter() - start) * 1e3 / mine:.0f}x"
    print(f"{label:34} ours {mine:8.3f} ms  ort {other:8.3f} ms  ratio {ratio:5.2f}{extra}  wrong {wrong}", flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--ops", action="store_true", help="single operators only")
    parser.add_argument("--nets", action="store_true", help="whole nets only")
    parser.add_argument("--evaluator", action="store_true", help="time onnx's reference evaluator too")
    options = parser.parse_args()
    cases: list[Iterator[Case]] = []
    if options.models:
        loaded = [load(path) for path in options.models]
        cases.append(iter([(m.name, m, next(synthesize(m.inputs, 1).batches(1))) for m in loaded]))
    else:
        cases += [operators()] * (not options.nets) + [nets()] * (not options.ops)
    for group in cases:
        for case in group:
            measure(case, options.threads, options.turns, options.evaluator)


if __name__ == "__main__":
    main()
