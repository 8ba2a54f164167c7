"""The mutable graph: onnx-graphsurgeon's classes with identity semantics, linear-time edits and nothing lost.

Everything that works on an onnx-graphsurgeon graph works on these. What differs:

- tensors and nodes compare and hash by identity (there: by name, by value), so they go into sets and dictionaries;
- unlinking costs constant time (`zc.ir.links`), `toposort` is iterative and keeps the order, `layer` does not rescan;
- what ONNX stores beside the computation (doc strings, metadata, denotations, declared initializers) has a field here.

Weights are never edited in place: assign a new array. Loaded arrays are read-only, so that copies can share them.
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.util.misc import SynchronizedList

from zc.errors import ZcError
from zc.ir.links import Consumers, Links

Array = npt.NDArray[Any]
Tensor = gs.Tensor


def _identical(self: object, other: object) -> bool:
    return self is other


class Variable(gs.Variable):
    """A value known only at run time. `info` is the value_info it was loaded with (denotations, non-tensor types)."""

    info: onnx.ValueInfoProto | None = None

    def __init__(self, name: str, dtype: Any = None, shape: Any = None, type: str = "tensor_type") -> None:  # noqa: A002
        super().__init__(name, dtype, shape, type)
        _own_links(self)

    __eq__ = _identical
    __hash__ = object.__hash__

    def to_constant(self, values: Array, export_dtype: Any = None) -> "Constant":
        """Turn this value into a constant in place, as in onnx-graphsurgeon; its producers stay linked."""
        for field in ("dtype", "shape", "type", "info"):
            self.__dict__.pop(field, None)
        own = cast(Any, self)
        own.__class__ = Constant
        own._values, own.data_location, own._export_dtype = values, None, export_dtype
        return cast(Constant, own)

    def copy(self) -> "Variable":
        """A copy without edges."""
        new = Variable(self.name, self.dtype, None if self.shape is None else list(self.shape), self.type)
        new.info = self.info
        return new


class Constant(gs.Constant):
    """A value known now. Its array is read from the file on first use (`values`); `shape` and `dtype` cost nothing."""

    doc: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    def __init__(self, name: str, values: Any, data_location: int | None = None, export_dtype: Any = None) -> None:
        super().__init__(name, values, data_location, export_dtype)
        _own_links(self)

    __eq__ = _identical
    __hash__ = object.__hash__

    @property
    def values(self) -> Array:
        """The array, read-only when it came from a file."""
        if isinstance(self._values, LazyValues):
            self._values = self._values.load()
        return cast(Array, self._values)

    @values.setter
    def values(self, values: Array) -> None:
        self._values = values
        self.data_location = None

    @property
    def lazy(self) -> Any:
        """What stands for the array while it has not been read, else None."""
        return self._values if isinstance(self._values, LazyValues) else None

    @property
    def nbytes(self) -> int:
        """Size of the array in memory."""
        return int(self._values.nbytes)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def to_variable(self, dtype: Any = None, shape: Any = ()) -> Variable:
        """Turn this constant into a run-time value in place."""
        var_dtype = self.dtype if dtype is None else dtype
        for field in ("_values", "_export_dtype", "data_location", "doc", "metadata"):
            self.__dict__.pop(field, None)
        own = cast(Any, self)
        own.__class__ = Variable
        own.dtype, own.shape, own.type = var_dtype, list(shape), "tensor_type"
        return cast(Variable, own)

    def copy(self) -> "Constant":
        """A copy without edges; the array is shared."""
        new = Constant(self.name, self._values)
        new.doc, new.metadata = self.doc, self.metadata
        return new


class Node(gs.Node):
    """One operation. Attribute values: int, float, str, bytes, lists of them, `Constant`, `Graph`, or, for the kinds that
    onnx-graphsurgeon has no form for, the AttributeProto itself.
    """  # noqa: D205

    doc: str = ""
    overload: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    def __init__(
        self,
        op: str,
        name: str | None = None,
        attrs: dict[str, Any] | None = None,
        inputs: Any = None,
        outputs: Any = None,
        domain: str | None = None,
    ) -> None:
        super().__init__(op, name, attrs, (), (), domain)
        cast(Any, self.inputs).__class__ = Links
        cast(Any, self.outputs).__class__ = Links
        self.inputs.extend(inputs or ())
        self.outputs.extend(outputs or ())

    __eq__ = _identical
    __hash__ = object.__hash__

    @property
    def standard(self) -> bool:
        """Is this an operator of ONNX itself?"""
        return self.domain in (None, "", "ai.onnx")

    def __repr__(self) -> str:
        return f"<{self.op} {self.name!r}>"

    __str__ = __repr__


class Graph(gs.Graph):
    """A graph or a subgraph body. `declared` are the initializers that the file listed here, used or not."""

    declared: list[Constant]
    metadata: tuple[tuple[str, str], ...] = ()
    quantization: tuple[onnx.TensorAnnotation, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.declared = []

    __eq__ = _identical
    __hash__ = object.__hash__

    def toposort(self, *args: Any, **kwargs: Any) -> "Graph":
        """Sort nodes so that each stands after what it needs; order is kept where it may be. See `zc.ir.edit.sort_nodes`."""
        from zc.ir.edit import sort_nodes

        for scope in [self, *self.functions]:
            sort_nodes(scope)
        return self

    def _generate_name(self, prefix: str, existing_names: set[str]) -> str:
        """Keep the set of names between calls: `layer` then costs constant time."""
        return self._fresh().take(prefix)

    def _fresh(self) -> Any:
        from zc.ir.edit import Names

        names = self.__dict__.get("_names")
        if names is None:
            names = self.__dict__["_names"] = Names(self)
        return names

    def layer(self, inputs: Any = None, outputs: Any = None, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Add a node, as in onnx-graphsurgeon: tensors, name stems, arrays and lists of numbers are taken as inputs."""
        ins = [self._as_input(one) for one in inputs or ()]
        outs = [one if isinstance(one, Tensor) else Variable(self._fresh().take(one)) for one in outputs or ()]
        kwargs.setdefault("name", self._fresh().take("node"))
        node = Node(*args, **kwargs, inputs=ins, outputs=outs)
        self.nodes.append(node)
        return list(node.outputs)

    def _as_input(self, one: Any) -> Tensor:
        if isinstance(one, Tensor):
            return one
        if isinstance(one, str):
            return Variable(self._fresh().take(one))
        if isinstance(one, np.ndarray):
            return Constant(self._fresh().take("constant"), one)
        flat = one if isinstance(one, list | tuple) else [one]
        dtype = np.float32 if any(isinstance(x, float) for x in flat) else np.int64
        return Constant(self._fresh().take("constant"), np.array(one, dtype))

    def copy(self, tensor_map: dict[int, Tensor] | None = None) -> "Graph":
        """A copy with nodes, edges and metadata of its own; arrays are shared."""
        return copy_graph(self, {} if tensor_map is None else dict(tensor_map), top=tensor_map is None)

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self.nodes)} nodes>"

    __str__ = __repr__


class Function(gs.Function, Graph):
    """A function of the model: operators of its own, made of others."""

    overload: str = ""
    value_infos: tuple[onnx.ValueInfoProto, ...] = ()

    __eq__ = _identical
    __hash__ = object.__hash__

    @property
    def unique_id(self) -> tuple[str, str]:
        """Domain and name (and overload, where two functions share them)."""
        return (self.domain, f"{self.name}:{self.overload}" if self.overload else self.name)

    def __repr__(self) -> str:
        return f"<Function {self.domain}::{self.name}: {len(self.nodes)} nodes>"

    __str__ = __repr__


def _own_links(tensor: Tensor) -> None:
    cast(Any, tensor.inputs).__class__ = Links
    cast(Any, tensor.outputs).__class__ = Consumers


def scopes(graph: gs.Graph) -> Iterator[Graph]:
    """The graph, the bodies inside it at any depth, then its functions with theirs."""
    for top in [graph, *graph.functions] if not isinstance(graph, gs.Function) else [graph]:
        stack = [top]
        while stack:
            one = stack.pop()
            yield cast(Graph, one)
            stack.extend(reversed(list(one.subgraphs())))


def adopt(graph: gs.Graph) -> Graph:
    """Turn what a custom pass made with plain onnx-graphsurgeon into our classes, in place. Linear."""
    own = {gs.Node: Node, gs.Variable: Variable, gs.Constant: Constant, gs.Graph: Graph, gs.Function: Function}

    def claim(item: Any) -> None:
        wanted = own.get(type(item))
        if wanted is not None:
            item.__class__ = wanted
            if wanted in (Graph, Function):
                item.declared = []
        if isinstance(item, Tensor) and type(item.outputs) is SynchronizedList:
            _own_links(item)

    claim(graph)
    for scope in scopes(graph):
        claim(scope)
        for tensor in [*scope.inputs, *scope.outputs]:
            claim(tensor)
        for node in scope.nodes:
            claim(node)
            if type(node.inputs) is SynchronizedList:
                cast(Any, node.inputs).__class__ = Links
                cast(Any, node.outputs).__class__ = Links
            for value in node.attrs.values():
                if isinstance(value, Tensor | gs.Graph):
                    claim(value)
            for tensor in node.inputs:
                claim(tensor)
            for tensor in node.outputs:
                claim(tensor)
        scope.__dict__.pop("_names", None)  # a custom pass may have added names
    return cast(Graph, graph)


def copy_graph(graph: Graph, copies: dict[int, Tensor], top: bool) -> Graph:
    """`Graph.copy`: `copies` maps the id of each tensor of the outer scopes to its copy, and grows."""

    def tensor(old: Tensor) -> Tensor:
        if old.is_empty():
            return Variable("")
        if id(old) not in copies:
            copies[id(old)] = cast(Any, old).copy()
        return copies[id(old)]

    def attribute(value: Any) -> Any:
        if isinstance(value, Graph):
            return copy_graph(value, copies, top=False)
        return list(value) if type(value) is list else value

    declared = [cast(Constant, tensor(c)) for c in graph.declared if isinstance(c, Constant)]
    nodes: list[gs.Node] = []
    # Producers first: inner scopes must find the copies of what they use from outside.
    for node in graph.nodes:
        for old in (*node.inputs, *node.outputs):
            tensor(old)
    for node in graph.nodes:
        new = Node(
            node.op,
            node.name,
            {k: attribute(v) for k, v in node.attrs.items()},
            [tensor(t) for t in node.inputs],
            [tensor(t) for t in node.outputs],
            node.domain,
        )
        own = cast(Node, node)
        new.doc, new.overload, new.metadata = own.doc, own.overload, own.metadata
        nodes.append(new)
    fields: dict[str, Any] = {
        "nodes": nodes,
        "inputs": [tensor(t) for t in graph.inputs],
        "outputs": [tensor(t) for t in graph.outputs],
        "name": graph.name,
        "doc_string": graph.doc_string,
        "opset": graph.opset,
        "import_domains": graph.import_domains,
        "ir_version": graph.ir_version,
    }
    if isinstance(graph, Function):
        result: Graph = Function(domain=graph.domain, attrs=dict(graph.attrs), **fields)
        result.overload, result.value_infos = graph.overload, graph.value_infos  # type: ignore[attr-defined]
    else:
        result = Graph(**fields)
        if top:
            result.producer_name, result.producer_version = graph.producer_name, graph.producer_version
            result.functions = [cast(Function, copy_graph(cast(Graph, f), {}, top=False)) for f in graph.functions]
    result.declared, result.metadata, result.quantization = declared, graph.metadata, graph.quantization
    return result


def fixed_value(tensor: Tensor, graph: gs.Graph | None = None) -> Array | None:
    """The array of a tensor that can never change at run time, else None.

    A `Constant` that `graph` lists as an input is a default that the caller may override: not fixed.
    """
    if isinstance(tensor, gs.Constant):
        if graph is not None and any(tensor is one for one in graph.inputs):
            return None
        return cast(Constant, tensor).values
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        value = tensor.inputs[0].attrs.get("value")
        if isinstance(value, gs.Constant):
            return cast(Constant, value).values
    return None


def describe(node: gs.Node) -> str:
    """How a message names a node: its name, or its operator and first output when it has none."""
    if node.name:
        return node.name
    return f"{node.op} -> {node.outputs[0].name}" if node.outputs else node.op


def attribute(node: gs.Node, name: str, default: Any) -> Any:
    """An attribute's value or its default. ZcError when it is a reference to a function's parameter."""
    value = node.attrs.get(name, default)
    if isinstance(value, onnx.AttributeProto):
        raise ZcError(f"node '{describe(node)}': attribute '{name}' has no plain value")
    return value
