"""Layers in float stay in float: some runtimes quantise them on their own where they stand between codes.

before:  q -> DQ(scale) -> x -> Conv -> Relu -> Q        the runtime makes int8 of the weights, one scale for all
after:   q -> DQ(scale, scale, ...) -> Conv -> Relu -> Q     what has scales by channel is left as it is written
"""

from collections.abc import Collection

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Constant, Graph, Node, Tensor, attribute
from zc.target import Target

PASSED = frozenset({"Relu", "Clip"})


def shield(graph: Graph, integer: Collection[int], target: Target, names: Names) -> list[Node]:
    """Give float layers between codes a DequantizeLinear of their own, by channel; the layers that none could be given.

    integer: ids of the nodes that are in integers, and left alone. The numbers do not change.
    """
    open_still = []
    for node in [n for n in graph.nodes if isinstance(n, Node)]:
        if node.op not in target.claims_float or not node.standard or id(node) in integer:
            continue
        maker = _dequantizer(node.inputs[0])
        if maker is None or not _rounded_behind(node):
            continue
        place = _axis(node)
        if place is None:
            open_still.append(node)
            continue
        axis, size = place
        given = [t for t in maker.inputs[1:] if isinstance(t, Constant)]
        parameters = [names.constant(t.name, np.repeat(t.values.reshape(1), size)) for t in given]
        read = names.variable(f"{node.inputs[0].name}_by_channel", like=node.inputs[0])
        own = Node(
            "DequantizeLinear",
            names.take(f"{read.name}_DequantizeLinear"),
            {**maker.attrs, "axis": axis},
            [maker.inputs[0], *parameters],
            [read],
            maker.domain,
        )
        graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is node), own)
        node.inputs[0] = read
    return open_still


def _dequantizer(tensor: Tensor) -> Node | None:
    """What makes a value of codes with one scale."""
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if not isinstance(node, Node) or node.op != "DequantizeLinear":
        return None
    return node if all(isinstance(t, Constant) and t.size == 1 for t in node.inputs[1:]) else None


def _rounded_behind(node: Node) -> bool:
    """Is the output made codes, by way of activations at most, and nothing else?"""
    while True:
        readers = list(node.outputs[0].outputs)
        if len(readers) != 1 or not isinstance(readers[0], Node):
            return False
        node = readers[0]
        if node.op == "QuantizeLinear":
            return True
        if node.op not in PASSED:
            return False


def _axis(node: Node) -> tuple[int, int] | None:
    """An axis of what a layer reads, and its size, above 1."""
    shape = node.inputs[0].shape
    sizes: list[object] = list(shape) if shape is not None else []
    if isinstance(node.inputs[1], Constant) and node.op != "Gemm":
        weight = node.inputs[1].shape
        channels = int(weight[0]) if node.op == "ConvTranspose" else int(weight[1]) * int(attribute(node, "group", 1))
        sizes = [None, channels, *sizes[2:]]
    found = [(axis, size) for axis, size in enumerate(sizes) if axis and isinstance(size, int) and size > 1]
    return found[0] if found else None
