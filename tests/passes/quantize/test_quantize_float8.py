"""int8 codes become float8."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from zc.backends import find_backend, find_target
from zc.execute import Runner
from zc.passes.quantize.float8 import Float8
from zc.pipeline.base import Context

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,16,8,8] x) => (float[N,16,4,4] z) <float[16,16,3,3] w, float[16] b, float[16,16,3,3] v> {
    a = Conv (x, w, b)
    r = Relu (a)
    z = Conv (r, v)
}"""
FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)


@pytest.fixture
def both(graph, quantize_model):
    """The same net in int8 and in float8, and the context of the pipeline."""
    q = quantize_model(graph(HEAD + NET), target=find_target("tensorrt"), bias_correct=False)
    model, ctx = q.model.copy(), Context(find_target("tensorrt"))
    ctx.float_model = q.float_model
    result = Float8().run(model, ctx)
    return q, model, result


def test_every_code_is_a_number_of_eight_bits(both) -> None:
    _, model, result = both
    pairs = [n for n in model.graph.nodes if n.op in ("QuantizeLinear", "DequantizeLinear")]
    assert {n.inputs[2].values.dtype for n in pairs} == {FLOAT8}
    assert result.stats == {"conversions": 6, "weights": 2, "from_floats": 2}
    assert find_backend("tensorrt").check(model) == []
    assert model.opset == 19


def test_ranges_stay(both) -> None:
    q, model, _ = both
    before, after = (
        [float(n.inputs[1].values) for n in m.graph.nodes if n.op == "QuantizeLinear"] for m in (q.model, model)
    )
    np.testing.assert_allclose(np.array(after) * 448, np.array(before) * 127, rtol=1e-6)


def test_weights_are_rounded_from_the_float_model(both) -> None:
    q, model, _ = both
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    dequantise = conv.inputs[1].inputs[0]
    scale = dequantise.inputs[1].values.reshape(-1, 1, 1, 1)
    w = next(c.values for c in q.float_model.constants() if c.name == "w")
    np.testing.assert_array_equal(
        dequantise.inputs[0].values.astype(np.float32), (w / scale).astype(FLOAT8).astype(np.float32)
    )


def test_outputs_are_near_the_float_model(both) -> None:
    q, model, _ = both
    got, want = Runner(model, level="basic").run(q.arrays)["z"], Runner(q.float_model).run(q.arrays)["z"]
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


def test_without_the_float_model_weights_come_from_their_codes(both) -> None:
    q, _, _ = both
    model = q.model.copy()
    result = Float8().run(model, Context(find_target("tensorrt")))
    assert result.stats["from_floats"] == 0
    got, want = Runner(model, level="basic").run(q.arrays)["z"], Runner(q.model, level="basic").run(q.arrays)["z"]
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


def test_codes_with_a_zero_point_are_declined(graph, quantize_model) -> None:
    target = replace(find_target("tensorrt"), symmetric_activations=False)
    q = quantize_model(graph(HEAD + NET), target=target)
    result = Float8().run(q.model, Context(target))
    assert any("zero point" in note.what for note in result.notes)


def test_a_float_model_is_declined(graph) -> None:
    result = Float8().run(graph(HEAD + NET), Context(find_target("tensorrt")))
    assert not result.changed
    assert "no symmetric int8 codes" in result.notes[-1].what
