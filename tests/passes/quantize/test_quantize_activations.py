"""Products between float values: calibrated ranges, or ranges taken when they run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zc.execute import Runner
from zc.ir.model import Model
from zc.measure.tensor_error import sqnr
from zc.passes.quantize import activations

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
# Products read and put out float: a normalisation in front, a Tanh behind.
ENCODER = f"""{HEAD} g (float[N,6,32] x) => (float[N,6,32] y)
<float[32] s, float[32,48] w, float[48] b, float[48,32] v> {{
    n = LayerNormalization (x, s)
    p = MatMul (n, w)  a = Add (p, b)  t = Tanh (a)
    y = MatMul (t, v)
}}"""

Quantise = Callable[..., Any]


@pytest.fixture(autouse=True)
def weights_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs here are small."""
    monkeypatch.setattr(activations, "SMALLEST", 0)


def test_dynamic_products_need_no_range_and_run_with_their_bias_in_one_kernel(quantize: Quantise) -> None:
    q = quantize(ENCODER, activations="dynamic")
    assert q.runs().count("DynamicQuantizeMatMul") == 2
    assert "Add" not in q.runs()
    assert "QuantizeLinear" not in q.ops()
    assert q.result.stats["weighted_in_integers"] == 2
    assert q.result.stats["values_quantised"] == 0
    got, want = q.outputs()
    assert sqnr(got["y"], want["y"]) > 30


def test_static_products_keep_their_calibrated_ranges(quantize: Quantise) -> None:
    q = quantize(ENCODER, activations="static")
    assert q.ops().count("QuantizeLinear") == 2
    assert "DynamicQuantizeLinear" not in q.ops()


def test_the_choice_is_measured_and_stands_in_the_effective_options(quantize: Quantise) -> None:
    q = quantize(ENCODER)
    assert q.result.chose.activations in {"static", "dynamic"}
    again = quantize(ENCODER, activations=q.result.chose.activations)
    assert again.model.weights_digest() == q.model.weights_digest()


def test_inputs_unlike_the_samples_are_no_trouble_for_dynamic_ranges(
    graph: Callable[[str], Model], quantize_model: Quantise
) -> None:
    model = graph(ENCODER.replace("n = LayerNormalization (x, s)", "n = Tanh (x)").replace("Tanh (a)", "Identity (a)"))
    rng = np.random.default_rng(0)
    small = {"x": (rng.standard_normal((24, 6, 32)) * 0.01).astype(np.float32)}
    large = {"x": rng.standard_normal((24, 6, 32)).astype(np.float32)}
    found = {}
    for kind in ("static", "dynamic"):
        q = quantize_model(model.copy(), small, activations=kind)
        found[kind] = sqnr(Runner(q.model).run(large)["y"], Runner(q.float_model).run(large)["y"])
    assert found["dynamic"] > 30
    assert found["static"] < 15


def test_products_between_codes_stay_calibrated(quantize: Quantise) -> None:
    q = quantize(
        f"""{HEAD} g (float[N,32] x) => (float[N,8] y) <float[32,48] w, float[48,32] v, float[32,8] u> {{
            p = MatMul (x, w)  r = Relu (p)  q = MatMul (r, v)  e = Relu (q)  y = MatMul (e, u)
        }}""",
        activations="dynamic",
    )
    assert q.ops().count("DynamicQuantizeLinear") == 0


def test_one_value_that_several_products_read_is_quantised_once(quantize: Quantise) -> None:
    q = quantize(
        f"""{HEAD} g (float[N,6,32] x) => (float[N,6,6] y) <float[32] s, float[32,48] w, float[32,48] v> {{
            n = LayerNormalization (x, s)
            a = MatMul (n, w)  b = MatMul (n, v)  t = Transpose <perm = [0, 2, 1]> (b)
            y = MatMul (a, t)
        }}""",
        activations="dynamic",
    )
    assert q.ops().count("DynamicQuantizeLinear") == 1
    assert q.runs().count("MatMulIntegerToFloat") == 2


@pytest.mark.parametrize("options", [{"rounding": "second-order"}, {"weight_bits": 4, "rounding": "second-order"}])
def test_dynamic_products_are_rounded_and_corrected_like_others(quantize: Quantise, options: dict[str, Any]) -> None:
    plain = quantize(ENCODER, activations="dynamic", bias_correct=False, **{**options, "rounding": "nearest"})
    best = quantize(ENCODER, activations="dynamic", **options)
    assert best.result.stats["weights_rounded"] == 2
    assert best.result.stats["biases_corrected"] == 1
    errors = [sqnr(q.outputs()[0]["y"], q.outputs()[1]["y"]) for q in (plain, best)]
    assert errors[1] > errors[0]


def test_products_that_share_codes_made_at_run_time_are_rounded_together(quantize: Quantise) -> None:
    text = """ g (float[N,6,32] x) => (float[N,6,32] y)
    <float[32] s, float[32,32] w, float[32,32] v, float[32,32] u, float[32] b, float[32] c, float[32] d> {
        n = LayerNormalization (x, s)
        p = MatMul (n, w)  pb = Add (p, b)
        q = MatMul (n, v)  qc = Add (q, c)
        r = MatMul (n, u)  rd = Add (r, d)
        h = Mul (pb, qc)  y = Add (h, rd)
    }"""
    q = quantize(HEAD + text, activations="dynamic", rounding="second-order")
    assert q.ops().count("DynamicQuantizeLinear") == 1
    assert q.result.stats["weights_rounded"] == 3
