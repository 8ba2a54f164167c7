"""Certificates for processors that add two products in 16 bits, against those processors' arithmetic."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.backends import find_target
from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.ir.graph import Node, Variable
from zc.passes.quantize.saturation import (
    certified,
    could_saturate,
    exact_scales,
    reduction,
    saturating,
    unreduced,
)
from zc.passes.quantize.scheme import quantize_weight, weight_scales

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
EXTREMES = (0, 255)

shapes = st.tuples(st.integers(1, 3), st.integers(1, 7))
codes = hnp.arrays(np.int8, shapes, elements=st.integers(-127, 127))
weights = hnp.arrays(np.float32, shapes, elements=st.floats(-2, 2, width=16))


def pairwise(activations, row):
    """vpmaddubsw and vpmaddwd: products in pairs, each sum saturated to 16 bits, then added in 32."""
    even = np.pad(np.stack([activations, row]).astype(np.int64), ((0, 0), (0, len(row) % 2)))
    products = (even[0] * even[1]).reshape(-1, 2).sum(axis=1)
    return np.clip(products, -(2**15), 2**15 - 1).sum()


@given(codes)
def test_a_certificate_holds_for_the_worst_activations_and_its_refusal_is_just(rows):
    for row, refused in zip(rows, saturating(rows), strict=True):
        worst = itertools.product(EXTREMES, repeat=len(row))
        wrong = any(pairwise(np.array(a), row) != np.array(a) @ row.astype(np.int64) for a in worst)
        assert wrong == refused


@given(codes, st.randoms(use_true_random=False))
def test_certified_weights_are_exact_with_any_activations(rows, chance):
    for row in rows[~saturating(rows)]:
        activations = np.array([chance.randrange(256) for _ in row])
        assert pairwise(activations, row) == activations @ row.astype(np.int64)


@given(weights, st.booleans())
def test_scales_are_raised_until_the_codes_are_certified_and_no_further(rows, whole):
    axis = None if whole else 0
    free = weight_scales(rows, axis)
    scales = exact_scales(rows, free)
    assert (scales >= free).all()
    assert not saturating(quantize_weight(rows, scales, axis)).any()
    fine = ~saturating(quantize_weight(rows, free, axis))
    assert whole or (scales[fine] == free[fine]).all()
    # Seven bits are always enough; half a per cent less than what was chosen never is.
    assert (scales <= 127 / 63.5 * free * (1 + 1e-6)).all()
    less = quantize_weight(rows, np.maximum(scales * np.float32(0.995), free), axis)
    assert (scales == free).all() or saturating(less).any()


def node(op, **attrs):
    return Node(op, "n", attrs, [Variable("x"), Variable("w")], [Variable("y")])


def test_a_convolution_is_reduced_tap_by_tap_and_channel_by_channel():
    weight = np.arange(2 * 3 * 1 * 2).reshape(2, 3, 1, 2)  # [filters, channels, 1, taps]
    rows = reduction(node("Conv"), weight)
    assert rows[0].tolist() == [0, 2, 4, 1, 3, 5]
    assert (unreduced(node("Conv"), rows, weight.shape) == weight).all()


@pytest.mark.parametrize(("op", "attrs"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
def test_a_product_is_reduced_row_by_row(op, attrs):
    weight = np.arange(6).reshape(3, 2)
    weight = weight.T if attrs else weight
    rows = reduction(node(op, **attrs), weight)
    assert rows.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert (unreduced(node(op, **attrs), rows, weight.shape) == weight).all()


def test_depthwise_convolutions_are_exact_everywhere_and_grouped_ones_are_not():
    weight = np.full((4, 1, 3, 3), 127, np.int8)
    assert reduction(node("Conv", group=4), weight) is None
    assert could_saturate(node("Conv", group=2), weight)  # two filters for each channel


@given(hnp.arrays(np.int8, (2, 3, 1, 3), elements=st.integers(-127, 127)))
def test_codes_are_mended_where_they_could_saturate_and_nowhere_else(weight):
    mended = certified(node("Conv"), weight)
    assert not could_saturate(node("Conv"), mended)
    rows, before = reduction(node("Conv"), mended), reduction(node("Conv"), weight)
    assert mended.dtype == np.int8
    assert (np.abs(rows.astype(int)) <= np.abs(before.astype(int))).all()
    assert (rows[~saturating(before)] == before[~saturating(before)]).all()


NET = """(float[N,3,8,8] x) => (float[N,5] z)
    <float[4,3,3,3] w, float[4] b, float[4,4,3,3] v, float[64,5] u, float[5] c> {
    a = Conv (x, w, b)
    r = Relu (a)
    d = Conv (r, v)
    f = Flatten (d)
    z = Gemm (f, u, c)
}"""


def saturates(model):
    """By layer: could its weights saturate?"""
    for name, op in (("w_q", "Conv"), ("v_q", "Conv"), ("u_q", "Gemm")):
        weight = next(c.values for c in model.constants() if c.name == name)
        yield could_saturate(node(op), weight)


@pytest.mark.parametrize("rounding", ["nearest", "second-order"])
def test_without_vnni_every_layer_is_certified(quantize_model, graph, rounding):
    target = replace(find_target("ort-cpu/avx2"), costs=None)
    q = quantize_model(graph(HEAD + NET), target=target, rounding=rounding)
    assert not any(saturates(q.model))
    assert any("cannot saturate 16 bits" in n.what for n in q.result.notes)
    got, want = q.outputs()
    assert np.abs(got["z"] - want["z"]).max() < 0.05 * np.abs(want["z"]).max()


def test_with_vnni_it_is_told_how_many_layers_would_saturate_elsewhere(quantize_model, graph):
    q = quantize_model(graph(HEAD + NET))
    count = sum(saturates(q.model))
    assert count > 0
    assert any(f"{count} of 3 layers could saturate on x86" in n.what for n in q.result.notes)


def test_a_kind_of_processor_is_part_of_the_target_s_name():
    avx2 = find_target("ort-cpu", "avx2")
    assert (avx2.name, avx2.saturating_pairs) == ("ort-cpu/avx2", True)
    assert find_target(avx2.name) == avx2
    assert find_target("ort-cpu", "vnni") == find_target("ort-cpu") == TARGET
    assert find_target("ort-cpu", "auto") in (TARGET, avx2)


def test_an_unknown_processor_is_refused_with_the_nearest():
    with pytest.raises(ZcError, match=r"unknown processor 'avx3'.*avx2"):
        find_target("ort-cpu/avx3")
