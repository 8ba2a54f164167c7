"""Training on labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model
from zc.pipeline.base import PassResult

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

Net = Callable[..., Model]
Rows = Callable[..., Samples]
Train = Callable[..., PassResult]


def labelled(net: Net, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).standard_normal((256, 6)).astype(np.float32)
    return x, Runner(net(seed)).run({"x": x})["y"].argmax(1)


def accuracy(model: Model, x: np.ndarray, y: np.ndarray) -> float:
    return float((Runner(model).run({"x": x})["y"].argmax(1) == y).mean())


def test_labels_are_learned(net: Net, samples: Rows, train: Train) -> None:
    x, y = labelled(net)
    model = net(1)
    before = accuracy(model, x, y)
    result = train("finetune:steps=150:lr=0.05", model, samples(model, labels=y, x=x), None)
    assert float(result.stats["loss_after"]) < 0.5 * float(result.stats["loss_before"])
    assert accuracy(model, x, y) > max(0.8, before)


def test_arrays_are_learned_by_their_squared_error(net: Net, samples: Rows, train: Train) -> None:
    x, _ = labelled(net)
    tail = "y = MatMul (r, v)"
    model, wanted = net(1, tail=tail), Runner(net(0, tail=tail)).run({"x": x})["y"]
    result = train("finetune:steps=80:lr=0.05", model, samples(model, labels=wanted, x=x), None)
    assert float(result.stats["loss_after"]) < 0.5 * float(result.stats["loss_before"])


def test_a_function_of_ones_own(
    net: Net, samples: Rows, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_loss.py").write_text(
        "def margin(outputs, labels):\n"
        "    y = outputs['y']\n"
        "    return (y.sum(1) - y.gather(1, labels[:, None])[:, 0]).mean()\n"
        "def wrong(outputs, labels):\n"
        "    return outputs['y']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    x, y = labelled(net)
    model = net(1)
    rows = samples(model, labels=y, x=x)
    result = train("finetune{loss=own_loss:margin steps=40}", model, rows, None)
    assert float(result.stats["loss_after"]) < float(result.stats["loss_before"])
    with pytest.raises(ZcError, match="loss=own_loss:wrong: it must return a scalar tensor"):
        train("finetune{loss=own_loss:wrong}", model, rows, None)


def test_bad_labels_are_one_line(net: Net, samples: Rows, train: Train) -> None:
    model = net(1)
    x, y = labelled(net)
    for text, rows, message in (
        ("finetune", samples(model), "finetune needs labels: rows.npz rows 0:256 has none"),
        ("finetune", samples(model, labels=y + 4, x=x), "labels are 4 to 7, the output 'y' has 4 classes"),
        (
            "finetune:loss=mse",
            samples(model, labels=y, x=x),
            "loss=mse: labels have shape [",
        ),
    ):
        with pytest.raises(ZcError) as caught:
            train(text, model, rows, None)
        assert message in str(caught.value)
    with pytest.raises(ZcError, match="loss is 'hinge'; it must be cross-entropy, mse or package"):
        train("finetune:loss=hinge", model, None, None)


def test_mixed_images_have_mixed_labels() -> None:
    from zc.training.distillation import labelled as entropy
    from zc.training.trainer import Batch

    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    own, other = torch.tensor([0, 1]), torch.tensor([1, 0])
    half = Batch({}, own, (other, torch.tensor([0.5, 0.5])))
    want = (entropy(scores, 1, Batch({}, own)) + entropy(scores, 1, Batch({}, own[other]))) / 2
    torch.testing.assert_close(entropy(scores, 1, half), want)
