"""Weights of fewer than 8 bits."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import load
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context
from zc.pipeline.registry import find

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,16,8,8] x) => (float[N,6] z)
    <float[32,16,3,3] w1, float[32] b1, float[32,1,3,3] w2, float[32,32,1,1] w3, float[32,6] w4, float[6] b4> {
        c1 = Conv (x, w1, b1)
        r1 = Relu (c1)
        c2 = Conv <group = 32, pads = [1, 1, 1, 1]> (r1, w2)
        c3 = Conv (c2, w3)
        p = GlobalAveragePool (c3)
        f = Flatten (p)
        z = Gemm (f, w4, b4)
    }"""


def sqnr(q) -> float:
    got, want = q.outputs()
    return float(10 * np.log10(np.square(want["z"]).sum() / np.square(got["z"] - want["z"]).sum()))


@pytest.fixture
def images(graph, smooth):
    return smooth(graph(NET), 96)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_codes_have_so_many_bits_and_run_in_integers(quantize, images, bits) -> None:
    q = quantize(NET, images, weight_bits=bits)
    for name in ("w1_q", "w2_q", "w3_q", "w4_q"):
        assert np.abs(q.values(name).astype(int)).max() == 2 ** (bits - 1) - 1
    assert q.result.stats["weighted_in_integers"] == 4
    assert q.runs().count("QLinearConv") == 3
    assert q.runs().count("QGemm") == 1


def test_four_bits_take_half_the_space_of_eight(quantize, images, tmp_path) -> None:
    sizes = []
    for bits in (8, 4):
        path = tmp_path / f"{bits}.onnx"
        quantize(NET, images, weight_bits=bits).model.save(path)
        sizes.append(sum(np.prod(t.dims) * (1 if t.data_type == 3 else 0.5) for t in codes(path)))
    assert sizes[1] == 0.5 * sizes[0]


def codes(path):
    found = [t for t in onnx.load(path).graph.initializer if t.name.endswith("_q") and t.name.startswith("w")]
    assert {t.data_type for t in found} <= {onnx.TensorProto.INT8, onnx.TensorProto.INT4}
    return found


def test_a_saved_file_gives_the_same(quantize, images, tmp_path) -> None:
    q = quantize(NET, images, weight_bits=4)
    q.model.save(tmp_path / "q.onnx")
    got = Runner(load(tmp_path / "q.onnx")).run(images)["z"]
    np.testing.assert_array_equal(got, q.outputs()[0]["z"])
    assert q.model.opset == 21


def test_clean_leaves_the_stored_weights_alone(quantize, images) -> None:
    q = quantize(NET, images, weight_bits=4)
    before = q.model.nbytes()
    find("clean")().run(q.model, Context(TARGET))
    assert q.model.nbytes() <= before
    assert "QLinearConv" in q.runs()


def test_rounding_for_what_layers_say_and_clipping_win_decibels(quantize, images) -> None:
    plain, best = (quantize(NET, images, weight_bits=3, rounding=r) for r in ("nearest", "second-order"))
    assert sqnr(best) > sqnr(plain) + 3
    assert any((best.values(f"{w}_scale") < 0.99 * plain.values(f"{w}_scale")).any() for w in ("w1", "w3", "w4"))


def test_biases_follow_the_new_scales(quantize, images) -> None:
    q = quantize(NET, images, weight_bits=3, rounding="second-order")
    ratio = q.values("b1_scale") / q.values("w1_scale")
    np.testing.assert_allclose(ratio, q.values("x_scale"), rtol=1e-5)


def test_a_target_that_would_not_turn_int4_gets_int8(graph, quantize_model, images) -> None:
    q = quantize_model(graph(NET), images, target=replace(TARGET, loads_int4=False), weight_bits=4)
    assert q.values("w1_q").dtype == np.int8
    assert q.model.opset == 17


@pytest.mark.parametrize("bits", [1, 9])
def test_other_numbers_of_bits_are_refused(bits) -> None:
    with pytest.raises(ZcError, match=f"weight_bits is {bits}; give 2 to 8"):
        Quantize(weight_bits=bits)
