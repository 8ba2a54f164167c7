"""Shapes of inputs that a model leaves open are fixed."""

import pytest

from zc.errors import ZcError
from zc.ir.bind import fix_shapes
from zc.ir.model import Model, from_text

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,S,4] x, float[N,?] v) => (float[N,S,4] y, float[N,M] z) { r = Relu (x) y = Tanh (r) z = Relu (v) }"""


@pytest.fixture
def model() -> Model:
    return from_text(TEXT)


def shapes(model: Model) -> dict[str, tuple[object, ...] | None]:
    return {spec.name: spec.shape for spec in (*model.inputs, *model.outputs)}


def test_a_named_dimension_is_fixed_wherever_it_stands(model: Model) -> None:
    fix_shapes(model, {"x": (2, 6, 4)})
    assert shapes(model) == {"x": (2, 6, 4), "v": (2, None), "y": (2, 6, 4), "z": (2, "M")}


def test_values_inside_follow(model: Model) -> None:
    fix_shapes(model, {"x": (2, 6, 4)})
    assert model.graph.nodes[0].outputs[0].shape == [2, 6, 4]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"x": (2, 6, 4), "v": (3, 1)}, r"input 'v' is \[N, \?\]: 'N' cannot be 2 and 3"),
        ({"x": (2, 6, 5)}, r"input 'x' is \[N, S, 4\]: 5 does not fit where it has 4"),
        ({"x": (2, 6)}, "a shape of 2 numbers does not fit it"),
        ({"xx": (2,)}, r"has no input 'xx' \(did you mean 'x'\?\); its inputs are x, v"),
    ],
)
def test_what_contradicts_the_model_is_one_line_and_changes_nothing(model: Model, wanted, message: str) -> None:
    before = shapes(model)
    with pytest.raises(ZcError, match=message):
        fix_shapes(model, wanted)
    assert shapes(model) == before
