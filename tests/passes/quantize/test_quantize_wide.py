"""Activations of 16 bits: what is written, that it runs, and what the user hears of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.measure.tensor_error import sqnr
from zc.passes.quantize.opset import WIDE_OPSET
from zc.passes.quantize.quantize import Quantize
from zc.passes.quantize.scheme import activation_scale

Quantise = Callable[..., Any]

HEAD = '<ir_version: 8, opset_import: ["" : OPSET]>'
NET = f"""{HEAD} g (float[N,3,8,8] x) => (float[N,5] y)
<float[4,3,3,3] w, float[4] b, float[4,4,3,3] v, float[36,5] u> {{
    c = Conv (x, w, b)  r = Relu (c)  m = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (r)
    d = Conv (m, v)  f = Flatten (d)  y = Gemm (f, u)
}}"""


@pytest.mark.parametrize("opset", [13, 19, 21])
def test_activations_get_16_bits_and_the_model_runs(quantize: Quantise, opset: int) -> None:
    q = quantize(NET.replace("OPSET", str(opset)), activation_bits=16, weight_bits=8)
    codes = [n.outputs[0] for n in q.model.graph.nodes if n.op == "QuantizeLinear"]
    assert {c.dtype for c in codes} == {np.dtype(np.uint16)}
    assert len(codes) >= 4
    assert q.model.opset == WIDE_OPSET
    got, want = q.outputs()
    assert sqnr(got["y"], want["y"]) > 35


def test_16_bits_lose_less_than_8(quantize: Quantise) -> None:
    outputs = [quantize(NET.replace("OPSET", "21"), activation_bits=bits).outputs() for bits in (8, 16)]
    narrow, wide = (sqnr(got["y"], want["y"]) for got, want in outputs)
    assert wide > narrow


def test_the_user_hears_that_it_computes_in_float(quantize: Quantise) -> None:
    q = quantize(NET.replace("OPSET", "21"), activation_bits=16)
    assert any("no kernels for activations of 16 bits" in n.what for n in q.result.notes if n.kind == "warning")


def test_a_target_with_signed_codes_gets_signed_ones(graph: Any, quantize_model: Quantise) -> None:
    signed = replace(TARGET, activations="int8", symmetric_activations=True, absorbed_activations=frozenset())
    target = replace(signed, activation_bits=frozenset({8, 16}))
    q = quantize_model(graph(NET.replace("OPSET", "21")), target=target, activation_bits=16)
    zeros = [n.inputs[2].values for n in q.model.graph.nodes if n.op == "QuantizeLinear"]
    assert {z.dtype for z in zeros} == {np.dtype(np.int16)}
    assert not any(z.any() for z in zeros)
    assert not any("no kernels" in n.what for n in q.result.notes)
    got, want = q.outputs()
    assert sqnr(got["y"], want["y"]) > 35


@pytest.mark.parametrize(("kind", "middle"), [("uint8", 128), ("int8", 0), ("uint16", 32768), ("int16", 0)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_of_every_type_hold_their_range(kind: Any, middle: int, symmetric: bool) -> None:
    scale = activation_scale(-1.0, 3.0, kind, symmetric)
    if symmetric:
        assert scale.zero_point == middle
    for value in (-1.0, 0.0, 3.0):
        code = int(scale.quantize(np.array(value)))
        assert abs((code - scale.zero_point) * float(scale.scale) - value) <= float(scale.scale)


def test_ranges_taken_at_run_time_have_8_bits() -> None:
    with pytest.raises(ZcError, match="takes 8 bits"):
        Quantize(activation_bits=16, activations="dynamic")
