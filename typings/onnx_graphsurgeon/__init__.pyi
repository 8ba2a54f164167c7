from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx_graphsurgeon.util.misc import SynchronizedList

class Tensor:
    name: str
    inputs: SynchronizedList[Node]
    outputs: SynchronizedList[Node]
    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    def is_empty(self) -> bool: ...
    def i(self, tensor_idx: int = 0, producer_idx: int = 0) -> Tensor: ...
    def o(self, consumer_idx: int = 0, tensor_idx: int = 0) -> Tensor: ...

class Variable(Tensor):
    name: str
    dtype: Any
    shape: Any
    type: str
    def __init__(self, name: str, dtype: Any = None, shape: Any = None, type: str = "tensor_type") -> None: ...
    @staticmethod
    def empty() -> Variable: ...
    def copy(self) -> Variable: ...

class Constant(Tensor):
    name: str
    data_location: int | None
    _values: Any
    def __init__(self, name: str, values: Any, data_location: int | None = None, export_dtype: Any = None) -> None: ...
    def copy(self) -> Constant: ...

class Node:
    class AttributeRef:
        name: str
        type: Any
    op: str
    name: str
    attrs: dict[str, Any]
    domain: str | None
    @property
    def inputs(self) -> SynchronizedList[Tensor]: ...
    @inputs.setter
    def inputs(self, value: Sequence[Tensor]) -> None: ...
    @property
    def outputs(self) -> SynchronizedList[Tensor]: ...
    @outputs.setter
    def outputs(self, value: Sequence[Tensor]) -> None: ...
    def __init__(
        self,
        op: str,
        name: str | None = None,
        attrs: dict[str, Any] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        domain: str | None = None,
    ) -> None: ...
    def i(self, tensor_idx: int = 0, producer_idx: int = 0) -> Node: ...
    def o(self, consumer_idx: int = 0, tensor_idx: int = 0) -> Node: ...
    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]: ...

class Graph:
    OPSET_FUNC_MAP: dict[Any, dict[str, Any]]
    GLOBAL_FUNC_MAP: dict[str, Any]
    nodes: list[Node]
    inputs: list[Tensor]
    outputs: list[Tensor]
    name: str
    doc_string: str
    opset: int
    producer_name: str
    producer_version: str
    import_domains: Any
    ir_version: int | None
    name_idx: int
    _functions: list[Function]
    @property
    def functions(self) -> list[Function]: ...
    @functions.setter
    def functions(self, value: Sequence[Function]) -> None: ...
    def __init__(
        self,
        nodes: Sequence[Node] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        name: str | None = None,
        doc_string: str | None = None,
        opset: int | None = None,
        import_domains: Any = None,
        producer_name: str | None = None,
        producer_version: str | None = None,
        functions: Sequence[Function] | None = None,
        ir_version: int | None = None,
    ) -> None: ...
    def tensors(self, check_duplicates: bool = False) -> dict[str, Tensor]: ...
    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]: ...
    def layer(self, inputs: Any = None, outputs: Any = None, *args: Any, **kwargs: Any) -> list[Tensor]: ...

class Function(Graph):
    domain: str
    attrs: dict[str, Any]
    def __init__(self, name: str, domain: str | None = None, *args: Any, **kwargs: Any) -> None: ...
    @property
    def unique_id(self) -> tuple[str, str]: ...

def import_onnx(onnx_model: Any) -> Graph: ...
def export_onnx(graph: Graph, do_type_check: bool = True, **kwargs: Any) -> Any: ...
