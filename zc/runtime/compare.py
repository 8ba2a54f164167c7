"""Comparison with another engine, value by value: where do the first codes differ, by how much, and were they ties?"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.graph import Array, Constant, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.kernels import rules
from zc.runtime import shapes
from zc.runtime.lower_weighted import halves
from zc.runtime.ops import Binary, Convolution, GlobalAverage, Island, Op, Product
from zc.runtime.reference import session_options
from zc.runtime.session import FloatNode, Session
from zc.runtime.types import code_types

Feeds = Mapping[str, Array]


class Engine(Protocol):
    """What runs a model on feeds."""

    def run(self, feeds: Feeds, /) -> dict[str, Array]:
        """All outputs by name."""


@dataclass
class Divergence:
    """The first value, in order of computation, of which codes differ."""

    value: str
    node: str
    op: str
    differing: int
    total: int
    steps: dict[int, int] = field(default_factory=dict)
    """How many codes differ by so many steps (ours less theirs); of float values none."""
    ties: int | None = None
    """How many of those were exactly between two codes before rounding; None: not known for this operator."""


@dataclass
class Verdict:
    """What a comparison found."""

    rows: int = 0
    values: int = 0
    """Values compared, inner ones and outputs."""
    compared: int = 0
    """Elements compared."""
    differing: int = 0
    """Elements of the model's outputs that differ."""
    first: Divergence | None = None
    float_nodes: tuple[FloatNode, ...] = ()


def compare(
    model: Model,
    batches: Iterable[Feeds],
    *,
    threads: int = 1,
    mode: str = "ort",
    engine: Callable[[Model], Engine] | None = None,
) -> Verdict:
    """Run a quantised model in our kernels and in another engine, and compare every value that has codes.

    Values are read out as codes, which changes neither side's arithmetic. It stops reading batches at a divergence.
    mode: of our kernels (`modes.Mode`); engine: opens a model, onnxruntime's default level if None. With another one,
    values that float nodes make are not compared.
    """
    open_model = model.copy()
    inner = [name for op in Session(model, mode=mode).ops for name in op.outputs]
    infer_shapes(open_model)
    types = code_types(open_model)
    tensors = open_model.graph.tensors()
    ends = {t.name for t in open_model.graph.outputs}
    for name in inner:
        if name not in ends and types.get(name) in (np.uint8, np.int8):
            open_model.graph.outputs.append(tensors[name])
    session = Session(open_model, threads=threads, mode=mode)
    if engine is None:
        runner: Engine = Runner(open_model, threads=threads, config=session_options(signed=session.signed))
    else:
        runner = engine(open_model)
    makers = {name: op for op in session.ops for name in op.outputs}
    outputs = [o.name for o in session.outputs]
    order = [*dict.fromkeys(n for op in session.ops for n in op.outputs if n in outputs)]
    order += [n for n in outputs if n not in order]
    if engine is not None:  # its float operators are not onnxruntime's, which run ours
        order = [n for n in order if not isinstance(makers.get(n), Island)]
    verdict = Verdict(float_nodes=session.float_nodes, values=len(order))
    for feeds in batches:
        want = runner.run(feeds)
        got = dict(zip(outputs, session.run(None, feeds), strict=True))
        verdict.rows += next((len(a) for a in feeds.values() if a.ndim), 1)
        for name in order:
            verdict.compared += want[name].size
            wrong = _differing(got[name], want[name])
            verdict.differing += int(wrong.sum()) if name in ends else 0
            if wrong.any() and verdict.first is None:
                verdict.first = _diverged(name, makers.get(name), got[name], want[name], wrong)
                if mode == "ort":
                    codes = {**{n: t.values for n, t in tensors.items() if isinstance(t, Constant)}, **want, **feeds}
                    verdict.first.ties = _ties(makers.get(name), wrong, codes)
        if verdict.first is not None:
            break
    if verdict.rows == 0:
        raise ZcError(f"{model.name}: no samples to compare on")
    return verdict


def _differing(got: Array, want: Array) -> Array:
    if got.shape != want.shape or got.dtype != want.dtype:
        return np.ones(want.shape, bool)
    different = got != want
    return np.asarray(different & ~((got != got) & (want != want)), bool)  # noqa: PLR0124


def _diverged(name: str, op: Op | None, got: Array, want: Array, wrong: Array) -> Divergence:
    node = op.nodes[0] if op is not None else None
    found = Divergence(name, describe(node) if node else "", node.op if node else "", int(wrong.sum()), wrong.size)
    if want.dtype in (np.uint8, np.int8) and got.shape == want.shape:
        steps = got.astype(np.int64) - want.astype(np.int64)
        found.steps = {int(k): int(v) for k, v in sorted(Counter(steps[wrong].tolist()).items())}
    return found


def _ties(op: Op | None, wrong: Array, codes: Mapping[str, Array]) -> int | None:
    reals = unrounded(op, codes) if op is not None and all(n in codes for n in op.inputs) else None
    return None if reals is None else int(((np.abs(reals - np.floor(reals) - 0.5) == 0) & wrong).sum())


def unrounded(op: Op, values: Mapping[str, Array]) -> Array | None:
    """What is rounded to the output's codes, before rounding, by the NumPy rules. None for other operators.

    values: codes by name, as the model has them.
    """
    inputs = [_memory(values[name]) for name in op.inputs]
    if isinstance(op, Convolution):
        x = inputs[0] if inputs[0].ndim == 4 else inputs[0][:, :, None]
        _, pads = shapes.window(op, op.weights.codes.shape[2:], (x.shape[2], x.shape[3]))
        parts = halves(op.weights.codes, op.weights.zero, 0)
        acc = sum(rules.convolve(x, op.x.zero, w, op.strides, pads, op.dilations, op.group) for w in parts)
        acc = np.asarray(acc) + op.weights.bias[:, None, None]
        scale = rules.multiplier(op.x.scale, op.weights.scale, op.y.scale)[:, None, None]
        reals = acc.astype(np.float32) * scale
        return np.asarray(reals if inputs[0].ndim == 4 else reals[:, :, 0])
    if isinstance(op, Product) and op.y is not None:
        acc = rules.multiply_accumulate(inputs[0], op.x.zero, op.weights.codes, op.weights.zero)
        scale = rules.multiplier(op.x.scale, op.weights.scale, op.y.scale)
        return np.asarray((acc + op.weights.bias).astype(np.float32) * scale)
    if isinstance(op, Binary):
        a, b = inputs
        if op.kind == "add":
            terms = rules.add_terms(op.a.scale, op.a.zero, op.b.scale, op.b.zero, op.y.scale, op.y.zero, op.y.base)
            return rules.add_unrounded(a, b, terms, op.y.base)
        factor = np.float32(np.float32(op.a.scale * op.b.scale) / op.y.scale)
        return rules.multiply_unrounded(a, op.a.zero, b, op.b.zero, factor, op.y.zero, op.y.base)
    if isinstance(op, GlobalAverage):
        axes = tuple(range(2, inputs[0].ndim))
        count = int(np.prod(inputs[0].shape[2:], dtype=np.int64))
        total = inputs[0].astype(np.int64).sum(axes, keepdims=True) - count * op.x.zero
        return np.asarray(total.astype(np.float32) * rules.average_scale(op.x.scale, op.y.scale, count))
    return None


def _memory(codes: Array) -> Array:
    """Codes as they are in memory."""
    return codes.view(np.uint8) ^ np.uint8(128) if codes.dtype == np.int8 else codes
