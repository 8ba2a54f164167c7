"""Labels for channels that may be scaled: an abstract interpretation of the graph.

Every position of every value has a label; positions with one label can only be scaled by one factor, which must be
positive. A layer with a constant weight makes labels of its own, for its weight can undo any factor on either side:

    x [1, 3, 1, 1] = a b c  ->  Conv(w [2, 3, k, k])  ->  y [1, 2, 1, 1] = d e       w[o, i] *= s[y o] / s[x i]

Operators that are positively homogeneous (f(s x) = s f(x) for s > 0) pass labels on; an Add makes one of the labels it
aligns; what is not homogeneous pins what reaches it: its factor is 1. A layout is an array of labels that broadcasts
against the value: channels of an image are [1, C, 1, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Array, Constant, Node, Tensor, describe, fixed_value
from zc.ir.model import Model
from zc.passes.prune.labels import Ints, Labels


@dataclass(frozen=True, eq=False)
class Edit:
    """A constant that a node reads. It is multiplied by the factors of `times` and divided by those of `over`."""

    node: Node
    place: int
    times: Ints | None
    """Labels, as an array that broadcasts against the constant."""
    over: Ints | None = None


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer with a constant weight: products of what it reads and the weight are summed, so it undoes any factor."""

    edit: Edit
    """Of its weight."""
    value: Tensor
    """What it reads."""
    layout: Ints
    """The labels of that value."""

    @property
    def made(self) -> Ints:
        """The labels of its output channels, as its weight has them."""
        assert self.edit.times is not None
        return self.edit.times

    @property
    def taken(self) -> Ints:
        """The labels of its input channels, as its weight has them."""
        assert self.edit.over is not None
        return self.edit.over


@dataclass(frozen=True, eq=False)
class Limit:
    """A Clip whose bounds are the same for all channels: a factor above 1 makes them tighter than they were."""

    node: Node
    layout: Ints
    low: float
    high: float


class Flow:
    """What is known while the graph is run on labels: rules read layouts with `of` and write them with `put`."""

    def __init__(self, model: Model, *, residual: bool = True, clips: bool = False) -> None:
        """residual: may values that meet in an Add share factors? clips: may factors pass a Clip?"""
        self.model = model
        self.residual, self.clips = residual, clips
        self.labels = Labels()
        self.layouts: dict[int, Ints] = {}
        self.edits: list[Edit] = []
        self.readers: list[Reader] = []
        self.limits: list[Limit] = []
        self.refused: list[tuple[Node, str]] = []
        """Layers whose weights may not be scaled, and why."""
        self._inputs = {id(t) for t in model.graph.inputs}

    def of(self, tensor: Tensor) -> Ints:
        """The layout of a value of known rank."""
        if id(tensor) not in self.layouts:
            kind = "a constant" if isinstance(tensor, Constant) else "not computed by a node of the main graph"
            self.layouts[id(tensor)] = self.rigid(rank(tensor), f"'{tensor.name}' is {kind}")
        return self.layouts[id(tensor)]

    def put(self, tensor: Tensor, layout: Ints) -> None:
        """Set the layout of a value."""
        self.layouts[id(tensor)] = layout

    def rigid(self, axes: int, reason: str) -> Ints:
        """The layout of a value whose factor is 1."""
        return np.array(self.labels.rigid(1, reason)).reshape((1,) * axes)

    def fresh(self, axes: int, axis: int, size: int) -> Ints:
        """A layout with labels of their own along one axis."""
        return along(self.labels.fresh(size), axes, axis)

    def pin(self, tensor: Tensor, reason: str) -> None:
        """The factor of all positions of a value is 1."""
        if tensor.name and not isinstance(tensor, Constant) and id(tensor) in self.layouts:
            self.labels.pin(self.layouts[id(tensor)], reason)

    def stop(self, node: Node, reason: str) -> None:
        """An operator that no factor passes through: the factors of what it takes and gives are 1."""
        for tensor in node.inputs:
            self.pin(tensor, reason)
        for tensor in node.outputs:
            if tensor.name:
                self.put(tensor, self.rigid(rank(tensor), reason))

    def pinned(self, layout: Ints) -> bool:
        """Are all factors of a layout 1?"""
        return bool(self.labels.pinned(layout).all())

    def even(self, layout: Ints, *axes: int) -> Ints:
        """The layout with one label for all positions along some axes."""
        for axis in axes:
            if layout.shape[axis] > 1:
                layout = np.expand_dims(self.labels.tie(layout, axis), axis)
        return layout

    def only(self, layout: Ints, axis: int) -> Ints:
        """The layout with labels along one axis alone."""
        return self.even(layout, *(a for a in range(layout.ndim) if a != axis % layout.ndim))

    def meet(self, layouts: Sequence[Ints]) -> Ints:
        """The layout of values that are aligned as NumPy broadcasts them: equal factors at equal places."""
        whole = np.broadcast_shapes(*(one.shape for one in layouts))
        found: Ints = np.broadcast_to(layouts[0], whole)
        for other in layouts[1:]:
            self.labels.union(found, other)
        return found

    def fixed_value(self, tensor: Tensor) -> Array | None:
        """The array of a value that can never change at run time, else None."""
        return None if id(tensor) in self._inputs else fixed_value(tensor)

    def why_no_weight(self, tensor: Tensor) -> str | None:
        """The reason why the constant that a node multiplies by must stay as it is, or None."""
        if not isinstance(tensor, Constant):
            return "its weight is no initializer"
        if id(tensor) in self._inputs:
            return f"weight '{tensor.name}' is a graph input, so its values can change at run time"
        if np.dtype(tensor.dtype) not in (np.float32, np.float64):
            return f"weight '{tensor.name}' is {tensor.dtype}: to scale it would round it anew"
        if len(tensor.outputs) > 1:
            return f"weight '{tensor.name}' is shared with another node"
        return None

    def scalable(self, tensor: Tensor) -> bool:
        """Is it a constant that may be scaled, as a copy if others read it too?"""
        return (
            isinstance(tensor, Constant)
            and id(tensor) not in self._inputs
            and np.dtype(tensor.dtype) in (np.float32, np.float64)
        )


def rank(tensor: Tensor) -> int:
    """Number of axes; 0 where it is not known (nothing but rigid labels is put on such a value)."""
    return 0 if tensor.shape is None else len(tensor.shape)


def along(labels: Ints, axes: int, axis: int) -> Ints:
    """A vector of labels as a layout."""
    return labels.reshape([-1 if a == axis % axes else 1 for a in range(axes)])


def given(node: Node, place: int) -> bool:
    """Does the node have this input?"""
    return place < len(node.inputs) and not node.inputs[place].is_empty()


def where(node: Node) -> str:
    """How a reason names a node."""
    return f"{node.op} '{describe(node)}'"
