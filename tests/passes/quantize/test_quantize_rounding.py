"""Second-order rounding of matrices, without a graph."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.passes.quantize.recode import Parts
from zc.passes.quantize.rounding import Grid, best_clips, cost, second_order


def problem(seed: int, groups: int = 1, inputs: int = 20, outputs: int = 6, limit: int = 7):
    """Weights, moments of inputs that vary together, and a symmetric grid."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((groups, 4 * inputs, inputs)) @ rng.standard_normal((groups, inputs, inputs))
    moments = rows.transpose(0, 2, 1) @ rows / (4 * inputs) + 0.01 * np.eye(inputs)
    weights = rng.standard_normal((groups, inputs, outputs))
    scale = np.abs(weights).max(axis=1, keepdims=True) / limit
    return weights, moments, Grid(scale, np.zeros(1), np.array(-float(limit)), np.array(float(limit)))


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 70), st.integers(1, 5), st.sampled_from([1, 7, 127]))
@settings(max_examples=40, deadline=None)
def test_it_costs_no_more_than_nearest_and_stays_on_the_grid(seed, groups, inputs, outputs, limit) -> None:
    weights, moments, grid = problem(seed, groups, inputs, outputs, limit)
    codes = second_order(weights, moments, grid)
    assert np.array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() <= limit
    best, plain = (cost(weights, moments, grid, c).sum() for c in (codes, grid.nearest(weights)))
    assert best <= plain * (1 + 1e-9)


def test_it_halves_the_error_where_inputs_vary_together() -> None:
    weights, moments, grid = problem(0, inputs=60, outputs=40)
    plain = cost(weights, moments, grid, grid.nearest(weights)).sum()
    assert cost(weights, moments, grid, second_order(weights, moments, grid)).sum() < 0.5 * plain


def test_inputs_that_vary_alone_are_rounded_to_the_nearest() -> None:
    weights, _, grid = problem(1)
    alone = np.diag(np.linspace(1, 5, 20))[None]
    np.testing.assert_array_equal(second_order(weights, alone, grid), grid.nearest(weights))


def test_few_bits_clip_an_outlier() -> None:
    weights, moments, _ = problem(2, inputs=40, outputs=3)
    weights[0, 5, 1] = 1.5 * np.abs(weights).max()
    scale = np.abs(weights).max(axis=1, keepdims=True) / 1
    grid = Grid(scale, np.zeros(1), np.array(-1.0), np.array(1.0))
    codes, shares = best_clips(weights, moments, grid)
    assert shares.shape == (1, 1, 3)
    assert (shares < 1).all()
    unclipped = cost(weights, moments, grid, second_order(weights, moments, grid))
    assert (cost(weights, moments, grid.clipped(shares), codes) < unclipped).all()


def test_scales_do_not_fall_below_the_least() -> None:
    weights, moments, grid = problem(3, limit=1)
    _, shares = best_clips(weights, moments, grid, least=0.9 * grid.scale)
    assert (shares >= 0.9).all()
    _, shares = best_clips(weights, moments, grid, least=2 * grid.scale)
    assert (shares == 1).all()


def test_zero_points_move_the_grid() -> None:
    weights, moments, grid = problem(4)
    moved = Grid(grid.scale, np.array(8.0), np.array(1.0), np.array(15.0))
    np.testing.assert_array_equal(second_order(weights, moments, moved), second_order(weights, moments, grid) + 8)


@given(st.integers(1, 3), st.integers(1, 50), st.integers(1, 4), st.integers(1, 5))
def test_parts_are_joined_as_they_were_split(groups, inputs, outputs, count) -> None:
    parts = Parts(count, -(-inputs // count))
    matrix = np.arange(groups * inputs * outputs, dtype=float).reshape(groups, inputs, outputs)
    split = parts.split(matrix, 1)
    assert split.shape == (groups * count, parts.size, outputs)
    np.testing.assert_array_equal(parts.join(split, inputs), matrix)
    rows = np.moveaxis(matrix, 1, 2)  # [groups, R, D]
    np.testing.assert_array_equal(np.moveaxis(parts.split(rows, 2), 2, 1), split)
