"""Reads the hand-written graphs of text/: `read_text(path)`.

A file is ONNX's own text syntax. Its first line is a comment that says what the graph is for. Small weights stand in it
literally; one that is only declared, as `w` in

    # fill: var = uniform 0.5 1.5
    g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w, float[4] var, float[4] b = {1, 2, 3, 4}> { ... }

is filled with numbers that depend on its name, shape and type alone. A `# fill:` line says with which:

    normal              (the rule when there is no line) mean 0, deviation 1 / sqrt(inputs of one output)
    uniform LOW HIGH    between two numbers
    constant VALUE      one number everywhere
    like OTHER          the same numbers as another weight
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

PRODUCER = "zc-golden"

_FILL = re.compile(r"^#\s*fill:\s*(?P<name>\w+)\s*=\s*(?P<rule>.+?)\s*$", re.MULTILINE)


def read_text(path: str | Path) -> onnx.ModelProto:
    """The checked model of a text file, with its weights filled in and every node named after its first output.

    Raises:
        ValueError: a `# fill:` line that cannot be followed.
        onnx.parser.ParseError: not ONNX text.
        onnx.checker.ValidationError: not a valid model.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    model = parser.parse_model(text)
    model.producer_name = PRODUCER
    _fill(model.graph, {found["name"]: found["rule"] for found in _FILL.finditer(text)}, path.name)
    _name_nodes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def generator(name: str) -> np.random.Generator:
    """A random generator whose seed is the hash of a name, so that adding one weight changes no other."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")))


def _fill(graph: onnx.GraphProto, rules: dict[str, str], file: str) -> None:
    """Makes an initializer of every value that is declared but that nothing produces."""
    produced = {output for node in graph.node for output in node.output}
    declared = [value for value in graph.value_info if value.name not in produced]
    if unknown := rules.keys() - {value.name for value in declared}:
        raise ValueError(
            f"{file}: '# fill:' names {', '.join(sorted(unknown))}: not declared as a weight without numbers"
        )
    for value in declared:
        tensor = value.type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        numbers = _numbers(value.name, shape, rules.get(value.name, "normal"), rules, file)
        graph.initializer.append(numpy_helper.from_array(numbers.astype(dtype), value.name))
        graph.value_info.remove(value)


def _numbers(name: str, shape: list[int], rule: str, rules: dict[str, str], file: str) -> NDArray[Any]:
    match rule.split():
        case ["normal"]:
            return generator(name).normal(0, 1 / math.sqrt(math.prod(shape[1:])), shape)
        case ["uniform", low, high]:
            return generator(name).uniform(float(low), float(high), shape)
        case ["constant", number]:
            return np.full(shape, float(number))
        case ["like", other]:
            return _numbers(other, shape, rules.get(other, "normal"), rules, file)
    raise ValueError(f"{file}: '# fill: {name} = {rule}': say normal, uniform LOW HIGH, constant VALUE or like OTHER")


def _name_nodes(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.name = node.name or node.output[0]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _name_nodes(attribute.g)
