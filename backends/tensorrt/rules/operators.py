"""Rules on operators, types and shapes: what TensorRT's parser refuses."""

from collections.abc import Iterable
from typing import cast

import numpy as np

from zc.backends.qdq import nodes_of
from zc.backends.rules import Found, Rule, at_nodes
from zc.ir.graph import Constant, Graph, Node, attribute, describe, fixed_value
from zc.ir.model import Model

_TABLE = "onnx-tensorrt, docs/operators.md"
_LIMITS = "TensorRT API reference, Dims::MAX_DIMS"

MOST_DIMS = 8

_INTEGER_OPS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
_MISSING = frozenset(
    {
        *("Bernoulli", "BitShift", "CenterCropPad", "Col2Im", "Compress", "Det", "ImageDecoder", "MaxRoiPool"),
        *("MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
        *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence", "Optional", "OptionalGetElement"),
        *("OptionalHasElement", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"),
        *("TfIdfVectorizer", "Unique"),
    }
)
_RESIZE_MODES = frozenset({"nearest", "linear", "cubic"})
_RESIZE_COORDINATES = frozenset(
    {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"}
)
_TOO_MANY = f"it has more than {MOST_DIMS} dimensions"


def _integer(node: Node) -> str | None:
    if node.op in _INTEGER_OPS or node.op.startswith("QLinear"):
        return f"{node.op} holds its quantisation inside; only QuantizeLinear and DequantizeLinear are read"
    return None


def _dynamic(node: Node) -> str | None:
    return "it takes its scale from the data at every run" if node.op.startswith("DynamicQuantize") else None


def _foreign(node: Node) -> str | None:
    if node.standard or node.op.startswith(("QLinear", "DynamicQuantize")):
        return None
    return f"{node.domain}.{node.op} is no operator of ONNX itself"


def _missing(node: Node) -> str | None:
    return f"TensorRT has no form of {node.op}" if node.op in _MISSING else None


def _spatial(node: Node) -> str | None:
    shape = node.inputs[0].shape
    if shape is not None and len(shape) not in (3, 4, 5):
        return f"it has {len(shape) - 2} spatial dimensions; 1 to 3 have a form"
    return None


def _indices(node: Node) -> str | None:
    if len(node.outputs) > 1 and node.outputs[1].name:
        return "it puts out indices"
    if any(d != 1 for d in attribute(node, "dilations", [])):
        return "it is dilated"
    return None


def _resize(node: Node) -> str | None:
    mode = str(attribute(node, "mode", "nearest"))
    coordinates = str(attribute(node, "coordinate_transformation_mode", "half_pixel"))
    if mode not in _RESIZE_MODES or coordinates not in _RESIZE_COORDINATES:
        return f"it resizes with mode {mode} and coordinates {coordinates}"
    return None


def _topk(node: Node) -> str | None:
    count = fixed_value(node.inputs[1]) if len(node.inputs) > 1 else None
    if count is not None and count.size == 1 and int(count.reshape(-1)[0]) > 3840:
        return f"its K is {int(count.reshape(-1)[0])}"
    return None


def _doubles(model: Model) -> Iterable[Found]:
    for node in nodes_of(model):
        made = [t for t in node.outputs if t.dtype is not None and t.dtype == np.float64]
        if made:
            yield describe(node), f"value '{made[0].name}' is float64"


def _texts(model: Model) -> Iterable[Found]:
    for node in nodes_of(model):
        for tensor in node.outputs:
            if tensor.dtype is not None and np.dtype(tensor.dtype).kind in "OUSc":
                yield describe(node), f"value '{tensor.name}' is {np.dtype(tensor.dtype).name}"


def _dims(model: Model) -> Iterable[Found]:
    for tensor in model.graph.inputs:
        if not isinstance(tensor, Constant) and tensor.shape is not None and len(tensor.shape) > MOST_DIMS:
            yield f"input '{tensor.name}'", _TOO_MANY
    for node in nodes_of(model):
        if any(t.shape is not None and len(t.shape) > MOST_DIMS for t in node.outputs):
            yield describe(node), _TOO_MANY


def _ranks(model: Model) -> Iterable[Found]:
    for tensor in model.graph.inputs:
        if not isinstance(tensor, Constant) and tensor.shape is None:
            yield f"input '{tensor.name}'", "its number of dimensions is not known, so it can have no profile"


def _inputs_uint8(model: Model) -> Iterable[Found]:
    """TensorRT takes uint8 only as input or output, with a Cast right behind it."""
    for tensor in model.graph.inputs:
        if not isinstance(tensor, Constant) and tensor.dtype == np.uint8:
            for node in tensor.outputs:
                if node.op not in {"Cast", "DequantizeLinear"}:
                    yield describe(cast(Node, node)), f"it reads the uint8 input '{tensor.name}'"


def _bodies(model: Model) -> Iterable[Found]:
    for node in nodes_of(model, "If"):
        then, other = (cast(Graph, node.attrs.get(name)) for name in ("then_branch", "else_branch"))
        if then is None or other is None:
            continue
        ranks = [[None if t.shape is None else len(t.shape) for t in body.outputs] for body in (then, other)]
        for i, (one, two) in enumerate(zip(*ranks, strict=False)):
            if one is not None and two is not None and one != two:
                yield describe(node), f"its branches put out {one} and {two} dimensions as output {i}"


OPERATORS: tuple[Rule, ...] = (
    Rule(
        "no-qlinear",
        "Integer operators are written as Q/DQ around float ones.",
        _TABLE,
        "start from the float model and quantise with --target tensorrt",
        at_nodes(_integer),
    ),
    Rule(
        "no-dynamic-quantisation",
        "Scales are constants.",
        _TABLE,
        "quantise statically: zc opt -p quantize --target tensorrt --calib DATA",
        at_nodes(_dynamic),
    ),
    Rule(
        "standard-operators",
        "Every operator is ONNX's own, or a plugin is at hand.",
        "TensorRT documentation, 'Extending TensorRT with Custom Layers'",
        "export without onnxruntime's fused operators, or load a plugin of that name",
        at_nodes(_foreign),
    ),
    Rule(
        "supported-operators",
        "Every operator has a form in TensorRT.",
        _TABLE,
        "take the node out of the model (before or behind it), or write a plugin",
        at_nodes(_missing),
    ),
    Rule(
        "spatial-dims",
        "Convolutions and pools have 1 to 3 spatial dimensions.",
        _TABLE,
        "reshape around the node",
        at_nodes(_spatial, "Conv", "ConvTranspose", "MaxPool", "AveragePool"),
    ),
    Rule(
        "pool-without-indices",
        "MaxPool puts out values alone, undilated.",
        _TABLE,
        "compute indices outside, or write the dilated window as slices",
        at_nodes(_indices, "MaxPool"),
    ),
    Rule(
        "resize-modes",
        "Resize has one of the modes nearest, linear, cubic and a coordinate mode other than tf_crop_and_resize.",
        _TABLE,
        "export with another coordinate_transformation_mode",
        at_nodes(_resize, "Resize"),
    ),
    Rule(
        "topk-limit",
        "TopK keeps at most 3840 values.",
        "TensorRT documentation, operators, TopK",
        "lower K",
        at_nodes(_topk, "TopK"),
    ),
    Rule(
        "no-float64",
        "There are no float64 values.",
        _TABLE,
        "export in float32",
        _doubles,
    ),
    Rule("no-text", "Values are numbers.", _TABLE, "keep text and complex numbers outside of the model", _texts),
    Rule("at-most-8-dims", "A tensor has at most 8 dimensions.", _LIMITS, "merge dimensions with Reshape", _dims),
    Rule(
        "known-ranks",
        "Inputs say how many dimensions they have.",
        "TensorRT documentation, 'Working with Dynamic Shapes'",
        "fix it: --shape INPUT=SIZES",
        _ranks,
    ),
    Rule(
        "uint8-inputs-are-cast",
        "An input of uint8 goes into a Cast first.",
        "TensorRT API reference, DataType::kUINT8",
        "put a Cast to float behind the input",
        _inputs_uint8,
    ),
    Rule(
        "branches-alike",
        "The branches of an If put out tensors of the same rank.",
        _TABLE,
        "fix the condition, or reshape in the branches",
        _bodies,
    ),
)
