"""The passes `round` and `bias-correct`, on models that are quantised already."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model
from zc.pipeline.base import Context
from zc.pipeline.manager import Report, run_pipeline

NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,16,8,8] x) => (float[N,3,6] z)
    <float[32,16,3,3] w1, float[32] b1, float[32,1,3,3] w2, float[24,16,1,1] w3, float[24,12] w4, float[12] b4,
     float[12,6] w5, float[6] b5, int64[3] s = {0, 3, 24}> {
        c1 = Conv (x, w1, b1)
        r1 = Relu (c1)
        c2 = Conv <group = 32, pads = [1, 1, 1, 1]> (r1, w2)
        c3 = Conv <group = 2, kernel_shape = [1, 1]> (c2, w3)
        p3 = AveragePool <kernel_shape = [6, 2], strides = [6, 2]> (c3)
        f3 = Reshape (p3, t)
        t3 = Transpose <perm = [0, 2, 1]> (f3)
        m4 = MatMul (t3, w4)
        a4 = Add (m4, b4)
        r4 = Relu (a4)
        m5 = MatMul (r4, w5)
        z = Add (b5, m5)
    }""".replace("int64[3] s = {0, 3, 24}", "int64[3] t = {0, 24, 3}")


@pytest.fixture
def run(graph, samples_for, smooth) -> Callable[..., tuple[Model, Report]]:
    def make(pipeline: str, text: str = NET, rows: int = 96) -> tuple[Model, Report]:
        model = graph(text)
        ctx = Context(TARGET, samples_for(model, smooth(model, rows)))
        return model, run_pipeline(model, pipeline, ctx)

    return make


def stats(report: Report, name: str) -> dict:
    return next(p.stats for p in report.passes if p.name == name)


def declined(report: Report, name: str) -> dict[str, str]:
    notes = next(p.notes for p in report.passes if p.name == name)
    return {n.where: n.what for n in notes if n.kind == "declined"}


def codes(model: Model) -> dict[str, np.ndarray]:
    return {c.name: c.values for c in model.constants() if c.name.startswith("w") and c.name.endswith("_q")}


def test_rounding_again_makes_up_for_the_plain_quantisation(run) -> None:
    _, report = run("quantize:guard=false:equalize=false:rounding=nearest:weight_bits=4:bias_correct=false,round")
    found = stats(report, "round")
    assert found["weights_rounded"] == 5
    assert found["sqnr_db"] > found["sqnr_db_before"] + 3


def test_it_does_what_quantize_does_when_asked_to(run) -> None:
    within, _ = run("quantize:guard=false:equalize=false:rounding=second-order")
    behind, _ = run("quantize:guard=false:equalize=false:rounding=nearest:bias_correct=true,round")
    for name, values in codes(within).items():
        assert (values != codes(behind)[name]).mean() < 0.02  # biases were corrected once more before


def test_nearest_undoes_it(run) -> None:
    plain, _ = run("quantize:guard=false:equalize=false:rounding=nearest")
    undone, _ = run("quantize:guard=false:equalize=false:rounding=second-order,round:method=nearest")
    for name, values in codes(plain).items():
        np.testing.assert_array_equal(values, codes(undone)[name])


def test_biases_alone(run) -> None:
    model, report = run(
        "quantize:guard=false:equalize=false:rounding=nearest:weight_bits=4:bias_correct=false,bias-correct"
    )
    found = stats(report, "bias-correct")
    assert (found["weights_rounded"], found["biases_corrected"]) == (0, 3)
    assert found["sqnr_db"] > found["sqnr_db_before"]
    assert set(declined(report, "bias-correct")) == {"c2", "c3"}
    plain, _ = run("quantize:guard=false:equalize=false:rounding=nearest:weight_bits=4:bias_correct=false")
    for name, values in codes(plain).items():
        np.testing.assert_array_equal(values, codes(model)[name])


def test_both_passes_in_a_row_are_as_good_as_one_sweep(run) -> None:
    quantize = "quantize:guard=false:equalize=false:rounding=nearest:weight_bits=4:bias_correct=false"
    _, two = run(f"{quantize},round:bias_correct=false,bias-correct")
    _, one = run(f"{quantize},round")
    assert stats(two, "bias-correct")["sqnr_db"] > stats(one, "round")["sqnr_db"] - 3


def test_what_the_user_names_stays(run) -> None:
    plain, _ = run("quantize:guard=false:equalize=false:rounding=nearest")
    some, report = run("quantize:guard=false:equalize=false:rounding=nearest,round:skip=c1:only=Conv")
    changed = {n for n, v in codes(plain).items() if (v != codes(some)[n]).any()}
    assert changed == {"w2_q", "w3_q"}
    assert declined(report, "round")["c1"] == "round:skip=c1"


def test_batch_normalisation_that_was_folded_is_no_trouble(run) -> None:
    _, report = run(
        "quantize:guard=false:equalize=false:rounding=nearest:weight_bits=4,round",
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8,6,6] x) => (float[N,8,2,2] z)
        <float[8,8,3,3] w1, float[8] b1, float[8] s = {1,2,3,4,5,6,7,8}, float[8,8,3,3] w2> {
            c = Conv (x, w1, b1)
            n = BatchNormalization (c, s, b1, b1, s)
            r = Relu (n)
            z = Conv (r, w2)
        }""",
    )
    assert stats(report, "round")["weights_rounded"] == 2


def test_a_float_model_is_refused(run) -> None:
    with pytest.raises(ZcError, match="no layer has codes as its weight; quantise it first, as in -p quantize,round"):
        run("round")


def test_a_quantised_file_without_its_float_model_is_refused(run) -> None:
    model, _ = run("quantize:guard=false:equalize=false:rounding=nearest")
    with pytest.raises(ZcError, match="there is no float model to compare with; quantise in the same pipeline"):
        run_pipeline(model, "bias-correct", Context(TARGET))


@pytest.mark.parametrize("text", ["round:damping=0", "round:rows=-1", "bias-correct:rows=-1"])
def test_options_that_make_no_sense(run, text) -> None:
    with pytest.raises(ZcError, match="give"):
        run(f"quantize:guard=false:equalize=false:rounding=nearest,{text}")


def test_few_rows_will_do(run) -> None:
    model, report = run("quantize:guard=false:equalize=false:rounding=nearest,round:rows=16")
    assert stats(report, "round")["rows"] == 16
    assert Runner(model)
