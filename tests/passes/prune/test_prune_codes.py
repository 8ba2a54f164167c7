"""Models that are quantised already: their layers are refitted too, and stay codes."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.data import Samples, load_samples
from zc.ir.model import Model
from zc.measure.agreement import Reference
from zc.passes.layers.coded import CodedLayer, find_all_layers
from zc.passes.prune.prune import Prune
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,10,10] x) => (float[N,5] y)
<float[32,3,3,3] w0, float[32] b0, float[24,32,3,3] w1, float[24] b1, float[5,24] w2, float[5] b2> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    b = Relu (a)
    c = Conv <strides = [2, 2]> (b, w1, b1)
    d = Relu (c)
    e = GlobalAveragePool (d)
    f = Flatten (e)
    y = Gemm <transB = 1> (f, w2, b2)
}"""
QUANTIZE = "quantize:rounding=nearest:equalize=false:float_if_faster=false:guard=false"


@pytest.fixture
def rows(tmp_path, graph: Callable[[str], Model]) -> Samples:
    random = np.random.default_rng(1)
    mix = random.standard_normal((3, 3))
    x = np.einsum("nchw,cd->ndhw", random.standard_normal((160, 3, 10, 10)), mix) + random.standard_normal(
        (160, 3, 1, 1)
    )
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    return load_samples(str(tmp_path / "x.npz"), graph(NET).inputs)


@pytest.fixture
def quantised(graph: Callable[[str], Model], rows: Samples) -> Model:
    model = graph(NET)
    run_pipeline(model, QUANTIZE, Context(TARGET, rows))
    return model


def test_layers_of_codes_are_layers(quantised: Model) -> None:
    layers, refused = find_all_layers(quantised)
    assert not refused
    assert [type(one) for one in layers] == [CodedLayer] * 3
    assert [one.channels for one in layers] == [32, 24, 5]


def test_what_is_set_is_rounded_to_codes(quantised: Model) -> None:
    layer = find_all_layers(quantised)[0][1]
    assert isinstance(layer, CodedLayer)
    matrix, offset = 3 * layer.matrix(), layer.offset() + 1
    layer.set_matrix(matrix)
    layer.set_offset(offset, None)  # type: ignore[arg-type]
    again = find_all_layers(quantised)[0][1]
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(again.matrix() - matrix) <= 0.51 * step).all()
    assert np.abs(again.offset() - offset).max() < 1e-4
    assert layer.codes.codes.values.dtype == np.int8


def test_a_quantised_model_is_repaired_and_stays_in_codes(quantised: Model, rows: Samples) -> None:
    reference = Reference(quantised.copy(), rows)
    sqnr = []
    for repair in (False, True):
        model = quantised.copy()
        result = Prune(ratio=0.4, repair=repair, criterion="l2", round_to=1).run(model, Context(TARGET, rows))
        assert result.changed
        sqnr.append(reference.agreement(model).sqnr)
        stored = {c.name: c.values.dtype for c in model.constants() if c.values.ndim > 1}
        assert set(stored.values()) == {np.dtype(np.int8)}
    assert int(result.stats["repaired_layers"]) == 2
    assert sqnr[1] > sqnr[0] + 3
