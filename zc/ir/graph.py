"""The mutable graph: onnx-graphsurgeon's classes with identity semantics, linear-time edits and nothing lost.

Everything that works on an onnx-graphsurgeon graph works on these. What differs:

- tensors and nodes compare and hash by identity (there: by name, by value), so they go into sets and dictionaries;
- unlinking costs constant time (`zc.ir.links`), `toposort` is iterative and keeps the order, `layer` does not rescan;
- what ONNX stores beside the computation (doc strings, metadata, denotations, declared initializers) has a field here.

Weights are never edited in place: assign a new array. Loaded arrays are read-only, so that copies can share them.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from zc.errors import ZcError
from zc.ir import elements
from zc.ir.elements import as_dtype
from zc.ir.links import Consumers, Links

Array = elements.Array
Tensor = gs.Tensor


def _identical(self: object, other: object) -> bool:
    return self is other


def _set_field(self: Any, name: str, value: Any) -> None:
    """Assigning edges replaces them; the lists themselves stay."""
    if name in {"inputs", "outputs"}:
        edges = self.__dict__.get(name)
        if edges is not None:
            if value is not edges:
                new = list(value)
                edges.clear()
                edges.extend(new)
            return
    object.__setattr__(self, name, value)


class TypedList(list[Any]):
    """An empty list attribute: it remembers of what (`kind`, an AttributeProto type)."""

    def __init__(self, kind: int, items: Iterable[Any] = ()) -> None:
        super().__init__(items)
        self.kind = kind


class Variable(gs.Variable):
    """A value known only at run time. `info` is the value_info it was loaded with (denotations, non-tensor types)."""

    info: onnx.ValueInfoProto | None = None

    def __init__(self, name: str, dtype: Any = None, shape: Any = None, type: str = "tensor_type") -> None:  # noqa: A002
        # Straight into the dictionary: onnx-graphsurgeon's __setattr__ is the larger part of reading a model.
        self.__dict__.update(
            name=name,
            inputs=Links(self, "outputs", ()),
            outputs=Consumers(self, "inputs", ()),
            dtype=dtype if dtype is None or isinstance(dtype, np.dtype) else as_dtype(dtype),
            shape=shape,
            type=type,
        )

    __setattr__ = _set_field

    __eq__ = _identical
    __hash__ = object.__hash__

    def to_constant(self, values: Array, export_dtype: Any = None) -> "Constant":
        """Turn this value into a constant in place, as in onnx-graphsurgeon; its producers stay linked."""
        for field in ("dtype", "shape", "type", "info"):
            self.__dict__.pop(field, None)
        own = cast(Any, self)
        own.__class__ = Constant
        own._values, own.data_location, own._export_dtype = _exported(values, export_dtype), None, None
        return cast(Constant, own)

    def copy(self) -> "Variable":
        """A copy without edges."""
        new = Variable(self.name, self.dtype, None if self.shape is None else list(self.shape), self.type)
        if self.info is not None:
            new.__dict__["info"] = self.info
        return new


class Constant(gs.Constant):
    """A value known now. Its array is read from the file on first use (`values`); `shape` and `dtype` cost nothing."""

    doc: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    info: onnx.ValueInfoProto | None = None
    """How the graph lists it as an input, where it does."""
    spare: bool = False
    """Did nothing use it in the file either? Such an initializer is kept; one that lost its last use is not written."""

    def __init__(self, name: str, values: Any, data_location: int | None = None, export_dtype: Any = None) -> None:
        if not isinstance(values, np.ndarray | LazyValues):
            raise ZcError(f"constant '{name}': its values must be an array, not {type(values).__name__}")
        self.__dict__.update(
            name=name,
            inputs=Links(self, "outputs", ()),
            outputs=Consumers(self, "inputs", ()),
            _values=_exported(values, export_dtype),
            data_location=data_location,
            _export_dtype=None,
        )

    __setattr__ = _set_field

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
        if not isinstance(values, np.ndarray | LazyValues):
            raise ZcError(f"constant '{self.name}': its values must be an array, not {type(values).__name__}")
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
        for field in ("_values", "_export_dtype", "data_location", "doc", "metadata", "spare"):
            self.__dict__.pop(field, None)
        own = cast(Any, self)
        own.__class__ = Variable
        own.dtype, own.shape, own.type = as_dtype(var_dtype), list(shape), "tensor_type"
        return cast(Variable, own)

    def copy(self) -> "Constant":
        """A copy without edges; the array is shared."""
        new = Constant(self.name, self._values)
        for field in ("doc", "metadata", "info", "spare"):
            if field in self.__dict__:
                new.__dict__[field] = self.__dict__[field]
        return new


class Node(gs.Node):
    """One operation.

    Attribute values: int, float, str, bytes, lists of them, `Constant`, `Graph`, list of `Graph`; or, for references to
    a function's parameters and the kinds that onnx-graphsurgeon has no form for, the AttributeProto itself.
    """

    doc: str = ""
    overload: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    attr_docs: tuple[tuple[str, str], ...] = ()
    """Doc strings of attributes, by the attribute's name."""

    def __init__(
        self,
        op: str,
        name: str | None = None,
        attrs: dict[str, Any] | None = None,
        inputs: Any = None,
        outputs: Any = None,
        domain: str | None = None,
    ) -> None:
        own = self.__dict__
        own.update(op=op, name=name or "", attrs={} if attrs is None else attrs, domain=domain)
        own["inputs"] = Links(self, "outputs", inputs or ())
        own["outputs"] = Links(self, "inputs", outputs or ())

    __eq__ = _identical
    __hash__ = object.__hash__
    __setattr__ = _set_field

    def take_notes(self, other: "Node") -> None:
        """Take over what ONNX stores beside the computation of another node."""
        for field in ("doc", "overload", "metadata", "attr_docs"):
            if field in other.__dict__:
                self.__dict__[field] = other.__dict__[field]

    def copy(self, inputs: Any = None, outputs: Any = None, tensor_map: Any = None) -> "Node":
        """A node with the same operator and attributes on other values; bodies are copied, what they read stays.

        tensor_map: by id of an outer value, what the bodies of the copy read instead.
        """
        from zc.ir.copying import copy_attribute

        around = {id(t): t for t in _outer_values(self)} | (tensor_map or {})
        attrs = {k: copy_attribute(v, around) for k, v in self.attrs.items()}
        new = Node(self.op, self.name, attrs, inputs, outputs, self.domain)
        new.take_notes(self)
        return new

    def subgraphs(self, recursive: bool = False) -> Iterator[gs.Graph]:
        """The bodies of this node, in the order of its attributes; `recursive`: and those inside them."""
        for value in self.attrs.values():
            for body in value if type(value) is list else (value,):
                if isinstance(body, gs.Graph):
                    yield body
                    if recursive:
                        yield from body.subgraphs(recursive=True)

    @property
    def standard(self) -> bool:
        """Is this an operator of ONNX itself?"""
        return self.domain in (None, "", "ai.onnx")

    def __repr__(self) -> str:
        return f"<{self.op} {self.name!r}>"

    __str__ = __repr__


def _outer_values(node: Node) -> Iterator[Tensor]:
    """The values that the bodies inside a node take from the scopes around it."""
    bodies = [cast(Graph, body) for body in node.subgraphs(recursive=True)]
    own = {
        id(t) for body in bodies for t in (*body.inputs, *body.declared, *(t for n in body.nodes for t in n.outputs))
    }
    read = (t for body in bodies for t in (*body.outputs, *(t for n in body.nodes for t in n.inputs)))
    yield from (t for t in read if t.name and id(t) not in own)


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
        """Put each node after what it needs, keeping the order where it may be kept. See `zc.ir.edit.sort_nodes`."""
        from zc.ir.edit import sort_nodes

        for scope in [self, *self.functions]:
            sort_nodes(scope)
        return self

    def _fresh(self) -> Any:
        """The names in use, kept between calls: `layer` then looks only at the nodes that were added since."""
        from zc.ir.edit import Names

        names, count, last = self.__dict__.get("_names", (None, 0, None))
        if names is None or len(self.nodes) < count or (count and self.nodes[count - 1] is not last):
            names = Names(self)
        else:
            for node in self.nodes[count:]:
                names.see(node)
        self.__dict__["_names"] = (names, len(self.nodes), self.nodes[-1] if self.nodes else None)
        return names

    def layer(self, inputs: Any = None, outputs: Any = None, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Add a node, as in onnx-graphsurgeon: tensors, name stems, arrays and lists of numbers are taken as inputs."""
        ins = [self._as_input(one) for one in inputs or ()]
        outs = [one if isinstance(one, Tensor) else Variable(self._fresh().take(one)) for one in outputs or ()]
        kwargs.setdefault("name", self._fresh().take("node"))
        node = Node(*args, **{**kwargs, "inputs": ins, "outputs": outs})
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

    def __getattr__(self, name: str) -> Any:
        """Functions registered with `gs.Graph.register`; onnx-graphsurgeon prints to stdout about names it has not."""
        opset = self.__dict__.get("opset")
        for registered in (gs.Graph.OPSET_FUNC_MAP.get(opset, {}), gs.Graph.GLOBAL_FUNC_MAP):
            if name in registered:
                return partial(registered[name], self)
        for function in self.__dict__.get("_functions", ()):
            if function.name == name:
                return partial(function, self)
        raise AttributeError(f"a graph has no attribute {name!r}")

    def copy(self, tensor_map: dict[int, Tensor] | None = None) -> "Graph":
        """A copy with nodes, edges and metadata of its own; arrays are shared."""
        from zc.ir.copying import copy_graph
        from zc.ir.garbage import without_gc

        with without_gc():
            return copy_graph(self, {} if tensor_map is None else dict(tensor_map), top=tensor_map is None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self.nodes)} nodes>"

    __str__ = __repr__


class Function(gs.Function, Graph):
    """A function of the model: operators of its own, made of others."""

    overload: str = ""

    toposort = Graph.toposort  # onnx-graphsurgeon's Function overrides both
    copy = Graph.copy
    __eq__ = _identical
    __hash__ = object.__hash__

    @property
    def unique_id(self) -> tuple[str, str]:
        """Domain and name (and overload, where two functions share them)."""
        return (self.domain, f"{self.name}:{self.overload}" if self.overload else self.name)

    __repr__ = __str__ = Graph.__repr__


def _exported(values: Any, export_dtype: Any) -> Any:
    """The array in the type that onnx-graphsurgeon would convert it to on export."""
    wanted = as_dtype(export_dtype)
    if wanted is None or wanted == values.dtype:
        return values
    return (values.load() if isinstance(values, LazyValues) else values).astype(wanted)


def scopes(graph: gs.Graph) -> Iterator[Graph]:
    """The graph, the bodies inside it at any depth, then its functions with theirs."""
    for top in [graph, *graph.functions] if not isinstance(graph, gs.Function) else [graph]:
        stack = [top]
        while stack:
            one = stack.pop()
            yield cast(Graph, one)
            stack.extend(reversed(list(one.subgraphs())))


def fixed_value(tensor: Tensor, graph: gs.Graph | None = None) -> Array | None:
    """The array of a tensor that can never change at run time, else None.

    A `Constant` that `graph` lists as an input is a default that the caller may override: not fixed.
    """
    if isinstance(tensor, gs.Constant):
        if graph is not None and any(tensor is one for one in graph.inputs):
            return None
        return cast(Constant, tensor).values
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        for name, value in tensor.inputs[0].attrs.items():
            if isinstance(value, gs.Constant):
                return cast(Constant, value).values
            dtype = _CONSTANT_FORMS.get(name)
            if dtype is not None and not isinstance(value, onnx.AttributeProto):
                return np.array(value, dtype)
    return None


_CONSTANT_FORMS: dict[str, Any] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": object,
    "value_strings": object,
}


def describe(node: gs.Node) -> str:
    """How a message names a node: its name, or its operator and first output when it has none."""
    if node.name:
        return node.name
    return f"{node.op} -> {node.outputs[0].name}" if node.outputs else node.op


def attribute(node: gs.Node, name: str, default: Any) -> Any:
    """An attribute's value or its default. ZcError when it is a reference to a function's parameter."""
    value = node.attrs.get(name, default)
    if isinstance(value, onnx.AttributeProto):
        if value.ref_attr_name:
            raise ZcError(f"node '{describe(node)}': attribute '{name}' is a parameter of the function around it")
        raise ZcError(f"node '{describe(node)}': attribute '{name}' has no plain value")
    return value
