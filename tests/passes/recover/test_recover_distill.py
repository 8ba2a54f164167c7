"""What distillation wins back, keeps, and refuses."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zc.backends import find_target
from zc.data import Samples
from zc.errors import ZcError
from zc.ir.diff import diff
from zc.ir.model import Model, from_text
from zc.passes.recover.distill import Distill
from zc.pipeline.base import Context, PassResult
from zc.pipeline.manager import run_pipeline
from zc.pipeline.spec import Pipeline, parse

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

Net = Callable[..., Model]
Rows = Callable[..., Samples]
Train = Callable[..., PassResult]


def stats(result: PassResult) -> tuple[float, float]:
    return float(result.stats["loss_before"]), float(result.stats["loss_after"])


def weights(model: Model) -> dict[str, bytes]:
    return {c.name: c.values.tobytes() for c in model.constants()}


def test_a_student_comes_near_its_teacher_and_only_its_weights_change(net: Net, samples: Rows, train: Train) -> None:
    teacher, student = net(0), net(1)
    before = student.copy()
    result = train("distill:steps=150:lr=0.02", student, samples(student), teacher)
    first, last = stats(result)
    assert last < 0.2 * first
    found = diff(before, student)
    assert [*found.added, *found.removed, *found.changed, *found.renamed] == []
    assert {w.name for w in found.weights} == {"w", "b", "v"}


@pytest.mark.parametrize("loss", ["soft", "logits", "features", "attention", "jacobian", "soft+features+jacobian"])
def test_every_loss_falls(net: Net, samples: Rows, train: Train, loss: str) -> None:
    tail = """
        s = Constant <value = int64[4] {-1,4,2,2}> ()
        q = Reshape (r, s)
        c = Relu (q)
        t = Constant <value = int64[2] {-1,16}> ()
        k = Reshape (c, t)
        z = MatMul (k, v)
        y = Softmax (z)"""
    teacher, student = net(0, tail=tail), net(1, tail=tail)
    result = train(f"distill:steps=60:lr=0.02:loss={loss}", student, samples(student), teacher)
    first, last = stats(result)
    assert last < 0.8 * first


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(net: Net, samples: Rows, train: Train) -> None:
    def run(seed: int) -> dict[str, bytes]:
        student = net(1)
        train("distill:steps=12:held=0", student, samples(student), net(0), seed=seed)
        return weights(student)

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_a_killed_run_goes_on_to_the_same_result(
    net: Net, samples: Rows, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zc.training import trainer

    text = f"distill:steps=40:loss=soft+logits:checkpoint={tmp_path / 'run.pt'}"
    whole, broken = net(1), net(1)
    train("distill:steps=40:loss=soft+logits", whole, samples(whole), net(0))
    advance, done = trainer._Run._advance, [0]

    def killed(self: trainer._Run, total: int) -> float:
        done[0] += 1
        if done[0] > 23:
            raise KeyboardInterrupt
        return advance(self, total)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Run, "_advance", killed)
        with pytest.raises(KeyboardInterrupt):
            train(text, broken, samples(broken), net(0))
    assert weights(broken) == weights(net(1))
    train(text, broken, samples(broken), net(0))
    assert weights(broken) == weights(whole)
    with pytest.raises(ZcError, match=r"run\.pt: is the checkpoint of another run"):
        train(text.replace("steps=40", "steps=41"), net(1), samples(broken), net(0))
    (tmp_path / "run.pt").write_bytes(b"nothing")
    with pytest.raises(ZcError, match="no checkpoint of training, or a damaged one"):
        train(text, net(1), samples(broken), net(0))


def test_minutes_are_recorded_as_steps(net: Net, samples: Rows, train: Train) -> None:
    student = net(1)
    result = train("distill:minutes=0.005", student, samples(student), net(0))
    assert result.chose is not None
    assert result.chose.options()["minutes"] is None
    again = net(1)
    train(f"distill:steps={result.chose.options()['steps']}", again, samples(again), net(0))
    assert weights(again) == weights(student)


def test_minutes_are_good_for_the_looks_too(
    net: Net, samples: Rows, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("zc.training.trainer.time.perf_counter", lambda: float(next(ticks)))
    student = net(1)
    result = train("distill:minutes=1", student, samples(student), net(0))
    assert result.stats["steps"] == 60 - 20  # a step and a look take a second each; there are 20 looks


def test_skip_and_only_leave_weights_alone(net: Net, samples: Rows, train: Train) -> None:
    student = net(1)
    before = weights(student)
    train("distill:steps=20:skip=last", student, samples(student), net(0))
    after = weights(student)
    assert (after["v"] == before["v"], after["w"] == before["w"]) == (True, False)
    with pytest.raises(ZcError, match="only=nothing matches no weight or node"):
        train("distill:only=nothing", student, samples(student), net(0))


def test_weights_of_a_settled_part_stay(net: Net, samples: Rows, train: Train) -> None:
    student = net(0)
    last = next(c for c in student.constants() if c.name == "v")
    last.values = last.values + np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)
    before = {c.name: c.values.copy() for c in student.constants()}
    result = train("distill:steps=60:settled=0.01", student, samples(student), net(0))
    assert result.stats["settled"] == 2  # w and b
    moved = {c.name for c in student.constants() if c.values.tobytes() != before[c.name].tobytes()}
    assert moved == {"v"}


def test_a_student_that_is_settled_throughout_stays(net: Net, samples: Rows, train: Train) -> None:
    student = net(0, tail="z = MatMul (r, v) y = Relu (z)")
    result = train("distill:steps=5:settled=0.01:outputs=y", student, samples(student), student.copy())
    assert not result.changed
    assert any("all of its values are within settled=0.01" in note.what for note in result.notes)


def test_a_loss_that_becomes_nan_stops_with_advice(net: Net, samples: Rows, train: Train) -> None:
    student = net(1)
    before = weights(student)
    with pytest.raises(ZcError, match=r"the loss became (nan|inf) at step \d+ of 50 .* use a lower lr, or clip=1"):
        train(
            "distill:steps=50:optimizer=sgd:lr=1e30:clip=0:loss=logits:warmup=0:ema=0",
            student,
            samples(student),
            net(0),
        )
    assert weights(student) == before


def test_after_progress_the_best_weights_are_kept_when_the_loss_becomes_nan(
    net: Net, samples: Rows, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zc.training import trainer

    advance = trainer._Run._advance
    monkeypatch.setattr(
        trainer._Run, "_advance", lambda self, total: float("nan") if self.step == 30 else advance(self, total)
    )
    student = net(1)
    result = train("distill:steps=40:lr=0.02", student, samples(student), net(0))
    first, last = stats(result)
    assert last < first
    assert any("the loss became nan at step 31 of 40" in note.what and note.kind == "warning" for note in result.notes)


@pytest.mark.parametrize("count", [40, 256])
def test_what_makes_it_worse_is_not_kept_with_few_rows_either(
    net: Net, samples: Rows, train: Train, count: int
) -> None:
    student = net(1)
    result = train("distill:steps=20:lr=30", student, samples(student, count), net(0))
    assert weights(student) == weights(net(1))
    assert any("its weights stay" in note.what for note in result.notes)


def test_a_model_that_cannot_get_better_stays(net: Net, samples: Rows, train: Train) -> None:
    student = net(0)
    result = train("distill:steps=20", student, samples(student), net(0))
    assert weights(student) == weights(net(0))
    assert not result.changed
    assert any("its weights stay" in note.what for note in result.notes)


def test_too_little_data_is_said(net: Net, samples: Rows, train: Train) -> None:
    student = net(1)
    result = train("distill:steps=5", student, samples(student, 40), net(0))
    assert any("only 40 rows: none is held back" in note.what for note in result.notes)
    assert "held_rows" not in result.stats
    result = train("distill:steps=5:held=0", student, samples(student), net(0))
    assert any("held=0: no row is held back" in note.what for note in result.notes)


def test_over_fitting_is_seen_on_the_held_back_rows(net: Net, samples: Rows, train: Train) -> None:
    student = net(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 6)).astype(np.float32)
    labels = rng.integers(0, 4, 60)
    rows = samples(student, labels=labels, x=x)
    result = train("distill:steps=400:lr=0.05:loss=labels:held=0.5:decay=0:schedule=constant", student, rows, net(0))
    assert any(note.where == "over-fitting" and "lowest at step" in note.what for note in result.notes)


def test_bad_input_is_one_line(net: Net, samples: Rows, train: Train, tmp_path: Path) -> None:
    student = net(1)
    rows = samples(student)
    wider = from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[N,7] x) => (float[N,7] y) { y = Softmax (x) }')
    for text, teacher, given, message in (
        ("distill", net(0), None, "distill needs samples of the model's inputs: give some with --calib"),
        ("distill", None, rows, "there is no model before this one to learn from; name one with teacher=FILE"),
        ("distill", net(0, tail="y = Neg (r) z = MatMul (r, v)"), rows, "teacher's output 'y' has shape"),
        ("distill", wider, rows, "the teacher takes x: float32[N,7], the model x: float32[N,6]; give a teacher"),
        ("distill:outputs=nothing", net(0), rows, "outputs=nothing: g has no such value"),
        ("distill:loss=labels", net(0), rows, "rows.npz rows 0:256 has no labels"),
        ("distill:augment=flip", net(0), rows, "augment=flip is for images, but no input takes batches of them"),
        ("distill:augment=twist", net(0), rows, "augment is 'twist'; it must be auto, none, or of zoom, crop"),
        ("distill:loss=features:features=none*", net(0), rows, "features=none* matches no inner value"),
        ("distill:loss=attention", net(0), rows, "loss=attention: student and teacher have no inner value"),
        ("distill:skip=*", net(0), rows, "no weight is left to train"),
        (f"distill:teacher={tmp_path}/no.onnx", None, rows, "no.onnx: no such file"),
        ("qat", net(0), rows, "has no DequantizeLinear nodes: run quantize before qat"),
    ):
        with pytest.raises(ZcError) as caught:
            train(text, student, given, teacher)
        assert message in str(caught.value), text
    for text, message in (
        ("distill:loss=harsh", "loss is 'harsh'; it must be of auto, soft"),
        ("distill:loss=soft+soft", "names one twice"),
        ("distill:loss=soft:weights=1+2", "weights are 2 numbers for 1 losses"),
        ("distill:steps=1:epochs=2", "steps and epochs are two budgets"),
        ("distill:lr=0", "lr is 0; it must be above 0"),
        ("distill:held=1", "held is 1; it must be at least 0 and below 1"),
        ("distill:settled=1", "settled is 1; it must be at least 0 and below 1"),
        ("distill:temperature=-1", "temperature is -1; it must be above 0"),
    ):
        with pytest.raises(ZcError) as caught:
            train(text, student, rows, net(0))
        assert message in str(caught.value), text


def test_an_operator_without_a_gradient_is_named_before_training_starts(net: Net, samples: Rows, train: Train) -> None:
    student = net(1, tail="z = MatMul (r, v) [cut] f = Floor (z) y = Mul (f, f)")
    with pytest.raises(ZcError, match=r"node 'cut' \(Floor\) has no gradient, and weight '\w' acts on y"):
        train("distill", student, samples(student), net(0, tail="z = MatMul (r, v) y = Mul (z, z)"))


@pytest.mark.parametrize(("size", "scores"), [(20, True), (0.01, False)])
def test_numbers_without_softmax_are_scores_where_one_would_be_confident(
    net: Net, samples: Rows, train: Train, size: float, scores: bool
) -> None:
    tail = f"s = Constant <value_float = {size:.6f}> () z = MatMul (r, v) y = Mul (z, s)"
    student = net(1, tail=tail)
    result = train("distill:steps=30", student, samples(student), net(0, tail=tail))
    assert any("is taken for class scores" in note.what for note in result.notes) == scores


def test_class_numbers_are_trained_at_their_scores(net: Net, samples: Rows, train: Train) -> None:
    tail = "z = MatMul (r, v) y = Identity (z) k = ArgMax <axis = 1> (z)"
    student = net(1, tail=tail)
    first, last = stats(train("distill:steps=50:lr=0.02", student, samples(student), net(0, tail=tail)))
    assert last < first


def test_missing_torch_is_one_line(net: Net, samples: Rows, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zc.training.extra.find_spec", lambda name: None)
    student = net(1)
    with pytest.raises(ZcError, match=r"distill needs torch, which is not installed: pip install 'zc\[train\]'"):
        train("distill", student, samples(student), net(0))


def test_what_is_missing_is_said_before_the_first_pass_runs(
    net: Net, samples: Rows, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    student, ran = net(1), list[str]()
    for text, rows in (("fold,distill", None), (f"fold,distill:teacher={tmp_path}/no.onnx", samples(student))):
        with pytest.raises(ZcError):
            run_pipeline(
                student, text, Context(find_target("ort-cpu", None), rows), hooks=[lambda run, _: ran.append(run.name)]
            )
    assert ran == []


def test_a_learning_rate_that_harms_is_lowered_and_what_helped_is_recorded(
    net: Net, samples: Rows, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Distill, "first_rate", 3.0)
    student, rows = net(0), samples(net(0))
    for constant in student.constants():
        constant.values = (constant.values * np.float32(1.02)).astype(np.float32)
    again = student.copy()
    result = train("distill:steps=60", student, rows, net(0))
    rate = float(result.stats["lr"])
    assert rate < 3
    first, last = stats(result)
    assert last < first
    assert result.chose == parse(f"distill:steps=60:lr={rate!r}:loss={'+'.join(result.chose.loss)}").passes[0]
    train(str(Pipeline((result.chose,))), again, rows, net(0))
    assert weights(again) == weights(student)
