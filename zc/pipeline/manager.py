"""The manager: runs a pipeline, proves or measures every pass, and tells what happened."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zc.data import Samples
from zc.errors import CheckFailed, ZcError
from zc.execute import Refused, Runner
from zc.ir.adopt import adopt
from zc.ir.check import check
from zc.ir.edit import sort_nodes
from zc.ir.graph import Constant, describe
from zc.ir.model import Model
from zc.pipeline.base import Context, Note, Pass, PassResult, Stat
from zc.pipeline.reproducer import write_reproducer
from zc.pipeline.spec import Pipeline, effective, parse, step_text
from zc.pipeline.synthetic import synthetic_samples
from zc.pipeline.verify import Movement, Prover, require_same_signature, signature

Verify = Literal["off", "structure", "numeric"]
_PROOF_ROWS = 8
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LSTM", "GRU"})


@dataclass(frozen=True)
class PassRun:
    """One pass as it ran."""

    index: int
    name: str
    text: str
    """The pass as pipeline text, with what it chose."""
    exact: bool
    changed: bool
    seconds: float
    verify_seconds: float
    nodes: tuple[int, int]
    """Before and after, in all scopes."""
    bytes: tuple[int, int]
    """Of the weights, before and after."""
    movement: Movement | None
    """How far the outputs moved on the samples of the proof; None when it was not measured."""
    stats: dict[str, Stat]
    notes: tuple[Note, ...]


@dataclass
class Report:
    """A pipeline as it ran."""

    pipeline: str
    effective: str
    """With the passes that others require and, once they ran, with what they chose."""
    target: str
    verify: Verify
    passes: list[PassRun] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    """What is not of one pass: the model as it was read, the samples."""
    total: Movement | None = None
    """How far the outputs are from those of the model as it came."""
    nodes: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class PassFailed(CheckFailed):
    """A pass broke, or broke the model. `folder` holds the reproducer, `command` replays it."""

    def __init__(self, message: str, folder: Path | None, command: str) -> None:
        super().__init__(message)
        self.folder, self.command = folder, command


Hook = Callable[[PassRun, Model], None]


def run_pipeline(
    model: Model,
    pipeline: Pipeline | str,
    ctx: Context,
    *,
    verify: Verify = "numeric",
    hooks: Sequence[Hook] = (),
    started: Callable[[Pipeline], None] | None = None,
    reproducers: Path | None = None,
    plugins: Sequence[Path] = (),
) -> Report:
    """Run the passes on the model, in place.

    verify: `structure` checks the graph after each pass, `numeric` also what it returns on a few samples.
    hooks: called after each pass. started: called with the effective pipeline before the first pass.
    reproducers: where to write the folder that replays a failure; None writes none.
    ZcError when the input or an option is wrong; PassFailed when a pass breaks.
    """
    pipeline = parse(pipeline) if isinstance(pipeline, str) else pipeline
    steps = effective(pipeline)
    report = Report(str(pipeline), str(steps), ctx.target.name, verify)
    report.notes += [Note("info", model.name, text) for text in model.notes]
    begin = time.perf_counter()
    if sum(sort_nodes(scope) for scope in model.scopes()):
        report.notes.append(Note("info", model.name, "its nodes stood before what they need; they were sorted"))
    check(model)
    _refuse_nan(model)
    ctx.original = ctx.original or model.copy()
    size = _size(model)
    prover = _prover(model, ctx) if verify == "numeric" else None
    for name in prover.blind() if prover is not None else ():
        what = "is NaN or infinite throughout on the samples of the proof, which so says nothing of it"
        report.notes.append(Note("warning", f"output '{name}'", what))
    if started is not None:
        started(steps)
    for one in steps.passes:
        one.ready(ctx)
    for index, one in enumerate(steps.passes):
        before = model.copy() if reproducers is not None else model
        try:
            run = _run_one(index, one, model, ctx, verify, prover)
        except Exception as err:
            expected = isinstance(err, ZcError) and not isinstance(err, CheckFailed)
            if expected or reproducers is None:
                raise
            message = str(err) if isinstance(err, ZcError) else f"{one.name}: {type(err).__name__}: {err}"
            folder, command = write_reproducer(reproducers, before, steps.passes[index:], ctx, message, plugins)
            raise PassFailed(message, folder, command) from err
        report.passes.append(run)
        for hook in hooks:
            hook(run, model)
    report.effective = ",".join(run.text for run in report.passes)
    report.notes += ctx.loud
    report.total = prover.total() if prover else None
    report.nodes, report.bytes = (size[0], _size(model)[0]), (size[1], _size(model)[1])
    report.seconds = time.perf_counter() - begin
    return report


def _run_one(index: int, one: Pass, model: Model, ctx: Context, verify: Verify, prover: Prover | None) -> PassRun:
    then, size, outline = signature(model), _size(model), _outline(model)
    begin = time.perf_counter()
    try:
        result = one.run(model, ctx)
    except ZcError as err:
        raise type(err)(f"{one.name}: {err}" if not str(err).startswith(one.name) else str(err)) from err.__cause__
    if not isinstance(result, PassResult):
        raise CheckFailed(f"{one.name}: run() returned {type(result).__name__}, not a PassResult")
    seconds = time.perf_counter() - begin
    adopt(model.graph)
    moved = None
    if not result.changed and _outline(model) != outline:
        result.changed = True
        result.warn(one.name, "it says that it changed nothing, but the graph is another; it is checked all the same")
    if verify != "off" and result.changed:
        _check_structure(one, model, then)
        if prover is not None:
            moved = prover.exact(model, one.name) if one.proven else prover.lossy(model)
    return PassRun(
        index=index,
        name=one.name,
        text=step_text(result.chose or one),
        exact=one.proven,
        changed=result.changed,
        seconds=seconds,
        verify_seconds=time.perf_counter() - begin - seconds,
        nodes=(size[0], _size(model)[0]),
        bytes=(size[1], _size(model)[1]),
        movement=moved,
        stats=result.stats,
        notes=tuple(result.notes),
    )


def _outline(model: Model) -> list[Any]:
    """What a pass edits: nodes, their edges and plain attributes; objects compare by identity."""
    rows: list[Any] = []
    for scope in model.scopes():
        rows.append((tuple(scope.inputs), tuple(scope.outputs)))
        for node in scope.nodes:
            plain = tuple((k, v) for k, v in node.attrs.items() if isinstance(v, int | float | str))
            rows.append((node, node.op, tuple(node.inputs), tuple(node.outputs), plain))
    return rows


def _check_structure(one: Pass, model: Model, then: Any) -> None:
    try:
        check(model)
    except ZcError as err:
        raise CheckFailed(f"{one.name}: left an invalid graph: {err}") from err
    if not one.signature:
        require_same_signature(then, model, one.name)


def _refuse_nan(model: Model) -> None:
    """ZcError when a weight of a layer holds NaN: whatever such a model returns, nothing can be proven or measured."""
    for scope in model.scopes():
        for node in scope.nodes:
            if node.op not in _LAYERS:
                continue
            for tensor in node.inputs:
                if not isinstance(tensor, Constant) or np.dtype(tensor.dtype).kind != "f":
                    continue
                count = int(np.isnan(tensor.values).sum())
                if count:
                    what = f"{count} of its {tensor.size} elements are NaN"
                    raise ZcError(
                        f"{model.name}: node '{describe(node)}': weight '{tensor.name}': {what}; the model is damaged"
                    )


def _prover(model: Model, ctx: Context) -> Prover:
    """The proof, begun: opening a session on a big graph costs seconds, so that one serves samples and proof."""
    runner = Runner(model)
    return Prover.start(model, _feeds(model, ctx, runner), runner)


def _feeds(model: Model, ctx: Context, runner: Runner) -> list[dict[str, Any]]:
    """A few rows for the proof: the user's, else synthetic ones."""
    try:
        samples: Samples = ctx.samples or synthetic_samples(model, rows=_PROOF_ROWS, seed=ctx.seed, runner=runner)
    except ZcError as err:
        if isinstance(err, Refused):
            raise
        raise ZcError(f"{err}; without samples a run can be checked in structure alone: --verify structure") from err
    feeds, rows = [], 0
    for feed in samples.batches(_PROOF_ROWS):
        feeds.append(dict(feed))
        rows += len(next(iter(feed.values()))) if feed and next(iter(feed.values())).ndim else 1
        if rows >= _PROOF_ROWS:
            break
    return feeds


def _size(model: Model) -> tuple[int, int]:
    return sum(len(scope.nodes) for scope in model.scopes()), model.nbytes()


__all__ = ["PassFailed", "PassRun", "Report", "Verify", "run_pipeline"]
