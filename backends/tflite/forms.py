"""Forms of a file: weights in half precision, weights as codes for kernels that round activations when they run."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from zc.backends.tflite.flat import FlatGraph, FlatOp, FlatTensor, Quant

Form = Literal["float32", "float16", "dynamic"]

DYNAMIC_LEAST = 1024
"""Numbers below which a weight stays float in a dynamic-range file: it saves nothing there, and costs accuracy."""

_CHANNEL = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}
"""Operators whose kernels take int8 weights beside float data, and the dimension of the weight that is the channel."""


def half_weights(graph: FlatGraph) -> None:
    """Store float constants as float16; a DEQUANTIZE in front of each turns them into float32 once.

    Numbers that float16 cannot hold stay as they are.
    """
    _store(graph, lambda tensor, readers: _half(tensor), "half")


def dynamic_weights(graph: FlatGraph) -> int:
    """Weights of convolutions and products as int8, symmetric, by channel; activations are rounded at run time.

    Returns how many weights were coded.
    """
    done: dict[int, FlatTensor] = {}
    readers = graph.readers()
    for op in graph.ops:
        axis = _CHANNEL.get(op.code)
        weight = op.inputs[1] if axis is not None and len(op.inputs) > 1 else None
        data = op.inputs[0]
        if axis is None or weight is None or data is None or data.dtype != np.float32 or _grouped(op):
            continue
        stored = _stored_codes(graph, weight, axis)
        if stored is None and (weight.data is None or weight.data.size < DYNAMIC_LEAST or weight.dtype != np.float32):
            continue
        if stored is None and any(
            _CHANNEL.get(r.code) != axis or r.inputs[1] is not weight for r in readers[id(weight)]
        ):
            continue
        if id(weight) not in done:
            done[id(weight)] = stored or _coded(weight, axis)
        op.inputs[1] = done[id(weight)]
        if op.code == "FULLY_CONNECTED":
            op.options["asymmetricQuantizeInputs"] = True
    return len(done)


def _grouped(op: FlatOp) -> bool:
    data, weight = op.inputs[0], op.inputs[1]
    return op.code == "CONV_2D" and data is not None and weight is not None and data.shape[-1] != weight.shape[-1]


def _stored_codes(graph: FlatGraph, weight: FlatTensor, axis: int) -> FlatTensor | None:
    """The codes that a weight is made of when the file is opened, if the kernels take them."""
    maker = graph.producers().get(id(weight))
    source = maker.inputs[0] if maker is not None and maker.code == "DEQUANTIZE" else None
    if source is None or not source.constant or source.quant is None or source.quant.zero.any():
        return None
    return source if not source.quant.per_channel or source.quant.axis == axis else None


def _coded(weight: FlatTensor, axis: int) -> FlatTensor:
    assert weight.data is not None
    others = tuple(i for i in range(weight.data.ndim) if i != axis)
    largest = np.abs(weight.data).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    codes = np.clip(np.rint(weight.data / scale), -127, 127).astype(np.int8)
    flat = scale.reshape(-1)
    return FlatTensor(
        weight.name, weight.shape, np.dtype(np.int8), Quant(flat, np.zeros(flat.shape, np.int64), axis), codes
    )


def _half(tensor: FlatTensor) -> FlatTensor | None:
    data = tensor.data
    if data is None or tensor.dtype != np.float32 or not np.isfinite(data).all() or np.abs(data).max(initial=0) > 65504:
        return None
    return FlatTensor(f"{tensor.name}_half", tensor.shape, np.dtype(np.float16), None, data.astype(np.float16))


def _store(graph: FlatGraph, form: Callable[[FlatTensor, list[FlatOp]], FlatTensor | None], stem: str) -> None:
    made: list[FlatOp] = []
    replaced: dict[int, FlatTensor] = {}
    for id_, ops in graph.readers().items():
        tensor = next(t for t in ops[0].inputs if t is not None and id(t) == id_)
        stored = form(tensor, ops) if tensor.data is not None and tensor.data.ndim > 0 else None
        if stored is None:
            continue
        numbers = FlatTensor(tensor.name, tensor.shape, tensor.dtype)
        made.append(FlatOp("DEQUANTIZE", [stored], [numbers], {}, stem))
        replaced[id_] = numbers
    for op in graph.ops:
        op.inputs = [replaced.get(id(t), t) for t in op.inputs]
    graph.ops[:0] = made
