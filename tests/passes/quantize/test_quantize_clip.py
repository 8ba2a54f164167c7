"""clip: a planted outlier is cut off where it spoils a range, and nothing else."""

from typing import Any

import numpy as np
import pytest

from tests.passes.quantize.conftest import fill, samples_for
from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model
from zc.measure.tensor_error import sqnr
from zc.passes.quantize.clip import Clip, clip
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context, PassResult

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
PLAIN = """(float[N,3,8,8] x) => (float[N,5,8,8] z) <float[8,3,1,1] w, float[5,8,1,1] v> {
    c = Conv (x, w)
    z = Conv (c, v)
}"""
RELU = PLAIN.replace("c = Conv (x, w)", "a = Conv (x, w)\n    c = Relu (a)")
CLIPPED = """(float[N,3,8,8] x) => (float[N,5,8,8] z)
    <float[8,3,1,1] w, float[5,8,1,1] v, float lo = {0.0}, float hi = {1000.0}> {
    a = Conv (x, w)
    c = Clip (a, lo, hi)
    z = Conv (c, v)
}"""
SUM = """(float[N,3,8,8] x) => (float[N,5,8,8] z) <float[8,3,1,1] w, float[8,8,1,1] u, float[5,8,1,1] v> {
    a = Conv (x, w)
    b = Conv (a, u)
    s = Add (a, b)
    c = MaxPool <kernel_shape = [1, 1]> (s)
    z = Conv (c, v)
}"""


def outlying(rows: int = 64) -> dict[str, Any]:
    """Normal rows, and one pixel that is four hundred times as large."""
    x = np.random.default_rng(0).standard_normal((rows, 3, 8, 8)).astype(np.float32)
    x[rows // 8, :, 3, 3] = 400
    return {"x": x}


def even(rows: int = 64) -> dict[str, Any]:
    return {"x": np.random.default_rng(0).uniform(-1, 1, (rows, 3, 8, 8)).astype(np.float32)}


def context(model: Model, arrays: dict[str, Any]) -> Context:
    return Context(TARGET, samples_for(model, arrays))


def reasons(result: PassResult) -> str:
    return "\n".join(f"{n.where}: {n.what}" for n in result.notes if n.kind == "declined")


def bounds(model: Model) -> tuple[float, float]:
    """Of the only Clip."""
    node = next(n for n in model.graph.nodes if n.op == "Clip")
    return float(node.inputs[1].values), float(node.inputs[2].values)


def ops(model: Model) -> list[str]:
    return [n.op for n in model.graph.nodes]


@pytest.mark.parametrize("method", ["auto", "percentile", "entropy"])
def test_a_planted_outlier_is_cut_off(method) -> None:
    model = fill(HEAD + PLAIN)
    before = model.copy()
    way = Clip(method=method, percentile=99.9)
    result = way.run(model, context(model, outlying()))
    assert ops(model) == ["Conv", "Clip", "Conv"]
    low, high = bounds(model)
    assert -20 < low < -1 < 1 < high < 20
    inner = {"x": np.delete(outlying()["x"], 8, axis=0)}
    assert sqnr(Runner(model).run(inner)["z"], Runner(before).run(inner)["z"]) > 25
    assert result.stats["values_clipped"] == 1
    assert any(n.where == "'c'" and "clipped to" in n.what for n in result.notes)


def test_relu_becomes_a_clip() -> None:
    model = fill(HEAD + RELU)
    Clip().run(model, context(model, outlying()))
    assert ops(model) == ["Conv", "Clip", "Conv"]
    assert bounds(model)[0] == 0


def test_a_clip_is_tightened() -> None:
    model = fill(HEAD + CLIPPED)
    Clip().run(model, context(model, outlying()))
    assert ops(model) == ["Conv", "Clip", "Conv"]
    assert bounds(model)[0] == 0
    assert bounds(model)[1] < 20


def test_values_that_share_a_scale_share_their_limits() -> None:
    model = fill(HEAD + SUM)
    Clip().run(model, context(model, outlying()))
    assert ops(model)[ops(model).index("Add") + 1 :][0] == "Clip"  # right behind the sum, before the pool


def test_quantisation_absorbs_it() -> None:
    model = fill(HEAD + PLAIN)
    Clip().run(model, context(model, outlying()))
    high = bounds(model)[1]
    result = Quantize(method="minmax", float_if_faster=False, guard=False).run(model, context(model, outlying()))
    assert "Clip" not in ops(model)
    scales = {c.name: c.values for c in model.constants()}
    assert scales["c_scale"] * 255 < 2.5 * high
    assert result.stats["weighted_in_integers"] == 2


def test_an_even_value_stays_and_says_why() -> None:
    model = fill(HEAD + RELU)
    result = Clip().run(model, context(model, even()))
    assert not result.changed
    assert "'c': stays as it is: rounding leaves" in reasons(result)
    assert "'x': stays as it is: it is computed in float" in reasons(result)


def test_what_every_sample_has_is_no_outlier() -> None:
    arrays = {"x": even()["x"]}
    arrays["x"][:, :, 3, 3] = 400  # one pixel of each image, which so carries what the layer says
    model = fill(HEAD + PLAIN)
    assert not Clip().run(model, context(model, arrays)).changed


def test_an_output_stays() -> None:
    model = fill(HEAD + PLAIN.replace("(float[N,5,8,8] z)", "(float[N,5,8,8] z, float[N,8,8,8] c)"))
    result = Clip().run(model, context(model, outlying()))
    assert not result.changed
    assert "'c': stays as it is: it is an output of the model" in reasons(result)


def test_old_operator_sets_take_attributes() -> None:
    model = fill((HEAD + RELU).replace(": 17", ": 9"))
    Clip().run(model, context(model, outlying()))
    node = next(n for n in model.graph.nodes if n.op == "Clip")
    assert node.attrs["min"] == 0
    Runner(model).run(outlying())


def test_skip_and_errors() -> None:
    model = fill(HEAD + PLAIN)
    result = Clip(skip=("c",)).run(model, context(model, outlying()))
    assert "'c': was left out with the option skip" in reasons(result)
    with pytest.raises(ZcError, match="skip=d matches no node"):
        Clip(skip=("d",)).run(model, context(model, outlying()))
    with pytest.raises(ZcError, match="percentile is 10"):
        Clip(percentile=10)


def test_as_a_function() -> None:
    model = fill(HEAD + PLAIN)
    ctx = context(model, outlying())
    assert ctx.samples is not None
    found = clip(model, ctx.samples, ctx)
    assert [one.values for one in found] == [("c",)]
    assert found[0].after < 0.5 * found[0].before
