"""What `zc opt` does, step by step; apart from `opt` so that `--help` need not import it."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from zc.backends import find_backend, implied_target
from zc.backends.base import Artifact, Backend, deliver, prepare
from zc.cli import show
from zc.cli.gates import points
from zc.cli.options import apply_shapes, load_data, load_plugins
from zc.cli.output import check_output
from zc.cli.progress import tracker
from zc.cli.speed import measure_speed
from zc.cli.tables import json_text
from zc.data import Samples
from zc.data.summary import drift_between
from zc.errors import GateMissed, ZcError
from zc.execute import Runner
from zc.figures import size_text
from zc.ir.model import Model, load, write_atomically
from zc.measure.gate import AccuracyGate
from zc.measure.weights import disk_bytes
from zc.pipeline.base import Context
from zc.pipeline.manager import Hook, PassFailed, PassRun, Report, Verify, run_pipeline
from zc.pipeline.provenance import Provenance, file_sha256
from zc.pipeline.spec import Pipeline, effective, named_pipelines, parse, pass_defaults


@dataclass(frozen=True)
class Options:
    """The options of the command, as click gives them."""

    model: str
    pipeline: str
    output: str | None
    data: str | None
    rows: str | None
    prep: str | None
    target: str | None
    shapes: tuple[str, ...]
    cpu: str | None
    seed: int
    verify: Verify
    eval_data: str | None
    eval_rows: str | None
    metric: str
    label_key: str | None
    label_offset: int
    max_drop: str | None
    best_effort: bool
    external_data: bool
    print_after: str | None
    dump_ir: str | None
    timing: bool
    bench: bool | None
    json_file: str | None
    repro: str
    quiet: bool
    dry_run: bool
    plugins: tuple[str, ...]


def _as_far_as_it_gets(pipeline: Pipeline) -> Pipeline:
    """The pipeline whose passes fall short of a goal rather than fail. ZcError when none has a goal."""
    passes = [replace(one, best_effort=True) if "best_effort" in one.options() else one for one in pipeline.passes]  # type: ignore[type-var]
    if all("best_effort" not in one.options() for one in passes):
        raise ZcError(f"--best-effort: no pass of '{pipeline}' has a goal that it could fall short of")
    return Pipeline(tuple(passes))


def optimize(options: Options) -> None:
    """Read, run, check, write. Nothing is written unless all of it went well."""
    plugins = load_plugins(options.plugins)
    pipeline = parse(options.pipeline, named_pipelines(Path.cwd()), pass_defaults(Path.cwd()))
    if options.best_effort:
        pipeline = _as_far_as_it_gets(pipeline)
    steps = effective(pipeline)
    out = show.console()
    if options.dry_run:
        click.echo(str(steps))
        return
    source = Path(options.model)
    backend = find_backend(implied_target(options.output, options.target), options.cpu)
    output = _output(options, source, backend)
    drop = points(options.max_drop)
    model = load(source)
    apply_shapes(model, options.shapes)
    size = disk_bytes(model)
    if output is not None and not plugins:  # a pass of somebody's own may mend anything
        backend.foresee(model, output)
    samples = None if options.data is None else load_data(model.inputs, options.data, options.rows, options.prep)
    _unused_data(options)
    judged = None if options.eval_data is None else _judged_samples(options, model)
    if not options.quiet:
        out.print(f"[bold]{escape(model.name)}[/] -> {steps}" + (f"; samples: {samples.origin}" if samples else ""))
    notes = samples.notes if samples else ()
    for note in dict.fromkeys((*notes, *(judged.notes if judged else ()))):
        out.print(f"  [yellow]note[/] {escape(note)}")
    for line in drift_between(samples, judged) if samples and judged else ():
        out.print(f"  [yellow]warning[/] {escape(line)}")
    gate = None
    if judged is not None:
        gate = AccuracyGate(model.copy(), judged, options.metric, drop, options.label_offset)
    with tracker(options.quiet) as track:
        ctx = Context(backend.target, samples, options.seed, track)
        ctx.gate = replace(gate, track=track) if gate is not None and drop is not None else None
        hooks = _hooks(options, steps, out)
        try:
            report = run_pipeline(
                model,
                pipeline,
                ctx,
                verify=options.verify,
                hooks=hooks,
                reproducers=Path(options.repro),
                plugins=plugins,
            )
        except PassFailed as failed:
            out.print(f"reproducer: {failed.folder}\n  {failed.command}")
            raise
    show.summary(out, report)
    _provenance(options, report, ctx, source, plugins).write(model)
    score = None
    if gate is not None:
        with tracker(options.quiet) as track:
            score = _evaluate(replace(gate, track=track), model, out)
    if output is not None:
        artifact = _write(model, output, options, backend, ctx, proven=report.total is not None)
        show.notes(out, artifact.notes)
        timed = output.suffix == ".onnx" and backend.here
        speed = _speed(options, ctx, model, report, out) if timed else None
        click.echo(_line(report, size, artifact, [line for line in (speed, score) if line]))
    if options.json_file is not None:
        _json(options.json_file, report, score)


def _output(options: Options, source: Path, backend: Backend) -> Path | None:
    """The file to write, checked before the work begins."""
    if options.output is None:
        if options.print_after or options.dump_ir or options.json_file:
            return None
        raise ZcError("nothing to write: give -o OUT.onnx (or --print-after, --dump-ir, --json to look only)")
    output = Path(options.output)
    check_output(output, backend)
    if output.exists() and source.exists() and output.resolve() == source.resolve():
        raise ZcError(f"{output}: is the input itself; write to another file")
    return output


def _unused_data(options: Options) -> None:
    """ZcError for an option that speaks of samples which are not given."""
    if options.data is None and (options.rows or (options.prep and options.eval_data is None)):
        raise ZcError("--calib-rows and --prep speak of samples, but --calib DATA is not given")
    if options.eval_data is None:
        if options.max_drop is not None:
            raise ZcError("--max-drop needs --eval DATA to measure on")
        if options.eval_rows or options.label_key or options.label_offset:
            raise ZcError("--eval-rows, --label-key and --label-offset speak of samples, but --eval DATA is not given")


def _judged_samples(options: Options, model: Model) -> Samples:
    assert options.eval_data is not None
    return load_data(model.inputs, options.eval_data, options.eval_rows, options.prep, options.label_key)


def _hooks(options: Options, steps: Pipeline, out: Console) -> list[Hook]:
    hooks: list[Hook] = []
    if options.quiet:
        hooks.append(lambda run, model: show.notes(out, [note for note in run.notes if note.kind == "warning"]))
    else:
        hooks.append(lambda run, model: show.pass_line(out, run, options.timing))
    if options.print_after is not None:
        names = [p.name for p in steps.passes]
        wanted = options.print_after
        if wanted not in ("all", "change", *names):
            raise ZcError(f"--print-after {wanted}: the pipeline has no such pass; it runs {', '.join(names)}")
        hooks.append(lambda run, model: _print_after(wanted, run, model))
    if options.dump_ir is not None:
        folder = Path(options.dump_ir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ZcError(f"--dump-ir {folder}: {err.strerror}") from err
        hooks.append(lambda run, model: _dump(folder, run, model))
    return hooks


def _print_after(wanted: str, run: PassRun, model: Model) -> None:
    from zc.ir.text import print_model

    if wanted in ("all", run.name) or (wanted == "change" and run.changed):
        click.echo(f"# after {run.index} {run.text}\n{print_model(model)}")


def _dump(folder: Path, run: PassRun, model: Model) -> None:
    from zc.ir.text import print_model

    text = print_model(model)
    write_atomically(folder / f"{run.index:02}-{run.name}.txt", lambda file: file.write(text.encode()))


def _provenance(options: Options, report: Report, ctx: Context, source: Path, plugins: list[Path]) -> Provenance:
    samples = ctx.samples
    return Provenance(
        pipeline=report.pipeline,
        effective=report.effective,
        target=report.target,
        seed=options.seed,
        source=source.name,
        source_sha256=file_sha256(source),
        data="" if samples is None else "synthetic" if samples.synthetic else Path(options.data or "").name,
        data_rows=options.rows or "",
        data_prep=options.prep or "",
        data_sha256="" if samples is None else samples.digest(),
        plugins=json.dumps([[p.name, file_sha256(p)] for p in plugins]),
    )


def _evaluate(gate: AccuracyGate, model: Model, out: Console) -> str:
    """The metric before and after, as a line. GateMissed when it dropped more than allowed."""
    verdict = gate(model)
    for text in verdict.notes:
        out.print(f"  [yellow]note[/] {escape(text)}")
    if not verdict.passed:
        raise GateMissed(
            f"{verdict.line}: dropped by {verdict.drop:.2f}, at most {gate.allowed:g} was allowed; nothing was written"
        )
    return verdict.line


def _write(model: Model, output: Path, options: Options, backend: Backend, ctx: Context, *, proven: bool) -> Artifact:
    """Write the artifact of a target, or save what onnxruntime was seen to open (the proof ran it): a file that does
    not load is never handed over.
    """
    if output.suffix != ".onnx" or (backend.target.session and not options.external_data):
        artifact, noted = deliver(backend, model, output, ctx)
        return replace(artifact, notes=(*noted, *artifact.notes))
    legal = ".onnx" in backend.suffixes and backend.legalise(model)
    notes = prepare(backend, model, ctx) if legal else []
    if not proven and backend.proof != "structure":
        Runner(model, level="basic")
    model.save(output, external=True if options.external_data else None)
    return Artifact(output, disk_bytes(load(output)), (*notes, *backend.told(model, output.name)))


def _speed(options: Options, ctx: Context, model: Model, report: Report, out: Console) -> str | None:
    """The time before and after, as a line; a warning with the cause when the result is slower."""
    lossy = any(run.changed and not run.exact for run in report.passes)
    if ctx.original is None or not (lossy if options.bench is None else options.bench):
        return None
    speed = measure_speed(ctx.original, model, ctx.samples)
    if speed is None:
        return None
    if speed.warning is not None:
        out.print(f"  [yellow]warning[/] {escape(speed.warning)}")
    return speed.line


def _line(report: Report, before: int, artifact: Artifact, more: list[str]) -> str:
    after = artifact.bytes
    parts = [
        f"{artifact.path}: {size_text(before)} -> {size_text(after)}{show.share(before, after)}",
        f"{report.nodes[0]} -> {report.nodes[1]} nodes",
    ]
    if report.total is not None:
        moved = report.total
        parts.append("outputs equal" if moved.relative <= 1e-5 else f"{show.moved_text(moved)} against the original")
    return "; ".join([*parts, *more])


def _json(path: str, report: Report, score: str | None) -> None:
    data = report.to_json() | ({"eval": score} if score else {})
    text = json_text(data) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_atomically(Path(path), lambda file: file.write(text.encode()))
