"""The state of the analysis: a layout for each value, and what the rules said on the way."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from zc.ir.graph import Array, Constant, Node, Tensor, describe, fixed_value
from zc.ir.model import Model
from zc.ir.spec import Dim
from zc.passes.prune.labels import Ints, Labels, is_rigid
from zc.passes.prune.layout import Block, Count, Layout, block_at, dims_of, fixed, moved, without
from zc.passes.prune.numbers import Entry, Numbers

OPEN = "known only at run time"
"""What reasons say of sizes that were not found."""


@dataclass(frozen=True, eq=False)
class Contraction:
    """A node sums over an axis of one of its inputs: what leaves there contributes nothing when it is masked."""

    node: Node
    place: int
    axis: int
    labels: Ints


@dataclass(frozen=True, eq=False)
class Product:
    """A node makes channels of its own: the labels of its output axis, and the operand with its weights."""

    node: Node
    labels: Ints
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Picks:
    """A constant of indices into an axis: an index whose position leaves goes, the others count what stays before."""

    node: Node
    place: int
    labels: Ints


@dataclass(frozen=True, eq=False)
class Balance:
    """The channels that a grouped node takes or makes, [groups, channels]: as many must leave of each row."""

    node: Node
    rows: Ints


@dataclass(frozen=True, eq=False)
class Split:
    """A Split along a labelled axis: it must state its sizes after a removal."""

    node: Node
    sizes: list[Count]


class Flow:
    """What is known while the graph is run on labels.

    Rules read layouts with `of`, write them with `put`, and state facts with the lists and methods below.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.labels = Labels()
        self._inputs = {id(t) for t in model.graph.inputs}
        self.numbers = Numbers(self.labels, self._inputs)
        self.layouts: dict[int, Layout] = {}
        self.constants: list[Constant] = []
        """Constants that were read as data, in the order of the graph."""
        self.blocks: list[Block] = []
        """Every block of every value, for the structure of what leaves."""
        self.contractions: list[Contraction] = []
        self.products: list[Product] = []
        self.balanced: list[Balance] = []
        self.refined: list[Ints] = []
        """Label arrays of constants, element by element: they may leave raggedly, an equal number of each row."""
        self.picks: list[Picks] = []
        self.splits: list[Split] = []

    # ---- layouts of values

    def of(self, tensor: Tensor) -> Layout:
        """The layout of a value. Each axis of a constant has labels of its own."""
        if id(tensor) not in self.layouts:
            if isinstance(tensor, Constant):
                self._read_constant(tensor)
            else:
                self.put(tensor, (), f"'{tensor.name}' is not computed by a rule")
        return self.layouts[id(tensor)]

    def put(self, tensor: Tensor, layout: Layout, reason: str) -> None:
        """Set the layout of a value. Its axes of known size that have no block stay whole, for the reason given."""
        if tensor.is_empty() or tensor.shape is None:
            self._pin_all(layout, reason)
            self.layouts[id(tensor)] = ()
            return
        dims = dims_of(tensor)
        result: list[Block] = []
        for block in layout:
            sizes = tuple(fixed(dims[axis]) for axis in block.axes)
            if sizes == block.labels.shape:
                result.append(block)
            else:
                self.labels.pin(block.labels, f"the size of an axis of '{tensor.name}' is known only at run time")
        for axis, dim in enumerate(dims):
            size = fixed(dim)
            if size is not None and size > 1 and block_at(tuple(result), axis) is None:
                result.append(Block((axis,), self.labels.rigid(size, reason)))
        self.layouts[id(tensor)] = tuple(result)
        self.blocks += [b for b in result if not is_rigid(b.labels)]

    def _read_constant(self, tensor: Constant) -> None:
        layout = tuple(Block((a,), self.labels.fresh(n)) for a, n in enumerate(tensor.shape) if n > 1)
        self.layouts[id(tensor)] = layout
        self.constants.append(tensor)
        self.blocks += layout
        if id(tensor) in self._inputs:
            self._pin_all(layout, f"weight '{tensor.name}' is a graph input, so its values can change at run time")

    def refine(self, tensor: Constant, block: Block) -> None:
        """Give a constant that one node uses a finer label array in the place of the block of the last of its axes."""
        self.layouts[id(tensor)] = (*without(self.of(tensor), block.axes[-1]), block)
        self.blocks.append(block)
        self.refined.append(block.labels)

    def fixed_value(self, tensor: Tensor) -> Array | None:
        """The array of a value that can never change at run time, else None."""
        return None if id(tensor) in self._inputs else fixed_value(tensor)

    # ---- what may not leave

    def _pin_all(self, layout: Layout, reason: str) -> None:
        for block in layout:
            self.labels.pin(block.labels, reason)

    def pin(self, tensor: Tensor, reason: str) -> None:
        """Nothing may leave along any axis of a value."""
        if not tensor.is_empty():
            self._pin_all(self.of(tensor), reason)

    def stop(self, node: Node, inputs: Sequence[Tensor], reason: str) -> None:
        """A node whose effect on channels is not known: nothing may leave of what it takes and gives."""
        for tensor in inputs:
            self.pin(tensor, reason)
        for tensor in node.outputs:
            if id(tensor) not in self.layouts:
                self.put(tensor, (), reason)

    def freeze(self, layout: Layout, axis: int, reason: str) -> Layout:
        """Single positions along the axis may not leave; of a block of several axes whole rows still may."""
        block = block_at(layout, axis)
        if block is None:
            return layout
        if len(block.axes) == 1:
            self.labels.pin(block.labels, reason)
            return layout
        dim = block.axes.index(axis)
        rest = Block(tuple(a for a in block.axes if a != axis), self.labels.tie(block.labels, dim))
        return (*without(layout, axis), rest, Block((axis,), self.labels.rigid(block.labels.shape[dim], reason)))

    def alone(self, layout: Layout, axis: int, reason: str) -> Layout:
        """The layout with the axis in a block of its own: along the others nothing leaves by itself."""
        block = block_at(layout, axis)
        for other in block.axes if block is not None else ():
            if other != axis:
                layout = self.freeze(layout, other, reason)
        return layout

    def along(self, tensor: Tensor, axis: int, reason: str) -> tuple[Layout, Ints | None]:
        """The layout of a value with `axis` in a block of its own, and its labels; None where it has none."""
        layout = self.alone(self.of(tensor), axis, reason)
        block = block_at(layout, axis)
        return layout, None if block is None else block.labels

    # ---- values side by side

    def align(self, parts: Sequence[tuple[Layout, Sequence[Dim]]], reason: str) -> Layout:
        """The layout of values combined element by element. Axes and dims of each part are those of the result."""
        merged: list[Block] = []
        for layout, _ in parts:
            for block in layout:
                merged = self._join(merged, block, reason)
        for layout, dims in parts:
            for axis, dim in enumerate(dims):
                if dim != 1 and block_at(layout, axis) is None:
                    why = reason if fixed(dim) is not None else f"{reason} (its size is known only at run time)"
                    merged = list(self.freeze(tuple(merged), axis, why))
        return tuple(merged)

    def _join(self, merged: list[Block], block: Block, reason: str) -> list[Block]:
        hits = [m for m in merged if set(m.axes) & set(block.axes)]
        if not hits:
            return [*merged, block]
        if len(hits) == 1 and hits[0].axes == block.axes:
            if hits[0].labels.shape == block.labels.shape:
                self.labels.union(hits[0].labels, block.labels)
            else:
                self._pin_all((hits[0], block), reason)
            if is_rigid(hits[0].labels) and not is_rigid(block.labels):
                return [block if m is hits[0] else m for m in merged]
            return merged
        # One value has the axes in one block, another apart: keep one axis of the block, tie along the others.
        result = [m for m in merged if not any(m is hit for hit in hits)]
        for piece in (*hits, block):
            for part in self.alone((piece,), self._main_axis(piece), reason):
                result = self._join(result, part, reason)
        return result

    def _main_axis(self, block: Block) -> int:
        """The axis that costs no tie to keep, else the first: heads before the width of heads."""
        roots = self.labels.find(block.labels)
        for dim, axis in enumerate(block.axes):
            lines = roots.take([0], 0) if dim else roots.take([0], roots.ndim - 1)
            if roots.ndim == 2 and (roots == lines).all():
                return axis
        return block.axes[0]

    def broadcast(self, tensors: Sequence[Tensor], rank: int, reason: str) -> Layout:
        """The layout of the values combined as NumPy broadcasts them to `rank` axes."""
        parts = []
        for tensor in tensors:
            dims = dims_of(tensor)
            shift = rank - len(dims)
            layout = moved(self.of(tensor), {a: a + shift for a in range(len(dims))})
            parts.append((layout, [*[1] * shift, *dims]))
        return self.align(parts, reason)

    # ---- facts

    def lacks_sizes(self) -> bool:
        """Must channels stay because a size is not known, or stopped an operator because a rank is not?"""
        if any("the rank of" in reason and OPEN in reason for reason in self.labels.reasons):
            return True
        numbers = {int(n) for product in self.products for n in self.labels.reason(product.labels)}
        return any(OPEN in self.labels.reasons[n] for n in numbers if n < len(self.labels.reasons))

    def contract(self, node: Node, place: int, axis: int, labels: Ints | None, weight: Ints | None) -> None:
        """The node sums products of an input (at `place`, along `axis`) and a weight with the labels `weight`."""
        reason = f"{where(node)} sums over an axis whose size is known only at run time"
        if labels is not None and weight is not None:
            self.labels.union(labels, weight)
            self.contractions.append(Contraction(node, place, axis, labels))
        elif labels is not None:
            self.labels.pin(labels, reason)
        elif weight is not None:
            self.labels.pin(weight, reason)

    def bind_sizes(self, entries: Sequence[Entry], tensor: Tensor, reason: str, first: int = 0) -> None:
        """The entries state the sizes of axes of a value, from `first` on (0 and -1 say it without a number)."""
        layout = self.of(tensor)
        for axis, entry in enumerate(entries, first):
            block = block_at(layout, axis)
            if entry.value is not None and entry.value <= 0:
                continue
            if block is None:
                if entry.counts is not None:
                    self.labels.pin(entry.counts.labels, reason)
            elif entry.value is None and entry.counts is None:
                self.labels.pin(block.labels, reason)
            else:
                self.numbers.bind(entry, Count(block.labels, block.axes.index(axis)), reason)


def where(node: gs.Node) -> str:
    """How a reason names a node."""
    return f"{node.op} '{describe(node)}'"
