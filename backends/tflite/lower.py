"""Lowers a graph to the flat graph of a file, node after node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from zc.backends.tflite.codes import on_codes
from zc.backends.tflite.ends import input_layouts
from zc.backends.tflite.flat import FlatGraph, FlatTensor, Quant
from zc.backends.tflite.layout import Layout, permuted, plain
from zc.backends.tflite.lowering import ELSEWHERE, Lowering, NoForm
from zc.backends.tflite.table import RULES
from zc.ir.graph import Constant, Node, Tensor
from zc.ir.model import Model

_ADVICE = {
    "If": "make its condition a constant, so that `clean` keeps one branch, or write each branch as a model of its own "
    "(tflite:also=NAME@BRANCH.onnx puts both into one file)",
    "Loop": "export the model with a fixed number of steps, so that they are written out",
    "Scan": "export the model with a fixed number of steps, so that they are written out",
}
"""By operator: what to do where a body is chosen or repeated at run time."""

Refused = Callable[[NoForm], None]


@dataclass(frozen=True)
class End:
    """How an input or output of the file holds the value of the model."""

    layout: Layout
    type: str
    """Element type of the value in the model; where it is a float and the tensor is codes, they stand for it."""


@dataclass(frozen=True)
class Lowered:
    """A flat graph, and how its ends hold the values."""

    flat: FlatGraph
    inputs: dict[str, End]
    outputs: dict[str, End]


def lower(model: Model, name: str, refused: Refused | None = None, keep_order: bool = False) -> Lowered:
    """The flat graph of a model whose shapes are inferred.

    refused: called for each node without a form, and lowering goes on; by default the first one is the error.
    keep_order: inputs and outputs lie as in ONNX, at the price of transposes; else images are NHWC.

    Raises:
        NoForm: a node has no form in the file.
    """
    graph = model.graph
    lowering = Lowering(graph, name)
    layouts = {} if keep_order else input_layouts(graph)
    inputs: dict[str, End] = {}
    for tensor in graph.inputs:
        if isinstance(tensor, Constant):
            continue
        layout = layouts.get(id(tensor)) or plain(lowering.rank(tensor))
        shape = permuted(lowering.shape(tensor), layout)
        lowering.node = Node("Input", tensor.name)
        made = FlatTensor(lowering.take(tensor.name), shape, lowering.dtype(tensor))
        lowering.bind(tensor, made, layout)
        lowering.flat.inputs[tensor.name], inputs[tensor.name] = made, End(layout, _type(tensor))
    for node in graph.nodes:
        if node.op != "Constant":
            _lower_node(lowering, cast(Node, node), refused)
    outputs = {t.name: End(_put_out(lowering, t, keep_order), _type(t)) for t in graph.outputs}
    return Lowered(lowering.flat, inputs, outputs)


def _type(tensor: Tensor) -> str:
    return np.dtype(tensor.dtype or np.float32).name


def _lower_node(lowering: Lowering, node: Node, refused: Refused | None) -> None:
    lowering.node, lowering.integer = node, False
    before = len(lowering.flat.ops)
    try:
        rule = RULES.get(node.op) if node.standard or node.op in {"QuantizeLinear", "DequantizeLinear"} else None
        if rule is None:
            where = "" if node.standard else f" of {node.domain}"
            raise lowering.fail(f"TFLite has no form of this operator{where}", _ADVICE.get(node.op, ELSEWHERE))
        if node.op not in {"QuantizeLinear", "DequantizeLinear"}:
            lowering.integer = on_codes(lowering, node)
        rule(lowering, node)
    except NoForm as err:
        if refused is None:
            raise
        del lowering.flat.ops[before:]
        refused(err)
        for tensor in node.outputs:
            if tensor.name and tensor.shape is not None:
                lowering.integer = False
                lowering.out(tensor)


def _put_out(lowering: Lowering, tensor: Tensor, keep_order: bool) -> Layout:
    """Let a value be an output of the file; codes become numbers where the model puts out numbers."""
    lowering.integer = False
    if id(tensor) not in lowering.values:
        source, layout = lowering.read(tensor), plain(lowering.rank(tensor))
    else:
        layout = plain(lowering.rank(tensor)) if keep_order else lowering.settled(tensor).layout
        source = lowering.read(tensor, layout)
    if _type(tensor) == "uint8" and source.dtype == np.int8 and source.quant is not None:
        codes = Quant(source.quant.scale, source.quant.zero + 128, source.quant.axis)
        made = FlatTensor(lowering.take(f"{tensor.name}_codes"), source.shape, np.dtype(np.uint8), codes)
        lowering.op("QUANTIZE", [source], [made])
        source = made
    taken = source.constant or any(
        source is t for t in (*lowering.flat.inputs.values(), *lowering.flat.outputs.values())
    )
    if taken:  # an output is a tensor of its own
        made = lowering.like(source, stem=tensor.name)
        made.data = None
        lowering.op("RESHAPE", [source, lowering.integers(source.shape)], [made], newShape=source.shape)
        source = made
    lowering.flat.outputs[tensor.name] = source
    return layout


__all__ = ["Lowered", "lower"]
