import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.kernels.grid import HALF, HIGHEST, LOWEST, base, edges, exponent_of, key, limits, number, widened
from zc.kernels.statistics import (
    BLOCK,
    add_channels,
    add_channels_numpy,
    add_values,
    add_values_numpy,
    extremes,
    extremes_numpy,
)

any_floats = hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=True))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
exponents = st.integers(LOWEST, HIGHEST)


@settings(deadline=None)  # the first call may compile
@given(any_floats, exponents, st.integers(0, 2))
def test_add_values_is_its_numpy_twin(values, exponent, blocks):
    values = np.concatenate([np.linspace(-1e-30, 1e-30, blocks * BLOCK, dtype=np.float32), values])
    ours, twin = np.zeros(2 * HALF, np.int64), np.zeros(2 * HALF, np.int64)
    assert add_values(values, exponent, ours) == add_values_numpy(values, exponent, twin)
    assert np.array_equal(ours, twin)


@settings(deadline=None)  # the first call may compile
@given(any_floats)
def test_extremes_is_its_numpy_twin(values):
    assert extremes(values) == extremes_numpy(values)


@settings(deadline=None)  # the first call may compile
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 20)), elements=st.floats(width=32)
    )
)
def test_add_channels_is_its_numpy_twin(values):
    ours = np.full(values.shape[1], np.inf, np.float32), np.full(values.shape[1], -np.inf, np.float32)
    twin = ours[0].copy(), ours[1].copy()
    add_channels(values, *ours)
    add_channels_numpy(values, *twin)
    assert np.array_equal(ours, twin)


def test_extremes_ignores_what_is_not_finite_and_counts_it():
    low, high, nan, inf = extremes(np.array([np.nan, 3, -np.inf, -2, np.inf], np.float32))
    assert (number(low), number(high), nan, inf) == (-2, 3, 1, 2)


def test_a_value_above_the_window_stops_at_its_block():
    values = np.ones(2 * BLOCK, np.float32)
    values[BLOCK + 7] = 4
    bins = np.zeros(2 * HALF, np.int64)
    done, low, high, zeros = add_values(values, 2, bins)
    assert (done, number(low), number(high), zeros, bins.sum()) == (BLOCK, 1, 1, 0, BLOCK)


def test_both_zeros_are_zero():
    bins = np.zeros(2 * HALF, np.int64)
    assert add_values(np.array([-0.0, 0.0, 1], np.float32), 1, bins)[3] == 2
    assert bins[HALF] == 2


@given(st.lists(finite, min_size=2, max_size=2))
def test_keys_sort_like_numbers(pair):
    one, other = pair
    assert (key(one) < key(other)) == (one < other) or one == other
    assert number(key(one)) == one


@given(finite, exponents)
def test_a_value_lies_between_the_edges_of_its_bin(value, exponent):
    exponent = max(exponent, exponent_of(abs(value)))
    bins = np.zeros(2 * HALF, np.int64)
    assert add_values_numpy(np.array([value], np.float32), exponent, bins)[0] == 1
    place = int(bins.argmax())
    inside = edges(exponent)[HALF - 1 - place if place < HALF else place - HALF :][:2]
    assert inside[0] <= abs(value) < inside[1]


def test_edges_near_the_top_are_a_256th_apart():
    found = edges(0)
    assert (found[0], found[-1], len(found)) == (0, 1, HALF + 1)
    assert np.diff(found[-257:]) == pytest.approx(np.full(256, 1 / 512))


@given(exponents, st.integers(0, 300))
def test_a_higher_window_has_the_same_edges_where_both_have_any(exponent, octaves):
    higher = min(exponent + octaves, HIGHEST)
    assert np.isin(edges(higher)[edges(higher) < 2.0**exponent], edges(exponent)).all()


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(-1, 1, width=32)), st.integers(0, 20))
def test_widening_gives_what_the_higher_window_would_have_counted(values, octaves):
    low, high = np.zeros(2 * HALF, np.int64), np.zeros(2 * HALF, np.int64)
    add_values_numpy(values, 1, low)
    add_values_numpy(values, 1 + octaves, high)
    assert np.array_equal(widened(low, octaves), high)


def test_the_limits_of_a_window_are_the_numbers_next_to_its_end():
    low, high = limits(3)
    assert number(high) == np.nextafter(np.float32(8), np.float32(0)) == -number(low)
    assert base(LOWEST) == 0
    assert number(limits(HIGHEST)[1]) == np.finfo(np.float32).max


def test_the_quantiser_does_not_import_numba_before_it_calibrates():
    code = "import sys, zc.passes.quantize.quantize; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
