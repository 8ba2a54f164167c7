"""Shared weights: few numbers, near the old ones, and a file that is really smaller."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Runner, relative_error
from zc.ir.model import Model
from zc.passes.cluster.cluster import Cluster
from zc.passes.cluster.kmeans import cluster, entropy_bits, nearest
from zc.passes.cluster.packing import packed, rows_of, together
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import find
from zc.target import Target


def shared(model: Model, samples: Samples | None = None, **options: object) -> PassResult:
    result = Cluster(**options).run(model, Context(Target("test"), samples))  # type: ignore[arg-type]
    model.to_proto()
    return result


def run(model: Model) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((4, 8, 12, 12)).astype(np.float32)
    return next(iter(Runner(model).run({"x": x}).values()))


@pytest.mark.parametrize(("entries", "weights"), [(200, 1), (17, 1), (16, 2), (6, 3), (4, 4), (3, 5), (2, 8)])
def test_an_index_is_of_as_many_weights_as_a_byte_tells_apart(entries: int, weights: int) -> None:
    assert together(1200 * 512, entries, 4) == weights


def test_a_table_that_is_larger_than_what_it_saves_is_not_made() -> None:
    assert together(2000, 16, 4) == 1  # 1000 bytes of indices less, 1984 of table more


def test_half_a_byte_a_weight(net: Callable) -> None:
    model = net()
    weight = next(c for c in model.constants() if c.name == "w2")
    result = shared(model, size=16, only=("w2",))
    assert next(c.nbytes for c in model.constants() if c.name == "w2_codes") == weight.size / 2
    assert int(result.stats["bytes_if_packed"]) < int(result.stats["bytes_after"])


def test_the_file_shrinks(net: Callable, tmp_path: Path) -> None:
    model = net()
    model.save(tmp_path / "a.onnx")
    shared(model, size=16)
    model.save(tmp_path / "b.onnx")
    small, large = ((tmp_path / name).stat().st_size for name in ("b.onnx", "a.onnx"))
    assert small < 0.4 * large


@pytest.mark.parametrize("size", [2, 3, 4, 6, 16, 32])
def test_stored_indices_stand_for_the_shared_numbers(net: Callable, size: int) -> None:
    stored, plain = net(), net()
    only = ("w0", "w2", "w3")
    shared(stored, size=size, only=only, store=True)
    shared(plain, size=size, only=only, store=False)
    large = {c.name: c for c in plain.constants() if c.name in only}
    assert all(len(np.unique(c.values)) <= size for c in large.values())
    assert relative_error(run(stored), run(plain)) < 1e-6


@settings(deadline=None)
@given(st.integers(2, 40), st.sampled_from([1, 7, 60, 4200, 10080]), st.integers(0, 2**32 - 1))
def test_packed_indices_look_up_the_same_numbers(entries: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, entries, count)
    book = np.linspace(-1, 1, entries)
    n = together(count, entries, 4)
    assert entries**n <= 256
    assert count % n == 0
    np.testing.assert_array_equal(rows_of(book, n)[packed(codes, entries, n)].ravel(), book[codes])


@pytest.mark.parametrize("size", [4, 64])
def test_clean_leaves_the_codebooks(net: Callable, size: int) -> None:
    model = net()
    shared(model, size=size, only=("w2",))
    before = model.nbytes()
    find("clean")().run(model, Context(Target("test")))
    assert model.nbytes() <= before
    assert any(n.op == "Gather" for n in model.graph.nodes)


def test_a_layer_too_small_for_a_codebook_is_declined(net: Callable) -> None:
    result = shared(net(), size=256)
    assert any(n.where == "c" and "too few to pay for a codebook of 256" in n.what for n in result.notes)


def test_zeros_stay_zeros(net: Callable) -> None:
    model = net()
    weight = next(c for c in model.constants() if c.name == "w2")
    sparse = np.where(np.abs(weight.values) > np.quantile(np.abs(weight.values), 0.5), weight.values, 0)
    weight.values = sparse.astype(np.float32)
    shared(model, size=8, only=("w2",), store=False)
    after = next(c.values for c in model.constants() if c.name == "w2")
    assert (after[sparse == 0] == 0).all()


def test_samples_say_which_weights_count(net: Callable, rows: Samples) -> None:
    feeds = next(rows.batches(64))
    want = next(iter(Runner(net()).run(feeds).values()))
    errors = []
    for samples in (None, rows):
        model = net()
        shared(model, samples, size=4)
        errors.append(float(np.square(next(iter(Runner(model).run(feeds).values())) - want).sum()))
    assert errors[1] < 0.9 * errors[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.booleans())
def test_a_codebook_is_never_worse_than_even_steps(seed: int, size: int, zero: bool) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_t(3, 600)
    counts = random.random(600) + 0.1
    book = cluster(values, counts, size, zero=zero)
    assert len(book) <= size
    assert (np.diff(book) > 0).all()
    assert not zero or 0.0 in book
    codes = nearest(values, book)
    assert np.array_equal(codes, np.abs(values[:, None] - book).argmin(axis=1))
    even = np.linspace(values.min(), values.max(), size)
    if not zero:
        error = (counts * np.square(values - book[codes])).sum()
        assert error <= (counts * np.square(values - even[nearest(values, even)])).sum() * 1.02


def test_numbers_that_are_few_are_kept_as_they_are() -> None:
    values = np.array([1.0, -1.0, 0.5, 1.0])
    np.testing.assert_array_equal(cluster(values, np.ones(4), 8), [-1.0, 0.5, 1.0])
    assert entropy_bits(np.array([0, 1, 0, 1])) == 1.0
    assert entropy_bits(np.zeros(5, np.uint8)) == 0.0


@pytest.mark.parametrize("size", [1, 0, 257])
def test_sizes_that_cannot_be_meant(size: int) -> None:
    with pytest.raises(ZcError, match=f"size is {size}; it must be 2 to 256"):
        Cluster(size=size)
