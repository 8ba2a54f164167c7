"""Rounding along a factor and descent: each kernel does what its NumPy twin says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.kernels.lattice import descend, descend_numpy, nearest_plane, nearest_plane_numpy


def problem(seed: int, groups: int, outputs: int, size: int):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((groups, 3 * size, size)) @ rng.standard_normal((groups, size, size))
    moments = rows.transpose(0, 2, 1) @ rows / len(rows[0]) + 0.01 * np.eye(size)
    weights = rng.standard_normal((groups, outputs, size))
    scale = np.broadcast_to(np.abs(weights).max(axis=2, keepdims=True) / 7, weights.shape).copy()
    return moments, weights, scale, np.full_like(weights, -7), np.full_like(weights, 7)


sizes = st.tuples(st.integers(0, 99), st.integers(1, 3), st.integers(1, 40), st.integers(1, 12))


@given(sizes)
@settings(max_examples=25, deadline=None)
def test_rounding_along_the_factor_is_its_twin(shape) -> None:
    moments, weights, scale, low, high = problem(*shape)
    factor = np.ascontiguousarray(np.linalg.cholesky(moments).transpose(0, 2, 1))
    codes = np.full_like(weights, 99)
    count = weights.shape[0] * weights.shape[1]
    for start, stop in ((0, count // 2), (count // 2, count)):
        nearest_plane(factor, weights, scale, np.zeros_like(scale), low, high, codes, start, stop)
    for g, m in np.ndindex(*weights.shape[:2]):
        want = nearest_plane_numpy(factor[g], weights[g, m], scale[g, m], low[g, m], high[g, m])
        np.testing.assert_array_equal(codes[g, m], want)


@given(sizes)
@settings(max_examples=25, deadline=None)
def test_the_descent_is_its_twin(shape) -> None:
    moments, weights, scale, low, high = problem(*shape)
    start = np.clip(np.rint(weights / scale), low, high)
    codes = start.copy()
    slope = (weights - codes * scale) @ moments
    count = weights.shape[0] * weights.shape[1]
    descend(moments, slope, scale, low, high, codes, 3, 0, count)
    for g, m in np.ndindex(*weights.shape[:2]):
        want = descend_numpy(moments[g], weights[g, m], scale[g, m], low[g, m], high[g, m], start[g, m], 3)
        np.testing.assert_array_equal(codes[g, m], want)
    np.testing.assert_allclose(slope, (weights - codes * scale) @ moments, atol=1e-6)


def test_zero_points_shift_the_codes() -> None:
    moments, weights, scale, low, high = problem(1, 1, 5, 8)
    factor = np.ascontiguousarray(np.linalg.cholesky(moments).transpose(0, 2, 1))
    plain, shifted = np.zeros_like(weights), np.zeros_like(weights)
    nearest_plane(factor, weights, scale, np.zeros_like(scale), low, high, plain, 0, 5)
    nearest_plane(factor, weights, scale, np.full_like(scale, 3), low + 3, high + 3, shifted, 0, 5)
    np.testing.assert_array_equal(shifted, plain + 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_descent_ends_where_no_code_gets_better_alone(seed: int) -> None:
    moments, weights, scale, low, high = problem(seed, 1, 4, 10)
    codes = np.clip(np.rint(weights / scale), low, high)
    slope = (weights - codes * scale) @ moments
    descend(moments, slope, scale, low, high, codes, 100, 0, 4)
    for m in range(4):

        def cost(c, m=m):
            error = weights[0, m] - c * scale[0, m]
            return error @ moments[0] @ error

        best = cost(codes[0, m])
        for i in range(10):
            for way in (-1, 1):
                other = codes[0, m].copy()
                other[i] = np.clip(other[i] + way, -7, 7)
                assert cost(other) >= best - 1e-4 * best
