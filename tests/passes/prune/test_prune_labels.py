import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zc.passes.prune.labels import Labels


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60), st.integers(0, 39))
def test_unions_of_arrays_give_the_classes_of_single_unions(size: int, pairs: list[tuple[int, int]], pin: int) -> None:
    labels = Labels()
    own = labels.fresh(size)
    pairs = [(a % size, b % size) for a, b in pairs]
    labels.pin(own[[pin % size]], "because")
    if pairs:
        labels.union(own[[a for a, _ in pairs]], own[[b for _, b in pairs]])
    classes = [{i} for i in range(size)]
    for a, b in pairs:
        merged = classes[a] | classes[b]
        for i in merged:
            classes[i] = merged
    assert labels.find(own).tolist() == [min(c) for c in classes]
    assert labels.pinned(own).tolist() == [pin % size in c for c in classes]


def test_the_first_reason_is_kept_by_both_sides() -> None:
    labels = Labels()
    a, b = labels.fresh(3), labels.fresh(3)
    labels.pin(a, "first")
    labels.pin(b, "second")
    labels.union(b, a)
    assert [labels.reasons[i] for i in labels.reason(b)] == ["first"] * 3


def test_tie_unites_along_one_axis_only() -> None:
    labels = Labels()
    grid = labels.fresh(6).reshape(2, 3)
    tied = labels.tie(grid, 0)
    assert tied.shape == (3,)
    assert np.array_equal(labels.find(grid), np.array([[0, 1, 2]] * 2))


def test_a_rigid_axis_takes_no_memory() -> None:
    labels = Labels()
    one = labels.rigid(10**9, "too long to write down")
    assert labels.count == 1
    labels.union(one, labels.rigid(10**9, "another"))
    assert labels.count == 2
