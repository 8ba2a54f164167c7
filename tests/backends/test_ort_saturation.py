"""What onnxruntime's int8 kernels compute on this processor: exact sums, or sums of pairs that saturate.

On a processor without an int8 dot product the pairs are those that the certificates speak of, bit by bit.
"""

from pathlib import Path

import numpy as np
import pytest

from zc.backends import find_backend
from zc.backends.base import deliver
from zc.execute import Runner
from zc.ir.graph import Array, Node
from zc.ir.model import from_text
from zc.kernels.cpu import dot_product
from zc.passes.quantize.saturation import reduction
from zc.pipeline.base import Context

CONV = """<ir_version: 8, opset_import: ["" : 17]>
g (uint8[1,{channels},9,9] x, int8[{filters},{depth},{k},{k}] w) => (uint8[1,{filters},H,W] y)
<float one = {{1}}, uint8 zero = {{0}}, int8 nil = {{0}}, float step = {{{step}}}, uint8 middle = {{128}}> {{
    y = QLinearConv <group = {groups}> (x, one, zero, w, one, nil, step, middle)
}}"""
MATMUL = """<ir_version: 8, opset_import: ["" : 17]>
g (uint8[5,{depth}] x, int8[{depth},{columns}] w) => (int32[5,{columns}] y) {{ y = MatMulInteger (x, w) }}"""

QDQ = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,2] x) => (float[1,1] y) <float s = {0.5}, uint8 z = {0}, int8 nil = {0},
    int8[2,2] large = {127,1, 127,1}, int8[2,1] small = {64, 64}> {
    a = QuantizeLinear (x, s, z)
    b = DequantizeLinear (a, s, z)
    v = DequantizeLinear (large, s, nil)
    c = MatMul (b, v)
    d = QuantizeLinear (c, s, z)
    e = DequantizeLinear (d, s, z)
    w = DequantizeLinear (small, s, nil)
    y = MatMul (e, w)
}"""


def run(text: str, x: Array, w: Array) -> Array:
    model = from_text(text)
    model.graph.inputs.pop(1).to_constant(w)
    return Runner(model, native=True).run({"x": x})["y"]


def sums(activations: Array, weights: Array, exact: bool) -> Array:
    """Of products of [n, K] and [channels, K]: exact, or as vpmaddubsw and vpmaddwd make them."""
    odd = weights.shape[1] % 2
    a, w = (np.pad(one.astype(np.int64), ((0, 0), (0, odd))) for one in (activations, weights))
    pairs = (a[:, None] * w[None]).reshape(len(a), len(w), -1, 2).sum(axis=3)
    return (pairs if exact else np.clip(pairs, -(2**15), 2**15 - 1)).sum(axis=2)


def windows(x: Array, k: int) -> Array:
    """[positions, taps * channels] of a map [channels, H, W], in the order of `reduction`."""
    side = x.shape[1] - k + 1
    taps = [x[:, i : i + side, j : j + side].reshape(len(x), -1) for i in range(k) for j in range(k)]
    return np.stack(taps).transpose(2, 0, 1).reshape(side * side, -1)


@pytest.mark.parametrize("depth", [4, 9, 27, 300])
def test_products_are_summed_as_the_certificate_says(depth: int) -> None:
    rng = np.random.default_rng(depth)
    x, w = rng.integers(128, 256, (5, depth), np.uint8), rng.integers(-128, 128, (depth, 17), np.int8)
    got = run(MATMUL.format(depth=depth, columns=17), x, w)
    assert (got == sums(x, w.T, dot_product())).all()
    assert (sums(x, w.T, True) != sums(x, w.T, False)).any()


CASES = [
    *[(3, 8, 1, 3), (3, 16, 1, 3), (5, 6, 1, 3), (16, 32, 1, 3), (12, 24, 1, 5), (7, 9, 1, 1), (16, 16, 1, 1)],
    *[(8, 8, 4, 3), (32, 32, 2, 3), (16, 16, 16, 3), (6, 6, 6, 3), (6, 12, 6, 3)],
]


@pytest.mark.parametrize(("channels", "filters", "groups", "k"), CASES)
def test_convolutions_are_summed_as_the_certificate_says(channels: int, filters: int, groups: int, k: int) -> None:
    rng = np.random.default_rng(channels * filters + groups)
    depth = channels // groups
    x = rng.integers(128, 256, (1, channels, 9, 9), np.uint8)
    w = rng.integers(-128, 128, (filters, depth, k, k), np.int8)
    step = float(np.float32(255 * 128 * depth * k * k / 120))
    text = CONV.format(channels=channels, filters=filters, depth=depth, groups=groups, k=k, step=step)
    rows = reduction(Node("Conv", attrs={"group": groups}), w)
    exact = dot_product() or rows is None
    rows = np.moveaxis(w, 1, -1).reshape(filters, -1) if rows is None else rows
    each = [
        sums(
            windows(x[0, g * depth : (g + 1) * depth], k),
            rows[g * filters // groups : (g + 1) * filters // groups],
            exact,
        )
        for g in range(groups)
    ]
    want = np.concatenate(each, axis=1).T.reshape(1, filters, 9 - k + 1, -1)
    codes = np.clip(np.rint(want.astype(np.float32) * (np.float32(1) / np.float32(step))) + 128, 0, 255)
    got = run(text, x, w)
    # The middle of two codes may be rounded to either by factors that differ in the last bit.
    assert (np.abs(got.astype(int) - codes) <= (np.abs(want / step % 1 - 0.5) < 1e-3)).all()


@pytest.mark.parametrize(("dots", "cpu", "told"), [(False, "vnni", 1), (False, "avx2", 0), (True, "vnni", 0)])
def test_codes_that_saturate_on_this_processor_are_warned_of(
    dots: bool, cpu: str, told: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("zc.kernels.cpu.dot_product", lambda: dots)
    model = from_text(QDQ)
    backend = find_backend(f"ort-cpu:cpu={cpu}")
    notes = deliver(backend, model, tmp_path / "m.onnx", Context(backend.target))[0].notes
    assert [n.kind for n in notes] == ["warning"] * told
    assert all("1 of 2 layers could saturate on this machine's processor" in n.what for n in notes)
