"""Sizes for a model's open dimensions, and the shapes of all its values that follow."""

import re
from collections.abc import Iterable, Mapping

from zc.data.batching import batching
from zc.data.synthetic import synthesize
from zc.errors import ZcError, nearest
from zc.execute import Runner
from zc.ir.graph import Array, Tensor, Variable
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes, static_shape

Dims = Mapping[str, int]
"""Size of an open dimension: by its symbol (`S`), or as `input:axis` for one without a name."""


def bind(model: Model, dims: Dims | None = None) -> Model:
    """A copy whose open dimensions have sizes: those of `dims`, and 1 for the batch; shapes are inferred anew.

    A dimension that is neither stays open. Arrays are shared with the original.

    Raises:
        ZcError: a name in `dims` that the inputs do not have, a size below 1, or one that the model fixes otherwise.
    """
    model = model.copy()
    tensors = {t.name: t for t in model.graph.inputs if isinstance(t, Variable)}
    sizes = _symbols(model, dict(dims or {}), tensors)
    for scope in model.scopes():
        for tensor in _variables(scope.inputs, scope.outputs, *(node.outputs for node in scope.nodes)):
            if tensor.shape is not None and any(isinstance(d, str) and d in sizes for d in tensor.shape):
                tensor.shape = [sizes.get(d, d) if isinstance(d, str) else d for d in tensor.shape]
    infer_shapes(model)
    return model


def open_dims(model: Model) -> tuple[str, ...]:
    """The dimensions of the inputs that have no size, as `bind` takes them: `S`, or `input:axis` without a name."""
    found = [
        dim or f"{spec.name}:{axis}"
        for spec in model.inputs
        for axis, dim in enumerate(spec.shape or ())
        if not isinstance(dim, int)
    ]
    return tuple(dict.fromkeys(found))


def sizes_of(model: Model, feed: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that the open dimensions have in a feed, by the names that `bind` takes; at least 1."""
    wanted = set(open_dims(model))
    sizes: dict[str, int] = {}
    for spec in model.inputs:
        for axis, dim in enumerate(spec.shape or ()):
            name = dim if isinstance(dim, str) and dim else f"{spec.name}:{axis}"
            if name in wanted and spec.name in feed:
                sizes.setdefault(name, max(int(feed[spec.name].shape[axis]), 1))
    return sizes


def measure_shapes(model: Model, tensors: Iterable[Tensor]) -> None:
    """Fill in static shapes of values of the main graph by running the model once on synthetic samples of one batch.

    For shapes that depend on arithmetic that inference does not follow. Nothing happens where an input has an open
    dimension or onnxruntime does not run the model.
    """
    wanted = {t.name: t for t in tensors if isinstance(t, Variable) and t.name}
    produced = {t.name for node in model.graph.nodes for t in node.outputs}
    names = [name for name in wanted if name in produced]
    if not names or any(static_shape(t) is None for t in model.graph.inputs if isinstance(t, Variable)):
        return
    try:
        feeds = next(synthesize(model.inputs, 1).batches())
        values = Runner(model, outputs=names, level="off", threads=1).run(feeds)
    except ZcError:
        return
    for name, value in values.items():
        if hasattr(value, "shape"):
            wanted[name].shape = list(value.shape)


def _symbols(model: Model, dims: dict[str, int], tensors: Mapping[str, Variable]) -> dict[str, int]:
    """Size of each symbol; sizes of dimensions without a name are written into the inputs."""
    known = {d for t in tensors.values() for d in t.shape or () if isinstance(d, str)}
    sizes: dict[str, int] = {}
    for key, size in dims.items():
        place = re.fullmatch(r"(.+):(\d+)", key)
        if size < 1:
            raise ZcError(f"{model.name}: dimension '{key}' = {size}: a size is at least 1")
        if key in known:
            sizes[key] = size
        elif place is not None and place[1] in tensors:
            _place(model, tensors[place[1]], int(place[2]), size, sizes)
        else:
            inputs = ", ".join(str(spec) for spec in model.inputs)
            close = nearest(key, sorted(known))
            raise ZcError(f"{model.name}: no open dimension '{key}'{close}; the inputs are {inputs}")
    axes = batching(model.inputs).axes
    for name, tensor in tensors.items():
        axis = axes.get(name)
        if axis is None or tensor.shape is None or axis >= len(tensor.shape):
            continue
        dim = tensor.shape[axis]
        if isinstance(dim, str):
            sizes.setdefault(dim, 1)
        elif dim is None:
            tensor.shape = [1 if i == axis else d for i, d in enumerate(tensor.shape)]
    return sizes


def _place(model: Model, tensor: Variable, axis: int, size: int, sizes: dict[str, int]) -> None:
    shape = tensor.shape
    if shape is None or axis >= len(shape):
        raise ZcError(f"{model.name}: input '{tensor.name}' has no axis {axis}")
    dim = shape[axis]
    if isinstance(dim, int) and dim != size:
        raise ZcError(f"{model.name}: axis {axis} of input '{tensor.name}' is {dim}, it cannot be {size}")
    if isinstance(dim, str):
        sizes[dim] = size
    else:
        tensor.shape = [size if i == axis else d for i, d in enumerate(shape)]


def _variables(*groups: Iterable[Tensor]) -> Iterable[Variable]:
    for group in groups:
        for tensor in group:
            if isinstance(tensor, Variable) and tensor.name:
                yield tensor
