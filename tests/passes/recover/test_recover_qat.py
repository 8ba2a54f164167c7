"""Quantisation-aware training on the Q/DQ graph, and training block by block."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends import find_target
from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.diff import diff
from zc.ir.model import Model
from zc.pipeline.base import Context, PassResult
from zc.pipeline.spec import parse

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

Net = Callable[..., Model]
Rows = Callable[..., Samples]
Train = Callable[..., PassResult]


@pytest.fixture
def coarse(net: Net, samples: Rows, train: Train) -> Model:
    """The classifier with weights of three bits, each to its nearest code."""
    model = net(0)
    train(
        "quantize:weight_bits=3:rounding=nearest:float_if_faster=false:guard=false:bias_correct=false",
        model,
        samples(model),
        net(0),
    )
    assert any(node.op == "DequantizeLinear" for node in model.graph.nodes)
    return model


def stored(model: Model) -> dict[str, np.ndarray]:
    return {c.name: c.values for c in model.constants()}


@pytest.mark.parametrize("scales", ["learned", "frozen"])
def test_codes_and_scales_learn(net: Net, samples: Rows, train: Train, coarse: Model, scales: str) -> None:
    before = coarse.copy()
    result = train(f"qat:steps=150:lr=0.02:scales={scales}", coarse, samples(coarse), net(0))
    assert float(result.stats["loss_after"]) < 0.7 * float(result.stats["loss_before"])
    found = diff(before, coarse)
    assert [*found.added, *found.removed, *found.changed] == []
    old, new = stored(before), stored(coarse)
    for name, values in new.items():
        assert values.dtype == old[name].dtype
        if values.dtype.name in ("int8", "int4", "int2"):
            assert np.abs(values.astype(int)).max() <= max(np.abs(old[name].astype(int)).max(), 3)
    moved = {n for n in new if new[n].dtype.kind == "f" and new[n].tobytes() != old[n].tobytes()}
    assert bool(moved) == (scales == "learned")


def test_what_was_trained_is_what_onnxruntime_says(net: Net, samples: Rows, train: Train, coarse: Model) -> None:
    rows = samples(coarse)
    feeds = next(iter(rows.batches(256)))
    truth = Runner(net(0)).run(feeds)["y"]
    before = np.abs(Runner(coarse).run(feeds)["y"] - truth).mean()
    train("qat:steps=150:lr=0.02", coarse, rows, net(0))
    assert np.abs(Runner(coarse).run(feeds)["y"] - truth).mean() < 0.8 * before


def test_a_bias_scale_follows_even_where_its_layer_is_skipped(
    net: Net, samples: Rows, train: Train, coarse: Model
) -> None:
    train("qat:steps=20:only=first", coarse, samples(coarse), net(0))
    layers = [n for n in coarse.graph.nodes if n.op in ("Gemm", "MatMul") and len(n.inputs) > 2]
    for node in layers:
        x, w, b = (t.inputs[0] for t in node.inputs[:3])
        if b.op == "DequantizeLinear":
            np.testing.assert_allclose(b.inputs[1].values, x.inputs[1].values * w.inputs[1].values, rtol=1e-5)


def test_a_target_that_can_saturate_is_warned_of(net: Net, samples: Rows, coarse: Model) -> None:
    ctx = Context(find_target("ort-cpu", "avx2"), samples(coarse), 0, threads=1)
    ctx.original = net(0)
    result = parse("qat:steps=30:lr=0.02").passes[0].run(coarse, ctx)
    assert any("adds products in pairs" in note.what for note in result.notes)


def test_blocks_are_trained_one_after_the_other(net: Net, samples: Rows, train: Train) -> None:
    student = net(1)
    result = train("distill:blocks=2:features=r:steps=300:lr=0.02", student, samples(student), net(0))
    for number in (1, 2):
        assert float(result.stats[f"block{number}_loss_after"]) < 0.5 * float(
            result.stats[f"block{number}_loss_before"]
        )
    with pytest.raises(ZcError, match="blocks=9: student and teacher have only 0 inner values"):
        train("distill:blocks=9", net(1), samples(student), net(0))


def test_layers_with_ranges_at_run_time_are_trained_through(net: Net, samples: Rows, train: Train) -> None:
    codes = np.random.default_rng(3).integers(-60, 60, (16, 4))
    tail = f"""
        c = Constant <value = int8[16,4] {{{",".join(map(str, codes.ravel()))}}}> ()
        k = Constant <value_float = 0.01> ()
        q, s, o = DynamicQuantizeLinear (r)
        i = MatMulInteger (q, c, o)
        f = Cast <to = 1> (i)
        t = Mul (f, s)
        z = Mul (t, k)
        y = Softmax (z)"""
    model = net(1, tail)
    result = train("distill:steps=150:lr=0.02", model, samples(model), net(0, tail))
    assert float(result.stats["loss_after"]) < 0.7 * float(result.stats["loss_before"])
