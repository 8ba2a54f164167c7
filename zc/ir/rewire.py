"""Let a model file return other values, without reading the weights that lie beside it."""

from collections.abc import Sequence
from pathlib import Path

import onnx


def rewire(source: Path, target: Path, outputs: Sequence[str]) -> None:
    """Write the model at `source` to `target`, in the same folder, returning the named values.

    Nodes of the main graph that none of them needs are left out. The outputs have no type, as those of a model whose
    inner values are asked for.
    """
    proto = onnx.load(source, load_external_data=False)
    needed, kept = set(outputs), []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(kept))
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    onnx.save(proto, target)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, in bodies too."""
    found = set(node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            found.update(output.name for output in body.output)
            for inner in body.node:
                found |= _reads(inner)
    return found
