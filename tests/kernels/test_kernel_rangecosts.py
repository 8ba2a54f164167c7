import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.kernels.rangecosts import divergence, divergence_numpy, squared_error, squared_error_numpy


@st.composite
def distributions(draw):
    """Bins that do not overlap, some with gaps between them."""
    widths = draw(st.lists(st.floats(0.01, 3), min_size=2, max_size=40))
    at = np.cumsum(widths) + draw(st.floats(-40, 5))
    left, right = at[:-1], at[1:]
    mass = np.array(draw(st.lists(st.floats(0.1, 100), min_size=len(left), max_size=len(left))))
    kept = np.array(draw(st.lists(st.booleans(), min_size=len(left), max_size=len(left)))) | (mass == mass.max())
    return left[kept], right[kept], mass[kept]


grids = st.tuples(st.floats(0.05, 3), st.integers(-20, 0), st.integers(1, 20)).map(
    lambda g: (g[0], float(g[1]), float(g[2]))
)


@settings(deadline=None)  # the first call may compile
@given(distributions(), grids, st.floats(0, 100))
def test_squared_error_is_its_numpy_twin(bins, grid, clip_cost):
    twin = squared_error_numpy(*bins, *grid, clip_cost)
    assert squared_error(*bins, *grid, clip_cost) == pytest.approx(twin, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(distributions(), grids)
def test_squared_error_is_what_samples_of_the_bins_have(bins, grid):
    left, right, mass = bins
    step, lowest, highest = grid
    x = left + (right - left) * (np.arange(2000)[:, None] + 0.5) / 2000
    off = np.abs(x - np.clip(np.rint(x / step), lowest, highest) * step)
    for clip_cost in (1.0, 3.0):
        error = float(((off**2 * np.where(off > step / 2, clip_cost, 1)).mean(axis=0) * mass).sum())
        assert squared_error(*bins, *grid, clip_cost) == pytest.approx(error, rel=3e-3)


@settings(deadline=None)
@given(distributions(), grids, st.integers(1, 9))
def test_divergence_is_its_numpy_twin(bins, grid, parts):
    assert divergence(*bins, *grid, parts) == pytest.approx(divergence_numpy(*bins, *grid, parts), rel=1e-6, abs=1e-9)


def test_nothing_is_lost_where_each_code_has_an_even_density():
    left = np.arange(-0.5, 7.5)
    assert divergence(left, left + 1, 1e9 * np.arange(1.0, 9.0), 1.0, 0.0, 7.0, 16) == pytest.approx(0, abs=1e-6)


def test_chance_is_not_taken_for_information():
    rng = np.random.default_rng(0)
    edges = np.linspace(-0.5, 7.5, 8 * 16 + 1)
    found = []
    for _ in range(50):
        counts, _ = np.histogram(rng.uniform(-0.5, 7.5, 10_000), edges)
        found.append(divergence(edges[:-1], edges[1:], counts.astype(float), 1.0, 0.0, 7.0, 16))
    assert abs(np.mean(found)) < 3e-4  # uncorrected, 6e-3


def test_divergence_grows_with_what_is_cut_off():
    left = np.arange(-0.5, 15.5)
    lost = [divergence(left, left + 1, np.full(16, 1e6), 1.0, 0.0, top, 8) for top in (15.0, 12.0, 8.0, 4.0)]
    assert lost == sorted(lost)
    assert lost[1] > 0.1


def test_divergence_is_infinite_where_nothing_is_inside():
    one = np.array([5.0])
    assert divergence(one, one + 1, one, 0.1, 0.0, 7.0, 8) == np.inf
