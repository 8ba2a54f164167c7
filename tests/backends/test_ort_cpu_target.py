"""The tables of the CPU target, held against what onnxruntime makes of each operator."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from zc.backends import find_target
from zc.backends.onnxruntime import TARGET
from zc.data import synthesize
from zc.execute import Runner
from zc.ir.model import Model, from_text
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context

W1, W2 = (",".join(f"{v:.3f}" for v in np.random.default_rng(seed).standard_normal(144)) for seed in (0, 1))
NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,12,12] x) => (float[N,M,H,W] z) <float[4,4,3,3] w = {{{w1}}}, float[4,4,3,3] v = {{{w2}}}{more}> {{
    c = Conv (x, w)
    {body}
    z = Conv (y, v)
}}"""

# Each line stands between two convolutions and makes y of c (float[N,4,10,10]).
TRANSPARENT = {
    "Relu": ("t = Tanh (c) y = Relu (c)", ""),
    "Clip": ("t = Tanh (c) y = Clip (c, low, high)", ", float low = {-1}, float high = {2}"),
    "Reshape": ("y = Reshape (c, to)", ", int64[4] to = {0, 4, 20, 5}"),
    "Flatten": ("f = Flatten (c) y = Reshape (f, to)", ", int64[4] to = {0, 4, 10, 10}"),
    "Squeeze": ("u = Unsqueeze (c, ax) y = Squeeze (u, ax)", ", int64[1] ax = {0}"),
    "Unsqueeze": ("u = Unsqueeze (c, ax) y = Squeeze (u, ax)", ", int64[1] ax = {0}"),
    "Transpose": ("y = Transpose <perm = [0, 1, 3, 2]> (c)", ""),
    "Identity": ("y = Identity (c)", ""),
    "Expand": ("y = Expand (c, to)", ", int64[4] to = {1, 4, 10, 10}"),
    "Tile": ("y = Tile (c, by)", ", int64[4] by = {1, 1, 2, 1}"),
    "Slice": ("y = Slice (c, from, to, ax)", ", int64[1] from = {1}, int64[1] to = {9}, int64[1] ax = {2}"),
    "Split": ("y, rest = Split <axis = 2> (c)", ""),
    "Gather": ("y = Gather <axis = 2> (c, at)", ", int64[5] at = {0, 2, 4, 6, 8}"),
    "Pad": ("y = Pad (c, by)", ", int64[8] by = {0, 0, 1, 1, 0, 0, 1, 1}"),
    "DepthToSpace": ("d = DepthToSpace <blocksize = 2> (c) y = Tile (d, by)", ", int64[4] by = {1, 4, 1, 1}"),
    "MaxPool": ("y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (c)", ""),
    "Resize": ('y = Resize <mode = "nearest"> (c, , by)', ", float[4] by = {1, 1, 2, 2}"),
}

INTEGER = {
    "Add": ("r = Relu (c) y = Add (c, r)", "", "QLinearAdd"),
    "Mul": ("r = Relu (c) y = Mul (c, r)", "", "QLinearMul"),
    "Concat": ("r = Relu (c) k = Concat <axis = 2> (c, r) y = Relu (k)", "", "QLinearConcat"),
    "AveragePool": ("y = AveragePool <kernel_shape = [2, 2]> (c)", "", "QLinearAveragePool"),
    "GlobalAveragePool": ("p = GlobalAveragePool (c) y = Tile (p, by)", ", int64[4] by = {1, 1, 4, 4}", None),
    "Sigmoid": ("y = Sigmoid (c)", "", "QLinearSigmoid"),
    "LeakyRelu": ("y = LeakyRelu <alpha = 0.1> (c)", "", "QLinearLeakyRelu"),
    "Where": ("r = Relu (c) y = Where (mask, c, r)", ", bool[1,1,1,10] mask = {1,0,1,0,1,0,1,0,1,0}", "QLinearWhere"),
}


@pytest.fixture
def quantised(tmp_path: Path) -> Callable[[str, str], tuple[Model, list[str], float]]:
    def run(body: str, more: str) -> tuple[Model, list[str], float]:
        model = from_text(NET.format(w1=W1, w2=W2, body=body, more=more))
        for node in model.graph.nodes:
            node.name = node.outputs[0].name
        before, samples = model.copy(), synthesize(model.inputs, 8)
        Quantize(float_if_faster=False).run(model, Context(TARGET, samples))
        path = tmp_path / "optimized.onnx"
        feed = next(samples.batches(8))
        Runner(model, save_optimized=path)
        got = Runner(model).run(feed)["z"]
        want = Runner(before).run(feed)["z"]
        error = float(np.sqrt(((got - want) ** 2).sum() / ((want - want.mean()) ** 2).sum()))
        return model, [n.op_type for n in onnx.load(path).graph.node], error

    return run


def test_every_table_has_its_case():
    assert set(TRANSPARENT) == TARGET.transparent_ops
    assert set(INTEGER) == TARGET.integer_ops


@pytest.mark.parametrize("op", sorted(TRANSPARENT))
def test_it_runs_on_codes(quantised, op):
    body, more = TRANSPARENT[op]
    model, runs, error = quantised(body, more)
    on_codes = [n for n in model.graph.nodes if n.op in (op, "Clip") and n.inputs[0].dtype == np.uint8]
    assert on_codes
    assert runs.count("QLinearConv") == 2
    assert error < 0.05


@pytest.mark.parametrize("op", sorted(INTEGER))
def test_it_has_an_int8_kernel(quantised, op):
    body, more, kernel = INTEGER[op]
    _, runs, error = quantised(body, more)
    assert (kernel or f"QLinear{op}") in runs
    assert runs.count("QLinearConv") == 2
    assert error < 0.05


def test_the_target_is_found_by_its_name():
    assert find_target("ort-cpu") is TARGET
