"""Operator schemas as plain values."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from onnx import defs

from zc.errors import nearest


@dataclass(frozen=True)
class NodeSchema:
    """What a schema says of a node, as plain values: asking onnx's objects costs microseconds a field."""

    min_inputs: int
    max_inputs: int
    min_outputs: int
    max_outputs: int
    required_inputs: tuple[int, ...]
    required_outputs: tuple[int, ...]
    optional_outputs: frozenset[int]
    attributes: frozenset[str]
    required_attributes: frozenset[str]


@lru_cache(maxsize=4096)
def node_schema(op: str, version: int, domain: str) -> NodeSchema | str:
    """The schema of an operator in a version of its set, or why there is none."""
    called = f"{domain}::{op}" if domain else op
    try:
        schema: Any = defs.get_schema(op, version, domain)
    except defs.SchemaError:
        history = [s for s in defs.get_all_schemas_with_history() if s.domain == domain]
        since = [s.since_version for s in history if s.name == op]
        if since:
            return f"operator {called} came with opset {min(since)}; the model declares {version}"
        return f"operator {called} does not exist in opset {version}{nearest(op, sorted({s.name for s in history}))}"
    if schema.deprecated:
        return f"operator {called} no longer exists in opset {version}, since {schema.since_version}"
    single, optional = defs.OpSchema.FormalParameterOption.Single, defs.OpSchema.FormalParameterOption.Optional
    return NodeSchema(
        schema.min_input,
        schema.max_input,
        schema.min_output,
        schema.max_output,
        tuple(i for i, p in enumerate(schema.inputs) if p.option == single),
        tuple(i for i, p in enumerate(schema.outputs) if p.option == single),
        frozenset(i for i, p in enumerate(schema.outputs) if p.option == optional),
        frozenset(schema.attributes),
        frozenset(name for name, a in schema.attributes.items() if a.required),
    )


@dataclass(frozen=True)
class Parameter:
    """An input or output of an operator, as far as its element type goes."""

    variable: str
    """The name of its type: parameters of one name have one type. A fixed type is its own name."""
    types: frozenset[str]
    """What it may be: `tensor(float)`, `seq(tensor(int64))`, ..."""
    many: bool
    """Does it stand for all inputs (outputs) from here on?"""
    alike: bool
    """Are those of one type?"""


@lru_cache(maxsize=4096)
def parameters(op: str, version: int, domain: str) -> tuple[tuple[Parameter, ...], tuple[Parameter, ...]] | None:
    """The inputs and the outputs of an operator in a version of its set; None where there is no such operator."""
    try:
        schema: Any = defs.get_schema(op, version, domain)
    except defs.SchemaError:
        return None
    variadic = defs.OpSchema.FormalParameterOption.Variadic
    return tuple(  # type: ignore[return-value]  # two of them
        tuple(
            Parameter(p.type_str, frozenset(map(str, p.types)), p.option == variadic, bool(p.is_homogeneous))
            for p in formal
        )
        for formal in (schema.inputs, schema.outputs)
    )
