import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.passes.quantize.sketch import ChannelSketch, Sketch

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


def test_odd_values_are_counted_and_left_out():
    sketch = sketch_of(np.float32([np.nan, 1, np.inf, -np.inf, -2]))
    assert (sketch.nan, sketch.inf, sketch.count, sketch.low, sketch.high) == (1, 2, 2, -2, 1)


@settings(deadline=None)  # the first call may compile
@given(values, st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=3), st.randoms())
def test_odd_values_do_not_disturb_the_rest(data, odd, random):
    mixed = [*data, *odd]
    random.shuffle(mixed)
    sketch = sketch_of(np.float32(mixed))
    assert sketch.nan + sketch.inf == len(odd)
    sketch.nan = sketch.inf = 0
    assert state(sketch) == state(sketch_of(data))


def test_nothing_is_seen_in_an_array_without_elements():
    assert state(sketch_of(np.zeros((0, 3), np.float32))) == state(Sketch())


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1.0, 3.4e38])
def test_any_magnitude_fits_the_bins(magnitude):
    sketch = sketch_of(np.float32([magnitude, -magnitude, 0]))
    assert sketch.bins.sum() == 3
    assert sketch.zeros == 1


def test_the_sign_of_zero_does_not_show():
    assert repr(sketch_of(np.float32([-0.0]), np.float32([0.0])).low) == repr(sketch_of(np.float32([0.0])).low)
    assert state(sketch_of(np.float32([-0.0]))) == state(sketch_of(np.float32([0.0])))


def test_bins_count_what_lies_between_their_edges():
    data = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    sketch = sketch_of(data)
    counted, _ = np.histogram(data, sketch.edges())
    assert np.array_equal(counted, sketch.bins)


def test_integers_and_doubles_are_taken():
    assert (
        state(sketch_of(np.arange(5)))
        == state(sketch_of(np.arange(5.0)))
        == state(sketch_of(np.float32([0, 1, 2, 3, 4])))
    )


def channels_of(*parts):
    sketch = ChannelSketch(1)
    for part in parts:
        sketch.update(part)
    return sketch


@settings(deadline=None)  # the first call may compile
@given(hnp.arrays(np.float32, (6, 3, 2), elements=st.floats(width=32)), st.integers(0, 6))
def test_extremes_of_channels_do_not_depend_on_the_split(data, cut):
    whole, merged = channels_of(data), channels_of(data[cut:])
    merged.merge(channels_of(data[:cut]))
    assert whole.low.tobytes() == merged.low.tobytes()
    assert whole.high.tobytes() == merged.high.tobytes()


def test_extremes_of_channels_along_the_last_axis():
    sketch = ChannelSketch(-1)
    sketch.update(np.float32([[1, 5], [-2, np.nan]]))
    sketch.update(np.float32([[[0, 7]]]))
    assert (sketch.low.tolist(), sketch.high.tolist()) == ([-2, 5], [1, 7])


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="3 channels after 2"):
        channels_of(np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32))
