"""Sizes that shape inference does not find, seen by running the model: at two sizes of every open dimension.

What is the same in both runs counts as fixed. Should that be wrong for other sizes, the proof of the pass is there.
"""

from collections.abc import Mapping

import numpy as np

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.edit import Names
from zc.ir.graph import Array, Node, Tensor, Variable
from zc.ir.model import Model
from zc.pipeline.synthetic import synthetic_samples

ROWS = 4
MAX_VALUES = 4096


def observe_sizes(model: Model) -> bool:
    """Fill in ranks and fixed sizes of the main graph's values. False when nothing was found, or it cannot be run."""
    named = {d for t in model.graph.inputs for d in t.shape or () if isinstance(d, str)}
    stated = {id(t) for t in model.graph.outputs}  # what the model says of its outputs stays
    made = [t for n in model.graph.nodes for t in n.outputs if isinstance(t, Variable) and id(t) not in stated]
    unknown = [t for t in made if _is_open(t, named)]
    if not unknown or len(unknown) > MAX_VALUES:
        return False
    try:
        feeds = next(synthetic_samples(model, ROWS).batches(ROWS))
        runner = Runner(_shapes_of(model, unknown), level="off")
        first, second = runner.run(feeds), runner.run(_halved(model, feeds))
        types = _types_of(model, [t for t in unknown if t.dtype is None])
    except ZcError:
        return False
    found = False
    for tensor, one, two in zip(unknown, first.values(), second.values(), strict=True):
        if one.shape != two.shape:
            continue
        old = [None] * len(one) if tensor.shape is None else list(tensor.shape)
        same = [int(a) if a == b else d for a, b, d in zip(one, two, old, strict=True)]
        tensor.dtype = types.get(tensor.name) if tensor.dtype is None else tensor.dtype
        if tensor.dtype is not None:
            found |= tensor.shape is None or same != old
            tensor.shape = same
    return found


def _is_open(tensor: Variable, named: set[str]) -> bool:
    if tensor.type != "tensor_type" or not tensor.name:
        return False
    return tensor.shape is None or any(d is None or (isinstance(d, str) and d not in named) for d in tensor.shape)


def _shapes_of(model: Model, tensors: list[Variable]) -> Model:
    """A copy that returns the shapes of the values instead of its outputs."""
    copy = model.copy()
    names = Names(copy.graph)
    by_name = {t.name: t for node in copy.graph.nodes for t in node.outputs}
    outputs: list[Tensor] = []
    for tensor in tensors:
        result = Variable(names.take("shape"), np.dtype(np.int64), [None])
        copy.graph.nodes.append(Node("Shape", names.take("shape_of"), {}, [by_name[tensor.name]], [result]))
        outputs.append(result)
    copy.graph.outputs = outputs
    return copy


def _types_of(model: Model, tensors: list[Variable]) -> dict[str, np.dtype]:
    """Element types as onnxruntime infers them."""
    if not tensors:
        return {}
    session = Runner(model, outputs=[t.name for t in tensors], level="off").session
    return {o.name: np.dtype(_TYPES[o.type]) for o in session.get_outputs() if o.type in _TYPES}


_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


def _halved(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The same feeds with half as much along every open dimension."""
    result = {}
    for spec in model.inputs:
        array = feeds[spec.name]
        for axis, dim in enumerate(spec.shape or ()):
            if not isinstance(dim, int):
                array = array.take(range(-(-array.shape[axis] // 2)), axis=axis)
        result[spec.name] = np.ascontiguousarray(array)
    return result
