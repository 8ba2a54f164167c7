import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.kernels.statistics import count_bins, count_bins_numpy, extremes, extremes_numpy

any_floats = hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=True))


@settings(deadline=None)  # the first call may compile
@given(any_floats)
def test_extremes_is_its_numpy_twin(values):
    assert extremes(values) == extremes_numpy(values)


def test_extremes_ignores_what_is_not_finite_and_counts_it():
    values = np.array([np.nan, 3, -np.inf, -2, np.inf], np.float32)
    assert extremes(values) == (-2, 3, 1, 2)


def test_extremes_of_nothing_is_an_empty_range():
    assert extremes(np.zeros(0, np.float32)) == (np.inf, -np.inf, 0, 0)


@settings(deadline=None)  # the first call may compile
@given(
    hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(-7.5, 7.5, width=32) | st.just(np.nan)),
    st.sampled_from([2.0**-3, 1.0, 2.0]),
)
def test_count_bins_is_its_numpy_twin(values, inverse_width):
    ours, twin = np.zeros(32, np.int64), np.zeros(32, np.int64)
    count_bins(values, np.float32(inverse_width), ours)
    count_bins_numpy(values, np.float32(inverse_width), twin)
    assert np.array_equal(ours, twin)
    assert ours.sum() == np.isfinite(values).sum()


def test_count_bins_mirrors_at_zero():
    bins = np.zeros(8, np.int64)
    count_bins(np.array([-3.5, -0.5, -0.0, 0.5, 3.5], np.float32), np.float32(1), bins)
    assert bins.tolist() == [1, 0, 0, 1, 2, 0, 0, 1]


def test_the_quantiser_does_not_import_numba_before_it_calibrates():
    code = "import sys, zc.passes.quantize.quantize; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
