import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zc.data import synthesize
from zc.errors import ZcError
from zc.ir.spec import TensorSpec


def first(inputs, **options):
    return next(synthesize(inputs, **options).batches())


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_rows_are_the_same_in_any_batch_and_any_run(joined, size, seed):
    inputs = [TensorSpec("x", np.dtype("float32"), ("N", 5))]
    np.testing.assert_array_equal(
        joined(synthesize(inputs, 12, seed), size)["x"], joined(synthesize(inputs, 12, seed), 12)["x"]
    )


def test_another_seed_gives_other_rows(spec):
    x = [spec("x", "float32", "N", 5)]
    assert not np.array_equal(first(x, seed=0)["x"], first(x, seed=1)["x"])
    assert synthesize(x, seed=0).digest() != synthesize(x, seed=1).digest()


def test_they_say_that_they_are_synthetic(spec):
    samples = synthesize([spec("x", "float32", "N", 5)])
    assert samples.synthetic
    assert "SYNTHETIC" in samples.origin
    assert samples.labels is None


def test_floats_are_normal_within_three(spec):
    x = first([spec("x", "float32", "N", 1000)])["x"]
    assert x.dtype == np.float32
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05
    assert np.abs(x).max() <= 3


def test_hints_bound_the_values_by_channel_too(spec):
    low, high = np.array([0.0, 10.0]).reshape(2, 1, 1), np.array([1.0, 20.0]).reshape(2, 1, 1)
    x = first([spec("x", "float32", "N", 2, 8, 8)], hints={"x": (low, high)})["x"]
    assert (x >= low).all()
    assert (x <= high).all()
    assert x[:, 1].mean() == pytest.approx(15, abs=0.5)


def test_a_hint_gives_token_ids_the_size_of_the_table(spec):
    ids = first([spec("ids", "int64", "N", "S")], hints={"ids": (0, 9)})["ids"]
    assert ids.dtype == np.int64
    assert set(np.unique(ids)) == set(range(10))


def test_integers_without_a_hint_fit_any_table(spec):
    assert set(np.unique(first([spec("ids", "int32", "N", "S")])["ids"])) == {0, 1}


def test_uint8_images_span_their_range(spec):
    assert first([spec("x", "uint8", "N", 3, 16, 16)])["x"].max() > 250


def test_masks_hide_nothing(spec):
    assert first([spec("attention_mask", "int64", "N", "S")])["attention_mask"].all()


def test_a_dimension_of_one_name_has_one_size_in_all_inputs(spec):
    feed = first([spec("a", "float32", "N", "foo"), spec("b", "bool", "N", 2, "foo")], rows=3)
    assert feed["a"].shape == (3, 16)
    assert feed["b"].shape == (3, 2, 16)


def test_unknown_dimensions_get_a_sensible_size(spec):
    feed = first([spec("x", "float32", "N", None, "H", "W"), spec("s", "float32", "N", "seq_len", 8)], rows=1)
    assert feed["x"].shape == (1, 3, 64, 64)
    assert feed["s"].shape == (1, 16, 8)


def test_the_caller_can_set_a_dimension(spec):
    assert first([spec("x", "float32", "N", "samples")], rows=1, dims={"samples": 576})["x"].shape == (1, 576)


def test_the_batch_lies_where_the_model_has_it(spec):
    feed = first([spec("x", "float32", "batch", 4), spec("h", "float32", 2, "batch", 8), spec("sr", "int64")], rows=5)
    assert feed["h"].shape == (2, 5, 8)
    assert feed["sr"].shape == ()


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_a_scalar_is_an_array_as_onnxruntime_wants_it(spec, dtype):
    value = first([spec("k", dtype)])["k"]
    assert (type(value), value.shape, value.dtype) == (np.ndarray, (), np.dtype(dtype))


def test_a_fixed_batch_rounds_the_rows_up(spec):
    samples = synthesize([spec("x", "float32", 4, 2)], rows=6)
    assert [len(feed["x"]) for feed in samples.batches()] == [4, 4]


def test_a_model_without_inputs_gets_empty_feeds():
    assert next(synthesize([], rows=1).batches()) == {}


@pytest.mark.parametrize(
    ("dtype", "shape", "hints", "says"),
    [
        ("O", ("N", 2), {}, "which cannot be drawn"),
        ("float32", None, {}, "unknown rank"),
        ("int64", ("N",), {"x": (5, 2)}, "a hint does not fit its input"),
        ("float32", ("N", 2), {"x": (np.zeros(3), np.ones(3))}, "a hint does not fit its input"),
        ("float32", ("N", 2), {"z": (0, 1)}, "hint for 'z', which is not an input: x"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(dtype, shape, hints, says):
    with pytest.raises(ZcError, match=says):
        synthesize([TensorSpec("x", np.dtype(dtype), shape)], hints=hints)
