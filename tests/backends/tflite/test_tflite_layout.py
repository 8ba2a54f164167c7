"""Layouts as pure functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.backends.tflite.layout import between, channels_last, keeps_order, permuted, plain, reshaped, through


def test_an_image_flattened_over_space_moves_nothing() -> None:
    assert reshaped((2, 8, 4, 4), (2, 8, 16), channels_last(4)) == (0, 2, 1)


def test_an_image_flattened_with_its_channels_has_to_be_moved() -> None:
    assert reshaped((2, 8, 4, 4), (2, 128), channels_last(4)) is None


def test_channels_in_groups_stay_behind_space() -> None:
    assert reshaped((2, 8, 4, 4), (2, 2, 4, 4, 4), channels_last(4)) == (0, 3, 4, 1, 2)


def test_an_open_batch_is_followed() -> None:
    assert reshaped((-1, 8, 1, 1), (-1, 8), channels_last(4)) == (0, 1)


@pytest.mark.parametrize(("shape", "moves"), [((2, 1, 1, 8), False), ((2, 3, 1, 8), True)])
def test_moving_axes_of_one_moves_no_number(shape: tuple[int, ...], moves: bool) -> None:
    assert keeps_order(shape, (0, 3, 1, 2)) is not moves


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(deadline=None)
@given(SIZES, st.data())
def test_where_a_reshape_moves_nothing_the_numbers_are_right(sizes: list[int], data: st.DataObject) -> None:
    layout = tuple(data.draw(st.permutations(range(len(sizes)))))
    count = int(np.prod(sizes))
    first = data.draw(st.sampled_from([d for d in range(1, count + 1) if count % d == 0]))
    new = data.draw(st.sampled_from([(first, count // first), (1, first, count // first), (count,), (*sizes, 1)]))
    found = reshaped(sizes, new, layout)
    if found is None:
        return
    value = np.arange(count).reshape(sizes)
    tensor = value.transpose(layout).reshape(permuted(new, found))
    np.testing.assert_array_equal(tensor.transpose(between(found, plain(len(new)))), value.reshape(new))


@settings(deadline=None)
@given(st.permutations(range(4)), st.permutations(range(4)))
def test_a_transpose_changes_only_the_layout(layout: list[int], perm: list[int]) -> None:
    value = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    tensor = value.transpose(layout)
    after = through(tuple(layout), perm)
    np.testing.assert_array_equal(tensor.transpose(between(after, plain(4))), value.transpose(perm))
