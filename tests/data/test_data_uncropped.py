"""Samples as they are before a centre crop."""

import numpy as np
import pytest

from zc.data import load_samples


@pytest.fixture
def x(spec):
    return spec("x", "float32", "N", 3, 8, 8)


def first(samples):
    return next(samples.batches())["x"]


def test_arrays_come_with_what_the_crop_leaves_out(tmp_path, x):
    images = np.random.default_rng(0).integers(0, 256, (4, 10, 12, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    samples = load_samples(str(tmp_path / "x.npy"), [x], prep="unit crop=8", rows="1:3")
    wider = samples.uncropped()
    np.testing.assert_array_equal(first(wider), np.float32(images[1:3].transpose(0, 3, 1, 2)) / np.float32(255))
    np.testing.assert_array_equal(first(samples), first(wider)[:, :, 1:9, 2:10])


def test_images_share_the_centre_that_all_of_them_have(tmp_path, x, write_image):
    for name, size in (("a.png", (12, 10)), ("b.png", (9, 11)), ("c.png", (8, 8))):
        write_image(name, size=size, color=(9, 9, 9))
    samples = load_samples(str(tmp_path), [x], prep="raw crop=8", rows="0:2")
    assert first(samples.uncropped()).shape == (2, 3, 9, 10)


@pytest.mark.parametrize("prep", [None, "raw resize=10 crop=8", "raw resize=10"])
def test_resizing_comes_before(tmp_path, x, write_image, prep):
    for name, size in (("a.png", (40, 30)), ("b.png", (30, 40))):
        write_image(name, size=size)
    samples = load_samples(str(tmp_path), [x], prep=prep)
    assert first(samples).shape[2:] == (8, 8)
    assert first(samples.uncropped()).shape[2:] == (10, 10)


def test_much_larger_images_are_not_seen_whole(tmp_path, x, write_image):
    write_image("a.png", size=(40, 30))
    samples = load_samples(str(tmp_path), [x], prep="raw crop=8")
    assert first(samples.uncropped()).shape[2:] == (12, 12)


@pytest.mark.parametrize("prep", [None, "raw", "raw resize=8x8", "raw crop=8"])
def test_nothing_is_wider_where_nothing_is_cut(tmp_path, x, write_image, prep):
    write_image("a.png", size=(8, 8))
    assert load_samples(str(tmp_path), [x], prep=prep).uncropped() is None
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 8, 8), np.uint8))
    assert load_samples(str(tmp_path / "x.npy"), [x], prep=prep or "raw").uncropped() is None


def test_other_sources_have_no_margins(x):
    from zc.data import synthesize

    assert synthesize([x], rows=2).uncropped() is None
