"""Runs a model as far as asked, value by value, on held samples: weights may change before the next step.

What is held between two steps is only what later nodes read.
"""

from collections.abc import Sequence

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Feeds, Runner
from zc.ir.edit import needs
from zc.ir.graph import Array, Constant, Node, Tensor
from zc.ir.model import Model
from zc.ir.part import part_model

MEMORY = 1536 * 2**20
"""Bytes that held values of two nets may take together."""

BATCH = 32
AS_WRITTEN = {"session.disable_quant_qdq": "1"}
"""onnxruntime's setting for a session that computes Q/DQ as it stands."""
HELD_BACK = 4
"""One batch in so many chooses the ridge of a fit and does not take part in it."""


class Steps:
    """A forward of the main graph of a model in steps; the nodes must be sorted."""

    def __init__(self, model: Model, feeds: Sequence[Feeds], threads: int | None = None) -> None:
        """feeds: batches of rows; they stay in memory.

        Q/DQ is computed as it is written. Fused, a part could differ from the whole: onnxruntime rounds what a MatMul
        reads anew where its weight stands behind a DequantizeLinear and its input is not in codes.
        """
        self.model = model
        self.held: list[dict[str, Array]] = [dict(feed) for feed in feeds]
        self._threads = threads
        self._maker = {id(t): n for n in model.graph.nodes for t in n.outputs}
        self._order = {id(n): i for i, n in enumerate(model.graph.nodes)}
        self._done: set[int] = set()
        self._readers: dict[int, int] = {}
        for node in model.nodes():
            for key in _read(node):
                self._readers[key] = self._readers.get(key, 0) + 1
        self._known = {id(t): t for t in model.graph.inputs}

    def advance(self, wanted: Sequence[Tensor]) -> None:
        """Run what the wanted values still need; they are in `held` by name then, until `forget`."""
        nodes = self.missing(wanted)
        if not nodes:
            return
        inner = {id(t): t for n in nodes for t in n.outputs if t.name}
        outside = {id(t): t for n in nodes for t in needs(n)}
        reads = [t for key, t in outside.items() if key not in inner and key in self._known]
        self._done.update(id(n) for n in nodes)
        for node in nodes:
            for key in _read(node):
                self._readers[key] -= 1
        keep = {id(t) for t in wanted}
        gives = [t for key, t in inner.items() if key in keep or self._readers.get(key, 0) > 0]
        self._known.update({id(t): t for t in gives})
        runner = Runner(
            _part(self.model, nodes, reads, gives, self.held[0]),
            threads=self._threads,
            config={"session.disable_quant_qdq": "1"},
        )
        for values in self.held:
            values.update(runner.run(values))
        self.forget(keep)

    def expect(self, tensor: Tensor) -> None:
        """Hold a value, once it is there, until it is released as often as it was expected."""
        self._readers[id(tensor)] = self._readers.get(id(tensor), 0) + 1

    def release(self, tensor: Tensor) -> None:
        """The counterpart of `expect`."""
        self._readers[id(tensor)] -= 1

    def forget(self, keep: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """Drop values that no node still reads, but for those with an id in `keep`."""
        for key, tensor in list(self._known.items()):
            if self._readers.get(key, 0) <= 0 and key not in keep:
                del self._known[key]
                for values in self.held:
                    values.pop(tensor.name, None)

    def missing(self, wanted: Sequence[Tensor]) -> list[Node]:
        """The nodes before the wanted values that have not run, in the order of the graph."""
        found: dict[int, Node] = {}
        stack = list(wanted)
        while stack:
            tensor = stack.pop()
            node = self._maker.get(id(tensor))
            if node is None or id(node) in self._done or id(node) in found:
                continue
            assert isinstance(node, Node)
            found[id(node)] = node
            stack.extend(needs(node))
        return sorted(found.values(), key=lambda n: self._order[id(n)])


def _read(node: Node) -> set[int]:
    """Ids of the run-time values that a node reads; constants may come and go."""
    return {id(t) for t in needs(node) if not isinstance(t, Constant)}


_NOTHING = np.zeros(0)


def _part(
    model: Model, nodes: list[Node], reads: Sequence[Tensor], gives: Sequence[Tensor], values: dict[str, Array]
) -> Model:
    """Some nodes as a model of its own. ZcError when a value that it reads or gives is no tensor."""
    for tensor in (*reads, *gives):
        given = isinstance(values.get(tensor.name, _NOTHING), np.ndarray)
        if not given or getattr(tensor, "type", "tensor_type") != "tensor_type":
            raise ZcError(f"{model.name}: value '{tensor.name}' is no tensor, so the model cannot run step by step")
    return part_model(model, nodes, {t.name: values[t.name] for t in reads}, gives)


def hold(model: Model, sources: Sequence[Tensor], samples: Samples) -> tuple[list[Feeds], int]:
    """As many batches as may be held while two nets run step by step, and their number of rows."""
    names = {t.name for t in model.graph.inputs}
    wanted = sorted({t.name for t in sources} - names)
    first = next(samples.batches(1))
    values = Runner(model, outputs=wanted).run(first) if wanted else {}
    # In either net about three layers' inputs are alive at once.
    row = sum(v.nbytes for v in first.values()) + 6 * max((v.nbytes for v in values.values()), default=0)
    rows = min(max(1, MEMORY // max(row, 1)), samples.rows)
    feeds: list[Feeds] = []
    taken = 0
    size = max(1, min(BATCH, rows // (2 * HELD_BACK)))
    for feed in samples.batches(size):
        feeds.append(feed)
        taken += 1 if samples.reader.whole else samples.batch or min(size, samples.rows - taken)
        if taken >= rows:
            break
    return feeds, taken
