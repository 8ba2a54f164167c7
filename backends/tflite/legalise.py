"""Brings a model into the form that is lowered: clean, idioms as operators, shapes known where they can be."""

from collections.abc import Mapping

from zc.backends.tflite.targets import TARGET
from zc.ir.bind import fix_shapes
from zc.ir.graph import Variable
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes, static_shape
from zc.measure.bind import measure_shapes
from zc.pipeline.base import Context
from zc.pipeline.registry import find

PASSES = ("clean", "tailor")
"""What a model needs before it is lowered."""


def legalise(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """A copy of the model after those passes; `shapes`: of inputs, where it leaves sizes open.

    Raises:
        ZcError: a shape that does not fit its input.
    """
    model = model.copy()
    if shapes:
        fix_shapes(model, shapes)
    for name in PASSES:
        find(name)().run(model, Context(TARGET))
    return model


def find_shapes(model: Model) -> Model:
    """A copy with the shapes of all values that can be told, if need be by running it once."""
    model = model.copy()
    infer_shapes(model)
    unknown = [t for n in model.graph.nodes for t in n.outputs if t.name and static_shape(t) is None]
    if unknown and all(static_shape(t) is not None for t in model.graph.inputs if isinstance(t, Variable)):
        measure_shapes(model, unknown)
    return model
