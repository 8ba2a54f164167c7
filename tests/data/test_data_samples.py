import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zc.data import Samples, load_samples
from zc.data.arrays import open_arrays
from zc.data.prep import parse_prep
from zc.data.samples import full_batches
from zc.errors import ZcError
from zc.ir.spec import TensorSpec

X = TensorSpec("x", np.dtype("float32"), ("N", 3, 4, 4))
DATA = np.random.default_rng(0).integers(0, 256, (23, 3, 4, 4), dtype=np.uint8)


def samples(data=DATA, spec=X, prep="imagenet", batch=None):
    opened = open_arrays({"x": data}, np.arange(len(data)), [spec], parse_prep(prep), "a.npz")
    made = Samples((spec,), opened.reader, "a.npz", 0, len(data), opened.labels, prep, batch)
    return full_batches(made)


@given(st.integers(1, 30), st.integers(1, 30))
def test_batches_of_any_size_hold_the_same_rows(joined, a, b):
    np.testing.assert_array_equal(joined(samples(), a)["x"], joined(samples(), b)["x"])


@given(st.integers(1, 30))
def test_no_batch_is_larger_than_asked(size):
    sizes = [len(feed["x"]) for feed in samples().batches(size)]
    assert max(sizes) <= size
    assert sum(sizes) == 23


@given(st.integers(0, 22), st.integers(0, 22))
def test_taking_in_two_steps_is_taking_once(joined, a, b):
    start, stop = min(a, b), max(a, b) + 1
    part = samples().take(start, 23).take(0, stop - start)
    np.testing.assert_array_equal(joined(part, 7)["x"], joined(samples(), 23)["x"][start:stop])
    assert part.labels.tolist() == list(range(start, stop))
    assert part.origin == f"a.npz rows {start}:{stop}, prep imagenet"


def test_taking_outside_the_rows_is_an_error():
    with pytest.raises(ZcError, match="cannot take rows 5:24 of 23"):
        samples().take(5, 24)


def test_the_digest_does_not_see_where_rows_lie_or_what_was_read_before():
    whole = samples()
    list(whole.batches(5))
    assert whole.take(7, 20).digest() == samples(DATA[7:20].copy()).digest()


@pytest.mark.parametrize(
    "other", [samples(DATA[:22]), samples(255 - DATA), samples(prep="unit"), samples(DATA.astype(np.int32))]
)
def test_the_digest_sees_rows_values_types_and_prep(other):
    assert other.digest() != samples().digest()


def test_the_digest_does_not_see_the_byte_order_on_disk():
    assert samples(DATA.astype(">i4")).digest() == samples(DATA.astype("<i4")).digest()


def test_a_fixed_batch_of_one_gives_single_rows():
    assert [len(feed["x"]) for feed in samples(batch=1).batches(32)] == [1] * 23


def test_a_fixed_batch_drops_the_rest_with_its_labels_and_says_so():
    fixed = samples(batch=5)
    assert [len(feed["x"]) for feed in fixed.batches(32)] == [5] * 4
    assert (fixed.rows, len(fixed.labels)) == (20, 20)
    assert "last 3 rows dropped" in fixed.notes[0]


def test_fewer_rows_than_a_fixed_batch_are_an_error():
    with pytest.raises(ZcError, match="23 rows, but the model takes batches of exactly 24"):
        samples(batch=24)


def test_nan_far_from_the_start_is_found_while_streaming(tmp_path):
    data = np.zeros((50, 3, 4, 4), np.float32)
    data[41, 0, 0, :3] = np.nan
    np.savez(tmp_path / "a.npz", x=data)
    loaded = load_samples(str(tmp_path / "a.npz"), [X])
    with pytest.raises(ZcError, match=r"a\.npz: input 'x': row 41: 3 values are NaN or infinite as float32"):
        list(loaded.batches(8))


def test_nan_in_the_first_batch_is_found_at_load_and_numbered_as_in_the_file(tmp_path):
    data = np.zeros((50, 3, 4, 4), np.float32)
    data[41] = np.inf
    np.savez(tmp_path / "a.npz", x=data)
    with pytest.raises(ZcError, match="row 41: 48 values"):
        load_samples(str(tmp_path / "a.npz"), [X], rows="40:")
