"""Types and shapes of all values, inferred anew after edits."""

from collections.abc import Iterable
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference

from zc.ir.external import dtype_of
from zc.ir.garbage import without_gc
from zc.ir.graph import Graph, Tensor, Variable
from zc.ir.model import Model


def infer_shapes(model: Model, *, stale: bool = False) -> tuple[str, ...]:
    """Fill in dtype and shape of every value that onnx can infer; the reasons where it could not.

    stale: weights were cut, so shapes that were known before are not to be trusted. Types are kept. Otherwise what the
    file said stays where inference knows nothing (operators of other domains).
    The cost does not depend on the size of the weights.
    """
    with without_gc():
        return _reinfer(model, stale)


def _reinfer(model: Model, stale: bool) -> tuple[str, ...]:
    before: dict[int, tuple[Any, Any]] = {}
    inner = [t for scope in model.scopes() for t in _made_inside(scope, keep_outputs=scope is model.graph)]
    for tensor in inner:
        before[id(tensor)] = (tensor.dtype, None if stale else tensor.shape)
        tensor.shape = None
        if not stale and tensor.info is None:
            tensor.dtype = None
    inferred, problems = _infer(model)
    by_name = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.output)}
    _apply(model.graph, by_name)
    _apply_bodies(model.graph, inferred.graph)
    for tensor in inner:
        dtype, shape = before[id(tensor)]
        tensor.dtype = dtype if tensor.dtype is None else tensor.dtype
        if tensor.shape is None and shape is not None:
            tensor.shape = [None if made_up(d) else d for d in shape]
    return problems


def _made_inside(scope: Graph, keep_outputs: bool) -> Iterable[Variable]:
    """The values that nodes make; what the model's own outputs are is for its users to rely on."""
    ends = {id(t) for t in scope.outputs} if keep_outputs else set()
    for node in scope.nodes:
        for tensor in node.outputs:
            if isinstance(tensor, Variable) and id(tensor) not in ends and tensor.type == "tensor_type" and tensor.name:
                yield tensor


def _infer(model: Model) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    proto = model.to_proto(skeleton=True)
    problems: list[str] = []
    for data_prop in (True, False):
        try:
            return shape_inference.infer_shapes(proto, data_prop=data_prop), tuple(problems)
        except (shape_inference.InferenceError, RuntimeError, ValueError, DecodeError, TypeError) as err:
            problems = [" ".join(str(err).split())]
    return proto, tuple(problems)


def _apply(graph: Graph, infos: dict[str, onnx.ValueInfoProto]) -> None:
    for node in graph.nodes:
        for tensor in node.outputs:
            info = infos.get(tensor.name)
            if not isinstance(tensor, Variable) or info is None:
                continue
            kind = info.type.WhichOneof("value")
            if kind == "tensor_type":
                _fill(tensor, info.type.tensor_type)
            elif kind is not None and tensor.dtype is None and tensor.info is None:  # a sequence, an optional
                tensor.type, tensor.info = kind, info


def _fill(tensor: Variable, part: onnx.TypeProto.Tensor) -> None:
    if tensor.dtype is None and part.elem_type:
        tensor.dtype = dtype_of(part.elem_type)
    if tensor.shape is None and part.HasField("shape"):
        tensor.shape = [_dim(d) for d in part.shape.dim]


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    kind = dim.WhichOneof("value")
    return None if kind is None else (dim.dim_value if kind == "dim_value" else dim.dim_param)


def _apply_bodies(graph: Graph, proto: onnx.GraphProto) -> None:
    for node, node_proto in zip(graph.nodes, proto.node, strict=True):
        for attr in node_proto.attribute:
            body = node.attrs.get(attr.name)
            if isinstance(body, Graph) and attr.type == onnx.AttributeProto.GRAPH:
                _apply(body, {v.name: v for v in (*attr.g.value_info, *attr.g.output)})
                _apply_bodies(body, attr.g)


def made_up(dim: Any) -> bool:
    """Is it a name that onnx's inference invents for a size it cannot tell?

    The next inference gives such a name to another dimension, so none is kept from one to the next.
    """
    return isinstance(dim, str) and dim.startswith("unk__") and dim[5:].isdigit()


def static_shape(tensor: Tensor) -> tuple[int, ...] | None:
    """The shape when every dimension is a known size, else None."""
    if tensor.shape is None or not all(isinstance(d, int) and d >= 0 for d in tensor.shape):
        return None
    return tuple(int(d) for d in tensor.shape)
