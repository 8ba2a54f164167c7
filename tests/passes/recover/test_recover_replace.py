"""What stands behind a learned value is the teacher's own, where that says more."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends import find_target
from zc.data import Samples
from zc.ir.model import Model, from_text
from zc.passes.recover.replace import replace_behind
from zc.pipeline.base import Context, PassResult

Net = Callable[..., Model]
Rows = Callable[..., Samples]
Train = Callable[..., PassResult]


def weight(model: Model, name: str) -> np.ndarray:
    return next(c.values for c in model.constants() if c.name == name)


def replaced(student: Model, teacher: Model, rows: Samples | None, value: str = "r") -> PassResult:
    result = PassResult(changed=False)
    replace_behind(student, teacher, [value], rows, Context(find_target("ort-cpu", None), None, 0, threads=1), result)
    return result


def test_a_spoiled_layer_becomes_the_teachers(net: Net, samples: Rows) -> None:
    teacher, student = net(0), net(0)
    spoiled = next(c for c in student.constants() if c.name == "v")
    spoiled.values = spoiled.values + np.float32(0.3)
    result = replaced(student, teacher, samples(student))
    assert result.changed
    assert np.array_equal(weight(student, "v"), weight(teacher, "v"))
    assert "now the teacher's weights" in result.notes[0].what


def test_a_layer_that_makes_up_for_others_stays(net: Net, samples: Rows) -> None:
    teacher, student = net(0), net(0)
    for name, factor in (("w", 2.0), ("v", 0.5)):
        constant = next(c for c in student.constants() if c.name == name)
        constant.values = constant.values * np.float32(factor)
    before = weight(student, "v")
    result = replaced(student, teacher, samples(student))
    assert not result.changed
    assert np.array_equal(weight(student, "v"), before)
    assert "still its own" in result.notes[0].what


def test_a_bias_that_a_fit_added_becomes_zero(samples: Rows) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,6] x) => (float[N,2] y)
        <float[6,2] w = {1,2,3,4,5,6,7,8,9,10,11,12}BIAS> { r = Relu (x) [last] y = Gemm (r, wMORE) }"""
    teacher = from_text(text.replace("BIAS", "").replace("MORE", ""))
    student = from_text(text.replace("BIAS", ", float[2] b = {1, 1}").replace("MORE", ", b"))
    assert replaced(student, teacher, samples(student)).changed
    assert weight(student, "b").tolist() == [0, 0]


@pytest.mark.parametrize("tail", ["[last] y = MatMul (r, v)", "[other] z = MatMul (r, v) y = Softmax (z)"])
def test_what_the_teacher_does_not_have_is_told(net: Net, samples: Rows, tail: str) -> None:
    student = net(1)
    teacher = net(0, tail=tail)
    if "last" in tail:
        found = next(c for c in student.constants() if c.name == "v")
        found.values = found.values[:, :3]
    result = replaced(student, teacher, samples(student))
    assert not result.changed
    assert "the teacher has nothing like node 'last'" in result.notes[0].what


def test_nothing_is_replaced_behind_an_output(net: Net, samples: Rows) -> None:
    student = net(1)
    assert replaced(student, net(0), samples(student), "y").notes == []


def test_nothing_is_replaced_without_rows_to_judge_by(net: Net) -> None:
    student = net(1)
    result = replaced(student, net(0), None)
    assert not result.changed
    assert "no rows are held back" in result.notes[0].what


def test_distill_towards_an_inner_value_ends_with_the_teachers_head(net: Net, samples: Rows, train: Train) -> None:
    pytest.importorskip("torch", reason="torch is not installed (the extra train)")
    teacher, student = net(0), net(1)
    result = train("distill:outputs=r:steps=300:lr=0.02:loss=logits", student, samples(student), teacher)
    assert np.array_equal(weight(student, "v"), weight(teacher, "v"))
    assert any("now the teacher's weights" in note.what for note in result.notes)
