"""Where a loss is taken: at the scores behind an output, before Softmax makes probabilities of them."""

from dataclasses import dataclass

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Tensor
from zc.ir.model import Model

_THROUGH = frozenset({"Identity", "QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Cast"})
"""What may stand between Softmax and an output."""
_CHOICE = frozenset({"Softmax", "LogSoftmax", "ArgMax"})


@dataclass(frozen=True)
class Head:
    """A value to train towards."""

    output: str
    """The output that it is for."""
    value: str
    """The scores, or the output itself."""
    axis: int | None
    """Of the classes, where a Softmax or ArgMax says that it holds scores."""


def find_heads(model: Model, wanted: tuple[str, ...] = ()) -> list[Head]:
    """The heads of the model's outputs, or of the named outputs and inner values.

    Raises:
        ZcError: no such value; no output of numbers that a gradient can be taken of.
    """
    values = {t.name: t for node in model.graph.nodes for t in node.outputs if t.name}
    values.update((t.name, t) for t in model.graph.outputs)
    missing = [name for name in wanted if name not in values]
    if missing:
        raise ZcError(f"outputs={missing[0]}: {model.name} has no such value")
    found = [_head(values[name], model.opset) for name in wanted or [o.name for o in model.outputs]]
    heads = [one for one in found if one is not None]
    if not heads:
        raise ZcError(f"{model.name}: no output has floats; name inner values to train towards with outputs=...")
    return heads


def _head(output: Tensor, opset: int) -> Head | None:
    tensor = output
    while tensor.inputs:
        node = tensor.inputs[0]
        if node.op in _CHOICE:
            default = 0 if node.op == "ArgMax" else -1 if opset >= 13 else 1
            return Head(output.name, node.inputs[0].name, int(node.attrs.get("axis", default)))
        if node.op not in _THROUGH:
            break
        tensor = node.inputs[0]
    kind = None if output.dtype is None else np.dtype(output.dtype)
    if kind is not None and kind.kind != "f" and kind.name != "bfloat16":
        return None
    return Head(output.name, output.name, None)
