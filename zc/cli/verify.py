"""`zc verify`: compare our integer kernels with onnxruntime or LiteRT, value by value."""

from typing import TYPE_CHECKING

import click

from zc.cli.options import data_options, mode_option

if TYPE_CHECKING:
    from zc.ir.model import Model
    from zc.runtime.compare import Engine, Verdict


@click.command(short_help="Compare a quantised model's codes with onnxruntime's or LiteRT's.")
@click.argument("model", metavar="MODEL.onnx")
@data_options("--data", what="Samples to run on; without them, synthetic ones")
@click.option(
    "--against",
    type=click.Choice(["ort", "litert"]),
    help="onnxruntime's default level (the default in mode ort), or LiteRT's reference kernels (in the others).",
)
@mode_option
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1), help="Rows a run.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of a run.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    model: str,
    data: str | None,
    rows: str | None,
    prep: str | None,
    against: str | None,
    mode: str,
    batch: int,
    threads: int,
    as_json: bool,
) -> None:
    """Run a quantised model in our integer kernels and in another engine, and compare every value that has codes.

    Exit 0 if all codes and outputs are equal, 1 if not. Then the first value that differs is shown with its node, by
    how many steps its codes differ, and how many of them lay exactly between two codes before rounding (ties).

    \b
    Examples:
      zc verify int8.onnx --data test.npz --prep imagenet --rows :64
      zc verify int8.onnx --against ort --json
      zc verify int8.onnx --data test.npz --mode tflite-double
    """
    from dataclasses import asdict

    from zc.cli import tables
    from zc.cli.options import load_data
    from zc.data import synthesize
    from zc.errors import CheckFailed, ZcError
    from zc.ir.model import load
    from zc.runtime.compare import compare

    if data is None and (rows or prep):
        raise ZcError("--rows and --prep speak of samples, but --data DATA is not given")
    against = against or ("ort" if mode == "ort" else "litert")
    loaded = load(model)
    samples = synthesize(loaded.inputs, batch) if data is None else load_data(loaded.inputs, data, rows, prep)
    for text in () if samples.synthetic else samples.notes:
        tables.note(text)
    engine = _litert if against == "litert" else None
    verdict = compare(loaded, samples.batches(batch), threads=threads, mode=mode, engine=engine)
    if as_json:
        tables.json_out(
            {"model": model, "mode": mode, "against": against, "samples": samples.origin, **asdict(verdict)}
        )
    else:
        _print(verdict, samples.origin)
    if verdict.first is not None:
        first = verdict.first
        node = f"{first.op} '{first.node}'" if first.op else "the model"
        raise CheckFailed(
            f"{model}: {first.differing} of {first.total} elements of '{first.value}' ({node}) differ from "
            + ("onnxruntime's" if against == "ort" else "LiteRT's")
        )


def _litert(model: "Model") -> "Engine":
    """The model's TFLite file in LiteRT's reference kernels."""
    from zc.backends.tflite.emit import TfliteOptions, bundle, flatten
    from zc.backends.tflite.legalise import legalise
    from zc.backends.tflite.litert import LiteRtRunner

    data = bundle({"serving_default": flatten(legalise(model), TfliteOptions())})
    return LiteRtRunner(data, kernels="reference")


def _print(verdict: "Verdict", origin: str) -> None:
    from zc.cli.tables import facts, note

    for node in verdict.float_nodes:
        note(f"{node.op} '{node.node}' runs in float: {node.reason}")
    lines = [
        ("rows", str(verdict.rows)),
        ("values", str(verdict.values)),
        ("elements", str(verdict.compared)),
        ("differing outputs", str(verdict.differing)),
    ]
    if verdict.first is not None:
        steps = ", ".join(f"{step:+d}: {count}" for step, count in verdict.first.steps.items())
        lines += [
            ("first difference", f"{verdict.first.value} ({verdict.first.op} '{verdict.first.node}')"),
            ("steps", steps or "not codes"),
            ("ties", "unknown" if verdict.first.ties is None else str(verdict.first.ties)),
        ]
    facts(lines)
    click.echo(origin)
