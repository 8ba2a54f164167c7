"""Conv and ConvTranspose: plain, grouped, depthwise with or without a multiplier."""

from zc.ir.graph import Constant, Node, attribute
from zc.passes.prune.flow import Balance, Flow, Product, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block, Count, Layout, block_at
from zc.passes.prune.numbers import Entry, Source
from zc.passes.prune.rules.rule import Rule, given, rank


def conv(node: Node, flow: Flow) -> None:
    """Conv: x [N, C, ...], weight [M, C / group, ...], bias [M]."""
    _convolve(node, flow, transposed=False)


def conv_transpose(node: Node, flow: Flow) -> None:
    """ConvTranspose: x [N, C, ...], weight [C, M / group, ...], bias [M]."""
    _convolve(node, flow, transposed=True)


def _convolve(node: Node, flow: Flow, *, transposed: bool) -> None:
    """Both kinds: they differ in which axis of the weight makes channels and which takes them."""
    slides = f"{where(node)} slides over it"
    layout, channels = flow.along(node.inputs[0], 1, slides)
    layout = _freeze_from(flow, layout, 2, rank(node), slides)
    kernel = _freeze_from(flow, flow.of(node.inputs[1]), 2, rank(node, 1), slides)
    group = int(attribute(node, "group", 1))
    made, taken = _labels(kernel, int(transposed)), _labels(kernel, int(not transposed))
    if group > 1:
        made = _grouped(node, flow, group, channels, kernel, transposed=transposed)
    else:
        flow.contract(node, 0, 1, channels, taken)
    _finish(node, flow, layout, made, slides)


def _freeze_from(flow: Flow, layout: Layout, first: int, rank_: int, reason: str) -> Layout:
    for axis in range(first, rank_):
        layout = flow.freeze(layout, axis, reason)
    return layout


def _labels(layout: Layout, axis: int) -> Ints | None:
    block = block_at(layout, axis)
    return None if block is None else block.labels


def _finish(node: Node, flow: Flow, layout: Layout, made: Ints | None, reason: str) -> None:
    """Bias, output and what the node makes."""
    result = [b for b in layout if b.axes == (0,)]
    if made is not None:
        result.append(Block((1,), made))
        flow.products.append(Product(node, made, node.inputs[1]))
        if given(node, 2):
            bias = _labels(flow.of(node.inputs[2]), 0)
            if bias is not None:
                flow.labels.union(bias, made)
    flow.put(node.outputs[0], tuple(result), reason)


def _grouped(
    node: Node, flow: Flow, group: int, channels: Ints | None, kernel: Layout, *, transposed: bool
) -> Ints | None:
    """Labels of the output of a grouped convolution, tied to those of its input as the weight demands.

    One channel a group (depthwise): a group leaves with its input and its outputs, and `group` counts what stays.
    More: from each group as many must leave, of its inputs and of its outputs.
    """
    shape = [int(n) for n in node.inputs[1].shape[:2]]
    width_in = shape[0] // group if transposed else shape[1]
    width_out = shape[1] if transposed else shape[0] // group
    if channels is None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose input channels are known only at run time")
        return None
    if width_in == 1:
        return _depthwise(node, flow, group, channels, kernel, width_out, transposed=transposed)
    rows_in = channels.reshape(group, width_in)
    if transposed:
        weight_in = _labels(kernel, 0)
        assert weight_in is not None
        flow.labels.union(channels, weight_in)
        made = flow.labels.fresh(group * width_out)
        inner = made.reshape(group, width_out)
    else:
        found = _labels(kernel, 0)
        assert found is not None
        made, inner = found, rows_in
    _tie_inner(node, flow, inner, shape, kernel)
    flow.balanced += [Balance(node, rows_in), Balance(node, made.reshape(group, width_out))]
    flow.contract(node, 0, 1, channels, channels)
    return made


def _tie_inner(node: Node, flow: Flow, inner: Ints, shape: list[int], kernel: Layout) -> None:
    """Axis 1 of a grouped weight holds the channels of the group that the row belongs to: `inner` is [group, width].

    A weight of the node alone gets labels element by element; then each group chooses its own channels. Any other has
    one label for a column, and the groups choose alike.
    """
    weight = node.inputs[1]
    columns = block_at(kernel, 1)
    if columns is None:
        return
    if isinstance(weight, Constant) and len(weight.outputs) == 1 and not flow.labels.pinned(columns.labels).any():
        rows = inner.repeat(shape[0] // len(inner), axis=0)
        flow.refine(weight, Block((0, 1), rows))
        return
    flow.labels.union(inner, columns.labels)


def _depthwise(
    node: Node, flow: Flow, group: int, channels: Ints, kernel: Layout, multiplier: int, *, transposed: bool
) -> Ints | None:
    first, second = block_at(kernel, 0), block_at(kernel, 1)
    assert first is not None
    if transposed:
        made = channels.repeat(multiplier)
        flow.labels.union(first.labels, channels)
        if second is not None:
            flow.labels.pin(second.labels, f"{where(node)} makes it from every channel")
    else:
        made = first.labels
        flow.labels.union(made.reshape(group, multiplier), channels[:, None])
    flow.numbers.bind(
        Entry(group, None, Source(node, "group")), Count(channels), f"two sizes are tied in {where(node)}"
    )
    return made


RULES: dict[str, Rule] = {"Conv": conv, "ConvTranspose": conv_transpose}
