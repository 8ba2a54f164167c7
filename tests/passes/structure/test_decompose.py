"""Low rank: the parts say what the layer says, as well as asked for, and only where there is something to gain."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Runner, relative_error
from zc.ir.model import Model
from zc.measure.cost import count
from zc.passes.decompose.decompose import Decompose
from zc.passes.decompose.factors import candidates, product_of
from zc.passes.layers.chosen import moments_of, plain_moments
from zc.passes.layers.layers import find_layers
from zc.passes.prune.speed.goal import Stopwatch
from zc.pipeline.base import Context, PassResult
from zc.target import Target


def decompose(
    model: Model, samples: Samples | None = None, target: Target | None = None, **options: object
) -> PassResult:
    result = Decompose(**options).run(model, Context(target or Target("test"), samples))  # type: ignore[arg-type]
    model.to_proto()
    return result


def difference(a: Model, b: Model) -> float:
    x = np.random.default_rng(0).standard_normal((4, 8, 12, 12)).astype(np.float32)
    (one,), (two,) = Runner(a).run({"x": x}).values(), Runner(b).run({"x": x}).values()
    return relative_error(two, one)


@pytest.mark.parametrize("form", ["rank", "tucker", "separable"])
def test_a_layer_of_low_rank_is_said_in_full_by_its_parts(net: Callable, form: str) -> None:
    model = net(rank=4)
    random = np.random.default_rng(1)
    low = {
        "rank": None,
        "tucker": np.einsum("ma,abij,cb->mcij", *(random.standard_normal(s) for s in ((32, 4), (4, 3, 3, 3), (24, 3)))),
        "separable": random.standard_normal((32, 24, 1, 1)) * random.standard_normal((1, 24, 3, 3)),
    }[form]
    if low is not None:
        weight = next(c for c in model.constants() if c.name == "w2")
        weight.values = (low / 15).astype(np.float32)
    before = model.copy()
    result = decompose(model, energy=0.999999, forms=(form,), only=("d",))
    assert result.stats["forms"] == f"{form} 1"
    assert difference(before, model) < 1e-5
    assert count(model).params < count(before).params
    assert float(result.stats["macs_ratio"]) < 1


def test_products_are_split_too(net: Callable) -> None:
    model = net(rank=3)
    before = model.copy()
    result = decompose(model, energy=0.999999, only=("i", "y"))
    assert result.stats["layers_replaced"] == 2
    assert difference(before, model) < 1e-5
    assert result.stats["params_ratio"] == round(count(model).params / count(before).params, 4)


@pytest.mark.parametrize("sampled", [False, True])
def test_what_a_form_is_said_to_lose_is_what_its_parts_lose(net: Callable, rows: Samples, sampled: bool) -> None:
    model = net()
    layers = find_layers(model)[0]
    seen = moments_of(model, layers, rows, Context(Target("test"))) if sampled else {}
    for layer in layers:
        moments = seen.get(id(layer.node)) or plain_moments(layer)
        forms = list(candidates(layer, moments))
        for form in forms[::3]:
            error = layer.matrix() - product_of(layer, form)
            assert form.loss == pytest.approx(moments.cost(error) / moments.cost(layer.matrix()))
        ranks = [f.loss for f in forms if f.form == "rank"]
        assert ranks == sorted(ranks, reverse=True)


def test_no_product_of_that_rank_loses_less(net: Callable, rows: Samples) -> None:
    model = net()
    layer = next(one for one in find_layers(model)[0] if one.node.name == "d")
    moments = moments_of(model, [layer], rows, Context(Target("test")))[id(layer.node)]
    form = next(f for f in candidates(layer, moments) if f.form == "rank" and f.ranks[0] >= 8)
    factor = np.linalg.cholesky(moments.matrix[0]).T
    values = np.linalg.svd(factor @ layer.matrix()[0], compute_uv=False)
    assert form.loss == pytest.approx((values[form.ranks[0] :] ** 2).sum() / (values**2).sum())


def test_with_samples_more_of_the_outputs_is_kept(net: Callable, rows: Samples) -> None:
    found = {}
    for sampled in (False, True):
        model = net()
        before = model.copy()
        decompose(model, rows if sampled else None, energy=0.8, forms=("rank",), only=("d",))
        found[sampled] = (count(model).params / count(before).params, difference(before, model))
    assert found[True][0] < found[False][0]  # inputs vary together, so fewer ranks say as much


@pytest.mark.parametrize("share", [0.9, 0.7])
def test_a_share_of_the_macs_is_left(net: Callable, share: float) -> None:
    model = net(rank=6)
    result = decompose(model, macs=share)
    assert float(result.stats["macs_ratio"]) <= share * 1.021


def test_a_share_out_of_reach_says_how_far_it_gets(net: Callable) -> None:
    model = net()
    before = model.weights_digest()
    with pytest.raises(ZcError, match=r"macs=0.01: it gets to 0\.\d+"):
        decompose(model, macs=0.01)
    assert model.weights_digest() == before


def test_what_would_be_slower_stays(net: Callable) -> None:
    model = net(rank=4)
    result = decompose(model, target=TARGET, energy=0.999, only=("y",))
    assert not result.changed
    assert any("no form is faster than the" in n.what for n in result.notes)
    assert decompose(net(rank=2), target=TARGET, energy=0.999, only=("y",), if_faster=False).changed


def test_grouped_layers_and_full_rank_are_declined(net: Callable) -> None:
    result = decompose(net(), energy=0.9999)
    said = {n.where: n.what for n in result.notes if n.kind == "declined"}
    assert "grouped" in said["c"]
    assert "of its variance in fewer weights" in said["a"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"energy": 1.0}, "energy is 1; it must be above 0 and below 1"),
        ({"macs": 0.0}, "macs is 0"),
        ({"macs": 0.5, "energy": 0.9}, "two goals"),
        ({"forms": ("cp",)}, "forms has cp; it must be of rank, tucker, separable"),
        ({"forms": ()}, "forms has nothing"),
    ],
)
def test_options_that_cannot_be_meant(options: dict, said: str) -> None:
    with pytest.raises(ZcError, match=said):
        Decompose(**options)


def test_a_goal_of_time_takes_the_least_loss_that_is_fast_enough(
    net: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    whole = count(model).macs or 1
    monkeypatch.setattr(Stopwatch, "milliseconds", lambda watch: 2.0)
    monkeypatch.setattr(Stopwatch, "ratio", lambda watch, cut: (count(cut).macs or 0) / whole)
    in_time = decompose(model, latency=0.6)
    assert 0.45 < float(in_time.stats["latency_ratio"]) <= 0.6 * 1.05
    assert in_time.stats["macs_ratio"] == pytest.approx(in_time.stats["latency_ratio"], abs=1e-3)
    with pytest.raises(ZcError, match=r"latency=0.001ms: it gets to 0\.\d+ of the original's 2 ms"):
        decompose(net(), latency="0.001ms")
    model = net()
    result = decompose(model, latency="0.001ms", best_effort=True)
    assert result.changed
    assert any("as far as it gets" in note.what for note in result.notes)
