"""Layers left in float run in float: onnxruntime would make int8 of those that stand between codes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET

Quantise = Callable[..., Any]

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,3,3] w1, float[8,8,3,3] w2, float[8] b2, float[4,8,1,1] w3> {
    a = Conv <pads = [1,1,1,1]> (x, w1)
    b = Relu (a)
    c = Conv <pads = [1,1,1,1]> (b, w2, b2)
    d = Relu (c)
    y = Conv (d, w3)
}"""
FLAT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[N,32] y)
<float[8,3,3,3] w1, float[32,8] w2, float[32] b2, float[32,32] w3> {
    a = Conv <pads = [1,1,1,1]> (x, w1)
    b = GlobalAveragePool (a)
    f = Flatten (b)
    c = Gemm <transB = 1> (f, w2, b2)
    y = Gemm <transB = 1> (c, w3)
}"""


@pytest.mark.parametrize(("text", "kind"), [(NET, "Conv"), (FLAT, "Gemm")])
def test_a_layer_in_float_between_codes_runs_in_float(quantize: Quantise, text: str, kind: str) -> None:
    q = quantize(text, skip=("c",), float_if_faster=False)
    assert q.result.stats["weighted_in_integers"] == 2
    assert q.runs().count(kind) == 1
    got, want = q.outputs()
    assert np.abs(got["y"] - want["y"]).max() < 0.05 * np.abs(want["y"]).max()


def test_without_it_onnxruntime_would_quantise_the_layer(quantize_model: Quantise, graph: Any) -> None:
    q = quantize_model(graph(NET), target=replace(TARGET, costs=None, claims_float=frozenset()), skip=("c",))
    assert q.runs().count("QLinearConv") == 3


def test_one_channel_takes_another_axis(quantize: Quantise) -> None:
    text = NET.replace("float[8,3,3,3] w1", "float[1,3,3,3] w1").replace("float[8,8,3,3] w2", "float[8,1,3,3] w2")
    q = quantize(text, skip=("c",), float_if_faster=False)
    assert q.runs().count("Conv") == 1
