"""Synthetic samples that fit a model: ranges from its own statistics, free dimensions that it runs with."""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from zc.data import Samples, synthesize
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.graph import Array, Tensor, fixed_value
from zc.ir.model import Model

_FREE_SIZES = (None, 32, 64, 128, 224, 256, 512, 8, 1)
_PASS_ON = frozenset({"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose"})


def synthetic_samples(model: Model, rows: int = 32, seed: int = 0, runner: Runner | None = None) -> Samples:
    """Rows that the model runs with. Ranges: embedding sizes, compared constants, BatchNormalization statistics.

    runner: a session on the model, if there is one already.
    ZcError when no size of the free dimensions makes the model run.
    """
    ranges = {t.name: found for t in model.graph.inputs if (found := _range(t)) is not None}
    runner = runner or Runner(model)
    free = sorted({d for spec in model.inputs for d in spec.shape or () if isinstance(d, str)})
    problem = ZcError("")
    for size in _FREE_SIZES:
        dims = {} if size is None else dict.fromkeys(free, size)
        samples = synthesize(model.inputs, rows, seed, hints=ranges, dims=dims)
        try:
            runner.run(next(samples.batches(1)))
        except ZcError as err:
            problem = problem if str(problem) else err
            continue
        return samples
    raise ZcError(f"{model.name}: synthetic samples do not run ({problem}); give real ones with --calib DATA")


def _range(tensor: Tensor) -> tuple[Array, Array] | None:
    """Lowest and highest value that the model says of an input, or None when it says nothing."""
    for node, position in _readers(tensor):
        others = [fixed_value(t) for i, t in enumerate(node.inputs) if i != position]
        if node.op == "Gather" and position == 1 and others[0] is not None:
            axis = int(node.attrs.get("axis", 0))
            return np.array(0), np.array(max(0, others[0].shape[axis] - 1))
        if node.op == "Equal" and others[0] is not None and others[0].dtype.kind in "iu" and others[0].size:
            return others[0].min(), others[0].max()
        if node.op == "BatchNormalization" and position == 0 and others[2] is not None and others[3] is not None:
            mean, deviation = others[2], np.sqrt(np.abs(others[3]))
            shape = (-1,) + (1,) * (len(tensor.shape or ()) - 2)
            return (mean - 3 * deviation).reshape(shape), (mean + 3 * deviation).reshape(shape)
    return None


def _readers(tensor: Tensor) -> Iterator[tuple[gs.Node, int]]:
    """The nodes that read a value, also through nodes that only pass it on, with the position of the input."""
    stack, seen = [tensor], set()
    while stack:
        one = stack.pop()
        for node in one.outputs:
            if id(node) in seen:
                continue
            seen.add(id(node))
            position = next(i for i, t in enumerate(node.inputs) if t is one)
            yield node, position
            if node.op in _PASS_ON and position == 0:
                stack.extend(node.outputs)
