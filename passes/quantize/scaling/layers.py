"""Layers with weights of their own: they undo the factors of what they read and take any of their own."""

import numpy as np

from zc.ir.graph import Node, attribute
from zc.passes.quantize.scaling.flow import Edit, Flow, Reader, along, given, rank, where
from zc.passes.quantize.scaling.rule import Rule, axis_of, size_of


def conv(node: Node, flow: Flow) -> None:
    """Conv: weight [M, C / group, ...]."""
    why = _refusal(node, flow)
    if why is not None:
        _refuse(node, flow, why)
        return
    weight, group = node.inputs[1], int(attribute(node, "group", 1))
    outputs, width = int(weight.shape[0]), int(weight.shape[1])
    layout = flow.only(flow.of(node.inputs[0]), 1)
    taken = np.broadcast_to(layout.reshape(-1), group * width).reshape(group, width)
    over = taken.repeat(outputs // group, axis=0).reshape(outputs, width, *[1] * (len(weight.shape) - 2))
    made = flow.labels.fresh(outputs)
    _layer(node, flow, Edit(node, 1, along(made, len(weight.shape), 0), over), made, 1)


def conv_transpose(node: Node, flow: Flow) -> None:
    """ConvTranspose: weight [C, M / group, ...]."""
    why = _refusal(node, flow)
    if why is not None:
        _refuse(node, flow, why)
        return
    weight, group = node.inputs[1], int(attribute(node, "group", 1))
    inputs, width = int(weight.shape[0]), int(weight.shape[1])
    layout = flow.only(flow.of(node.inputs[0]), 1)
    taken = np.broadcast_to(layout.reshape(-1), inputs)
    made = flow.labels.fresh(group * width)
    times = made.reshape(group, width).repeat(inputs // group, axis=0)
    times = times.reshape(inputs, width, *[1] * (len(weight.shape) - 2))
    _layer(node, flow, Edit(node, 1, times, along(taken, len(weight.shape), 0)), made, 1)


def gemm(node: Node, flow: Flow) -> None:
    """Gemm: A [M, K], B [K, N] or its transpose."""
    why = _refusal(node, flow)
    if why is None and attribute(node, "transA", 0):
        why = "it transposes what it reads"
    if why is not None:
        _refuse(node, flow, why)
        return
    weight, last = node.inputs[1], 0 if attribute(node, "transB", 0) else 1
    layout = flow.only(flow.of(node.inputs[0]), 1)
    taken = np.broadcast_to(layout.reshape(-1), int(weight.shape[1 - last]))
    made = flow.labels.fresh(int(weight.shape[last]))
    _layer(node, flow, Edit(node, 1, along(made, 2, last), along(taken, 2, 1 - last)), made, 1)


def matmul(node: Node, flow: Flow) -> None:
    """MatMul: a layer if its second factor is constant; else what is summed over has factor 1.

    Rows of attention weights pass the factors of the values that they weigh: p [.., T, T] x v [.., T, d].
    """
    left, right = node.inputs
    if min(rank(left), rank(right)) < 2:
        flow.stop(node, f"reaches {where(node)}, which takes a vector")
    elif flow.fixed_value(left) is not None:
        _refuse(node, flow, "its weight stands on the left")
    elif flow.fixed_value(right) is not None:
        why = _refusal(node, flow)
        if why is not None:
            _refuse(node, flow, why)
            return
        axes, shape = rank(left), right.shape
        layout = flow.only(flow.of(left), -1)
        taken = np.broadcast_to(layout.reshape(-1), int(shape[-2]))
        made = flow.labels.fresh(int(shape[-1]))
        edit = Edit(node, 1, along(made, len(shape), -1), along(taken, len(shape), -2))
        _layer(node, flow, edit, made, max(axes, len(shape)) - 1)
    else:
        _product(node, flow)


def _product(node: Node, flow: Flow) -> None:
    """MatMul of two values: factors of columns of the second pass if the first has none."""
    left, right = node.inputs
    reason = f"is summed over in {where(node)}"
    if not flow.pinned(flow.of(left)):
        flow.stop(node, reason)
        return
    layout = flow.even(flow.of(right), rank(right) - 2)
    flow.put(node.outputs[0], layout.reshape((1,) * (rank(node.outputs[0]) - layout.ndim) + layout.shape))


def _refusal(node: Node, flow: Flow) -> str | None:
    """Why weight or bias of a layer may not be scaled, or None."""
    why = flow.why_no_weight(node.inputs[1])
    if why is None and given(node, 2) and not flow.scalable(node.inputs[2]):
        why = f"its bias '{node.inputs[2].name}' is not constant"
    return why


def _refuse(node: Node, flow: Flow, why: str) -> None:
    flow.refused.append((node, why))
    flow.stop(node, f"reaches {where(node)}: {why}")


def _layer(node: Node, flow: Flow, edit: Edit, made: "np.typing.NDArray[np.int64]", axis: int) -> None:
    flow.edits.append(edit)
    flow.readers.append(Reader(edit, node.inputs[0], flow.of(node.inputs[0])))
    if given(node, 2):
        flow.edits.append(Edit(node, 2, along(made, max(rank(node.inputs[2]), 1), -1)))
    flow.put(node.outputs[0], along(made, rank(node.outputs[0]), axis))


def batch_norm(node: Node, flow: Flow) -> None:
    """BatchNormalization: y = scale (x - mean) / deviation + bias, each by channel."""
    if attribute(node, "training_mode", 0) or not all(flow.scalable(t) for t in node.inputs[1:5]):
        flow.stop(node, f"reaches {where(node)}, whose parameters are not constant")
        return
    size = int(node.inputs[1].shape[0])
    taken = np.broadcast_to(flow.only(flow.of(node.inputs[0]), 1).reshape(-1), size)
    made = flow.labels.fresh(size)
    flow.edits += [Edit(node, 1, made, taken), Edit(node, 2, made), Edit(node, 3, taken)]
    flow.put(node.outputs[0], along(made, rank(node.outputs[0]), 1))


def layer_norm(node: Node, flow: Flow) -> None:
    """LayerNormalization: what comes in has factor 1; scale and bias give any factor to what comes out."""
    flow.pin(node.inputs[0], f"is normalised by {where(node)}")
    axes = rank(node.outputs[0])
    size = size_of(node.inputs[1], -1)
    own = axis_of(node, -1, axes) == axes - 1 and size is not None
    if not own or not all(flow.scalable(t) for t in node.inputs[1:] if not t.is_empty()):
        flow.stop(node, f"is normalised by {where(node)}")
        return
    made = flow.labels.fresh(size or 0)
    flow.edits += [Edit(node, place, made) for place in (1, 2) if given(node, place)]
    flow.put(node.outputs[0], along(made, axes, -1))


def instance_norm(node: Node, flow: Flow) -> None:
    """InstanceNormalization: as LayerNormalization, on the channels of an image."""
    if not all(flow.scalable(t) for t in node.inputs[1:3]):
        flow.stop(node, f"is normalised by {where(node)}")
        return
    flow.pin(node.inputs[0], f"is normalised by {where(node)}")
    made = flow.labels.fresh(int(node.inputs[1].shape[0]))
    flow.edits += [Edit(node, 1, made), Edit(node, 2, made)]
    flow.put(node.outputs[0], along(made, rank(node.outputs[0]), 1))


def gather(node: Node, flow: Flow) -> None:
    """Gather of rows of a constant table: its columns take any factor. Of a value: see `movement.gather`."""
    from zc.passes.quantize.scaling.movement import pick

    table = node.inputs[0]
    if flow.fixed_value(table) is None:
        pick(node, flow)
    elif flow.why_no_weight(table) is None and rank(table) > 1 and axis_of(node, 0, rank(table)) != rank(table) - 1:
        made = flow.labels.fresh(int(table.shape[-1]))
        flow.edits.append(Edit(node, 0, made))
        flow.put(node.outputs[0], along(made, rank(node.outputs[0]), -1))


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "Gather": gather,
}
