"""Samples that are too alike, damaged, or unlike those that a model was calibrated with are told."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from zc.data.samples import Samples
from zc.data.summary import MOST_ROWS, drift, summarise
from zc.ir.spec import TensorSpec

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 1, (40, 3, 4, 4)).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """Rows of arrays; remembers how many were read."""

    arrays: dict[str, Any]
    whole: bool = False

    @property
    def count(self) -> int:
        return len(next(iter(self.arrays.values())))

    def read(self, start: int, stop: int) -> dict[str, Any]:
        return {name: array[start:stop] for name, array in self.arrays.items()}

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        yield b""


def samples(**arrays: Any) -> Samples:
    inputs = tuple(TensorSpec(name, a.dtype, (None, *a.shape[1:])) for name, a in arrays.items())
    return Samples(inputs, Rows(arrays), "s.npz", 0, len(next(iter(arrays.values()))))


def test_varied_rows_are_fine() -> None:
    assert summarise(samples(x=IMAGES)).complaints() == []


def test_one_image_over_and_over_is_told() -> None:
    (line,) = summarise(samples(x=np.repeat(IMAGES[:1], 64, axis=0))).complaints()
    assert line.startswith("all 64 rows are the same")


@pytest.mark.parametrize(("rows", "start"), [(1, "only 1 different row;"), (3, "only 3 different rows;")])
def test_few_rows_are_told(rows: int, start: str) -> None:
    (line,) = summarise(samples(x=IMAGES[:rows])).complaints()
    assert line.startswith(start)


def test_rows_differ_if_any_input_does() -> None:
    ids = np.arange(40)[:, None]
    assert summarise(samples(x=np.repeat(IMAGES[:1], 40, axis=0), ids=ids)).distinct == 40


def test_a_constant_input_is_told_with_its_value() -> None:
    lines = summarise(samples(x=IMAGES, state=np.full((40, 8), 7.0, np.float32))).complaints()
    assert [line.split(";")[0] for line in lines] == ["input 'state' is 7 everywhere in 40 rows"]


def test_a_row_that_stretches_the_range_is_told_with_both_figures() -> None:
    far = IMAGES.copy()
    far[3] *= 1e6
    (line,) = summarise(samples(x=far)).complaints()
    assert "in 1 of 40 rows" in line


def test_integer_inputs_have_no_range() -> None:
    masks = np.ones((40, 8), np.int64)
    assert summarise(samples(x=IMAGES, mask=masks)).complaints() == []


def test_of_many_rows_some_at_even_distances_are_read() -> None:
    many = np.arange(4 * MOST_ROWS, dtype=np.float32)[:, None].repeat(2, axis=1)
    found = summarise(samples(x=many))
    assert (found.rows, found.inputs["x"].range) == (MOST_ROWS, (0.0, 4 * MOST_ROWS - 1.0))


def drifted(other: Any) -> list[str]:
    seen = summarise(samples(x=IMAGES))
    return drift(seen, summarise(samples(x=other), within=seen))


def test_rows_of_the_same_source_do_not_drift() -> None:
    assert drifted(np.random.default_rng(1).normal(0, 1, (40, 3, 4, 4)).astype(np.float32)) == []


def test_values_outside_of_the_calibrated_range_are_counted() -> None:
    (line,) = drifted(IMAGES * 255)
    share = np.mean((IMAGES.min() > IMAGES * 255) | (IMAGES.max() < IMAGES * 255))
    assert f"{100 * share:.3g} % of its values lie outside of what calibration saw" in line


@pytest.mark.parametrize("other", [IMAGES * 0.1, IMAGES * 0.3 + 1.0], ids=["narrow", "shifted"])
def test_another_distribution_inside_of_the_range_is_told(other: Any) -> None:
    (line,) = drifted(other)
    assert f"{other.mean():.3g} +- {other.std():.3g} here" in line
