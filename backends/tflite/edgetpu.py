"""Coral Edge TPU as a place of deployment: an int8 .tflite for its compiler, and what that compiler will make of it.

The compiler maps the operators from the first on; the first that it cannot map sends itself and all behind it to the
CPU. Its rules are those of "TensorFlow models on the Edge TPU" (coral.ai), sections "Model requirements" and
"Supported operations", as of compiler version 16.
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
CACHING = f"{SOURCE}, Parameter data caching"

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
            fix = f"state the shape, in ONNX's order of axes: --shape {name}=1,..."
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
    for tensor in tensors:
        if tensor.quant is not None and not tensor.constant and any(d != 1 for d in tensor.shape[:-3]):
            return f"'{tensor.name}' is {list(tensor.shape)}: only the three innermost dimensions may be over 1"
    if op.code not in _SUPPORTED:
        return "the Edge TPU has no such operator"
    test = _SUPPORTED[op.code]
    return test(op) if test is not None else None


def _data(op: FlatOp, position: int = 0) -> FlatTensor:
    return cast(FlatTensor, op.inputs[position])


def _dilated(op: FlatOp) -> Break:
    both = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    return "its dilations differ in height and width" if both[0] != both[1] else None


def _joined(op: FlatOp) -> Break:
    constants = [t for t in op.inputs if t is not None and t.data is not None]
    if constants and (len(op.inputs) != 2 or any(t.data.any() for t in constants if t.data is not None)):
        return "of its inputs one is a constant that is not zero, or one of more than two"
    return None


def _vector(op: FlatOp) -> Break:
    shape = op.outputs[0].shape
    return f"its output {list(shape)} has more than one dimension over 1" if sum(d != 1 for d in shape) > 1 else None


def _axes(op: FlatOp) -> list[int]:
    axes = _data(op, 1).data
    return [] if axes is None else [int(a) for a in axes.reshape(-1)]


def _over_space(op: FlatOp) -> Break:
    if len(_data(op).shape) == 4 and set(_axes(op)) <= {1, 2}:
        return None
    return "it reduces other dimensions than height and width"


def _not_batch(op: FlatOp) -> Break:
    return "it reduces the batch" if 0 in _axes(op) and _data(op).shape[0] != 1 else None


def _padded(op: FlatOp) -> Break:
    pads = _data(op, 1).data
    if pads is not None and len(pads) == 4 and not pads[[0, 3]].any():
        return None
    return "it pads other dimensions than height and width"


def _slope(op: FlatOp) -> Break:
    return "its slope has more than one dimension" if sum(d != 1 for d in _data(op, 1).shape) > 1 else None


def _softmax(op: FlatOp) -> Break:
    shape = _data(op).shape
    if sum(d != 1 for d in shape) > 1:
        return f"its input {list(shape)} has more than one dimension over 1"
    return "its input has more than 16,000 numbers" if max(shape) > 16_000 else None


def _strides(op: FlatOp) -> Break:
    steps = _data(op, 3).data
    return None if steps is not None and (steps == 1).all() else "its steps are not 1"


def _requantised(op: FlatOp) -> Break:
    return None if _data(op).quant is not None else "it rounds float numbers"


def _resized(op: FlatOp) -> Break:
    return "its batch is over 1" if _data(op).shape[0] != 1 else None


_SUPPORTED: dict[str, Callable[[FlatOp], Break] | None] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1")),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "TRANSPOSE_CONV", "L2_NORMALIZATION", "RSQRT", "TRANSPOSE")),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SPACE_TO_DEPTH", "SLICE", "SPLIT", "PACK")),
    "CONV_2D": _dilated,
    "DEPTHWISE_CONV_2D": _dilated,
    "CONCATENATION": _joined,
    "FULLY_CONNECTED": _vector,
    "MEAN": _over_space,
    "SUM": _not_batch,
    "REDUCE_MAX": _not_batch,
    "REDUCE_MIN": _not_batch,
    "PAD": _padded,
    "PRELU": _slope,
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _strides,
    "QUANTIZE": _requantised,
    "RESIZE_BILINEAR": _resized,
    "RESIZE_NEAREST_NEIGHBOR": _resized,
}
"""What the compiler maps, and what it asks of each."""

_RULES: dict[str, tuple[str, str]] = {
    "FULLY_CONNECTED": ("form", "run one row at a time, as a vector"),
    "SOFTMAX": ("form", "leave it to the caller: the largest logit is the same"),
    "MEAN": ("form", "reduce height and width only"),
    "PAD": ("form", "let the convolution behind it pad, or pad height and width only"),
    "STRIDED_SLICE": ("form", "take steps of 1, or a convolution with a stride"),
    "CONCATENATION": ("form", "keep constants out of it"),
    "PRELU": ("form", "give it one slope for each channel"),
}
"""By operator: the rule that a form of it breaks, and what mends it."""

BACKEND = EdgeTpu()
