"""Where the batch lies in a model's inputs, and how many rows it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zc.errors import ZcError
from zc.ir.spec import Dim, TensorSpec


@dataclass(frozen=True)
class Batching:
    """The batch axis of each input, and the number of rows that the model demands."""

    axes: Mapping[str, int | None]
    """None: the input is the same for every row (a sampling rate, a threshold)."""
    size: int | None
    """None: any number of rows."""


def batching(inputs: Sequence[TensorSpec]) -> Batching:
    """Read from the shapes.

    The batch is the dimension that some input names 'batch'; without such a name, the first dimension of the first
    input that has one. Another input has it where the same name or size stands, or first, where that is dynamic.

    Raises:
        ZcError: the batch is fixed to no rows.
    """
    shapes = {spec.name: spec.shape for spec in inputs}
    ranked = [shape for shape in shapes.values() if shape]
    named = [dim for shape in ranked for dim in shape if isinstance(dim, str) and "batch" in dim.lower()]
    key: Dim = named[0] if named else ranked[0][0] if ranked else None
    if key == 0:
        name = next(name for name, shape in shapes.items() if shape and shape[0] == 0)
        raise ZcError(
            f"input '{name}' is fixed to a batch of 0 rows, with which nothing runs; make its first axis dynamic"
        )
    axes = {name: _axis(shape, key) for name, shape in shapes.items()}
    return Batching(axes, key if isinstance(key, int) else None)


def _axis(shape: tuple[Dim, ...] | None, key: Dim) -> int | None:
    if shape is None:
        return 0
    if not shape:
        return None
    if key is not None and shape[0] != key and shape.count(key) == 1:
        return shape.index(key)
    return 0 if shape[0] == key or not isinstance(shape[0], int) else None


def require_tensors(inputs: Sequence[TensorSpec]) -> None:
    """ZcError for an input that no array can feed."""
    for spec in inputs:
        if spec.dtype is None:
            raise ZcError(f"input '{spec.name}' is not a tensor (a sequence, map or optional); samples cannot feed it")


def fits(shape: Sequence[int], wanted: Sequence[Dim]) -> bool:
    """Whether an array of this shape is one that the model takes."""
    return len(shape) == len(wanted) and all(
        not isinstance(dim, int) or dim == size for size, dim in zip(shape, wanted, strict=True)
    )
