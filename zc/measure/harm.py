"""What the error of each layer alone does to the outputs: measured, layer by layer, at half a forward each.

    a:               x -> A -> a -> B -> b -> C -> y
    harm of B:                      b' -----> C -> y'        (b' is what the other model's B makes of a)

All layers of the other model run at once on the values of `a` (`zc.measure.compare_alone`). What one of them makes is
then fed into `a` behind it, and only what follows from it is run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zc.data.samples import Samples
from zc.execute import Runner
from zc.ir.edit import needs, sort_nodes
from zc.ir.graph import Array, Constant, Node, Tensor
from zc.ir.model import Model
from zc.ir.part import part_model
from zc.measure.agreement import BATCH, Reference, compared, joined, noise_of, telling
from zc.measure.compare_alone import cut
from zc.measure.compare_probe import Reader, Size, probe
from zc.measure.compare_values import Layer, Pair, layer_of, match_values
from zc.measure.cost import count
from zc.measure.tensor_error import decibels
from zc.track import Track, untracked

MEMORY = 512 * 2**20
"""Bytes that held values may take."""
WORK = 10**12
"""Multiply-accumulates that may be spent, a minute of one core, if they are enough for a few rows."""
MOST_ROWS, FEWEST_ROWS = 64, 16


@dataclass(frozen=True)
class Harm:
    """What the error of one layer does to the outputs, all else being exact."""

    node: str
    """The operator with a weight, else the last one of the layer."""
    nodes: tuple[str, ...]
    """All of its operators, as messages name them."""
    op: str
    value: str
    """What it makes."""
    noise: float
    """Squared error over variance, of the output that suffers most; where it ends in a Softmax or Sigmoid, before."""
    share: float
    """Of the output that suffers most: rows with the same class, or 1 - squared error / variance."""

    @property
    def db(self) -> float:
        """Signal to noise, in dB."""
        return decibels(1.0, self.noise)


def harms(
    a: Model,
    b: Model,
    samples: Samples,
    *,
    wanted: Callable[[Layer], bool] = lambda layer: bool(layer.op),
    rounded: bool = True,
    centred: bool = False,
    work: int = WORK,
    threads: int | None = None,
    track: Track = untracked,
) -> list[Harm]:
    """The harm of each layer of `b`, which computes what the float model `a` does with errors, in the order of `a`.

    samples: the first rows are run, as many as can be held, and as `work` multiply-accumulates are enough for.
    wanted: which layers to look at; by default all, without the rounding of inputs. rounded: is the rounding of what a
    layer reads part of its harm? Else only that of what it makes, so that no rounding counts twice. centred: what a
    layer adds to the mean of a channel does not count, as the biases of the whole model make up for it.
    """
    found = match_values(a, b).pairs
    sizes = probe(a, b, found, samples, threads)
    pairs = [p for p in found if id(p) in sizes and sizes[id(p)].equal]
    known = {id(p.tensor): p for p in pairs}
    layers = [(p, layer) for p in pairs if wanted(layer := layer_of(p, known))]
    meter = _Meter(a, b, pairs, sizes, layers, samples, _Options(rounded, centred, work, threads))
    return [meter.harm(pair, layer) for pair, layer in track(layers, "try layers", len(layers))]


@dataclass(frozen=True)
class _Options:
    rounded: bool
    centred: bool
    work: int
    threads: int | None


class _Meter:
    def __init__(
        self,
        a: Model,
        b: Model,
        pairs: Sequence[Pair],
        sizes: dict[int, Size],
        layers: Sequence[tuple[Pair, Layer]],
        samples: Samples,
        options: "_Options",
    ) -> None:
        self.model, self.sizes, self.options, self.threads = a.copy(), sizes, options, options.threads
        sort_nodes(self.model.graph)
        self.ends = telling(a)
        tensors = {t.name: t for n in self.model.graph.nodes for t in n.outputs} | {
            t.name: t for t in self.model.graph.inputs
        }
        wanted = {*self.ends, *compared(a)}
        self.tails = {id(p): _tail(self.model, tensors[p.a.made], wanted) for p, _ in layers}
        self.rows = self._rows(samples, len(layers))
        self.reference = Reference(a, self.rows, self.threads)
        self.types: dict[int, np.dtype] = {}
        self.want: dict[str, Array] = {}
        self.held: list[dict[str, Array]] = []
        """For each batch, the values of the float model that tails read."""
        self.made: list[dict[int, Array]] = []
        """For each batch, by id of a pair: what its layer makes in the other model, as codes where it has any."""
        self.shift: dict[int, Array] = {}
        """By id of a pair: the mean error of each channel, to be taken off."""
        self._run(a, b, pairs, layers)

    def _rows(self, samples: Samples, layers: int) -> Samples:
        row = sum(size.bytes for size in self.sizes.values())
        work = max(1, count(self.model).known_macs * layers // 2)
        rows = max(min(MEMORY // max(row, 1), self.options.work // work, MOST_ROWS), FEWEST_ROWS)
        batch = samples.batch or 1
        return samples.take(0, min(samples.rows, -(-rows // batch) * batch))

    def _run(self, a: Model, b: Model, pairs: Sequence[Pair], layers: Sequence[tuple[Pair, Layer]]) -> None:
        """Run the float model, and all layers of the other one on its values."""
        forms = [(p.b, self.sizes[id(p)].dtype, len(self.sizes[id(p)].shapes[1])) for p in pairs]
        apart = cut(b, forms, rounded=self.options.rounded)
        model, needed = apart.part([p.b for p, _ in layers])
        fed = [p for p in pairs if id(p.b) in needed]
        outside = {name for tail in self.tails.values() for name in tail.reads}
        names = [*self.ends, *outside, *(p.a.seen for p in fed), *(p.a.seen for p, _ in layers)]
        exact = Reader(a, names, self.threads)
        lossy = Reader(model, [p.b.seen for p, _ in layers], self.threads)
        wanted, errors = [], {id(p): _MeanError(layer.channel) for p, layer in layers}
        for feed in self.rows.batches(BATCH):
            values = exact.run(feed)
            inputs = {apart.fed[id(p.b)]: self.sizes[id(p)].given(values[p.a.seen]) for p in fed}
            made = lossy.run({**feed, **inputs})
            for pair, _ in layers:
                errors[id(pair)].add(self._real(pair, made[pair.b.seen]), values[pair.a.seen])
                self.types[id(pair)] = values[pair.a.seen].dtype
            self.held.append({n: values[n] for n in outside})
            self.made.append({id(p): made[p.b.seen] for p, _ in layers})
            wanted.append({n: values[n] for n in self.ends})
        self.want = joined(wanted)
        self.shift = {key: error.mean() for key, error in errors.items()} if self.options.centred else {}

    def _real(self, pair: Pair, seen: Array) -> Array:
        """What a layer of the other model makes, in the float model's terms."""
        factor = self.sizes[id(pair)].factor
        real = pair.b.real(seen)
        return real if factor is None else real / factor

    def harm(self, pair: Pair, layer: Layer) -> Harm:
        """Run what follows from a value."""
        tail = self.tails[id(pair)]
        runner = None
        batches = []
        for held, made in zip(self.held, self.made, strict=True):
            value = self._real(pair, made[id(pair)]) - self.shift.get(id(pair), np.float32(0))
            feed = {n: held[n] for n in tail.reads} | {tail.value: value.astype(self.types[id(pair)], copy=False)}
            result = {tail.value: value} if tail.value in self.want else {}
            if tail.nodes:
                runner = runner or Runner(part_model(self.model, tail.nodes, feed, tail.gives), threads=self.threads)
                result |= runner.run(feed)
            batches.append(result)
        got = joined(batches)
        outputs = {name: got.get(name, want) for name, want in self.reference.want.items()}
        share = min((one.share for one in self.reference.judge(outputs).values()), default=1.0)
        floats = [name for name, want in self.want.items() if want.dtype.kind == "f"]
        noise = max((noise_of(got[name], self.want[name]) for name in floats if name in got), default=0.0)
        noise = noise if floats else 1 - share
        return Harm(layer.node, layer.nodes, layer.op, pair.a.label, noise, share)


class _MeanError:
    """The mean error of each channel, over batches."""

    def __init__(self, channel: int) -> None:
        self.channel, self.count = channel, 0
        self.total: Array = np.zeros(())

    def add(self, got: Array, want: Array) -> None:
        """One batch."""
        axes = tuple(axis for axis in range(want.ndim) if axis != self.channel % want.ndim)
        fine = np.isfinite(got) & np.isfinite(want)
        error = np.where(fine, got, 0) - np.where(fine, want, 0)
        self.total = self.total + error.sum(axis=axes, keepdims=True, dtype=np.float64)
        self.count += want.size // want.shape[self.channel]

    def mean(self) -> Array:
        """Broadcasts along the channel."""
        return np.asarray(self.total / max(self.count, 1), np.float32)


@dataclass(frozen=True)
class _Tail:
    """What follows from one value of a model."""

    value: str
    nodes: list[Node]
    reads: tuple[str, ...]
    """Other values that it reads."""
    gives: list[Tensor]


def _tail(model: Model, value: Tensor, wanted: set[str]) -> _Tail:
    """The nodes that follow from a value, up to those of the wanted values that do; `model` is sorted."""
    made = {id(t) for t in model.graph.inputs if not isinstance(t, Constant)}
    follows = {id(value)}
    nodes: list[Node] = []
    outside: dict[str, None] = {}
    for node in model.graph.nodes:
        reads = [t for t in needs(node) if t.name]
        if any(id(t) in follows for t in reads):
            nodes.append(cast(Node, node))
            follows.update(id(t) for t in node.outputs)
            outside.update({t.name: None for t in reads if id(t) in made and id(t) not in follows})
        made.update(id(t) for t in node.outputs)
    gives = [t for n in nodes for t in n.outputs if t.name in wanted]
    return _Tail(value.name, nodes, tuple(outside), gives)
