"""Values for sketches, which do not care in which order the elements come.

onnxruntime runs convolutions on blocks of channels (NCHWc) and turns every value that leaves the session back:

    x -> ReorderInput -> Conv -> Conv -> ReorderOutput -> y
                          |
                          ReorderOutput -> a value that was asked for

Turning costs as much as a small convolution. So the graph that it really runs is read back, and what stands in front
of ReorderOutput is asked for instead: the same numbers in another order.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zc.errors import ZcError
from zc.execute import Feeds, Runner
from zc.ir.graph import Array, attribute
from zc.ir.model import Model, load
from zc.ir.rewire import rewire

BLOCK = 16
"""The largest block of channels. Values with another number of channels are filled up, so those are turned back."""

WORTH = 32
"""Rows from which a second session pays."""

_SAVED = {
    "session.disable_prepacking": "1",
    "session.optimized_model_external_initializers_file_name": "weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


class AnyOrder:
    """A session that returns named values, the elements of each in any order."""

    def __init__(self, runner: Runner, sources: dict[str, str]) -> None:
        self.runner, self.sources = runner, sources

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """The values by name."""
        values = self.runner.run(feeds)
        return {name: values[source] for name, source in self.sources.items()}


@contextmanager
def open_any_order(model: Model, names: Sequence[str], rows: int, threads: int | None) -> Iterator[AnyOrder]:
    """A session for that many rows; names: inner values and outputs of the model."""
    with tempfile.TemporaryDirectory(prefix="zc-", ignore_cleanup_errors=True) as folder:
        blocked = _blocked(model, names, Path(folder), threads) if rows >= WORTH else None
        yield blocked or AnyOrder(Runner(model, outputs=names or None, threads=threads), {name: name for name in names})


def _blocked(model: Model, names: Sequence[str], folder: Path, threads: int | None) -> AnyOrder | None:
    """None where no value would be turned, or the graph cannot be read back."""
    if not any(node.op == "Conv" for node in model.graph.nodes):
        return None
    optimized, rewired = folder / "optimized.onnx", folder / "rewired.onnx"
    try:
        Runner(model, outputs=names, threads=1, save_optimized=optimized, config=_SAVED)
        made = {t.name: node for node in load(optimized).graph.nodes for t in node.outputs}
        sources = dict.fromkeys(names, "")
        for name in names:
            node = made.get(name)
            turned = node is not None and node.op == "ReorderOutput" and attribute(node, "channels", 1) % BLOCK == 0
            sources[name] = node.inputs[0].name if node is not None and turned else name
        if all(name == source for name, source in sources.items()):
            return None
        rewire(optimized, rewired, list(dict.fromkeys(sources.values())))
        return AnyOrder(Runner(rewired, level="off", threads=threads), sources)
    except (ZcError, OSError):
        return None
