"""Zeros among weights: as many as asked for, where the pattern wants them, and where the outputs miss them least."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.layers.layers import find_layers
from zc.passes.sparsify.masks import Pattern, by_pattern, by_share, read_pattern
from zc.passes.sparsify.sparsify import Sparsify
from zc.passes.sparsify.surgeon import carve
from zc.pipeline import spec
from zc.pipeline.base import Context, PassResult
from zc.target import Target


def sparsify(model: Model, samples: Samples | None = None, **options: object) -> PassResult:
    result = Sparsify(**options).run(model, Context(Target("test"), samples))  # type: ignore[arg-type]
    model.to_proto()
    return result


def weights(model: Model) -> dict[str, np.ndarray]:
    return {c.name: np.asarray(c.values) for c in model.constants() if len(c.shape) > 1}


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sampled", [False, True])
def test_so_many_weights_of_each_layer_are_zero(net: Callable, rows: Samples, ratio: float, sampled: bool) -> None:
    model = net()
    sparsify(model, rows if sampled else None, ratio=ratio)
    for values in weights(model).values():
        assert (values == 0).mean() == pytest.approx(ratio, abs=0.06)  # 4 or 5 of the 9 of a filter


def test_without_samples_the_smallest_leave(net: Callable) -> None:
    model, before = net(), weights(net())
    sparsify(model, ratio=0.5)
    for name, values in weights(model).items():
        kept = np.abs(before[name][values != 0])
        np.testing.assert_array_equal(values[values != 0], before[name][values != 0])
        assert kept.min() >= np.abs(before[name][values == 0]).max()


@pytest.mark.parametrize("sampled", [False, True])
def test_two_of_four_neighbouring_input_channels_stay(net: Callable, rows: Samples, sampled: bool) -> None:
    model = net()
    result = sparsify(model, rows if sampled else None, pattern="2of4")
    after = weights(model)
    for name, axis in (("w0", 1), ("w2", 1), ("w3", 0), ("w4", 1)):
        along = np.moveaxis(after[name], axis, -1)
        counts = (along.reshape(*along.shape[:-1], -1, 4) != 0).sum(axis=-1)
        assert counts.max() == 2, name
    assert result.stats["layers_in_pattern"] == 4
    assert any(n.where == "c" and "1 input channels are no multiple of 4" in n.what for n in result.notes)
    assert (after["w1"] != 0).all()


def test_what_samples_teach_is_worth_more_than_magnitude(net: Callable, rows: Samples) -> None:
    sqnr = {}
    for criterion in ("magnitude", "second-order"):
        model = net()
        sqnr[criterion] = float(sparsify(model, rows, ratio=0.5, criterion=criterion).stats["sqnr_db"])
    assert sqnr["second-order"] > sqnr["magnitude"] + 3


def test_a_global_share_takes_more_from_layers_that_say_little(net: Callable, rows: Samples) -> None:
    model = net()
    sparsify(model, rows, ratio=0.5, allot="global")
    shares = {name: float((values == 0).mean()) for name, values in weights(model).items()}
    whole = sum(v.size for v in weights(model).values())
    assert sum((v == 0).sum() for v in weights(model).values()) / whole == pytest.approx(0.5, abs=0.02)
    assert max(shares.values()) - min(shares.values()) > 0.05


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from(["2:4", "1:4", "4:8"]))
def test_a_mask_follows_its_pattern_and_keeps_the_best(seed: int, groups: int, text: str) -> None:
    random = np.random.default_rng(seed)
    pattern = read_pattern(text)
    scores = random.random((groups, 24, 5))
    keep = by_pattern(scores, pattern)
    assert pattern.follows(np.where(keep, 1.0, 0.0))
    assert keep.sum() * pattern.of == keep.size * pattern.kept
    parts = scores.reshape(groups, -1, pattern.of, 5)
    best = np.sort(parts, axis=2)[:, :, -pattern.kept :].sum()
    assert (scores * keep).sum() == pytest.approx(best)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.8))
def test_carving_costs_no_more_than_zeroing_the_same_weights(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((1, 20, 6))
    mix = random.standard_normal((20, 20))
    moments = (mix @ mix.T / 20 + 0.05 * np.eye(20))[None]
    carved = carve(weights, moments, share, None)
    assert (carved == 0).mean() == pytest.approx(share, abs=0.02)

    def cost(values: np.ndarray) -> float:
        error = weights - values
        return float((error * (moments @ error)).sum())

    assert cost(carved) <= cost(np.where(carved == 0, 0, weights)) + 1e-9
    assert by_share(weights, share).mean() == pytest.approx(1 - share, abs=0.01)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 0.0}, "ratio is 0; it must be above 0"),
        ({"ratio": 1.0}, "ratio is 1; it must be above 0 and below 1"),
        ({"pattern": "4of2"}, "it must be N of M with N below M"),
        ({"pattern": "half"}, "it must be N of M"),
        ({"pattern": "2of4", "ratio": 0.3}, "pattern and ratio exclude each other"),
        ({"pattern": "2of4", "allot": "global"}, "pattern and allot=global exclude"),
        ({"criterion": "best"}, "criterion is 'best'"),
    ],
)
def test_options_that_cannot_be_meant(options: dict, said: str) -> None:
    with pytest.raises(ZcError, match=said):
        Sparsify(**options)


def test_second_order_without_samples_is_an_error(net: Callable) -> None:
    with pytest.raises(ZcError, match="looks at activations: give samples with --calib"):
        sparsify(net(), criterion="second-order")


def test_a_pattern_that_matches_nothing_is_an_error(net: Callable) -> None:
    with pytest.raises(ZcError, match=r"only=/no/\* matches no layer"):
        sparsify(net(), only=("/no/*",))


def test_what_is_skipped_stays(net: Callable) -> None:
    model, before = net(), weights(net())
    sparsify(model, skip=("d", "w3"))
    after = weights(model)
    np.testing.assert_array_equal(after["w2"], before["w2"])
    np.testing.assert_array_equal(after["w3"], before["w3"])
    assert (after["w0"] == 0).any()


def test_options_are_pipeline_text() -> None:
    text = "sparsify:pattern=2of4:criterion=magnitude:skip=a+b"
    assert str(spec.parse(text)) == text
    assert str(Pattern(2, 4)) == "2:4"


def test_layers_keep_their_shape(net: Callable, rows: Samples) -> None:
    model = net()
    sparsify(model, rows)
    assert [tuple(one.weight.shape) for one in find_layers(model)[0]] == [
        tuple(one.weight.shape) for one in find_layers(net())[0]
    ]
