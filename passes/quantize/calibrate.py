"""Calibration: one streaming forward over the samples; only values whose range is needed leave the session."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple, TypeVar

from zc.data import Samples
from zc.execute import Feeds, Runner, held_bytes
from zc.ir.graph import Array, Tensor
from zc.ir.model import Model
from zc.passes.quantize.anyorder import open_any_order
from zc.passes.quantize.bodies import read_out
from zc.passes.quantize.cache import Cache
from zc.passes.quantize.sketch import Sketch
from zc.pipeline.base import Context

MEMORY = 256 * 2**20
"""Bytes that the values of one batch may take outside the session."""

HELD = 32 * 2**20
"""The same where each core has a batch of its own."""

MOST_ROWS = 32

T = TypeVar("T")


class Key(NamedTuple):
    """A value of a model, in this and in any copy of it."""

    scope: int
    """Position in `model.scopes()`."""
    name: str


class Calibration:
    """What the values of a float model look like on samples. Each is looked at once, when it is first asked for."""

    def __init__(self, model: Model, samples: Samples, ctx: Context, cache: Path | None = None) -> None:
        """cache: a file to find sketches in, and to put them in. ZcError when it is something else."""
        self.model, self.samples, self.ctx = model, samples, ctx
        self.cache = None if cache is None else Cache(cache, model, samples)
        known = {} if self.cache is None else self.cache.sketches
        self._seen = {Key(*key): sketch for key, sketch in known.items()}

    def sketches(self, keys: Iterable[Key]) -> dict[Key, Sketch]:
        """A sketch of each value; one forward over the samples for all that were not asked for before."""
        keys = list(dict.fromkeys(keys))
        missing = [key for key in keys if key not in self._seen]
        if missing:
            readable, names = self._read_out(missing)
            found = calibrate(readable, list(names.values()), self.samples, self.ctx)
            self._seen.update({key: found[names[key]] for key in missing})
            if self.cache is not None:
                self.cache.write({(key.scope, key.name): sketch for key, sketch in self._seen.items()})
        return {key: self._seen[key] for key in keys}

    def _read_out(self, keys: Sequence[Key]) -> tuple[Model, dict[Key, str]]:
        """The model with these values in reach, and by what name."""
        scopes = list(self.model.scopes())
        tensors: dict[int, dict[str, Tensor]] = {}
        for number in {key.scope for key in keys}:
            scope = scopes[number]
            values = [*scope.inputs, *(t for n in scope.nodes for t in (*n.inputs, *n.outputs))]
            tensors[number] = {t.name: t for t in values}
        wanted = {
            id(scopes[number]): [known[key.name] for key in keys if key.scope == number]
            for number, known in tensors.items()
        }
        readable, names = read_out(self.model, wanted)
        return readable, {key: names[id(scopes[key.scope]), id(tensors[key.scope][key.name])] for key in keys}


def calibrate(model: Model, names: Sequence[str], samples: Samples, ctx: Context) -> dict[str, Sketch]:
    """A sketch of each named value of the main graph, over all samples.

    Every core runs batches of its own and looks at their values while they are still in its cache.
    """
    sketches = {name: Sketch() for name in names}
    inputs = {t.name for t in model.graph.inputs}
    inner = [name for name in names if name not in inputs]
    if not sketches:
        return sketches
    cores = ctx.threads or os.cpu_count() or 1
    with open_any_order(model, inner, samples.rows, 1) as session:
        size = _batch_size(session.run, samples, HELD)
        steps = -(-samples.rows // (1 if samples.reader.whole else samples.batch or size))
        locks = {name: Lock() for name in names}

        def look(feeds: Feeds) -> None:
            values = {**feeds, **(session.run(feeds) if inner else {})}
            for name, lock in locks.items():
                with lock:
                    sketches[name].update(values[name])

        _spread(look, ctx.track(samples.batches(size), "calibrate", steps), min(cores, steps))
    return sketches


def _spread(work: Callable[[T], None], items: Iterator[T], threads: int) -> None:
    """Do the work for each item on so many threads; one of them takes the next item at a time."""
    taking, over = Lock(), Event()

    def take_turns() -> None:
        try:
            while not over.is_set():
                with taking:
                    item = next(items, None)
                if item is None:
                    return
                work(item)
        except BaseException:
            over.set()
            raise

    if threads == 1:
        take_turns()
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done in [pool.submit(take_turns) for _ in range(threads)]:
                done.result()
        finally:
            over.set()


def stream(
    model: Model, names: Sequence[str], samples: Samples, ctx: Context, label: str
) -> Iterator[dict[str, Array]]:
    """The named values of a model for all samples, batch by batch, within `MEMORY`."""
    inputs = {t.name for t in model.graph.inputs}
    runner = Runner(model, outputs=[n for n in names if n not in inputs] or None, threads=ctx.threads)
    size = _batch_size(runner.run, samples, MEMORY)
    step = samples.batch or size
    for feeds in ctx.track(samples.batches(size), label, -(-samples.rows // step)):
        # A graph input cannot be asked for as an output; it is at hand anyway.
        yield {**{n: feeds[n] for n in names if n in inputs}, **runner.run(feeds)}


def _batch_size(run: Callable[[Feeds], dict[str, Array]], samples: Samples, memory: int) -> int:
    """Rows in a batch such that the values of one fit into so many bytes, found by running one row."""
    feeds = next(samples.batches(1))
    held = held_bytes(run(feeds)) + held_bytes(dict(feeds))
    return max(1, min(MOST_ROWS, memory // max(held, 1)))
