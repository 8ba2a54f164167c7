import itertools
import sys
import tempfile

import numpy as np
import pytest

from zc.data import callable as callable_source
from zc.data import load_samples
from zc.errors import ZcError

MODULE = """
import itertools
import numpy as np

calls = []

def arrays():
    return {"x": np.arange(12.0).reshape(6, 2)}, np.arange(6)

def named(inputs):
    return {spec.name: np.ones((3, 2)) for spec in inputs}

def optional(seed=0):
    return {"x": np.full((2, 2), seed)}

def feeds():
    calls.append(1)
    for n in range(4):
        yield {"x": np.full((n + 1, 2), n, dtype=np.float32)}

def samples():
    return [{"x": np.full(2, n), "id": n} for n in range(3)]

def endless():
    return ({"x": np.full((1, 2), n)} for n in itertools.count())

def nothing():
    return iter(())

def number():
    return 3

def arrays_not_dicts():
    yield np.ones(2)

def ragged():
    return {"x": [[1, 2], [3]]}

def fails():
    raise KeyError("no such split")

def fails_late():
    yield {"x": np.ones((1, 2))}
    raise OSError("disk")

def two(a, b):
    return None

value = 3
"""


@pytest.fixture
def load(tmp_path, spec, monkeypatch):
    """Loads from a function of the module above, which lies in the current folder."""
    (tmp_path / "my_samples.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_samples", raising=False)
    return lambda name, **options: load_samples(f"my_samples:{name}", [spec("x", "float32", "N", 2)], **options)


def test_a_dict_of_arrays_is_rows_with_labels(load, joined):
    samples = load("arrays", rows="1:4")
    assert samples.labels.tolist() == [1, 2, 3]
    assert joined(samples, 2)["x"].tolist() == [[2, 3], [4, 5], [6, 7]]


def test_a_function_with_a_parameter_gets_the_inputs(load):
    assert load("named").rows == 3


def test_a_parameter_with_a_default_is_left_alone(load):
    assert load("optional").rows == 2


def test_a_generator_is_called_once_and_gives_the_same_feeds_each_pass(load):
    samples = load("feeds")
    shapes = [[feed["x"].shape for feed in samples.batches()] for _ in range(2)]
    assert shapes == [[(1, 2), (2, 2), (3, 2), (4, 2)]] * 2
    assert sys.modules["my_samples"].calls == [1]


def test_single_samples_get_a_batch_axis(load, joined):
    assert joined(load("samples"), 8)["x"].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_an_endless_generator_is_read_as_far_as_the_rows_asked_for(load):
    assert load("endless", rows="2:5").rows == 3


def test_large_feeds_go_to_disk_and_come_back_the_same(load, joined, monkeypatch):
    in_memory = joined(load("feeds"), 8)["x"]
    monkeypatch.setattr(callable_source, "_IN_MEMORY", 16)
    spooled = load("feeds")
    assert isinstance(spooled.reader.get.__self__._file, tempfile.SpooledTemporaryFile)
    assert spooled.reader.get.__self__._file._rolled
    np.testing.assert_array_equal(joined(spooled, 8)["x"], in_memory)


def test_the_digest_of_feeds_is_stable(load):
    assert load("feeds").digest() == load("feeds").digest()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", "has no function 'absent'"),
        ("value", "has no function 'value'"),
        ("feed", "did you mean 'feeds'"),
        ("nothing", "gives no feeds"),
        ("number", "returned int; expected a dict of arrays or an iterable of feed dicts"),
        ("arrays_not_dicts", "feed 0: is a ndarray; expected a dict"),
        ("ragged", "array 'x': is not an array with rows of one shape"),
        ("fails", "calling it failed: KeyError: 'no such split'"),
        ("fails_late", "feed 1 failed: OSError: disk"),
        ("two", "needs the arguments a, b; it may take one"),
    ],
)
def test_what_is_wrong_with_the_function_is_one_line(load, name, says):
    with pytest.raises(ZcError, match=says):
        load(name)


def test_a_module_that_is_not_there_is_one_line(spec):
    with pytest.raises(ZcError, match="no module 'no_such_module'; install it, or run in the folder that holds it"):
        load_samples("no_such_module.part:f", [spec("x", "float32", "N")])


def test_a_module_that_fails_to_import_says_why(load, tmp_path, spec):
    (tmp_path / "broken_samples.py").write_text("1 / 0")
    with pytest.raises(ZcError, match="importing it failed: ZeroDivisionError"):
        load_samples("broken_samples:f", [spec("x", "float32", "N")])


def test_the_spool_keeps_types_that_npy_files_lose():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    spool = callable_source.FeedSpool("f")
    arrays = [np.ones((2, 3), ml_dtypes.bfloat16), np.array(["a", "bc"], object), np.zeros((0, 2)), np.int64(7)]
    for array in arrays:
        spool.put({"x": np.asarray(array)})
    for number, array in itertools.chain(enumerate(arrays), [(1, arrays[1])]):
        np.testing.assert_array_equal(spool.get(number)["x"], array)
