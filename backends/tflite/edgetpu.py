"""Coral Edge TPU as a place of deployment: an int8 .tflite for its compiler, and what that compiler will make of it.

The compiler maps the operators from the first on; the first that it cannot map sends itself and all behind it to the
CPU. Its rules are those of "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro), sections "Model
requirements" and "Supported operations", as of compiler version 16 and runtime version 14. Two of them are left to the
compiler, because the page gives no numbers: large reshapes and resizes "might not be mapped".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np

from zc.backends.base import Engine, NotHere, Prediction
from zc.backends.rules import Severity, Violation
from zc.backends.tflite.backend import Tflite
from zc.backends.tflite.flat import FlatGraph, FlatOp, FlatTensor
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.targets import EDGETPU
from zc.ir.model import Model
from zc.target import Target

SOURCE = "coral.ai, TensorFlow models on the Edge TPU"
REQUIREMENTS = f"{SOURCE}, Model requirements"
OPERATIONS = f"{SOURCE}, Supported operations"
CACHING = "coral.ai, Edge TPU Compiler, Parameter data caching"

CACHE = 8 * 2**20
"""Bytes of memory on the chip; the program and the activations take a part of it."""

Break = str | None
"""Why an operator is not mapped, or None."""


@dataclass(frozen=True)
class EdgeTpu(Tflite):
    """Coral Edge TPU: a TFLite file in int8 throughout, for `edgetpu_compiler`, with the point where mapping breaks."""

    name: ClassVar[str] = "edgetpu"

    io: Literal["float", "int8"] = "int8"
    whole: bool = True

    @property
    def target(self) -> Target:
        """As tflite, but everything in integers and one scale for the weight of a matrix product."""
        return EDGETPU

    def check(self, model: Model) -> list[Violation]:
        """Nodes without a form in the file, then what the compiler cannot map."""
        found = super().check(model)
        if found:
            return found
        graph = replace(self, io="float").flat(legalise(model)).graph
        return sorted(mapping_breaks(graph), key=lambda one: one.severity != "error")

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """NotHere: this needs the device and its compiler."""
        raise NotHere(f"{path}: there is no Edge TPU here, and its compiler is not part of zc")

    def stand_in(self, path: Path, threads: int | None = None) -> Engine:
        """LiteRT, which computes the same codes."""
        return LiteRtRunner(path, threads=threads or 1)

    def predict(self, model: Model) -> Prediction:
        """Which operators come before the first that is not mapped."""
        graph = replace(self, io="float").flat(model).graph
        mapped: dict[str, None] = {}
        floats: dict[str, str] = {}
        because = ""
        for op in _computing(graph):
            why = because or breaks(op)
            if not why:
                mapped[op.origin] = None
                continue
            because = because or f"runs on the CPU, behind {op.origin} ({why})"
            floats.setdefault(op.origin, why)
        return Prediction(tuple(mapped), (), tuple((k, v) for k, v in floats.items() if k not in mapped))


def mapping_breaks(graph: FlatGraph) -> Iterator[Violation]:
    """Every operator that is not mapped, in order, and whether the weights of those that are fit on the chip."""
    for name, tensor in graph.inputs.items():
        if not tensor.static:
            fix = f"state the sizes, in ONNX's order of axes: --shape {name}=1,..."
            yield Violation("open-size", name, "a size is only known at run time", REQUIREMENTS, fix)
            return
    cached, first = 0, True
    for op in _computing(graph):
        why = breaks(op)
        if why is None:
            if first:
                cached += sum(t.data.nbytes for t in op.inputs if t is not None and t.data is not None)
            continue
        rule, fix = _RULES.get(op.code, ("operator", "put it at the end of the model, or compute it outside"))
        if any(t.dtype == np.float32 for t in op.outputs):
            rule, fix = "float", "quantise with --target edgetpu; operators in float never map"
        severity: Severity = "error" if first and rule == "float" and op is next(_computing(graph)) else "slow"
        where = "the first that breaks the mapping: it and all behind it run on the CPU" if first else "on the CPU"
        yield Violation(rule, op.origin, f"{op.code}: {why}; {where}", OPERATIONS, fix, severity)
        first = False
    if cached > CACHE:
        what = f"weights of mapped operators take {cached / 2**20:.1f} MiB of {CACHE / 2**20:.0f} on the chip"
        fix = "prune channels, or split the model over several devices (edgetpu_compiler --num_segments)"
        yield Violation("memory", "the model", f"{what}; the rest is sent anew at every run", CACHING, fix, "slow")


def _computing(graph: FlatGraph) -> Iterator[FlatOp]:
    """The operators between the rounding of inputs and the making of numbers for outputs."""
    readers = graph.readers()
    inputs = {id(t) for t in graph.inputs.values()}
    for op in graph.ops:
        if op.code == "QUANTIZE" and id(op.inputs[0]) in inputs:
            continue
        if op.code == "DEQUANTIZE" and not readers.get(id(op.outputs[0])):
            continue
        yield op


def breaks(op: FlatOp) -> Break:
    """Why the compiler does not map an operator, or None."""
    tensors = [t for t in (*op.inputs, *op.outputs) if t is not None]
    if any(t.dtype == np.float32 for t in tensors):
        return "it computes in float"
    if any(t.dtype == np.int16 for t in tensors):
        return "its activations have 16 bits"
    if op.code not in _SUPPORTED:
        return "the Edge TPU has no such operator"
    test = _SUPPORTED[op.code]
    why = test(op) if test is not None else None
    if why is not None:
        return why
    for tensor in tensors:
        if tensor.quant is not None and not tensor.constant and any(d != 1 for d in tensor.shape[:-3]):
            return f"'{tensor.name}' is {list(tensor.shape)}: only the three innermost dimensions may be over 1"
    return None


def _data(op: FlatOp, position: int = 0) -> FlatTensor:
    return cast(FlatTensor, op.inputs[position])


def _weighted(op: FlatOp) -> Break:
    if any(t is not None and not t.constant for t in op.inputs[1:]):
        return "its weight or bias is computed at run time"
    both = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    return "its dilations differ in height and width" if both[0] != both[1] else None


def _alone(op: FlatOp) -> Break:
    return "an activation is fused into it" if op.options.get("fusedActivationFunction", "NONE") != "NONE" else None


def _joined(op: FlatOp) -> Break:
    constants = [t for t in op.inputs if t is not None and t.data is not None]
    if constants and (len(op.inputs) != 2 or any(t.data.any() for t in constants if t.data is not None)):
        return "of its inputs one is a constant that is not zero, or one of more than two"
    return _alone(op)


def _vector(op: FlatOp) -> Break:
    if not _data(op, 1).constant:
        return "its weight is computed at run time"
    shape = op.outputs[0].shape
    return f"its output {list(shape)} has more than one dimension over 1" if sum(d != 1 for d in shape) > 1 else None


def _axes(op: FlatOp) -> set[int]:
    axes, rank = _data(op, 1).data, len(_data(op).shape)
    return set() if axes is None else {int(a) % rank for a in axes.reshape(-1)}


def _averaged(op: FlatOp) -> Break:
    shape = _data(op).shape
    if len(shape) - 1 in _axes(op) and shape[-1] % 4:
        return f"it reduces {shape[-1]} channels, which is no multiple of 4"
    return _not_batch(op)


def _batched(op: FlatOp, axis: int) -> bool:
    """Is an axis that of the batch, with the three innermost dimensions behind it?"""
    return axis == 0 and len(_data(op).shape) == 4


def _not_batch(op: FlatOp) -> Break:
    return "it reduces the batch" if any(_batched(op, a) for a in _axes(op)) and _data(op).shape[0] != 1 else None


def _padded(op: FlatOp) -> Break:
    pads = _data(op, 1).data
    if pads is None:
        return "its pads are computed at run time"
    return "it pads the batch" if _batched(op, 0) and pads[0].any() else None


def _packed(op: FlatOp) -> Break:
    return "it packs along the batch" if _batched(op, cast(int, op.options.get("axis", 0))) else None


def _parted(op: FlatOp) -> Break:
    axis, data = _data(op).data, _data(op, 1)
    whole = axis is not None and len(data.shape) == 4 and int(axis.reshape(-1)[0]) % 4 == 0
    return "it splits the batch" if whole else None


def _slope(op: FlatOp) -> Break:
    return "its slope has more than one dimension" if sum(d != 1 for d in _data(op, 1).shape) > 1 else None


def _softmax(op: FlatOp) -> Break:
    shape = _data(op).shape
    if sum(d != 1 for d in shape) > 1:
        return f"its input {list(shape)} has more than one dimension over 1"
    return "its input has more than 16,000 numbers" if max(shape) > 16_000 else None


def _strides(op: FlatOp) -> Break:
    steps = _data(op, 3).data
    if steps is None or (steps != 1).any():
        return "its steps are not 1"
    masks = [op.options.get(mask, 0) for mask in ("ellipsisMask", "newAxisMask")]
    return "it has a mask of new axes or an ellipsis" if any(masks) else None


def _transposed(op: FlatOp) -> Break:
    # The shape of the result stands in front of the weight; data is third.
    rest = (op.inputs[i] for i in range(len(op.inputs)) if i != 2)
    return "its weight or bias is computed at run time" if any(t and not t.constant for t in rest) else None


def _requantised(op: FlatOp) -> Break:
    return None if _data(op).quant is not None else "it rounds float numbers"


def _resized(op: FlatOp) -> Break:
    return "its batch is over 1" if _data(op).shape[0] != 1 else None


_SUPPORTED: dict[str, Callable[[FlatOp], Break] | None] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1")),
    **dict.fromkeys(("L2_NORMALIZATION", "RSQRT", "SQUARED_DIFFERENCE", "TRANSPOSE", "SPACE_TO_DEPTH", "SLICE")),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _weighted),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _alone),
    **dict.fromkeys(("SUM", "REDUCE_MAX", "REDUCE_MIN"), _not_batch),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resized),
    "TRANSPOSE_CONV": _transposed,
    "CONCATENATION": _joined,
    "FULLY_CONNECTED": _vector,
    "MEAN": _averaged,
    "PACK": _packed,
    "PAD": _padded,
    "PRELU": _slope,
    "SOFTMAX": _softmax,
    "SPLIT": _parted,
    "STRIDED_SLICE": _strides,
    "QUANTIZE": _requantised,
}
"""What the compiler maps, and what it asks of each."""

_RULES: dict[str, tuple[str, str]] = {
    "FULLY_CONNECTED": ("form", "run one row at a time, as a vector"),
    "SOFTMAX": ("form", "leave it to the caller: the largest logit is the same"),
    "MEAN": ("form", "reduce height and width, or a multiple of 4 channels"),
    "PAD": ("form", "pad every dimension but the batch"),
    "SPLIT": ("form", "split the channels, or height and width"),
    "PACK": ("form", "pack along the channels, or height and width"),
    "AVERAGE_POOL_2D": ("form", "put the activation in front of the pool"),
    "MAX_POOL_2D": ("form", "put the activation in front of the pool"),
    "STRIDED_SLICE": ("form", "take steps of 1, or a convolution with a stride"),
    "CONCATENATION": ("form", "keep constants out of it"),
    "PRELU": ("form", "give it one slope for each channel"),
}
"""By operator: the rule that a form of it breaks, and what mends it."""

BACKEND = EdgeTpu()
