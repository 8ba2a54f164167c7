"""How well a compressed model agrees with its original, without labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.execute import Runner
from zc.ir.graph import Array, Tensor
from zc.ir.model import Model
from zc.measure.tensor_error import decibels

BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """Of all outputs together."""

    share: float
    """The lowest of the outputs. With classes: rows with the same class; else 1 - squared error / variance, >= 0."""
    sqnr: float
    """Signal to noise in dB of the output with the lowest share."""


class Reference:
    """What the original says on some rows."""

    def __init__(self, model: Model, samples: Samples, threads: int | None = None) -> None:
        """Run the original."""
        self._samples, self._threads = samples, threads
        self.want = self._outputs(model)
        ends = {t.name: t for t in model.graph.outputs}
        inner = set(before_saturation(model))
        self.classes = {k for k, v in self.want.items() if _chooses(v, ends[k], inner)}

    def agreement(self, model: Model) -> Agreement:
        """Of a model with the same inputs and outputs."""
        found = self.by_output(model).values()
        return min(found, key=lambda a: (a.share, a.sqnr), default=Agreement(1.0, float("inf")))

    def by_output(self, model: Model) -> dict[str, Agreement]:
        """The same, of each output with floats."""
        return self.judge(self._outputs(model))

    def judge(self, got: Mapping[str, Array]) -> dict[str, Agreement]:
        """The same, of outputs that were made on the same rows."""
        return {name: self._one(name, got[name], want) for name, want in self.want.items()}

    def _one(self, name: str, got: Array, want: Array) -> Agreement:
        if got.shape != want.shape or not np.isfinite(got).all():
            return Agreement(0.0, -np.inf)
        noise = float(np.square(got - want).sum())
        sqnr = decibels(float(np.square(want).sum()), noise)
        if name in self.classes:
            return Agreement(float((got.argmax(axis=-1) == want.argmax(axis=-1)).mean()), sqnr)
        spread = float(np.square(want - want.mean(axis=0)).sum())
        return Agreement(max(0.0, 1 - noise / max(spread, 1e-30)), sqnr)

    def _outputs(self, model: Model) -> dict[str, Array]:
        runner = Runner(model, threads=self._threads)
        return joined(runner.run(feed) for feed in self._samples.batches(BATCH))


def joined(batches: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """Float outputs of all rows; those whose other axes vary are looked at flat."""
    parts: dict[str, list[Array]] = {}
    for batch in batches:
        for name, value in batch.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                parts.setdefault(name, []).append(value.astype(np.float64))
    result = {}
    for name, values in parts.items():
        same = values[0].ndim > 0 and len({v.shape[1:] for v in values}) == 1
        result[name] = np.concatenate(values if same else [v.reshape(1, -1) for v in values], axis=0 if same else 1)
    return result


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


_SATURATING = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Identity"})
