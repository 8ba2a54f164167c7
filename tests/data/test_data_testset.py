import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from zc.data import load_samples
from zc.errors import ZcError


@pytest.fixture
def x(spec):
    return spec("x", "float32", "N", "L")


def write(path, array, name=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(np.asarray(array), name).SerializeToString())


def test_sets_are_feeds_in_the_order_of_their_numbers_and_may_be_ragged(tmp_path, x):
    for n in (10, 2, 0):
        write(tmp_path / f"test_data_set_{n}" / "input_0.pb", np.full((1, n + 1), n, np.float32))
    samples = load_samples(str(tmp_path), [x])
    assert [feed["x"].shape for feed in samples.batches(32)] == [(1, 1), (1, 3), (1, 11)]
    assert samples.origin == f"{tmp_path.name} feeds 0:3"


def test_one_set_can_be_named_itself(tmp_path, x):
    write(tmp_path / "input_0.pb", np.ones((2, 3), np.float32))
    write(tmp_path / "output_0.pb", np.ones((2, 3), np.float32))
    samples = load_samples(str(tmp_path), [x])
    assert samples.rows == 1
    assert samples.notes == (f"{tmp_path.name}: the expected outputs (output_*.pb) are not used",)


def test_tensors_go_to_inputs_by_name_else_by_number(tmp_path, x, spec):
    inputs = [x, spec("z", "int64", "N", "L")]
    for folder, names in (("named", ("z", "x")), ("numbered", ("", ""))):
        for n in range(2):
            write(tmp_path / folder / f"input_{n}.pb", np.full((1, 2), n), names[n])
    named = next(load_samples(str(tmp_path / "named"), inputs).batches())
    numbered = next(load_samples(str(tmp_path / "numbered"), inputs).batches())
    assert (named["z"][0, 0], named["x"][0, 0]) == (0, 1)
    assert (numbered["z"][0, 0], numbered["x"][0, 0]) == (1, 0)


def test_another_number_of_files_than_inputs_is_an_error(tmp_path, x, spec):
    write(tmp_path / "input_0.pb", np.ones((1, 2), np.float32))
    with pytest.raises(ZcError, match=r"has 1 files input_.*, the model has 2 inputs"):
        load_samples(str(tmp_path), [x, spec("z", "int64", "N")])


def test_a_truncated_file_is_named(tmp_path, x):
    write(tmp_path / "input_0.pb", np.ones((1, 100), np.float32))
    path = tmp_path / "input_0.pb"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ZcError, match=r"input_0\.pb: cannot be read as a tensor, it may be cut short"):
        load_samples(str(tmp_path), [x])


def test_a_tensor_with_too_little_data_is_an_error(tmp_path, x):
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1, 5], raw_data=b"\0" * 8)
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(ZcError, match=r"does not fill its shape \[1, 5\]"):
        load_samples(str(tmp_path), [x])


def test_a_tensor_that_points_to_another_file_is_refused(tmp_path, x):
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1, 1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(ZcError, match="its data lies in another file"):
        load_samples(str(tmp_path), [x])


def test_an_empty_file_holds_no_tensor(tmp_path, x):
    (tmp_path / "input_0.pb").write_bytes(b"")
    with pytest.raises(ZcError, match="holds no tensor"):
        load_samples(str(tmp_path), [x])


def test_a_feed_of_another_batch_than_the_model_fixes_is_an_error(tmp_path, spec):
    write(tmp_path / "input_0.pb", np.ones((2, 3), np.float32))
    with pytest.raises(ZcError, match=r"feed 0: input 'x': got shape \[2, 3\], the model takes \[1,3\]"):
        load_samples(str(tmp_path), [spec("x", "float32", 1, 3)])
