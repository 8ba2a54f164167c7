"""Weights of which only the digest is known: what a hashed text says of them."""

import math
from collections.abc import Iterator
from typing import NoReturn

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from zc.errors import ZcError
from zc.ir.external import LazyTensor, dtype_of
from zc.ir.graph import Constant
from zc.ir.model import Model

_REFUSED = "its weights are hashed, so the numbers are not there; print the model with --weights full"


class HashedTensor(LazyTensor):
    """A constant without its numbers. `digest` is None where the text tells no hash either."""

    def __init__(self, tensor: TensorProto, location: str) -> None:
        self.tensor = tensor
        self.folder = None
        self.location = location
        self.digest = location.removeprefix("sha256:") if location.startswith("sha256:") else None
        self.shape = tuple(tensor.dims)
        self.dtype = dtype_of(tensor.data_type)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    @property
    def external(self) -> bool:
        """The message has no data that could be written out."""
        return True

    def load(self) -> NoReturn:
        """ZcError: there is nothing to load."""
        raise ZcError(f"weight '{self.tensor.name}': {_REFUSED}")

    def raw_chunks(self) -> NoReturn:
        """ZcError: there is nothing to read."""
        self.load()


def hashed_model(proto: ModelProto, *, allow: bool) -> Model:
    """The model of a message in which weights may be hashed. ZcError if some are and `allow` is not set.

    The message is changed.
    """
    found = 0
    for tensor in _tensors(proto):
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if tensor.data_location == TensorProto.EXTERNAL and (location.startswith("sha256:") or location == "computed"):
            if not allow:
                raise ZcError(f"ONNX text: weight '{tensor.name}': {_REFUSED}")
            tensor.data_location = TensorProto.DEFAULT  # the location stays, as a mark
            found += 1
    model = Model.from_proto(proto)
    for constant in held_constants(model) if found else ():
        lazy = constant.lazy
        if isinstance(lazy, LazyTensor) and lazy.tensor.external_data and not lazy.external:
            constant._values = HashedTensor(lazy.tensor, lazy.tensor.external_data[0].value)
    return model


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attr in node.attribute:
        if attr.type == AttributeProto.TENSOR:
            yield attr.t
        elif attr.type == AttributeProto.GRAPH:
            yield from _graph_tensors(attr.g)


def held_constants(model: Model) -> Iterator[Constant]:
    """Every initializer, and every tensor that an attribute holds."""
    yield from model.constants()
    for scope in model.scopes():
        for node in scope.nodes:
            yield from (value for value in node.attrs.values() if isinstance(value, Constant))
