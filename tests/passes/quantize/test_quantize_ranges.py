import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.errors import ZcError
from zc.passes.quantize.ranges import METHODS, Codes, Rule, find_range
from zc.passes.quantize.sketch import Sketch

values = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32))
NORMAL = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)


def sketch_of(data):
    sketch = Sketch()
    sketch.update(np.asarray(data, np.float32))
    return sketch


def squared_error(data, low, high, codes):
    step, lowest, highest = codes.grid(min(low, 0.0), max(high, 0.0))
    return float(np.square(np.clip(np.rint(data / step), lowest, highest) * step - data.astype(np.float64)).sum())


@settings(deadline=None)  # the first call may compile
@given(values)
def test_every_value_is_in_the_minmax_range(data):
    assert find_range(sketch_of(data)) == (data.min(), data.max())


@settings(deadline=None)
@given(values)
def test_percentile_100_is_minmax(data):
    assert find_range(sketch_of(data), Rule("percentile", 100)) == find_range(sketch_of(data))


@settings(deadline=None)
@given(values, st.sampled_from(METHODS), st.booleans())
def test_no_method_leaves_what_was_seen(data, method, symmetric):
    low, high = find_range(sketch_of(data), method, Codes(256, symmetric))
    assert min(data.min(), 0) <= low <= high <= max(data.max(), 0)


def test_percentile_cuts_a_planted_outlier():
    data = np.append(np.random.default_rng(0).uniform(-1, 1, 100_000), 50)
    low, high = find_range(sketch_of(data), Rule("percentile", 99.99))
    assert -1 <= low < -0.99
    assert 0.99 < high < 1.01


@pytest.mark.parametrize("outlier", [30, 1e3, -1e3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_clips_a_planted_outlier(outlier, symmetric):
    low, high = find_range(sketch_of(np.append(NORMAL, outlier)), "entropy", Codes(256, symmetric))
    assert 3 < max(-low, high) < 5


def test_entropy_clips_a_planted_outlier_behind_a_relu():
    low, high = find_range(sketch_of(np.append(np.maximum(NORMAL, 0), 1000)), "entropy")
    assert low == 0
    assert 3 < high < 5


def test_entropy_keeps_nearly_all_of_a_distribution_without_outliers():
    for data in (NORMAL, np.maximum(NORMAL, 0), np.random.default_rng(0).uniform(0, 1, 10_000)):
        low, high = find_range(sketch_of(data), "entropy")
        assert np.mean((data < low) | (data > high)) < 1e-3


def test_exact_zeros_do_not_move_the_range_of_entropy_and_mse():
    sparse = np.append(np.abs(NORMAL), np.zeros(1_000_000))
    for method in ("entropy", "mse"):
        assert find_range(sketch_of(sparse), method) == find_range(sketch_of(np.abs(NORMAL)), method)


@pytest.mark.parametrize("levels", [16, 256])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "skewed", "outlier", "saturated"])
def test_mse_is_as_good_as_a_search_on_the_data_itself(name, levels, symmetric):
    rng = np.random.default_rng(0)
    data = {
        "normal": NORMAL,
        "relu": np.maximum(NORMAL, 0),
        "laplace": rng.laplace(size=50_000),
        "skewed": np.exp(NORMAL) - 0.3,
        "outlier": np.append(NORMAL, 30),
        "saturated": np.clip(NORMAL * 4, 0, 6),
    }[name].astype(np.float32)
    codes = Codes(levels, symmetric)
    found = squared_error(data, *find_range(sketch_of(data), "mse", codes), codes)
    ends = [float(data.min()), float(data.max())]
    tried = [
        squared_error(data, ends[0] * a, ends[1] * b, codes)
        for a in np.geomspace(1, 0.05, 25)
        for b in np.geomspace(1, 0.05, 25)
    ]
    assert found <= 1.02 * min(tried)


def test_saturated_values_are_not_cut():
    data = np.clip(NORMAL * 4, 0, 6)
    assert find_range(sketch_of(data), "mse") == (0, 6)
    assert find_range(sketch_of(data), "entropy") == (0, 6)


def test_symmetric_codes_reach_equally_far_within_what_was_seen():
    low, high = find_range(sketch_of(np.append(NORMAL, -30)), "mse", Codes(16, symmetric=True))
    assert low == pytest.approx(-high)


def test_sixteen_bits_lose_nothing_to_entropy():
    assert find_range(sketch_of(NORMAL), "entropy", Codes(65536)) == (NORMAL.min(), NORMAL.max())


@pytest.mark.parametrize("method", METHODS)
def test_all_zeros_have_a_range_without_width(method):
    assert find_range(sketch_of(np.zeros(9)), method) == (0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_one_number_is_its_range(method):
    low, high = find_range(sketch_of(np.full(9, 2.5)), method)
    assert (max(low, 2.5), high) == (2.5, 2.5)


def test_a_value_never_seen_has_no_range():
    with pytest.raises(ZcError, match="no finite value"):
        find_range(sketch_of([np.nan]))


def test_the_dearer_clipping_is_the_less_is_cut_off():
    sketch = sketch_of(np.append(NORMAL, 12))
    ends = [find_range(sketch, Rule("mse", clip_cost=cost))[1] for cost in (0.25, 1, 4, 64, 1e6)]
    assert ends == sorted(ends)
    assert ends[0] < 0.8 * ends[-1]
    assert ends[-1] == pytest.approx(12, rel=0.01)


def test_a_rule_is_written_as_the_options_that_ask_for_it():
    assert [str(Rule("minmax")), str(Rule("percentile", 99.9)), str(Rule("mse", clip_cost=4))] == [
        "method=minmax",
        "method=percentile:percentile=99.9",
        "method=mse:clip_cost=4",
    ]
