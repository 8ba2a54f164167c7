import pytest

from zc.data.rows import parse_rows, rows_needed
from zc.errors import ZcError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:200", (0, 200)),
        ("200:", (200, 500)),
        (":100", (0, 100)),
        ("-50:", (450, 500)),
        (":", (0, 500)),
        (" 1 : -1 ", (1, 499)),
    ],
)
def test_a_range_is_what_a_slice_would_be(text, expected):
    assert parse_rows(text, 500, "a.npz") == expected


@pytest.mark.parametrize("text", ["0:501", "600:", "-501:", ":-501"])
def test_a_range_past_the_data_is_not_cut_short(text):
    with pytest.raises(ZcError, match="reach outside the data, which has 500 rows"):
        parse_rows(text, 500, "a.npz")


@pytest.mark.parametrize("text", ["5:5", "9:3", "500:", ":0", "-1:0"])
def test_an_empty_range_is_an_error(text):
    with pytest.raises(ZcError, match="none of the 500 rows"):
        parse_rows(text, 500, "a.npz")


def test_a_bare_number_says_what_was_probably_meant():
    with pytest.raises(ZcError, match="write :5 for the first 5, 5:6 for row 5 alone"):
        parse_rows("5", 500, "a.npz")


@pytest.mark.parametrize("text", ["", "a:b", "0:10:2", "1.5:3", "0-9"])
def test_text_that_is_no_range_shows_the_form(text):
    with pytest.raises(ZcError, match="expected START:STOP"):
        parse_rows(text, 500, "a.npz")


@pytest.mark.parametrize(
    ("text", "needed"), [("0:256", 256), ("10:20", 20), ("5:", None), ("-5:", None), (":-5", None), (None, None)]
)
def test_only_a_range_that_ends_bounds_what_a_generator_must_give(text, needed):
    assert rows_needed(text) == needed
