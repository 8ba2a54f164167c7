import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.errors import ZcError
from zc.passes.quantize.sketch import HALF, Sketch

values = hnp.arrays(
    np.float32,
    st.integers(1, 400),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(-1, 1, width=32),
)


def sketch_of(*parts):
    sketch = Sketch()
    for part in parts:
        sketch.update(part)
    return sketch


def state(sketch):
    return {**vars(sketch), "bins": sketch.bins.tobytes()}


@settings(deadline=None)  # the first call may compile
@given(values, st.lists(st.integers(0, 400), max_size=6), st.randoms())
def test_sketch_does_not_depend_on_split_and_order(data, cuts, random):
    parts = np.split(data, sorted(min(c, len(data)) for c in cuts))
    random.shuffle(parts)
    assert state(sketch_of(*parts)) == state(sketch_of(data))


@settings(deadline=None)  # the first call may compile
@given(values, values)
def test_merged_sketches_are_the_sketch_of_all(one, other):
    merged = sketch_of(one)
    merged.merge(pickle.loads(pickle.dumps(sketch_of(other))))  # as from another process
    assert state(merged) == state(sketch_of(np.concatenate([one, other])))


def test_merging_leaves_the_other_sketch_alone():
    other = sketch_of(np.float32([1, 2]))
    before = copy.deepcopy(other)
    sketch_of(np.float32([100])).merge(other)
    assert state(other) == state(before)


def test_batches_of_1_7_and_32_give_the_same_bits():
    rows = 96
    data = np.random.default_rng(0).standard_normal((rows, 3, 5, 5)).astype(np.float32)
    states = [state(sketch_of(*(data[i : i + size] for i in range(0, rows, size)))) for size in (1, 7, 32)]
    assert states[0] == states[1] == states[2]


@settings(deadline=None)  # the first call may compile
@given(values)
def test_every_value_is_in_the_minmax_range(data):
    assert sketch_of(data).range("minmax") == (data.min(), data.max())


def test_percentile_cuts_a_planted_outlier():
    data = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    data[7] = 50
    low, high = sketch_of(data).range("percentile", 99.99)
    assert -1 <= low < -0.99
    assert 0.99 < high < 1 + 50 / HALF * 2


@settings(deadline=None)  # the first call may compile
@given(values)
def test_percentile_100_is_minmax(data):
    assert sketch_of(data).range("percentile", 100) == sketch_of(data).range("minmax")


def test_odd_values_are_counted_and_left_out():
    sketch = sketch_of(np.float32([np.nan, 1, np.inf, -np.inf, -2]))
    assert (sketch.nan, sketch.inf, sketch.count) == (1, 2, 2)
    assert sketch.range() == (-2, 1)


def test_a_value_never_seen_has_no_range():
    with pytest.raises(ZcError, match="no finite value"):
        sketch_of(np.float32([np.nan])).range()


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1.0, 3.4e38])
def test_any_magnitude_fits_the_grid(magnitude):
    sketch = sketch_of(np.float32([magnitude, -magnitude, 0]))
    assert sketch.bins.sum() == 3
