import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.kernels.distance import error_sums, error_sums_numpy

floats = st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])
pairs = st.integers(0, 200).flatmap(lambda n: st.tuples(*[hnp.arrays(np.float32, n, elements=floats)] * 2))


@settings(deadline=None)  # the first call may compile
@given(pairs)
def test_error_sums_is_its_numpy_twin(pair):
    assert error_sums(*pair) == pytest.approx(error_sums_numpy(*pair), rel=1e-9)


def test_a_small_error_on_a_large_value_is_not_lost():
    want = np.full(1000, 1000, np.float32)
    assert error_sums(want + np.float32(0.001), want)[3] == pytest.approx(1000 * 0.001**2, rel=0.1)
