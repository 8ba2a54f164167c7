"""Graph -> ModelProto. What `zc.ir.importer` keeps comes back, for every object that survived the edits."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, BinaryIO, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto, ValueInfoProto, defs, helper, numpy_helper

from zc.errors import ZcError
from zc.ir.external import LazySparse, LazyTensor, array_chunks, chunks_of, elem_type_of, stored_bytes
from zc.ir.graph import Constant, Function, Graph, Node, Tensor, Variable, describe
from zc.ir.importer import TypedList


class Exporter:
    """Writes graphs into messages. `place` decides how an initializer is written: inline here."""

    def place(self, proto: onnx.GraphProto, constant: Constant) -> None:
        """Put an initializer into the message of its graph."""
        if isinstance(constant.lazy, LazySparse):
            proto.sparse_initializer.append(constant.lazy.tensor)
        else:
            proto.initializer.append(tensor_proto(constant))

    def model(self, graph: Graph) -> onnx.ModelProto:
        """The whole model but for what `Model` adds (versions, metadata)."""
        proto = onnx.ModelProto()
        proto.graph.CopyFrom(self.graph(graph, set()))
        proto.functions.extend(self.function(cast(Function, f)) for f in graph.functions)
        return proto

    def graph(self, graph: Graph, visible: set[int]) -> onnx.GraphProto:
        """A graph or a body; `visible` holds the ids of the initializers of the scopes around it."""
        alive = _alive(graph)
        constants = [c for c in graph.declared if isinstance(c, Constant) and (id(c) in alive or not c.outputs)]
        seen = visible | {id(c) for c in constants}
        for tensor in _direct(graph):
            if isinstance(tensor, Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                constants.append(tensor)
        proto = onnx.GraphProto(name=graph.name, doc_string=graph.doc_string)
        proto.node.extend(self.node(cast(Node, n), seen) for n in graph.nodes)
        for constant in constants:
            self.place(proto, constant)
        proto.input.extend(value_info(t) for t in graph.inputs)
        proto.output.extend(value_info(t) for t in graph.outputs)
        ends = {id(t) for t in (*graph.inputs, *graph.outputs)}
        proto.value_info.extend(value_info(t) for t in _values(graph) if id(t) not in ends)
        _metadata(proto, graph.metadata)
        names = {t.name for t in _direct(graph)} | {c.name for c in constants}
        proto.quantization_annotation.extend(q for q in graph.quantization if q.tensor_name in names)
        return proto

    def node(self, node: Node, visible: set[int]) -> onnx.NodeProto:
        """One node."""
        proto = onnx.NodeProto(op_type=node.op, name=node.name)
        proto.input.extend(t.name for t in node.inputs)
        proto.output.extend(t.name for t in node.outputs)
        if node.domain:
            proto.domain = node.domain
        if node.doc:
            proto.doc_string = node.doc
        if node.overload:
            proto.overload = node.overload
        proto.attribute.extend(self.attribute(node, name, value, visible) for name, value in node.attrs.items())
        _metadata(proto, node.metadata)
        return proto

    def attribute(self, node: Node, name: str, value: Any, visible: set[int]) -> AttributeProto:
        """One attribute, in the type that the operator's schema asks for."""
        if isinstance(value, AttributeProto):
            return value
        attr = AttributeProto(name=name)
        if isinstance(value, gs.Graph):
            attr.type = AttributeProto.GRAPH
            attr.g.CopyFrom(self.graph(cast(Graph, value), visible))
            return attr
        if isinstance(value, gs.Constant):
            attr.type = AttributeProto.TENSOR
            attr.t.CopyFrom(tensor_proto(cast(Constant, value)))
            return attr
        kind = value.kind if isinstance(value, TypedList) and not value else _kind(node, name, value)
        attr.type = kind
        try:
            _fill(attr, kind, value)
        except (TypeError, ValueError) as err:
            raise ZcError(f"node '{describe(node)}': attribute '{name}' cannot hold {value!r}: {err}") from err
        return attr

    def function(self, function: Function) -> onnx.FunctionProto:
        """One function. Constants have no place in it but as Constant nodes."""
        proto = onnx.FunctionProto(name=function.name, domain=function.domain, doc_string=function.doc_string)
        proto.overload = function.overload
        proto.input.extend(t.name for t in function.inputs)
        proto.output.extend(t.name for t in function.outputs)
        proto.opset_import.extend(function.import_domains or ())
        for name, default in function.attrs.items():
            if default is None:
                proto.attribute.append(name)
            else:
                proto.attribute_proto.append(self.attribute(Node("", function.name), name, default, set()))
        made: set[int] = set()
        for tensor in _direct(function):
            if isinstance(tensor, Constant) and id(tensor) not in made:
                made.add(id(tensor))
                node = Node("Constant", attrs={"value": Constant(tensor.name, tensor._values)})
                proto.node.append(self.node(node, made))
                proto.node[-1].output.append(tensor.name)
        proto.node.extend(self.node(cast(Node, n), made) for n in function.nodes)
        proto.value_info.extend(value_info(t) for t in _values(function) if _known(t))
        _metadata(proto, function.metadata)
        return proto


class Skeleton(Exporter):
    """Writes the model without its big weights: they become inputs of their type and shape.

    Enough for checking and shape inference, at a cost that does not grow with the weights.
    """

    limit = 1024  # elements; what shape arithmetic reads is far smaller

    def __init__(self) -> None:
        self.loose: list[ValueInfoProto] = []

    def place(self, proto: onnx.GraphProto, constant: Constant) -> None:
        """Keep small initializers; let the model take big ones as inputs."""
        if constant.size <= self.limit:
            super().place(proto, constant)
        else:
            self.loose.append(value_info(constant))

    def model(self, graph: Graph) -> onnx.ModelProto:
        """The model, big weights among its inputs."""
        proto = super().model(graph)
        listed = {i.name for i in proto.graph.input}
        proto.graph.input.extend(i for i in self.loose if i.name not in listed)
        return proto


class External(Exporter):
    """Writes initializers of at least `limit` bytes into a file beside the model; `write` puts down the collected data."""

    limit = 1024
    align = 4096  # onnxruntime maps big tensors from page boundaries

    def __init__(self, location: str) -> None:
        self.location = location
        self.offset = 0
        self.pieces: list[tuple[int, Constant]] = []

    def place(self, proto: onnx.GraphProto, constant: Constant) -> None:
        """Note where the data will stand."""
        length = stored_bytes(constant.dtype, tuple(constant.shape))
        if length < self.limit or constant.dtype.kind in "OUS" or isinstance(constant.lazy, LazySparse):
            super().place(proto, constant)
            return
        self.offset = -(-self.offset // self.align) * self.align if length >= self.align else -(-self.offset // 64) * 64
        tensor = proto.initializer.add(name=constant.name, data_type=elem_type_of(constant.dtype), dims=constant.shape)
        tensor.doc_string = constant.doc
        _metadata(tensor, constant.metadata)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", self.offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.pieces.append((self.offset, constant))
        self.offset += length

    def write(self, file: BinaryIO) -> None:
        """Stream the data of all noted initializers, a bounded piece at a time."""
        for offset, constant in self.pieces:
            file.write(b"\0" * (offset - file.tell()))
            for piece in chunks_of(constant._values):
                file.write(piece)


def tensor_proto(constant: Constant) -> TensorProto:
    """A constant with its data inside, whatever its type and wherever the data came from."""
    values = constant._values
    if isinstance(values, LazySparse):
        values = values.load()
    if isinstance(values, LazyTensor) and not values.external:
        if values.tensor.name == constant.name:
            return values.tensor
        proto = TensorProto()
        proto.CopyFrom(values.tensor)
        proto.name = constant.name
        return proto
    if not isinstance(values, LazyTensor) and elem_type_of(values.dtype) == TensorProto.STRING:
        proto = numpy_helper.from_array(np.asarray(values, dtype=object), constant.name)
    else:
        proto = TensorProto(name=constant.name, data_type=elem_type_of(values.dtype), dims=values.shape)
        proto.raw_data = b"".join(values.raw_chunks() if isinstance(values, LazyTensor) else array_chunks(values))
    proto.doc_string = constant.doc
    _metadata(proto, constant.metadata)
    return proto


def value_info(tensor: Tensor) -> ValueInfoProto:
    """Type and shape of a value, with the denotations, documentation and metadata that it was loaded with."""
    info = ValueInfoProto()
    old = tensor.info if isinstance(tensor, Variable) else None
    if old is not None:
        info.CopyFrom(old)
    info.name = tensor.name
    kind = tensor.type if isinstance(tensor, Variable) else "tensor_type"
    if kind in ("tensor_type", "sparse_tensor_type") and (tensor.dtype is not None or tensor.shape is not None):
        part = getattr(info.type, kind)
        part.elem_type = 0 if tensor.dtype is None else elem_type_of(tensor.dtype)
        dims = None if tensor.shape is None else list(tensor.shape)
        if dims is None:
            part.ClearField("shape")
        elif not part.HasField("shape") or [_plain(d) for d in part.shape.dim] != dims:
            part.ClearField("shape")
            part.shape.SetInParent()
            for dim in dims:
                _set_dim(part.shape.dim.add(), dim)
    return info


def _plain(dim: Any) -> int | str | None:
    which = dim.WhichOneof("value")
    return getattr(dim, which) if which else None


def _set_dim(proto: Any, dim: Any) -> None:
    if isinstance(dim, str):
        proto.dim_param = dim
    elif dim is not None and dim >= 0:
        proto.dim_value = int(dim)


def _direct(graph: gs.Graph) -> Iterable[Tensor]:
    for node in graph.nodes:
        yield from node.inputs
    yield from graph.outputs
    yield from graph.inputs


def _alive(graph: gs.Graph) -> set[int]:
    alive = {id(t) for t in _direct(graph)}
    for body in graph.subgraphs(recursive=True):
        alive.update(id(t) for t in _direct(body))
    return alive


def _known(tensor: Tensor) -> bool:
    return isinstance(tensor, Variable) and bool(tensor.name) and (
        tensor.dtype is not None or tensor.shape is not None or tensor.info is not None
    )


def _values(graph: gs.Graph) -> list[Tensor]:
    """The values that nodes of this scope make and that have something to tell, each once."""
    return [t for node in graph.nodes for t in node.outputs if _known(t)]


def _metadata(proto: Any, pairs: tuple[tuple[str, str], ...]) -> None:
    for key, value in pairs:
        proto.metadata_props.add(key=key, value=value)


@lru_cache(maxsize=4096)
def _schema_kind(op: str, domain: str, name: str) -> int | None:
    try:
        return int(defs.get_schema(op, domain).attributes[name].type.value)
    except (defs.SchemaError, KeyError):
        return None


def _kind(node: Node, name: str, value: Any) -> int:
    kind = _schema_kind(node.op, node.domain or "", name)
    scalar = not isinstance(value, list | tuple | np.ndarray)
    if kind is not None and (kind in (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS)) != scalar:
        return kind
    sample = value if scalar else (value[0] if len(value) else 0)
    if isinstance(sample, str | bytes):
        return AttributeProto.STRING if scalar else AttributeProto.STRINGS
    if isinstance(sample, float | np.floating) or (not scalar and any(isinstance(v, float | np.floating) for v in value)):
        return AttributeProto.FLOAT if scalar else AttributeProto.FLOATS
    if isinstance(sample, int | np.integer):
        return AttributeProto.INT if scalar else AttributeProto.INTS
    if isinstance(value, type | np.dtype):  # a numpy type, as onnx-graphsurgeon allows for Cast's `to`
        return AttributeProto.INT
    raise ZcError(f"node '{describe(node)}': attribute '{name}' has a value of type {type(value).__name__}; no ONNX form")


def _fill(attr: AttributeProto, kind: int, value: Any) -> None:
    raw = lambda s: s if isinstance(s, bytes) else str(s).encode()  # noqa: E731
    match kind:
        case AttributeProto.FLOAT:
            attr.f = float(value)
        case AttributeProto.INT:
            attr.i = elem_type_of(value) if isinstance(value, type | np.dtype) else int(value)
        case AttributeProto.STRING:
            attr.s = raw(value)
        case AttributeProto.FLOATS:
            attr.floats.extend(float(v) for v in value)
        case AttributeProto.INTS:
            attr.ints.extend(int(v) for v in value)
        case AttributeProto.STRINGS:
            attr.strings.extend(raw(v) for v in value)
        case _:
            attr.CopyFrom(helper.make_attribute(attr.name, value))
