import numpy as np
import pytest

from zc.data import load_samples
from zc.errors import ZcError


@pytest.fixture
def x(spec):
    return spec("x", "float32", "N", 3, 8, 8)


@pytest.mark.parametrize("name", ["absent.npz", "absent", "no/such/dir", "C:\\x.npz"])
def test_a_missing_source_lists_what_can_be_one(x, name):
    with pytest.raises(ZcError, match=r"no such file or folder; samples are \.npz, \.npy, a folder of images"):
        load_samples(name, [x])


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.csv", "'.csv' files are not"), ("a.jpg", "name the folder"), ("input_0.pb", "name the folder")],
)
def test_an_unsupported_file_says_what_is_supported(tmp_path, x, name, says):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ZcError, match=says):
        load_samples(str(tmp_path / name), [x])


def test_a_folder_without_samples_says_what_it_could_hold(tmp_path, x):
    with pytest.raises(ZcError, match=r"no samples; expected images .*, labels\.csv, .* or an ONNX test set"):
        load_samples(str(tmp_path), [x])


def test_a_model_without_inputs_takes_no_samples():
    with pytest.raises(ZcError, match="the model has no inputs"):
        load_samples("a.npz", [])


def test_what_is_loaded_is_told_in_one_line(tmp_path, x):
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 8, 8, 3), np.uint8))
    samples = load_samples(str(tmp_path / "a.npz"), [x], rows="1:5", prep="imagenet crop=8")
    assert samples.origin == "a.npz rows 1:5, prep imagenet crop=8x8"
    assert samples.notes == ("a.npz: input 'x': NHWC data turned to NCHW",)


def test_a_label_key_for_a_source_without_keys_is_an_error(tmp_path, x):
    np.save(tmp_path / "a.npy", np.zeros((9, 3, 8, 8), np.uint8))
    with pytest.raises(ZcError, match="no arrays by name, so no 'score'"):
        load_samples(str(tmp_path / "a.npy"), [x], label_key="score")


@pytest.mark.real
def test_real_cifar_rows_are_normalised_as_the_model_was_trained(shared_data, spec):
    samples = load_samples(
        str(shared_data / "cifar10_test4k.npz"), [spec("x", "float32", "N", 3, 32, 32)], rows="0:256", prep="imagenet"
    )
    first = next(samples.batches(256))["x"]
    assert abs(first.mean()) < 0.3
    assert 0.8 < first.std() < 1.3
    assert samples.labels.shape == (256,)


@pytest.mark.real
def test_real_images_are_cropped_to_the_model(shared_data, spec):
    samples = load_samples(
        str(shared_data / "imagenet500"), [spec("x", "float32", "N", 3, 227, 227)], rows=":4", prep="caffe"
    )
    assert next(samples.batches())["x"].shape == (4, 3, 227, 227)
    assert any("images of 256x256 go in as 227x227: centre crop" in note for note in samples.notes)
