import numpy as np
import pytest

from zc.data.plan import image_inputs, make_plans, value_notes
from zc.data.prep import parse_prep
from zc.errors import ZcError


def ready(spec, raw, prep=None):
    plan = make_plans([spec], parse_prep(prep) if prep else None, {spec.name: raw}, "a.npz")[spec.name]
    return plan.ready(raw, "a.npz", 0)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("prep", "formula"),
    [
        ("raw", lambda x: x),
        ("unit", lambda x: x / 255),
        ("pm1", lambda x: x / 127.5 - 1),
        ("imagenet", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("caffe", lambda x: x[..., ::-1] - [104.0, 117.0, 123.0]),
    ],
)
def test_a_preset_gives_the_numbers_of_its_formula_in_either_layout(spec, rgb, prep, formula):
    wanted = formula(rgb.astype(np.float64))
    nhwc = ready(spec("x", "float32", "N", 8, 6, 3), rgb, prep)
    nchw = ready(spec("x", "float32", "N", 3, 8, 6), rgb, prep)
    assert nhwc.dtype == nchw.dtype == np.float32
    np.testing.assert_allclose(nhwc, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(nchw, nhwc.transpose(0, 3, 1, 2))


def test_a_crop_takes_the_centre(spec, rgb):
    np.testing.assert_array_equal(
        ready(spec("x", "uint8", "N", 3, 4, 2), rgb, "crop=4x2"), rgb[:, 2:6, 2:4].transpose(0, 3, 1, 2)
    )


def test_a_crop_larger_than_the_data_is_an_error(spec, rgb):
    with pytest.raises(ZcError, match="8x6, smaller than the crop of 9x9; add resize=9"):
        ready(spec("x", "float32", "N", 3, 9, 9), rgb, "crop=9")


def test_resize_of_arrays_is_what_pillow_does_with_the_image(spec, rgb):
    image = pytest.importorskip("PIL.Image")
    wanted = [image.fromarray(x).resize((3, 4), image.Resampling.BILINEAR) for x in rgb]
    out = ready(spec("x", "uint8", "N", 4, 3, 3), rgb, "resize=3 layout=nhwc")
    np.testing.assert_array_equal(out, np.stack([np.asarray(x) for x in wanted]))


def test_another_number_of_means_than_channels_is_an_error(spec):
    with pytest.raises(ZcError, match="3 values of mean for 1 channels"):
        ready(spec("x", "float32", "N", 1, 8, 8), np.zeros((2, 1, 8, 8), np.uint8), "imagenet")


def test_a_wrong_size_names_the_crop_that_would_do(spec):
    with pytest.raises(
        ZcError, match=r"got shape \[2, 3, 9, 9\], the model takes \[N,3,8,8\]; add crop=8x8 or resize=8x8"
    ):
        ready(spec("x", "float32", "N", 3, 8, 8), np.zeros((2, 3, 9, 9), np.float32))


def test_data_without_rows_says_that_the_first_axis_counts_them(spec):
    with pytest.raises(ZcError, match="the first axis must count the rows"):
        ready(spec("x", "float32", "N", 3, 8, 8), np.zeros((3, 8, 8), np.float32))


def test_rows_move_to_the_axis_where_the_model_has_its_batch(spec):
    raw = np.arange(12.0, dtype=np.float32).reshape(3, 2, 2)
    np.testing.assert_array_equal(ready(spec("h", "float32", 2, "batch", 2), raw), raw.transpose(1, 0, 2))


def test_prep_leaves_token_ids_and_vectors_alone(spec):
    inputs = [spec("image", "float32", "N", 3, 8, 8), spec("ids", "int64", "N", "S"), spec("v", "float32", "N", 5)]
    assert image_inputs(inputs, parse_prep("unit")) == {"image"}


def test_prep_without_an_image_input_is_an_error(spec):
    with pytest.raises(ZcError, match=r"prep 'unit': the model has no float image input .* ids: int64\[N,S\]"):
        image_inputs([spec("ids", "int64", "N", "S")], parse_prep("unit"))


def test_a_prep_of_geometry_alone_is_for_uint8_images_too(spec):
    image = spec("x", "uint8", "N", 3, 8, 8)
    assert image_inputs([image], parse_prep("crop=8")) == {"x"}
    with pytest.raises(ZcError, match="no float image input"):
        image_inputs([image], parse_prep("unit"))


@pytest.mark.parametrize(
    ("dtype", "prep", "says"), [("uint8", None, "go in as they are"), ("float32", "unit", "scaled already")]
)
def test_pixels_that_look_wrongly_scaled_are_spoken_of(spec, dtype, prep, says):
    raws = {"x": np.ones((2, 3, 8, 8), dtype)}
    plans = make_plans([spec("x", "float32", "N", 3, 8, 8)], parse_prep(prep) if prep else None, raws, "a.npz")
    (note,) = value_notes(plans, raws, "a.npz")
    assert says in note


def test_prep_raw_says_that_raw_pixels_are_right(spec):
    raws = {"x": np.ones((2, 3, 8, 8), np.uint8)}
    plans = make_plans([spec("x", "float32", "N", 3, 8, 8)], parse_prep("raw"), raws, "a.npz")
    assert value_notes(plans, raws, "a.npz") == []
