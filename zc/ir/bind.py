"""Sizes for dimensions that a model leaves open."""

from collections.abc import Mapping, Sequence

from zc.errors import ZcError, nearest
from zc.ir.graph import Variable
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes


def fix_shapes(model: Model, wanted: Mapping[str, Sequence[int]]) -> None:
    """Give inputs the shapes by their names; a named dimension gets its size everywhere in the signature.

    ZcError names an input that there is not, a rank or a size that contradicts the model, or two sizes for one name.
    """
    inputs = {t.name: t for t in model.graph.inputs if isinstance(t, Variable)}
    named: dict[str, int] = {}
    for name, sizes in wanted.items():
        if name not in inputs:
            raise ZcError(
                f"{model.name}: has no input '{name}'{nearest(name, list(inputs))}; its inputs are {', '.join(inputs)}"
            )
        _match(model, inputs[name], sizes, named)
    for tensor in (*inputs.values(), *model.graph.outputs):
        if isinstance(tensor, Variable) and tensor.shape is not None:
            tensor.shape = [named.get(d, d) if isinstance(d, str) else d for d in tensor.shape]
    for name, sizes in wanted.items():
        inputs[name].shape = list(sizes)
    infer_shapes(model, stale=True)


def _match(model: Model, tensor: Variable, sizes: Sequence[int], named: dict[str, int]) -> None:
    shape = tensor.shape
    if shape is None:
        return
    what = f"{model.name}: input '{tensor.name}' is [{', '.join('?' if d is None else str(d) for d in shape)}]"
    if len(shape) != len(sizes):
        raise ZcError(f"{what}: a shape of {len(sizes)} numbers does not fit it")
    for old, new in zip(shape, sizes, strict=True):
        if isinstance(old, int) and old != new:
            raise ZcError(f"{what}: {new} does not fit where it has {old}")
        if isinstance(old, str) and named.setdefault(old, new) != new:
            raise ZcError(f"{what}: '{old}' cannot be {named[old]} and {new}")
