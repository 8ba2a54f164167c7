import numpy as np
import pytest

from zc.data.layout import source_layout
from zc.data.prep import parse_prep
from zc.errors import ZcError


def pixels(*shape):
    return np.zeros((2, *shape), np.uint8)


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        ((3, 8, 6), (3, 8, 6), "nchw"),
        ((3, 8, 6), (8, 6, 3), "nhwc"),
        ((8, 6, 3), (3, 8, 6), "nchw"),
        ((8, 6, 3), (8, 6, 3), "nhwc"),
        ((3, "H", "W"), (8, 6, 3), "nhwc"),
        ((1, "H", "W"), (1, 7, 9), "nchw"),
        (("C", "H", "W"), (3, 8, 6), "nchw"),
    ],
)
def test_pixels_are_recognised_from_the_shape_of_the_input(spec, model, data, expected):
    assert source_layout(pixels(*data), spec("x", "float32", "N", *model), None, "a.npz") == expected


def test_pixels_that_could_be_either_are_an_error(spec):
    with pytest.raises(ZcError, match="could be NCHW or NHWC; add layout=nchw"):
        source_layout(pixels(3, 8, 3), spec("x", "float32", "N", 3, "H", "W"), None, "a.npz")


def test_layout_settles_what_could_be_either(spec):
    x = spec("x", "float32", "N", 3, "H", "W")
    assert source_layout(pixels(3, 8, 3), x, parse_prep("layout=nchw"), "a.npz") == "nchw"


def test_a_model_of_unknown_layout_asks_for_it(spec):
    x = spec("x", "float32", "N", "a", "b", "c")
    with pytest.raises(ZcError, match="say what the model takes with layout=nchw or layout=nhwc"):
        source_layout(pixels(8, 6, 3), x, None, "a.npz")
    assert source_layout(pixels(8, 6, 3), x, parse_prep("layout=nchw"), "a.npz") == "nhwc"


def test_with_a_crop_only_the_channels_decide(spec):
    x = spec("x", "float32", "N", 3, 4, 4)
    assert source_layout(pixels(8, 6, 3), x, parse_prep("crop=4"), "a.npz") == "nhwc"


def test_floats_that_the_model_takes_are_never_turned(spec):
    heads = np.zeros((2, 3, 8, 3), np.float32)
    assert source_layout(heads, spec("x", "float32", "N", 3, "S", "D"), None, "a.npz") == "nchw"
