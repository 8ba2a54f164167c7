import numpy as np
import pytest

from zc.data import load_samples
from zc.errors import ZcError


@pytest.fixture
def x(spec):
    return spec("x", "float32", "N", 4)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def rows(count=10):
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


@pytest.mark.parametrize("key", ["y", "label", "labels"])
def test_labels_are_found_under_their_usual_names(tmp_path, x, key):
    samples = load_samples(save(tmp_path / "a.npz", x=rows(), **{key: np.arange(10)}), [x], rows="2:5")
    assert samples.labels.tolist() == [2, 3, 4]


def test_labels_under_another_name_are_named_by_the_user(tmp_path, x):
    path = save(tmp_path / "a.npz", x=rows(), score=np.arange(10))
    assert load_samples(path, [x], label_key="score").labels.tolist() == list(range(10))
    with pytest.raises(ZcError, match=r"no array 'scor' for the labels .did you mean 'score'."):
        load_samples(path, [x], label_key="scor")


def test_the_only_array_feeds_the_only_input_whatever_its_name(tmp_path, x):
    samples = load_samples(save(tmp_path / "a.npz", images=rows(), y=np.zeros(10)), [x])
    np.testing.assert_array_equal(next(samples.batches(10))["x"], rows())


def test_extra_arrays_are_ignored_with_a_note(tmp_path, x):
    samples = load_samples(save(tmp_path / "a.npz", x=rows(), z=rows()), [x])
    assert samples.notes == ("a.npz: not inputs of the model, ignored: z",)


def test_a_missing_input_lists_what_is_there_and_the_nearest(tmp_path, x, spec):
    path = save(tmp_path / "a.npz", x=rows(), maks=rows())
    with pytest.raises(
        ZcError, match=r"no array for input 'mask' .did you mean 'maks'\?\); the model takes mask: float32\[N,4\]"
    ):
        load_samples(path, [x, spec("mask", "float32", "N", 4)])


def test_inputs_without_a_batch_axis_are_given_whole(tmp_path, x, spec):
    path = save(tmp_path / "a.npz", x=rows(), sr=np.int32(16000), state=np.zeros((10, 2, 3), np.float32))
    inputs = [spec("x", "float32", "batch", 4), spec("sr", "int64"), spec("state", "float32", 2, "batch", 3)]
    feeds = list(load_samples(path, inputs).batches(6))
    assert [feed["state"].shape for feed in feeds] == [(2, 6, 3), (2, 4, 3)]
    assert [feed["sr"].item() for feed in feeds] == [16000, 16000]


def test_numbers_of_rows_that_differ_are_an_error(tmp_path, x, spec):
    path = save(tmp_path / "a.npz", x=rows(), z=rows(9))
    with pytest.raises(ZcError, match="input 'z' has 9 rows and 'x' has 10"):
        load_samples(path, [x, spec("z", "float32", "N", 4)])


def test_labels_of_another_length_are_an_error(tmp_path, x):
    with pytest.raises(ZcError, match="9 labels for 10 rows"):
        load_samples(save(tmp_path / "a.npz", x=rows(), y=np.arange(9)), [x])


def test_an_array_without_rows_is_an_error(tmp_path, x):
    with pytest.raises(ZcError, match="has no rows"):
        load_samples(save(tmp_path / "a.npz", x=rows(0)), [x])


def test_an_archive_without_arrays_is_an_error(tmp_path, x):
    with pytest.raises(ZcError, match="holds no arrays"):
        load_samples(save(tmp_path / "a.npz"), [x])


def test_pickled_arrays_are_refused(tmp_path, x):
    path = save(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ZcError, match=r"array 'x' cannot be read .pickled Python objects are refused"):
        load_samples(path, [x])


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_a_pickle_under_the_name_of_an_array_is_refused(tmp_path, x, name):
    (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ZcError, match=r"cannot be read as \.np. .pickled Python objects are refused"):
        load_samples(str(tmp_path / name), [x])


def test_a_truncated_archive_is_one_line(tmp_path, x):
    path = tmp_path / "a.npz"
    save(path, x=rows(1000))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ZcError, match=r"a\.npz: cannot be read as \.npz"):
        load_samples(str(path), [x])


def test_a_damaged_member_names_the_array(tmp_path, x):
    path = tmp_path / "a.npz"
    save(path, x=rows(1000))
    content = bytearray(path.read_bytes())
    content[1000:1010] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(ZcError, match="array 'x' cannot be read"):
        load_samples(str(path), [x])


def test_a_npy_file_feeds_one_input_without_being_read_whole(tmp_path, x):
    np.save(tmp_path / "a.npy", rows())
    samples = load_samples(str(tmp_path / "a.npy"), [x], rows="-2:")
    np.testing.assert_array_equal(next(samples.batches())["x"], rows()[-2:])
    assert isinstance(samples.reader.arrays["x"], np.memmap)


def test_a_npy_file_cannot_feed_two_inputs(tmp_path, x, spec):
    np.save(tmp_path / "a.npy", rows())
    with pytest.raises(ZcError, match=r"one array cannot feed 2 inputs; use \.npz with arrays named x, z"):
        load_samples(str(tmp_path / "a.npy"), [x, spec("z", "float32", "N", 4)])


@pytest.mark.parametrize(("name", "says"), [("a.npz", "rename it to .npy"), ("a.npy", "rename it to .npz")])
def test_the_wrong_suffix_says_the_right_one(tmp_path, x, name, says):
    with (tmp_path / name).open("wb") as file:
        np.save(file, rows()) if name == "a.npz" else np.savez(file, x=rows())
    with pytest.raises(ZcError, match=says):
        load_samples(str(tmp_path / name), [x])


def test_a_batch_cannot_be_used_to_change_the_next_pass(tmp_path, x):
    samples = load_samples(save(tmp_path / "a.npz", x=rows()), [x])
    with pytest.raises(ValueError, match="read-only"):
        next(samples.batches())["x"][0] = 7
