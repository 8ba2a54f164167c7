"""What `zc sensitivity` does."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zc.backends import find_target
from zc.cli import tables
from zc.cli.options import load_data, load_plugins
from zc.cli.progress import tracker
from zc.errors import ZcError
from zc.ir.model import Model, load
from zc.measure.cost import count
from zc.measure.evaluate import evaluate_all
from zc.passes.quantize.quantize import Quantize
from zc.passes.quantize.sensitivity import Sensitive, Step, accumulate, rank
from zc.pipeline.base import Context, PassResult
from zc.pipeline.manager import run_pipeline
from zc.pipeline.spec import named_pipelines, parse, pass_defaults


@dataclass(frozen=True)
class Options:
    """The options of the command, as click gives them."""

    model: str
    data: str
    rows: str | None
    prep: str | None
    text: str
    target: str
    floats: int
    eval_data: str | None
    eval_rows: str | None
    metric: str
    label_key: str | None
    label_offset: int
    seed: int
    threads: int | None
    plugins: tuple[str, ...]


@dataclass(frozen=True)
class Sensed:
    """What was found."""

    model: str
    ranking: list[Sensitive]
    steps: list[Step]
    macs: int
    """Of the whole model."""
    metric: str
    """Of `Step.score`; empty without --eval."""
    float_score: float | None
    origin: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        layers = [{**asdict(one), "db": one.db} for one in self.ranking]
        return asdict(self) | {"ranking": layers}


def sense(options: Options) -> Sensed:
    """Read, prepare, measure."""
    load_plugins(options.plugins)
    quantize = _quantize(options.text)
    model = load(options.model)
    samples = load_data(model.inputs, options.data, options.rows, options.prep)
    gate = None
    if options.eval_data is not None:
        gate = load_data(model.inputs, options.eval_data, options.eval_rows, options.prep, options.label_key)
    elif options.eval_rows or options.label_key or options.label_offset:
        raise ZcError("--eval-rows, --label-key and --label-offset speak of samples, but --eval DATA is not given")
    for text in dict.fromkeys((*samples.notes, *(gate.notes if gate else ()))):
        tables.note(text)
    with tracker() as track:
        ctx = Context(find_target(options.target), samples, options.seed, track, options.threads)
        for needed in quantize.requires:
            run_pipeline(model, needed, ctx, verify="structure")
        result = PassResult(changed=False)
        prepared = quantize.prepare(model, ctx, result)
        if prepared is None:
            raise ZcError(f"{options.model}: {result.notes[-1].what}")
        workshop, keep_float, _ = prepared
        built = workshop.build(quantize.form(), keep_float)

        def score(one: Model) -> float:
            assert gate is not None
            scores, _ = evaluate_all(
                [one],
                gate,
                options.metric,
                reference=workshop.model,
                label_offset=options.label_offset,
                threads=options.threads,
                track=track,
            )
            return scores[0].value

        ranking = rank(workshop, built, keep_float)
        scored = score if gate is not None else None
        steps = accumulate(workshop, built, keep_float, ranking, options.floats, scored) if options.floats else []
        float_score = score(workshop.model) if scored and steps else None
    macs = count(workshop.model).known_macs
    metric = options.metric if scored else ""
    return Sensed(workshop.model.name, ranking, steps, macs, metric, float_score, workshop.split.held.origin)


def _quantize(text: str) -> Quantize:
    passes = parse(text, named_pipelines(Path.cwd()), pass_defaults(Path.cwd())).passes
    if len(passes) != 1 or not isinstance(passes[0], Quantize):
        raise ZcError(f"--quantize {text}: give the pass quantize with its options, as quantize:method=mse")
    return passes[0]
