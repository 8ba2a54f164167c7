"""How well a compressed model agrees with its original, without labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.execute import Runner
from zc.ir.graph import Array, Constant, Tensor
from zc.ir.model import Model
from zc.measure.tensor_error import decibels

BATCH = 32
FLAT = 0.01
"""Share of the power of an output that its variance has at least, in `noise_of`."""


@dataclass(frozen=True)
class Agreement:
    """Of one value, or of the worst of several."""

    share: float
    """With classes: rows with the same class; else 1 - `noise`, at least 0; of integers: those that are equal."""
    sqnr: float
    """Signal to noise, in dB."""
    noise: float = 0.0
    """Squared error over variance."""
    classes: bool = False
    """Is it a choice among classes?"""


class Reference:
    """What the original says on some rows: its outputs, or what is behind outputs that hang on a choice.

    How many boxes a detector finds, and in which order, turns on the last digit of a score: such outputs are not
    compared, but the scores and boxes that were chosen from (`compared`).
    """

    def __init__(
        self, model: Model, samples: Samples, threads: int | None = None, names: Sequence[str] | None = None
    ) -> None:
        """Run the original. names: other values of its main graph to compare, which a model may lack."""
        self._samples, self._threads = samples, threads
        self.names = compared(model) if names is None else names
        self.want = self._outputs(model)
        outputs = {t.name: t for t in model.graph.outputs}
        inner = set(before_saturation(model))
        self.classes = {k for k, v in self.want.items() if k in outputs and _chooses(v, outputs[k], inner)}

    def agreement(self, model: Model) -> Agreement:
        """Of a model with the same inputs and outputs: of the value that suffers most."""
        found = self.by_output(model).values()
        return min(found, key=lambda a: (a.share, a.sqnr), default=Agreement(1.0, float("inf")))

    def by_output(self, model: Model) -> dict[str, Agreement]:
        """The same, of each value that is compared."""
        return self.judge(self._outputs(model))

    def judge(self, got: Mapping[str, Array]) -> dict[str, Agreement]:
        """The same, of values that were made on the same rows."""
        return {name: self._one(name, got[name], want) for name, want in self.want.items() if name in got}

    def _one(self, name: str, got: Array, want: Array) -> Agreement:
        if got.shape != want.shape:
            return Agreement(0.0, -np.inf, np.inf)
        if want.dtype.kind != "f":
            share = float((got == want).mean()) if want.size else 1.0
            return Agreement(share, np.inf if share == 1 else 0.0, 1 - share)
        noise = noise_of(got, want)
        if not np.isfinite(noise):
            return Agreement(0.0, -np.inf, np.inf)
        sqnr = decibels(_power(want), _squared(got, want))
        if name in self.classes:
            return Agreement(float((got.argmax(axis=-1) == want.argmax(axis=-1)).mean()), sqnr, noise, classes=True)
        return Agreement(max(0.0, 1 - noise), sqnr, noise)

    def _outputs(self, model: Model) -> dict[str, Array]:
        made = {t.name for n in model.graph.nodes for t in n.outputs}
        runner = Runner(model, outputs=[name for name in self.names if name in made] or None, threads=self._threads)
        return joined(runner.run(feed) for feed in self._samples.batches(BATCH))


def noise_of(got: Array, want: Array) -> float:
    """Squared error over variance of float arrays, rows first; infinite where sizes differ or numbers are lost.

    What is not finite in `want` does not count. A variance of less than a hundredth of the power counts as so much:
    rows that are nearly alike say little of what the difference between rows is worth.
    """
    if got.shape != want.shape or not np.isfinite(got[np.isfinite(want)]).all():
        return float("inf")
    squared = _squared(got, want)
    if not squared:
        return 0.0
    signal = np.where(np.isfinite(want), want, 0)
    spread = float(np.square(signal - signal.mean(axis=0)).sum()) if want.ndim else 0.0
    return squared / max(spread, FLAT * _power(want), 1e-30)


def _power(values: Array) -> float:
    return float(np.square(values, where=np.isfinite(values), out=np.zeros_like(values)).sum())


def _squared(got: Array, want: Array) -> float:
    fine = np.isfinite(want)
    return float(np.square(np.where(fine, got, 0) - np.where(fine, want, 0)).sum())


def joined(batches: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """Numbers of all rows, floats in double precision; those whose other axes vary are looked at flat."""
    parts: dict[str, list[Array]] = {}
    for batch in batches:
        for name, value in batch.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                parts.setdefault(name, []).append(value.astype(np.float64) if value.dtype.kind == "f" else value)
    result = {}
    for name, values in parts.items():
        same = values[0].ndim > 0 and len({v.shape[1:] for v in values}) == 1
        result[name] = np.concatenate(values if same else [v.reshape(1, -1) for v in values], axis=0 if same else 1)
    return result


def compared(model: Model) -> list[str]:
    """The outputs; instead of one that hangs on a choice (the best of something), what was chosen from."""
    found: dict[str, None] = {}
    for output in model.graph.outputs:
        before = _before_choice(output)
        found.update(dict.fromkeys(before or [output.name]))
    return list(found)


def _before_choice(output: Tensor) -> list[str]:
    """The values that are chosen from on the way to an output; none if nothing is."""
    queue, seen, before, chosen = [output], {id(output)}, [], False
    for tensor in queue:
        node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        if node is None or node.op not in _CHOOSING | _MOVING:
            before.append(tensor)
            continue
        chosen |= node.op in _CHOOSING
        data = [t for t in node.inputs if not isinstance(t, Constant) and t.name and id(t) not in seen]
        seen.update(id(t) for t in data)
        queue += data
    floats = [t.name for t in before if t.inputs and np.dtype(t.dtype or np.float32).kind == "f"]
    return floats if chosen else []


_CHOOSING = frozenset(
    {
        *("ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "NonZero", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Equal", "Round", "Floor", "Ceil", "Sign"),
    }
)
_MOVING = frozenset(
    {
        *("Gather", "GatherND", "GatherElements", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Slice"),
        *("Concat", "Split", "Identity", "Cast", "Not", "And", "Or", "Where", "ReduceMax", "Expand"),
    }
)


def _chooses(values: Array, tensor: Tensor, inner: set[str]) -> bool:
    """Is an output a choice among classes? Logits of a last layer, or likelihoods: positive, with a sum of one."""
    if values.ndim != 2 or values.shape[1] < 2:
        return False
    if (values >= 0).all() and np.abs(values.sum(axis=1) - 1).max(initial=0) < 1e-3:
        return True
    while len(tensor.inputs) == 1 and tensor.inputs[0].op in _PASSING:
        tensor = tensor.inputs[0].inputs[0]
    return len(tensor.inputs) == 1 and (tensor.inputs[0].op in _LAST or tensor.name in inner)


_PASSING = frozenset({"Softmax", "LogSoftmax", "Identity", "Flatten", "Reshape", "Squeeze", "Add", "Cast"})
_LAST = frozenset({"Gemm", "MatMul", "Conv", "GlobalAveragePool"})


def before_saturation(model: Model) -> list[str]:
    """What is compared beside the outputs: a Softmax that is sure of itself hides what its input says."""
    outputs = {t.name for t in model.graph.outputs}
    return [name for name in dict.fromkeys(ends(model).values()) if name not in outputs]


def ends(model: Model) -> dict[str, str]:
    """For each output the value to look at: what enters the last Softmax or Sigmoid, or the output itself."""
    found = {}
    for output in model.graph.outputs:
        tensor = output
        while len(tensor.inputs) == 1 and tensor.inputs[0].op in _SATURATING:
            tensor = tensor.inputs[0].inputs[0]
        found[output.name] = tensor.name if len(tensor.inputs) == 1 else output.name
    return found


def telling(model: Model) -> list[str]:
    """What tells most of the outputs: `compared`, and where one ends in a Softmax or Sigmoid, what enters that."""
    last = ends(model)
    return list(dict.fromkeys(last.get(name, name) for name in compared(model)))


_SATURATING = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Identity"})
