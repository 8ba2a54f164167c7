"""Graph -> ModelProto. What `zc.ir.importer` keeps comes back, for every object that survived the edits."""

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto, ValueInfoProto, helper

from zc.errors import ZcError
from zc.ir.attributes import attribute_kind, fill, raw_text
from zc.ir.external import LazySparse, LazyTensor, array_chunks, chunks_of, digest, elem_type_of, stored_bytes
from zc.ir.graph import Constant, Function, Graph, Node, Tensor, Variable, describe

MAX_DEPTH = 30
"""Protobuf refuses messages of more than 100 levels; a body takes three, and what stands in it some more."""


class Exporter:
    """Writes graphs into messages. `place` and `tensor` decide how weights are written: with all data inline here."""

    opset = 0
    depth = 0

    def tensor(self, constant: Constant, into: TensorProto) -> None:
        """Put the data of an initializer or of a tensor attribute into its message."""
        tensor_proto(constant, into)

    def place(self, proto: onnx.GraphProto, constant: Constant) -> None:
        """Put an initializer into the message of its graph."""
        if isinstance(constant.lazy, LazySparse):
            sparse = proto.sparse_initializer.add()
            sparse.CopyFrom(constant.lazy.tensor)
            sparse.values.name = constant.name
        else:
            self.tensor(constant, proto.initializer.add())

    def model(self, graph: Graph) -> onnx.ModelProto:
        """The whole model but for what `Model` adds (versions, metadata)."""
        proto = onnx.ModelProto()
        self.opset = graph.opset
        self.graph(graph, set(), proto.graph)
        for function in graph.functions:
            self.function(cast(Function, function), proto.functions.add())
        return proto

    def graph(self, graph: Graph, visible: set[int], into: onnx.GraphProto | None = None) -> onnx.GraphProto:
        """A graph or a body; `visible` holds the ids of the initializers of the scopes around it."""
        proto = onnx.GraphProto() if into is None else into
        if self.depth > MAX_DEPTH:
            raise ZcError(
                f"graph '{graph.name}': bodies are nested more than {MAX_DEPTH} deep; no ONNX file can hold that"
            )
        proto.name = graph.name
        if graph.doc_string:
            proto.doc_string = graph.doc_string
        constants = initializers(graph, visible)
        mine = {id(c) for c in constants}
        visible |= mine
        self.depth += 1
        for node in graph.nodes:
            self.node(cast(Node, node), visible, proto.node.add())
        self.depth -= 1
        visible -= mine
        for constant in constants:
            self.place(proto, constant)
        for tensor in graph.inputs:
            value_info(tensor, proto.input.add())
        for tensor in graph.outputs:
            value_info(tensor, proto.output.add())
        ends = {id(t) for t in (*graph.inputs, *graph.outputs)}
        for tensor in _values(graph):
            if id(tensor) not in ends:
                value_info(tensor, proto.value_info.add(), end=False)
        _metadata(proto, graph.metadata)
        if graph.quantization:
            names = {t.name for node in graph.nodes for t in (*node.inputs, *node.outputs)}
            names.update(t.name for t in (*constants, *graph.inputs, *graph.outputs))
            proto.quantization_annotation.extend(q for q in graph.quantization if q.tensor_name in names)
        return proto

    def node(self, node: Node, visible: set[int], into: onnx.NodeProto | None = None) -> onnx.NodeProto:
        """One node."""
        proto = onnx.NodeProto() if into is None else into
        proto.op_type = node.op
        if node.name:
            proto.name = node.name
        proto.input.extend([t.name for t in node.inputs])
        proto.output.extend([t.name for t in node.outputs])
        if not node.standard:
            proto.domain = cast(str, node.domain)
        if node.doc:
            proto.doc_string = node.doc
        if node.overload:
            proto.overload = node.overload
        for name, value in node.attrs.items():
            self.attribute(node, name, value, visible, proto.attribute.add())
        for name, text in node.attr_docs:
            for attr in proto.attribute:
                if attr.name == name:
                    attr.doc_string = text
        _metadata(proto, node.metadata)
        return proto

    def attribute(self, node: Node, name: str, value: Any, visible: set[int], attr: AttributeProto) -> None:
        """One attribute, in the type that the operator's schema asks for."""
        if isinstance(value, AttributeProto):
            attr.CopyFrom(value)
            attr.name = name
            return
        attr.name = name
        if isinstance(value, gs.Graph):
            attr.type = AttributeProto.GRAPH
            self.graph(cast(Graph, value), visible, attr.g)
        elif isinstance(value, gs.Constant):
            attr.type = AttributeProto.TENSOR
            self.tensor(cast(Constant, value), attr.t)
        elif type(value) is list and value and isinstance(value[0], gs.Graph):
            attr.type = AttributeProto.GRAPHS
            for body in value:
                self.graph(cast(Graph, body), visible, attr.graphs.add())
        else:
            try:
                kind = attribute_kind(node, name, value, self.opset)
                attr.type = cast(Any, kind)
                fill(attr, kind, value)
            except (TypeError, ValueError) as err:
                raise ZcError(f"node '{describe(node)}': attribute '{name}' cannot hold {value!r}: {err}") from err

    def function(self, function: Function, into: onnx.FunctionProto | None = None) -> onnx.FunctionProto:
        """One function. Constants have no place in it but as Constant nodes."""
        proto = onnx.FunctionProto() if into is None else into
        proto.name, proto.domain = function.name, function.domain
        if function.doc_string:
            proto.doc_string = function.doc_string
        if function.overload:
            proto.overload = function.overload
        proto.input.extend([t.name for t in function.inputs])
        proto.output.extend([t.name for t in function.outputs])
        self.opset = int(function.opset)
        proto.opset_import.extend(imports_of(function))
        for name, default in function.attrs.items():
            if default is None:
                proto.attribute.append(name)
            else:
                self.attribute(Node("", function.name), name, default, set(), proto.attribute_proto.add())
        made: set[int] = set()
        for tensor in _used_below(function):
            if isinstance(tensor, Constant) and id(tensor) not in made:
                made.add(id(tensor))
                node = Node("Constant", attrs={"value": Constant(tensor.name, tensor._values)})
                self.node(node, made, proto.node.add()).output.append(tensor.name)
        for one in function.nodes:
            self.node(cast(Node, one), made, proto.node.add())
        for tensor in (*function.inputs, *_values(function)):
            if _known(tensor):
                value_info(tensor, proto.value_info.add(), end=False)
        _metadata(proto, function.metadata)
        return proto


class Skeleton(Exporter):
    """Writes the model without its big weights: they become inputs of their type and shape.

    Enough for checking and shape inference, at a cost that does not grow with the initializers.
    """

    limit = 1024  # elements; what shape arithmetic reads is far smaller

    def __init__(self) -> None:
        self.loose: list[Constant] = []

    def place(self, proto: onnx.GraphProto, constant: Constant) -> None:
        """Keep small initializers; let the model take as inputs the big ones, and sparse ones.

        onnx's shape inference takes a sparse initializer for a scalar.
        """
        if constant.size <= self.limit and not isinstance(constant.lazy, LazySparse):
            super().place(proto, constant)
        else:
            self.loose.append(constant)

    def model(self, graph: Graph) -> onnx.ModelProto:
        """The model, big weights among its inputs."""
        proto = super().model(graph)
        listed = {i.name for i in proto.graph.input}
        for constant in self.loose:
            if constant.name not in listed:
                listed.add(constant.name)  # two bodies may each have a weight of that name
                value_info(constant, proto.graph.input.add())
        return proto


class Digests(Exporter):
    """Writes the sha256 of each weight where its data would be: equal for equal numbers, however they are stored."""

    def tensor(self, constant: Constant, into: TensorProto) -> None:
        """Name, type, shape and digest."""
        into.name, into.data_type = constant.name, cast(Any, elem_type_of(constant.dtype))
        into.dims.extend(constant.shape)
        into.raw_data = bytes.fromhex(digest(constant))


class External(Exporter):
    """Writes initializers of at least `limit` bytes into a file beside the model; `write` puts down what was noted."""

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


def tensor_proto(constant: Constant, into: TensorProto | None = None) -> TensorProto:
    """A constant with its data inside, whatever its type and wherever the data came from."""
    proto = TensorProto() if into is None else into
    values = constant._values
    if isinstance(values, LazySparse):
        values = values.load()
    if isinstance(values, LazyTensor) and not values.external:
        proto.CopyFrom(values.tensor)
        proto.ClearField("metadata_props")
    else:
        proto.data_type = cast(Any, elem_type_of(values.dtype))
        proto.dims.extend(values.shape)
        if proto.data_type == TensorProto.STRING:
            proto.string_data.extend(raw_text(item) for item in np.asarray(values).reshape(-1))
        elif isinstance(values, LazyTensor):
            proto.raw_data = b"".join(values.raw_chunks())
        else:
            proto.raw_data = b"".join(array_chunks(values))
    if constant.name or proto.name:
        proto.name = constant.name
    if constant.doc or proto.doc_string:
        proto.doc_string = constant.doc
    _metadata(proto, constant.metadata)
    return proto


def value_info(tensor: Tensor, into: ValueInfoProto | None = None, *, end: bool = True) -> ValueInfoProto:
    """Type and shape of a value, with the denotations, documentation and metadata that it was loaded with.

    end: it is an input or output of a graph, whose type must stand there even where only the shape is known.
    """
    info = ValueInfoProto() if into is None else into
    old = tensor.info if isinstance(tensor, Variable | Constant) else None
    if old is not None:
        info.CopyFrom(old)
    if info.name != tensor.name:
        info.name = tensor.name
    kind = tensor.type if isinstance(tensor, Variable) else "tensor_type"
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return info
    dtype, dims = tensor.dtype, None if tensor.shape is None else list(tensor.shape)
    if dtype is None and (not end or (dims is None and not info.type.HasField(cast(Any, kind)))):
        info.ClearField("type")  # a shape without an element type is no type to onnxruntime
        return info
    part = getattr(info.type, kind)
    part.elem_type = 0 if dtype is None else elem_type_of(dtype)
    if dims is None:
        part.ClearField("shape")
    elif not part.HasField("shape") or [_plain(d) for d in part.shape.dim] != dims:
        meanings = [d.denotation for d in part.shape.dim]
        part.ClearField("shape")
        part.shape.SetInParent()
        for i, size in enumerate(dims):
            dim = part.shape.dim.add()
            if len(meanings) == len(dims) and meanings[i]:  # an axis still means what it meant
                dim.denotation = meanings[i]
            _set_dim(dim, size)
    return info


def _plain(dim: Any) -> int | str | None:
    which = dim.WhichOneof("value")
    return getattr(dim, which) if which else None


def _set_dim(proto: Any, dim: Any) -> None:
    if isinstance(dim, str):
        proto.dim_param = dim
    elif dim is not None and dim >= 0:
        proto.dim_value = int(dim)


def imports_of(graph: Graph) -> list[onnx.OperatorSetIdProto]:
    """The operator sets that a model or function imports, and those that passes made it use."""
    versions = {o.domain: o.version for o in graph.import_domains or ()}
    for scope in (graph, *graph.subgraphs(recursive=True)):
        for node in scope.nodes:
            versions.setdefault("" if cast(Node, node).standard else cast(str, node.domain), 1)
    if "" in versions:
        versions[""] = int(graph.opset)
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def initializers(graph: Graph, visible: set[int]) -> list[Constant]:
    """The constants that a graph or body must declare, in the order of the file.

    `visible`: ids of the constants that scopes around it declare. Those that the file declared come first, unless they
    lost their last use; then those that this scope uses; then those that several bodies inside it share.
    """
    alive = {id(t): t for t in _used_below(graph)}
    found = {id(c): c for c in graph.declared if isinstance(c, Constant) and (id(c) in alive or _spare(c))}
    found.update({id(t): t for t in _used_here(graph) if isinstance(t, Constant)})
    found.update({id(c): c for c in _shared(graph, found)})
    return [c for key, c in found.items() if key not in visible]


def _spare(constant: Constant) -> bool:
    return constant.spare and not constant.outputs


def _shared(graph: gs.Graph, known: Container[int]) -> list[Constant]:
    """The constants that several bodies of this scope use: written once here, where all of them see it."""
    uses: Counter[int] = Counter()
    tensors: dict[int, Constant] = {}
    for body in graph.subgraphs():
        inside = {id(t): t for t in _used_below(body) if isinstance(t, Constant) and id(t) not in known}
        uses.update(inside.keys())
        tensors.update(inside)
    shared = [tensors[key] for key, count in uses.items() if count > 1]
    if not shared:
        return []
    owners: dict[str, set[int]] = {}
    for scope in (graph, *graph.subgraphs(recursive=True)):
        for tensor in (*_used_here(scope), *scope.inputs, *(t for n in scope.nodes for t in n.outputs)):
            owners.setdefault(tensor.name, set()).add(id(tensor))
    # A name that stands for something else in one of the bodies cannot be given to a value around them.
    return [c for c in shared if owners[c.name] == {id(c)}]


def _used_here(graph: gs.Graph) -> Iterator[Tensor]:
    for node in graph.nodes:
        yield from node.inputs
    yield from graph.outputs
    yield from graph.inputs


def _used_below(graph: gs.Graph) -> Iterator[Tensor]:
    yield from _used_here(graph)
    for body in graph.subgraphs(recursive=True):
        yield from _used_here(body)


def _known(tensor: Tensor) -> bool:
    if not isinstance(tensor, Variable) or not tensor.name:
        return False
    return tensor.dtype is not None or tensor.info is not None


def _values(graph: gs.Graph) -> list[Tensor]:
    """The values that nodes of this scope make and that have something to tell, each once."""
    return [t for node in graph.nodes for t in node.outputs if _known(t)]


def _metadata(proto: Any, pairs: tuple[tuple[str, str], ...]) -> None:
    for key, value in pairs:
        proto.metadata_props.add(key=key, value=value)
