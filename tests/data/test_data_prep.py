import pytest
from hypothesis import given
from hypothesis import strategies as st

from zc.data.prep import PRESETS, Prep, parse_prep
from zc.errors import ZcError

finite = st.floats(allow_nan=False, allow_infinity=False)
nonzero = finite.filter(bool)
pixels = st.integers(1, 4096)
preps = st.builds(
    Prep,
    resize=st.none() | pixels | st.tuples(pixels, pixels),
    crop=st.none() | st.tuples(pixels, pixels),
    layout=st.sampled_from([None, "nchw", "nhwc"]),
    color=st.sampled_from(["rgb", "bgr"]),
    scale=nonzero,
    mean=st.lists(finite, min_size=1, max_size=4).map(tuple),
    std=st.lists(nonzero, min_size=1, max_size=4).map(tuple),
)


@given(preps)
def test_the_text_of_a_prep_parses_back_to_it(prep):
    assert parse_prep(str(prep)) == prep


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_prints_as_its_name(name):
    assert str(parse_prep(name)) == name


def test_parts_change_a_preset():
    assert str(parse_prep("imagenet crop=224 resize=256 layout=nhwc")) == "imagenet resize=256 crop=224x224 layout=nhwc"


def test_colons_separate_parts_too_so_that_a_shell_needs_no_quotes():
    assert parse_prep("caffe:crop=227x200") == parse_prep("caffe crop=227x200")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("imagnet", r"'imagnet' is not a preset .did you mean 'imagenet'\?.; use imagenet, unit"),
        ("", "it is empty"),
        ("crop=224 imagenet", "the preset 'imagenet' must come first"),
        ("unit pm1", "only one can be given"),
        ("cropp=3", "unknown part 'cropp' .did you mean 'crop'."),
        ("crop=1 crop=2", "'crop' is given twice"),
        ("crop=0", "expected pixels"),
        ("crop=1x2x3", "expected pixels"),
        ("std=1,0", "numbers that are not zero"),
        ("scale=1,2", "expected one number"),
        ("mean=a", "numbers separated by commas"),
        ("mean=nan", "numbers separated by commas"),
        ("layout=chw", "expected nchw or nhwc"),
        ("color=BGR", "expected rgb or bgr"),
    ],
)
def test_a_wrong_prep_says_what_to_write(text, says):
    with pytest.raises(ZcError, match=says):
        parse_prep(text)
