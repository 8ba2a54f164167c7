"""Canonical text of a model: ONNX's own text grammar, made stable and short enough to read in review.

    <
      ir_version: 8,
      opset_import: ["": 17]
    >
    net (float[N,3,32,32] x) => (float[N,16,32,32] y)
    <
      float[16,3,3,3] w = ["location": "sha256:1f2e9a0c44d1"],
      float[16] b = {0.5, 0.25, 0.125, ...},
      float[N,16,32,32] c
    >
    {
      [/conv] c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w, b)
      [/relu] y = Relu (c)
    }

The order of nodes is the model's own; attributes, operator sets and metadata are sorted; initializers stand in the
order of their first use. Weights of more than 16 elements are hashed (in the grammar's form for data that lies
elsewhere, so that the hashed text still is ONNX text) unless they are asked for in full.

What ONNX text has no words for: sparse initializers; attributes that hold lists of tensors, graphs or types, or sparse
tensors; strings that are not UTF-8 or hold a NUL; operators, domains, overloads and attributes whose names are no
identifiers; quantization annotations; training_info. The full form refuses a model that has one; the others name it in
a comment. Documentation it has no place for is left out, and told by `render`: doc strings, metadata and denotations of
nodes, values and tensors, names of bodies and of tensors in attributes.
"""

from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from zc.errors import ZcError
from zc.ir.exporter import Exporter, tensor_proto
from zc.ir.external import digest, elem_type_of
from zc.ir.graph import Constant, Variable
from zc.ir.hashed import HashedTensor, hashed_model, held_constants
from zc.ir.model import Model, parse_proto
from zc.ir.printer import Gaps, Printer
from zc.ir.shapes import infer_shapes

Weights = Literal["hash", "full", "shape"]

SMALL = 16
"""Constants of at most so many elements are printed literally in every form: shapes, pads, scales."""

DIGITS = 12
"""Hexadecimal digits of a weight's sha256 that are printed."""

PROVENANCE = "zc."
"""Metadata keys that say how a model was made begin so."""


def print_model(
    model: Model, *, weights: Weights = "hash", provenance: bool = False, source: Model | None = None
) -> str:
    """The canonical text of a model: equal for equal models, from run to run.

    Args:
        model: the model; it is not changed.
        weights: what stands for weights of more than `SMALL` elements.
            hash: the first digits of their sha256. Never fails.
            full: the numbers; the text parses back (`parse_text`) into an equal model. ZcError naming what ONNX text
            cannot say, if the model has such a thing.
            shape: nothing, and small floats are rounded to 3 digits: for golden files of passes that compute weights in
            floating point, whose last bits differ between processors.
        provenance: print the metadata entries `zc.*`, which say how and from what zc made the model?
        source: with `shape`: a weight that this model holds too, unchanged, keeps its hash.
    """
    return render(model, weights=weights, provenance=provenance, source=source)[0]


def render(
    model: Model, *, weights: Weights = "hash", provenance: bool = False, source: Model | None = None
) -> tuple[str, Gaps]:
    """As `print_model`, and what the text leaves out."""
    held = frozenset(map(short_digest, held_constants(source))) if source is not None else frozenset()
    proto = model._proto(_PLACES[weights](held))
    if not provenance:
        kept = [p for p in proto.metadata_props if not p.key.startswith(PROVENANCE)]
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)
    printer = Printer()
    text = printer.model(proto)
    unsayable = printer.gaps.unsayable
    if weights == "full" and unsayable:
        more = f" (and {len(unsayable) - 1} more)" if len(unsayable) > 1 else ""
        raise ZcError(f"{model.name}: ONNX text cannot say {unsayable[0]}{more}; print it with --weights hash")
    return text, printer.gaps


def with_shapes(model: Model) -> Model:
    """The model with a type and shape on every value for which they can be inferred; those it tells itself stay.

    A copy, or the model itself where nothing is missing or nothing can be inferred (weights are hashed).
    """
    inner = [t for scope in model.scopes() for node in scope.nodes for t in node.outputs]
    hashed = any(isinstance(c.lazy, HashedTensor) for c in model.constants())
    if hashed or all(t.dtype is not None and t.shape is not None for t in inner if t.name):
        return model
    result = model.copy()
    try:
        infer_shapes(result)
    except ZcError:
        return model  # an operator that onnx cannot even look at: the text is as good as the model
    copies = [t for scope in result.scopes() for node in scope.nodes for t in node.outputs]
    for mine, copy in zip(inner, copies, strict=True):
        if isinstance(copy, Variable) and mine.dtype is not None and mine.shape is not None:
            copy.dtype, copy.shape = mine.dtype, mine.shape
    return result


def parse_text(text: str, *, hashed: bool = False) -> Model:
    """The model that a text says. ZcError with the place of a mistake.

    hashed: take hashed weights too. They then have a type, a shape and a digest but no numbers: the model can be
    printed and compared (`zc.ir.diff`), not run or saved. Without it such a text is refused.
    """
    return hashed_model(parse_proto(text), allow=hashed)


def short_digest(constant: gs.Constant) -> str:
    """The digits of a constant's sha256 that the text shows."""
    values = constant._values
    return values.digest or "" if isinstance(values, HashedTensor) else digest(constant)[:DIGITS]


class _Hash(Exporter):
    """Writes weights of more than `SMALL` elements as their digest."""

    def __init__(self, held: frozenset[str]) -> None:
        self.held = held

    def tensor(self, constant: Constant, into: TensorProto) -> None:
        """Put an initializer or a tensor attribute, or what stands for it, into its message."""
        into.CopyFrom(self.stand_in(constant))

    def stand_in(self, constant: Constant) -> TensorProto:
        """A message with the numbers of a small constant, or saying which numbers a big one holds."""
        if constant.size <= SMALL and not isinstance(constant.lazy, HashedTensor):
            return tensor_proto(constant)
        return _elsewhere(constant, self.location(constant))

    def location(self, constant: Constant) -> str:
        """What is said of a weight instead of its numbers."""
        if isinstance(constant.lazy, HashedTensor):
            return constant.lazy.location
        return f"sha256:{short_digest(constant)}"


class _Shape(_Hash):
    """Writes weights as their type and shape, and rounds small floats."""

    def stand_in(self, constant: Constant) -> TensorProto:
        """As in the base class, but for numbers that a pass may have computed."""
        computed = np.dtype(constant.dtype).kind == "f" or constant.dtype == np.int32
        small = constant.size <= SMALL and not isinstance(constant.lazy, HashedTensor)
        if not (small and computed) or short_digest(constant) in self.held:
            return super().stand_in(constant)
        if constant.dtype == np.int32:
            return _elsewhere(constant, "computed")
        rounded = np.array([float(f"{v:.3g}") for v in constant.values.reshape(-1)], constant.dtype)
        return tensor_proto(Constant(constant.name, rounded.reshape(constant.shape)))

    def location(self, constant: Constant) -> str:
        """Its hash if it came from the source unchanged, else only that there are numbers."""
        said = super().location(constant)
        return said if said.removeprefix("sha256:") in self.held else "computed"


class _Full(Exporter):
    """Writes all numbers."""

    def __init__(self, held: frozenset[str]) -> None:
        pass


_PLACES: dict[Weights, Any] = {"hash": _Hash, "full": _Full, "shape": _Shape}


def _elsewhere(constant: Constant, location: str) -> TensorProto:
    proto = TensorProto(name=constant.name, data_type=elem_type_of(constant.dtype), dims=constant.shape)
    proto.doc_string = constant.doc
    for key, value in constant.metadata:
        proto.metadata_props.add(key=key, value=value)
    proto.data_location = TensorProto.EXTERNAL
    proto.external_data.add(key="location", value=location)
    return proto
