"""Agreement of a model with its original, without labels."""

from typing import Any

import numpy as np
import pytest

from zc.ir.model import Model, from_text
from zc.measure.agreement import Reference, compared
from zc.testing import samples_of

ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


def net(layers: str, outputs: str = "float[N,6] y", *more: str) -> Model:
    weights = ", ".join(["float[6,6] w = {" + ", ".join("2" if i % 7 == 0 else "1" for i in range(36)) + "}", *more])
    return from_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,6] x) => ({outputs}) <{weights}> {{ {layers} }}'
    )


def agreement(a: Model, b: Model) -> Any:
    return Reference(a, samples_of(a, {"x": ROWS})).agreement(b)


def test_of_classes_the_rows_with_the_same_one_count():
    found = agreement(net("y = MatMul (x, w)"), net("h = MatMul (x, w) y = Neg (h)"))
    assert found.classes
    assert found.share == 0
    assert found.noise > 1


def test_of_other_outputs_the_variance_that_is_explained_counts():
    found = agreement(
        net("h = MatMul (x, w) y = Tanh (h)"),
        net("h = MatMul (x, w) t = Tanh (h) y = Mul (t, k)", "float[N,6] y", "float k = {0.9}"),
    )
    assert not found.classes
    assert found.share == pytest.approx(1 - found.noise)
    assert 0.98 < found.share < 0.995


def test_instead_of_boxes_what_they_were_chosen_from_is_compared():
    """A detector puts out as many rows as it finds; the last digit of a score decides how many."""
    detector = (
        "s = MatMul (x, w) m = ReduceMax <keepdims=0> (s) k = Greater (s, t) where = NonZero (k) y = Transpose (where)"
    )
    model = net(detector, "int64[K,2] y", "float t = {3}")
    assert compared(model) == ["s"]
    other = net(
        detector.replace("MatMul (x, w)", "MatMul (x, v)"),
        "int64[K,2] y",
        "float t = {3}",
        "float[6,6] v = {" + ", ".join("2.02" if i % 7 == 0 else "1" for i in range(36)) + "}",
    )
    assert 0.99 < agreement(model, other).share < 1


def test_integers_count_if_they_are_equal():
    model = net("c = Cast <to=7> (x) y = Add (c, one)", "int64[N,6] y", "int64 one = {1}")
    assert compared(model) == ["y"]
    assert agreement(model, model).share == 1
    assert agreement(model, net("c = Cast <to=7> (x) y = Abs (c)", "int64[N,6] y")).share < 0.6


def test_infinite_masks_are_no_error_and_lost_numbers_are():
    masked = net(
        "h = MatMul (x, w) y = Where (m, h, low)", "float[N,6] y", "bool[6] m = {1,1,1,1,1,0}", "float low = {-inf}"
    )
    assert agreement(masked, masked).share == 1
    spoilt = net("h = MatMul (x, w) y = Div (h, zero)", "float[N,6] y", "float zero = {0}")
    assert agreement(net("y = MatMul (x, w)"), spoilt).share == 0
