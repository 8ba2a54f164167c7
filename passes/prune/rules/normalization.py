"""Normalisations, and operators that reduce or search along axes."""

from zc.ir.graph import Node, attribute
from zc.passes.prune.flow import Flow, where
from zc.passes.prune.layout import Count, block_at, moved, without
from zc.passes.prune.numbers import Entry, Source
from zc.passes.prune.rules.rule import Rule, axis_of, given, rank
from zc.passes.prune.rules.spatial import image


def per_channel(node: Node, flow: Flow) -> None:
    """BatchNormalization, InstanceNormalization: parameters are vectors along axis 1."""
    reason = f"is normalised in {where(node)}"
    layout = image(flow, flow.of(node.inputs[0]), reason)
    if any(not t.is_empty() for t in node.outputs[1:]):
        flow.stop(node, node.inputs, f"reaches {where(node)} in training form")
        return
    layout = flow.alone(layout, 1, reason)
    block = block_at(layout, 1)
    for tensor in node.inputs[1:]:
        vector = block_at(flow.of(tensor), 0)
        if block is not None and vector is not None:
            flow.labels.union(block.labels, vector.labels)
        elif vector is not None:
            flow.labels.pin(vector.labels, reason)
    flow.put(node.outputs[0], layout, reason)


def whole_axes(node: Node, flow: Flow, first: int, stop: int) -> None:
    """Axes from `first` up to `stop` mix with each other: nothing leaves along them; the others pass."""
    reason = f"is normalised along in {where(node)}"
    layout = flow.of(node.inputs[0])
    for axis in range(first, stop):
        layout = flow.freeze(layout, axis, reason)
    for tensor in node.inputs[1:]:
        flow.pin(tensor, reason)
    for tensor in node.outputs:
        if not tensor.is_empty():
            flow.put(tensor, tuple(b for b in layout if not set(b.axes) & set(range(first, stop))), reason)


def softmax(node: Node, flow: Flow) -> None:
    """Along one axis from opset 13 on, over all axes from it on before."""
    axes, new = rank(node), flow.model.opset >= 13
    axis = axis_of(node, -1 if new else 1, axes)
    whole_axes(node, flow, axis, axis + 1 if new else axes)


def layer_norm(node: Node, flow: Flow) -> None:
    """Over the last axes, from `axis` on."""
    whole_axes(node, flow, axis_of(node, -1, rank(node)), rank(node))


def one_axis(default: int) -> Rule:
    """Along one axis."""

    def rule(node: Node, flow: Flow) -> None:
        axis = axis_of(node, default, rank(node))
        whole_axes(node, flow, axis, axis + 1)

    return rule


def lrn(node: Node, flow: Flow) -> None:
    """Channels are divided by their neighbours."""
    whole_axes(node, flow, 1, 2)


def group_norm(node: Node, flow: Flow) -> None:
    """A group leaves with all its channels. Scale and bias are by group before opset 21, by channel from it on."""
    reason = f"is normalised in {where(node)}"
    layout = flow.alone(image(flow, flow.of(node.inputs[0]), reason), 1, reason)
    block = block_at(layout, 1)
    groups = int(attribute(node, "num_groups", 1))
    if block is None or len(block.labels) % groups:
        flow.stop(node, node.inputs, reason)
        return
    by_group = flow.labels.tie(block.labels.reshape(groups, -1), 1)
    if groups == 1:
        flow.labels.pin(block.labels, reason)
    for tensor in node.inputs[1:]:
        vector = block_at(flow.of(tensor), 0)
        if vector is not None:
            flow.labels.union(vector.labels, by_group if len(vector.labels) == groups else block.labels)
    entry = Entry(groups, None, Source(node, "num_groups"))
    flow.numbers.bind(entry, Count(by_group), reason)
    flow.put(node.outputs[0], layout, reason)


def reduce(node: Node, flow: Flow) -> None:
    """Reduced axes need all their positions; the others pass."""
    total = rank(node)
    axes = flow.numbers.known(node, 1, "axes")
    if axes is None and given(node, 1):
        flow.stop(node, node.inputs, f"is reduced by {where(node)} along axes known only at run time")
        return
    if not axes and int(attribute(node, "noop_with_empty_axes", 0)):
        flow.put(node.outputs[0], flow.of(node.inputs[0]), f"is made by {where(node)}")
        return
    _reduced(node, flow, {a % total for a in axes} if axes else set(range(total)))


def search(node: Node, flow: Flow) -> None:
    """ArgMax, ArgMin: positions along the axis are the result."""
    _reduced(node, flow, {axis_of(node, 0, rank(node))})


def _reduced(node: Node, flow: Flow, gone: set[int]) -> None:
    reason = f"is reduced along in {where(node)}"
    layout = flow.of(node.inputs[0])
    for axis in sorted(gone):
        layout = without(flow.freeze(layout, axis, reason), axis)
    total = rank(node)
    kept = list(range(total)) if int(attribute(node, "keepdims", 1)) else [a for a in range(total) if a not in gone]
    flow.put(node.outputs[0], moved(layout, {a: i for i, a in enumerate(kept)}), reason)


def cumulate(node: Node, flow: Flow) -> None:
    """CumSum: sums along an axis, which must stay whole."""
    axis = flow.numbers.known(node, 1)
    if axis is None:
        flow.stop(node, node.inputs, f"is summed by {where(node)} along an axis known only at run time")
        return
    layout = flow.freeze(flow.of(node.inputs[0]), axis[0] % rank(node), f"is summed along in {where(node)}")
    flow.put(node.outputs[0], layout, f"is summed along in {where(node)}")


def trilu(node: Node, flow: Flow) -> None:
    """The last two axes are tied by their positions."""
    reason = f"is masked by position in {where(node)}"
    layout = flow.of(node.inputs[0])
    for axis in (rank(node) - 2, rank(node) - 1):
        layout = flow.freeze(layout, axis, reason)
    flow.put(node.outputs[0], layout, reason)


# fmt: off
_REDUCTIONS = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
]
# fmt: on

RULES: dict[str, Rule] = {
    "BatchNormalization": per_channel,
    "InstanceNormalization": per_channel,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "SimplifiedLayerNormalization": layer_norm,
    "com.microsoft.SkipLayerNormalization": layer_norm,
    "com.microsoft.SkipSimplifiedLayerNormalization": layer_norm,
    "LpNormalization": one_axis(-1),
    "LRN": lrn,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Hardmax": softmax,
    **dict.fromkeys(_REDUCTIONS, reduce),
    "ArgMax": search,
    "ArgMin": search,
    "CumSum": cumulate,
    "Trilu": trilu,
}
