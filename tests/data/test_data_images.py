import builtins

import numpy as np
import pytest

from zc.data import load_samples
from zc.errors import ZcError


@pytest.fixture
def x(spec):
    return spec("x", "float32", "N", 3, 8, 8)


def first(samples):
    return next(samples.batches())["x"]


def test_images_are_read_in_the_order_of_their_names(tmp_path, x, write_image):
    for n in (2, 0, 1):
        write_image(f"{n}.png", color=(n, n, n))
    samples = load_samples(str(tmp_path), [x], prep="raw")
    assert first(samples)[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert samples.labels is None


def test_a_table_gives_order_and_labels(tmp_path, x, write_image):
    for n in range(3):
        write_image(f"{n}.png", color=(n, n, n))
    (tmp_path / "labels.csv").write_text("file,label\n2.png,7\n0.png,5\n")
    samples = load_samples(str(tmp_path), [x], prep="raw")
    assert first(samples)[:, 0, 0, 0].tolist() == [2, 0]
    assert samples.labels.tolist() == [7, 5]
    assert any("1 images that labels.csv does not list" in note for note in samples.notes)


def test_class_subfolders_are_labels_in_the_order_of_their_names(tmp_path, x, write_image):
    write_image("dog/a.png")
    write_image("cat/a.png")
    write_image("cat/b.png")
    samples = load_samples(str(tmp_path), [x], prep="raw")
    assert samples.labels.tolist() == [0, 0, 1]
    assert any("0=cat, 1=dog" in note for note in samples.notes)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label\na.png,1\na.png,2\n", "line 3: 'a.png' stands in line 2 already"),
        ("file,label\n../a.png,1\n", "'../a.png' is not inside the folder"),
        ("file,label\nb/../../a.png,1\n", "is not inside the folder"),
        ("file,label\n/etc/passwd,1\n", "is not inside the folder"),
        ("file,label\nC:\\a.png,1\n", "is not inside the folder"),
        ("file,label\nb.png,1\n", "no file 'b.png'"),
        ("file,label\na.png,cat\n", "label 'cat' is not a number"),
        ("file,label\na.png\n", "line 2: expected file,label"),
        ("name,class\na.png,1\n", "expected the columns file,label, got name,class"),
        ("file,label\n", "lists no files"),
        ("", "expected the columns file,label, got nothing"),
    ],
)
def test_a_wrong_table_says_where(tmp_path, x, write_image, table, says):
    write_image("a.png")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ZcError, match=says):
        load_samples(str(tmp_path), [x], prep="raw")


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((11, 9), "centre crop"),
        ((4, 6), "shorter side resized to 8, then centre crop"),
        ((80, 60), "shorter side resized to 10, then centre crop"),
    ],
)
def test_images_come_to_the_size_of_the_model_and_it_is_said(tmp_path, x, write_image, size, says):
    write_image("a.png", size)
    samples = load_samples(str(tmp_path), [x], prep="raw")
    assert first(samples).shape == (1, 3, 8, 8)
    assert f"images of {size[0]}x{size[1]} go in as 8x8: {says}" in samples.notes[0]


def test_the_default_crop_is_the_centre(tmp_path, x, write_image):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 11, 3), dtype=np.uint8)
    write_image("a.png", pixels=pixels)
    out = first(load_samples(str(tmp_path), [x], prep="raw"))[0]
    np.testing.assert_array_equal(out, pixels[1:9, 1:9].transpose(2, 0, 1))


def test_resize_alone_is_followed_by_the_crop_of_the_model(tmp_path, x, write_image):
    write_image("a.png", (30, 40))
    assert first(load_samples(str(tmp_path), [x], prep="unit resize=9")).shape == (1, 3, 8, 8)


def test_a_model_with_channels_last_gets_them_last(tmp_path, spec, write_image):
    write_image("a.png", color=(1, 2, 3))
    out = first(load_samples(str(tmp_path), [spec("x", "uint8", "N", 8, 8, 3)]))
    assert out[0, 0, 0].tolist() == [1, 2, 3]


def test_bgr_models_get_blue_first(tmp_path, x, write_image):
    write_image("a.png", color=(1, 2, 3))
    assert first(load_samples(str(tmp_path), [x], prep="raw color=bgr"))[0, :, 0, 0].tolist() == [3, 2, 1]


def test_one_channel_means_grey(tmp_path, spec, write_image):
    write_image("a.png", color=(9, 9, 9))
    assert first(load_samples(str(tmp_path), [spec("x", "float32", "N", 1, 8, 8)], prep="raw"))[0, 0, 0, 0] == 9


def test_images_of_several_sizes_for_a_model_of_any_size_ask_for_one(tmp_path, spec, write_image):
    write_image("a.png", (8, 8))
    write_image("b.png", (9, 9))
    any_size = spec("x", "float32", "N", 3, "H", "W")
    with pytest.raises(ZcError, match=r"b\.png: is 9x9 where the first image is 8x8; add resize= and crop="):
        load_samples(str(tmp_path), [any_size], prep="raw")
    assert first(load_samples(str(tmp_path), [any_size], prep="raw crop=8")).shape == (2, 3, 8, 8)


def test_raw_pixels_without_a_prep_are_spoken_of(tmp_path, x, write_image):
    write_image("a.png")
    assert "uint8 values 0..255 go in as they are" in load_samples(str(tmp_path), [x]).notes[0]


def test_a_damaged_image_is_named(tmp_path, x, write_image):
    path = write_image("a.png", pixels=np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ZcError, match=r"a\.png: cannot be read as an image"):
        load_samples(str(tmp_path), [x], prep="raw")


def test_sixteen_bit_images_are_not_clipped_in_silence(tmp_path, x, write_image):
    write_image("a.png", pixels=np.full((8, 8), 40000, np.uint16))
    with pytest.raises(ZcError, match="more than 8 bits a channel"):
        load_samples(str(tmp_path), [x], prep="raw")


def test_images_cannot_feed_two_inputs(tmp_path, x, spec, write_image):
    write_image("a.png")
    with pytest.raises(ZcError, match=r"images cannot feed 2 inputs; use \.npz with arrays named x, z"):
        load_samples(str(tmp_path), [x, spec("z", "float32", "N")])


def test_images_need_an_image_input(tmp_path, spec, write_image):
    write_image("a.png")
    with pytest.raises(ZcError, match=r"need an input of four dimensions, the model takes ids: int64\[N,S\]"):
        load_samples(str(tmp_path), [spec("ids", "int64", "N", "S")])


def test_without_pillow_the_error_names_the_extra(tmp_path, x, write_image, monkeypatch):
    write_image("a.png")
    real = builtins.__import__

    def no_pillow(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(ZcError, match=r"pip install zc\[images\]"):
        load_samples(str(tmp_path), [x], prep="raw")


def test_the_digest_of_images_is_of_their_content_not_their_names(tmp_path, x, write_image):
    write_image("one/a.png")
    write_image("two/b.png")
    write_image("three/a.png", color=(9, 9, 9))
    one, two, three = (load_samples(str(tmp_path / n), [x], prep="raw").digest() for n in ("one", "two", "three"))
    assert one == two != three
