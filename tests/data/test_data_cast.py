import ml_dtypes
import numpy as np
import pytest

from zc.data.cast import cast, check_finite, kind_of
from zc.errors import ZcError


@pytest.mark.parametrize(
    ("values", "have", "want"),
    [
        ([1, 2], "int32", "int64"),
        ([1, 255], "int64", "uint8"),
        ([0.5, 2], "float64", "float32"),
        ([0.5, 2], "float32", "float16"),
        ([0, 200], "uint8", "float32"),
        ([1.0, 3.0], "float32", "int64"),
        ([0, 1], "uint8", "bool"),
        ([True, False], "bool", "int64"),
        ([1.5, 2], ">f4", "float32"),
    ],
)
def test_values_that_fit_the_type_are_kept(values, have, want):
    out = cast(np.array(values, have), np.dtype(want), "x")
    assert out.dtype == want
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize(
    ("values", "have", "want"),
    [
        ([1, 256], "int64", "uint8"),
        ([-1], "int64", "uint64"),
        ([2**64 - 1], "uint64", "int64"),
        ([0.5], "float32", "int64"),
        ([np.nan], "float32", "int32"),
        ([2], "uint8", "bool"),
    ],
)
def test_integers_that_would_change_are_refused(values, have, want):
    with pytest.raises(ZcError, match=f"that {want} cannot hold, such as"):
        cast(np.array(values, have), np.dtype(want), "x")


@pytest.mark.parametrize(("have", "want"), [("U3", "float32"), ("float32", "O"), ("complex64", "float32")])
def test_other_kinds_are_refused(have, want):
    with pytest.raises(ZcError, match=r"x: got .* the model takes"):
        cast(np.zeros(2, have), np.dtype(want), "x")


def test_the_small_floats_of_ml_dtypes_are_floats():
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    assert kind_of(bfloat16) == "float"
    assert cast(np.array([1.5], np.float32), bfloat16, "x").dtype == bfloat16


def test_text_becomes_python_strings_as_onnxruntime_takes_them():
    out = cast(np.array([["ab"], ["c"]]), np.dtype(object), "x")
    assert out.tolist() == [["ab"], ["c"]]
    assert out.dtype == object


def test_nan_is_found_with_its_row_and_count():
    values = np.zeros((4, 3), np.float32)
    values[2, 1:] = np.nan, np.inf
    with pytest.raises(ZcError, match="x: row 102: 2 values are NaN or infinite"):
        check_finite(values, "x", 100)


def test_the_row_of_a_nan_is_counted_along_the_batch_axis():
    values = np.zeros((2, 5, 3), np.float32)
    values[1, 4, 0] = np.nan
    with pytest.raises(ZcError, match="row 4: 1 values"):
        check_finite(values, "x", 0, axis=1)
