"""Peephole rules on a flat graph: reshapes of reshapes, activations into kernels, what nothing reads."""

import numpy as np

from zc.backends.tflite.flat import FlatGraph, FlatOp, FlatTensor

_FUSING = frozenset(
    {
        *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "ADD", "SUB", "MUL", "DIV"),
        *("MAX_POOL_2D", "AVERAGE_POOL_2D", "CONV_3D"),
    }
)
"""Operators with an option for an activation on what they put out."""

_ACTIVATIONS = frozenset({"RELU", "RELU6", "RELU_N1_TO_1"})


def tidy(graph: FlatGraph) -> None:
    """Apply all rules; the outputs of the graph stay the tensors that they are."""
    _join_reshapes(graph)
    _fuse_activations(graph)
    _drop_dead(graph)


def _join_reshapes(graph: FlatGraph) -> None:
    """RESHAPE of a RESHAPE is one; of a tensor to its own shape, none."""
    outputs = {id(t) for t in graph.outputs.values()}
    makers: dict[int, FlatOp] = {}
    same: dict[int, FlatTensor] = {}
    kept = []
    for op in graph.ops:
        op.inputs = [same.get(id(t), t) for t in op.inputs]
        if op.code == "RESHAPE" and op.inputs[0] is not None:
            maker = makers.get(id(op.inputs[0]))
            if maker is not None and maker.code == "RESHAPE":
                op.inputs[0] = maker.inputs[0]
            source, out = op.inputs[0], op.outputs[0]
            if (
                source is not None
                and source.shape == out.shape
                and source.shape.count(-1) <= 1
                and id(out) not in outputs
            ):
                same[id(out)] = source
                continue
        makers.update((id(t), op) for t in op.outputs)
        kept.append(op)
    graph.ops[:] = kept


def _fuse_activations(graph: FlatGraph) -> None:
    """An activation behind an operator that can apply it itself and that nothing else reads."""
    readers, outputs = graph.readers(), {id(t) for t in graph.outputs.values()}
    makers = graph.producers()
    gone: set[int] = set()
    for op in graph.ops:
        source = op.inputs[0] if op.inputs else None
        if op.code not in _ACTIVATIONS or source is None or id(source) in outputs:
            continue
        if source.quant is not None and not source.quant.same(op.outputs[0].quant):
            continue
        maker = makers.get(id(source))
        if maker is None or maker.code not in _FUSING or len(readers[id(source)]) != 1:
            continue
        if maker.options.get("fusedActivationFunction", "NONE") != "NONE":
            continue
        maker.options["fusedActivationFunction"] = op.code
        maker.outputs = list(op.outputs)
        makers[id(op.outputs[0])] = maker
        gone.add(id(op))
    graph.ops[:] = [op for op in graph.ops if id(op) not in gone]


def _drop_dead(graph: FlatGraph) -> None:
    """Operators that nothing reads."""
    wanted = {id(t) for t in graph.outputs.values()}
    kept = []
    for op in reversed(graph.ops):
        if any(id(t) in wanted for t in op.outputs):
            kept.append(op)
            wanted.update(id(t) for t in op.inputs if t is not None)
    graph.ops[:] = kept[::-1]


def codes_at_ends(graph: FlatGraph) -> list[str]:
    """Let inputs and outputs be codes where the graph turns numbers into codes right behind or in front of them.

    Returns the names of those that stay numbers.
    """
    left = []
    readers, makers = graph.readers(), graph.producers()
    for name, tensor in graph.inputs.items():
        ops = readers.get(id(tensor), [])
        if tensor.dtype != np.float32:
            continue
        if len(ops) == 1 and ops[0].code == "QUANTIZE":
            graph.inputs[name] = ops[0].outputs[0]
            graph.ops.remove(ops[0])
        else:
            left.append(name)
    for name, tensor in graph.outputs.items():
        maker = makers.get(id(tensor))
        if tensor.dtype != np.float32:
            continue
        if maker is not None and maker.code == "DEQUANTIZE" and maker.inputs[0] is not None:
            graph.outputs[name] = maker.inputs[0]
            if not readers.get(id(tensor)):
                graph.ops.remove(maker)
        else:
            left.append(name)
    return left
