"""The clock of a model: what each node takes as groups get narrower, by the target's table and what was measured.

A node's time is what was measured of it at these sizes. At other sizes it is the table's, times the ratio of the two
where the node was measured last. Everything else (elements moved, changes of form) is the table's times one ratio.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from zc.data import Samples
from zc.ir.graph import Array, Constant, Node, Tensor, attribute
from zc.measure.profile import Kernel
from zc.measure.timings import Timings
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints
from zc.passes.prune.speed.sizes import Sizes
from zc.target import CostTable, Form, Step

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PROFILED = 2.0
"""Microseconds that the profiler adds to a kernel."""
_RUN = WEIGHTED | {"FusedConv", "FusedGemm", "FusedMatMul"}
"""How onnxruntime calls them."""
FORMS_FOLLOWED = 64
"""Nodes behind a group at most that are looked at for the forms in which they get their values."""
_FUSED_BACK = 4
"""How many nodes a kernel's name may stand behind the layer whose work it does."""


@dataclass
class _Resized:
    """A node as the cost table sees it, whose `group` follows its width."""

    op: str
    attrs: dict[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    standard: bool = True


@dataclass(eq=False)
class _Place:
    """A node in the order of the graph."""

    index: int
    node: Node
    groups: tuple[int, ...]
    """Whose widths its time depends on."""
    data: tuple[str, ...]
    """The values that it reads."""
    outputs: tuple[str, ...]
    grouped: bool
    """Is it a grouped convolution?"""
    factor: float | None = None
    """Measured time over the table's, where it was measured last; None: as all that is not told apart."""
    memo: dict[tuple[float | int, ...], tuple[Step | None, str]] = field(default_factory=dict)


class Clock:
    """The predicted time of a model, in microseconds of one run with a batch of one on one thread."""

    def __init__(self, groups: Groups, costs: CostTable, samples: Samples | None, timings: Timings) -> None:
        """Read the graph that was analysed; bodies of control flow count as nothing."""
        self.costs, self.timings = costs, timings
        self.sizes = Sizes(groups, samples)
        self.plain: Form = costs.codes - 1
        self.others = 1.0
        """The ratio for what is not told apart."""
        self.places = [self._place(i, n) for i, n in enumerate(groups.flow.model.graph.nodes) if isinstance(n, Node)]
        self._by_name = {title(place.node): place for place in self.places}
        self._maker = {name: place for place in self.places for name in place.outputs}
        self._readers: dict[str, list[_Place]] = {}
        for place in self.places:
            for name in place.data:
                self._readers.setdefault(name, []).append(place)
        self.touched = self._touched(len(groups.groups))
        """By group, the nodes whose time depends on its width."""
        self._known: dict[str, float] = {}
        """Measured times that were taken over: not all of the cache, so that a full one leads the same way again."""
        self._steps: dict[int, Step] = {}
        self._forms: dict[str, Form] = {}
        self.at(np.ones(len(groups.groups)))

    def _place(self, index: int, node: Node) -> _Place:
        data = tuple(t.name for t in node.inputs if t.name and not isinstance(t, Constant))
        tensors = [t.name for t in (*node.inputs, *node.outputs) if t.name]
        groups = sorted({g for name in tensors for g in self.sizes.groups_of(name)})
        grouped = node.op == "Conv" and node.standard and attribute(node, "group", 1) != 1
        return _Place(index, node, tuple(groups), data, tuple(t.name for t in node.outputs if t.name), grouped)

    def _touched(self, groups: int) -> list[list[_Place]]:
        """Nodes that have the width, and those behind them that may get their values in another form for it."""
        found: list[dict[int, _Place]] = [{} for _ in range(groups)]
        for place in self.places:
            for group in place.groups:
                found[group][place.index] = place
        for mine in found:
            queue = list(mine.values())
            room = len(queue) + FORMS_FOLLOWED
            while queue and len(mine) < room:
                for name in queue.pop(0).outputs:
                    for reader in self._readers.get(name, ()):
                        if reader.index not in mine and reader.node.op not in WEIGHTED:
                            mine[reader.index] = reader
                            queue.append(reader)
        return [[mine[index] for index in sorted(mine)] for mine in found]

    # ---- the time

    def at(self, left: Array) -> None:
        """Make these widths the present ones. left: float [groups], the share of each group that is left."""
        self.sizes.left = np.array(left, np.float64)
        self._steps, self._forms = self._run(self.places, {})

    def total(self) -> float:
        """The time at the present widths."""
        return self._price(self.places, self._steps, self._forms)

    def left(self, gone: Array) -> float:
        """The time when these shares of the groups have left (as `Resource.left`); they become the present ones."""
        self.at(1.0 - gone)
        return self.total()

    def part(self, group: int, share: float | None = None) -> float:
        """The time of the nodes that depend on a group, at the present widths or with this share of it left."""
        places = self.touched[group]
        if share is None:
            return self._price(places, self._steps, self._forms)
        before = self.sizes.left[group]
        self.sizes.left[group] = share
        try:
            steps, forms = self._run(places, self._forms)
            return self._price(places, steps, forms)
        finally:
            self.sizes.left[group] = before

    def _run(self, places: Iterable[_Place], known: Mapping[str, Form]) -> tuple[dict[int, Step], dict[str, Form]]:
        """How nodes run, and the forms in which values are made."""
        steps: dict[int, Step] = {}
        forms: dict[str, Form] = dict(known)
        for place in places:
            step = self._step(place, tuple(forms.get(name, self.plain) for name in place.data))
            if step is not None:
                steps[place.index] = step
            for name in place.outputs:
                forms[name] = self.plain if step is None else step.writes
        return steps, forms

    def _step(self, place: _Place, given: tuple[Form, ...]) -> Step | None:
        return self._told(place, given)[0]

    def _told(self, place: _Place, given: tuple[Form, ...]) -> tuple[Step | None, str]:
        """How a node runs by the table, and the key of its time."""
        key = (*self.sizes.left[list(place.groups)].tolist(), -1, *given)
        if key not in place.memo:
            node = self._resized(place)
            step = self.costs.step(node, False, given, self.sizes)
            place.memo[key] = step, self._key(place, node) if place.node.op in WEIGHTED else ""
        return place.memo[key]

    def _resized(self, place: _Place) -> Node:
        node = place.node
        if not place.grouped or len(node.inputs) < 2:
            return node
        width, depth = self.sizes.get(node.inputs[0].name), self.sizes.get(node.inputs[1].name)
        if width is None or depth is None:
            return node
        attrs = {**node.attrs, "group": max(width[1] // max(depth[1], 1), 1)}
        return cast(Node, _Resized(node.op, attrs, node.inputs, node.outputs))

    def _key(self, place: _Place, node: Node) -> str:
        names = (*(t.name for t in node.inputs[:2]), node.outputs[0].name)
        shapes = [self.sizes.get(name) for name in names]
        if any(s is None for s in shapes):
            return ""
        taken, weight, made = ("x".join(map(str, s or ())) for s in shapes)
        said = [f"{a}={node.attrs[a]}" for a in ("group", "strides", "dilations", "transA") if a in node.attrs]
        return " ".join([node.op, taken, weight, "->", made, *said])

    def _us(self, place: _Place, step: Step, forms: Mapping[str, Form]) -> float:
        """What a node takes: as measured, or by the table and what was measured nearby."""
        if place.factor is None:
            return step.us * self.others
        key = self._told(place, tuple(forms.get(name, self.plain) for name in place.data))[1]
        return self._known.get(key, step.us * place.factor)

    def _price(self, places: Sequence[_Place], steps: Mapping[int, Step], forms: Mapping[str, Form]) -> float:
        nodes = sum(self._us(p, steps[p.index], forms) for p in places if p.index in steps)
        values = dict.fromkeys(name for p in places for name in (*p.data, *p.outputs))
        return nodes + self.others * sum(self._changes(name, steps, forms) for name in values)

    def _changes(self, name: str, steps: Mapping[int, Step], forms: Mapping[str, Form]) -> float:
        """What changes of form a value goes through, each once however many read it; by the table."""
        made = forms.get(name, self.plain)
        read = {
            (steps.get(reader.index) or self._steps[reader.index]).reads
            for reader in self._readers.get(name, ())
            if reader.index in steps or reader.index in self._steps
        }
        if not self._readers.get(name):
            read = {self.plain}  # an output of the model
        low, high = min(read | {made}), max(read | {made})
        shape = self.sizes.get(name)
        if shape is None:
            return 0.0
        return sum(self.costs.convert(form, form >= made, shape) for form in range(low, high))

    # ---- what was measured

    def learn(self, kernels: Sequence[Kernel]) -> None:
        """Take over the times of the kernels of the model cut to the present widths."""
        told: dict[str, list[float]] = {}
        rest = 0.0
        for kernel in kernels:
            place = self._place_of(kernel)
            key = "" if place is None else self._present_key(place)
            us = max(kernel.us - PROFILED, 0.1)
            if key:
                told.setdefault(key, []).append(us)
            else:
                rest += us
        for key, times in told.items():
            self.timings.put(key, sum(times) / len(times))
        self.recall(1.0)
        layers = [p for p in self.places if p.factor is not None]
        by_table = self.total() - sum(self._us(p, self._steps[p.index], self._forms) for p in layers)
        self.recall(rest / by_table if by_table > 0 and rest > 0 else 1.0)

    def recall(self, others: float) -> None:
        """Take over what the cache knows of the present widths. others: measured over the table's, for all the rest."""
        self.others = others
        for place in self.places:
            key = self._present_key(place)
            step, measured = self._steps.get(place.index), self.timings.get(key)
            if measured is not None and step is not None and step.us > 0:
                self._known[key] = measured
                place.factor = measured / step.us

    def _present_key(self, place: _Place) -> str:
        return self._told(place, tuple(self._forms.get(name, self.plain) for name in place.data))[1]

    def _place_of(self, kernel: Kernel) -> _Place | None:
        """The layer that a kernel runs: it has the layer's name, or that of a value behind it that it makes too."""
        if kernel.op not in _RUN:
            return None
        name = kernel.name.removesuffix("_nchwc")
        place = self._by_name.get(name) or self._by_name.get(name.rsplit("/", 1)[0]) or self._maker.get(name)
        for _ in range(_FUSED_BACK):
            if place is None or place.node.op in WEIGHTED:
                return place
            makers = [self._maker[name] for name in place.data if name in self._maker]
            place = next((m for m in makers if m.node.op in WEIGHTED), makers[0] if makers else None)
        return None


def title(node: Node) -> str:
    """What a node is called in a profile: by its name, else by what it makes."""
    return node.name or (node.outputs[0].name if node.outputs else "")


def shares_left(lost: Ints, steps: Ints) -> Array:
    """Which share of each group is left after so many of its steps."""
    return 1.0 - np.asarray(lost / steps, np.float64)
