"""Importance by gradients, and groups that are drawn to zero."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model
from zc.pipeline.base import PassResult

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

Net = Callable[..., Model]
Rows = Callable[..., Samples]
Train = Callable[..., PassResult]


def values(model: Model, name: str) -> np.ndarray:
    return next(c.values for c in model.constants() if c.name == name)


def test_importance_is_the_change_of_the_loss(net: Net, samples: Rows) -> None:
    from zc.training.taylor import channel_importance

    model = net(0)
    v = values(model, "v").copy()
    v[3] = 0  # what unit 3 says, nobody hears
    next(c for c in model.constants() if c.name == "v").values = v
    scores = channel_importance(model, samples(model), "w", axis=1)
    assert scores.shape == (16,)
    assert scores[3] == 0
    assert (np.delete(scores, 3) > 0).all()


def test_taylor_prunes_what_the_loss_does_not_need(net: Net, samples: Rows, train: Train) -> None:
    model = net(0)
    v = values(model, "v").copy()
    useless = [2, 5, 11, 14]
    v[useless] = 1e-6
    next(c for c in model.constants() if c.name == "v").values = v
    kept = np.delete(values(model, "w"), useless, axis=1)
    train("prune:ratio=0.25:criterion=taylor:round_to=1:repair=false", model, samples(model), model.copy())
    np.testing.assert_array_equal(values(model, "w"), kept)


def test_taylor_needs_samples_and_torch(net: Net, samples: Rows, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZcError, match="criterion=taylor looks at activations: give samples with --calib"):
        train("prune:ratio=0.25:criterion=taylor", net(0), None, None)
    monkeypatch.setattr("zc.training.extra.find_spec", lambda name: None)
    with pytest.raises(ZcError, match=r"criterion=taylor needs torch, .*pip install 'zc\[train\]'"):
        train("prune:ratio=0.25:criterion=taylor", net(0), samples(net(0)), None)


def test_sparsity_draws_whole_units_to_zero(net: Net, samples: Rows, train: Train) -> None:
    def spread(text: str) -> float:
        model = net(0)
        train(text, model, samples(model), net(0))
        w, b, v = values(model, "w"), values(model, "b"), values(model, "v")
        norms = np.sort(np.sqrt((w**2).sum(0) + b**2 + (v**2).sum(1)))
        return float(norms[:6].sum() / norms.sum())

    assert spread("distill:steps=300:lr=0.03:sparsity=3") < 0.6 * spread("distill:steps=300:lr=0.03")


def test_sparsity_without_groups_is_one_line(net: Net, samples: Rows, train: Train) -> None:
    model = net(0, tail="y = Add (r, r)")
    with pytest.raises(ZcError, match="sparsity has nothing to act on: no channel can be pruned"):
        train("distill:steps=2:sparsity=1", model, samples(model), net(1, tail="y = Add (r, r)"))
