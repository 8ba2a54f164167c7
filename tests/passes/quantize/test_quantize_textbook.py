"""The textbook form, by its properties; and the real thing against it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zc.errors import ZcError
from zc.passes.quantize.scheme import activation_scale, quantize_weight, weight_scales
from zc.passes.quantize.textbook import dequantise, quantise

numbers = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-1e3, 1e3, width=32))
forms = st.tuples(st.integers(2, 12), st.booleans(), st.sampled_from([None, 0, 1]))


@given(numbers, forms)
def test_a_round_trip_is_off_by_half_a_step_at_most(values, form) -> None:
    bits, symmetric, axis = form
    coded = quantise(values, bits, symmetric=symmetric, axis=axis)
    error = np.abs(dequantise(coded) - values)
    assert (error <= coded.scale * (0.5 + 1e-9) + 1e-300).all()


@given(numbers, forms)
def test_codes_stay_within_their_bits_and_reach_an_end(values, form) -> None:
    bits, symmetric, axis = form
    coded = quantise(values, bits, symmetric=symmetric, axis=axis)
    assert coded.highest - coded.lowest == 2**bits - 1 - symmetric
    assert coded.codes.min() >= coded.lowest
    assert coded.codes.max() <= coded.highest
    if np.abs(values).max() > 1e-30:
        assert coded.codes.min() == coded.lowest or coded.codes.max() == coded.highest


@given(numbers, forms)
def test_zero_is_exact(values, form) -> None:
    bits, symmetric, axis = form
    values = np.where(np.abs(values) < 1, 0, values)
    back = dequantise(quantise(values, bits, symmetric=symmetric, axis=axis))
    assert (back[values == 0] == 0).all()


@given(numbers, st.integers(2, 12), st.booleans())
def test_larger_values_do_not_get_smaller_codes(values, bits, symmetric) -> None:
    coded = quantise(values, bits, symmetric=symmetric)
    order = np.argsort(values, axis=None)
    assert (np.diff(coded.codes.reshape(-1)[order]) >= 0).all()


@given(numbers, forms)
def test_what_codes_stand_for_has_the_same_codes(values, form) -> None:
    bits, symmetric, axis = form
    coded = quantise(values, bits, symmetric=symmetric, axis=axis)
    again = np.clip(np.rint(dequantise(coded) / coded.scale) + coded.zero, coded.lowest, coded.highest)
    np.testing.assert_array_equal(again, coded.codes)


@given(numbers, st.integers(2, 12), st.booleans())
def test_a_scale_for_each_channel_is_never_worse(values, bits, symmetric) -> None:
    whole = quantise(values, bits, symmetric=symmetric)
    each = quantise(values, bits, symmetric=symmetric, axis=0)
    live = np.abs(values).max(axis=1) > 0
    assert (each.scale[live] <= whole.scale * (1 + 1e-12)).all()


@given(numbers)
def test_one_more_bit_halves_the_step(values) -> None:
    if np.abs(values).max() > 1e-3:
        few, many = (quantise(values, bits, symmetric=True).scale for bits in (4, 5))
        np.testing.assert_allclose(few / many, 15 / 7)


@pytest.mark.parametrize(("bits", "symmetric"), [(0, False), (1, True), (17, False)])
def test_other_numbers_of_bits_are_refused(bits, symmetric) -> None:
    with pytest.raises(ZcError, match=f"bits is {bits}; give {1 + symmetric} to 16"):
        quantise(np.ones(3), bits, symmetric=symmetric)


def test_one_bit_tells_two_values_apart() -> None:
    coded = quantise(np.array([0.0, 3.0, 1.0]), 1)
    np.testing.assert_array_equal(coded.codes, [0, 1, 0])


# ---- the real thing


@given(numbers, st.sampled_from([2, 4, 8]), st.sampled_from([None, 0, 1]))
def test_weights_are_coded_as_in_the_textbook(values, bits, axis) -> None:
    weight = np.where(np.abs(values) < 1e-6, 0, values).astype(np.float32)
    limit = 2 ** (bits - 1) - 1
    scales = weight_scales(weight, axis, limit=limit)
    coded = quantise(weight, bits, symmetric=True, axis=axis)
    np.testing.assert_allclose(scales, coded.scale.reshape(-1), rtol=1e-6)
    off = np.abs(quantize_weight(weight, scales, axis, limit) - coded.codes)
    assert (off <= (np.abs(weight / coded.scale % 1 - 0.5) < 1e-3)).all()  # but for float32 scales, at ties


@given(st.floats(-100, 100, width=32), st.floats(0.125, 100, width=32))
def test_activations_are_coded_as_in_the_textbook(low, width) -> None:
    high = low + width
    scale = activation_scale(low, high, "uint8", symmetric=False)
    coded = quantise(np.array([low, high]), 8)
    np.testing.assert_allclose(scale.scale, coded.scale.reshape(-1)[0], rtol=1e-6)
    assert abs(scale.zero_point - int(coded.zero.reshape(-1)[0])) <= 1  # a tie that float32 turns
