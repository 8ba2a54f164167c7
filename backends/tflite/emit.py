"""A model as the bytes of a .tflite file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from zc import __version__
from zc.backends.tflite.flat import FlatGraph
from zc.backends.tflite.flatbuffer import write
from zc.backends.tflite.forms import Form, dynamic_weights, half_weights
from zc.backends.tflite.legalise import find_shapes, legalise
from zc.backends.tflite.litert import ENDS
from zc.backends.tflite.lower import End, Lowered, lower
from zc.backends.tflite.tidy import codes_at_ends, tidy
from zc.errors import ZcError
from zc.ir.model import Model

SIGNATURE = "serving_default"
"""The signature that runtimes take when none is named."""


@dataclass(frozen=True)
class TfliteOptions:
    """How a file is written. Whether it computes in integers is the model's to say: by QuantizeLinear and its like."""

    form: Form = "float32"
    """Float weights as they are; as float16; or as int8 for kernels that round activations when they run (dynamic)."""
    ends: Literal["float", "int8"] = "float"
    """Inputs and outputs of a quantised model as numbers, or as codes."""
    order: Literal["nhwc", "onnx"] = "nhwc"
    """Images at the ends of the file channels last, as LiteRT computes; or in ONNX's order, behind a transpose."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs that the model leaves open."""
    signature: str = SIGNATURE
    """Name of the signature."""
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    """Further metadata buffers, by name."""


@dataclass
class Flat:
    """A model lowered, before it is bytes."""

    lowered: Lowered
    notes: list[str] = field(default_factory=list)
    """What the user must hear."""

    @property
    def graph(self) -> FlatGraph:
        """The graph of the file."""
        return self.lowered.flat


def flatten(model: Model, options: TfliteOptions | None = None) -> Flat:
    """The graph of the file for a legalised model, which is left as it is.

    Raises:
        NoForm: an operator, or what it asks for, has no form in TFLite.
        ZcError: sizes that must be known are open.
    """
    options = options or TfliteOptions()
    lowered = lower(find_shapes(model), options.signature, keep_order=options.order == "onnx")
    notes: list[str] = []
    tidy(lowered.flat)
    if options.form == "float16":
        half_weights(lowered.flat)
    elif options.form == "dynamic":
        if not dynamic_weights(lowered.flat):
            notes.append("no weight is large enough for int8; the file is as in float32")
        tidy(lowered.flat)
    if options.ends == "int8":
        left = codes_at_ends(lowered.flat)
        if left:
            raise ZcError(
                f"{model.name}: {', '.join(left)} cannot be int8: what reads or makes it computes in float; "
                "quantise for them (zc opt -p quantize --target tflite:io=int8), or leave the ends float"
            )
    return Flat(lowered, notes)


def to_tflite(model: Model, options: TfliteOptions | None = None) -> bytes:
    """The file of one model, which is legalised first. Errors as `legalise`, `flatten` and `write`."""
    options = options or TfliteOptions()
    return bundle({options.signature: flatten(legalise(model, options.shapes), options)}, options.metadata)


def bundle(parts: Mapping[str, Flat], metadata: Mapping[str, bytes] | None = None) -> bytes:
    """One file of several models, each under a signature of its own; equal weights are stored once."""
    for name, part in parts.items():
        part.graph.name = name
    ends = {
        name: {"inputs": _plainly(part.lowered.inputs), "outputs": _plainly(part.lowered.outputs)}
        for name, part in parts.items()
    }
    own = {ENDS: json.dumps(ends).encode(), "zc_version": __version__.encode()}
    return write([part.graph for part in parts.values()], {**own, **(metadata or {})})


def _plainly(ends: Mapping[str, End]) -> dict[str, dict[str, object]]:
    return {name: {"layout": list(end.layout), "type": end.type} for name, end in ends.items()}
