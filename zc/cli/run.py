"""`zc run`: run a model on data and write what it puts out."""

from typing import TYPE_CHECKING, Any

import click

from zc.cli.options import data_options, mode_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zc.ir.graph import Array
    from zc.ir.model import Model


@click.command(short_help="Run a model on data and write the outputs.")
@click.argument("model", metavar="MODEL.onnx")
@data_options("--data", what="Samples to run on", required=True)
@click.option("-o", "--output", metavar="OUT.npz", help="Write the outputs, an array each, under their names.")
@click.option(
    "--engine",
    type=click.Choice(["reference", "ort"]),
    default="reference",
    show_default=True,
    help="Our integer kernels, or onnxruntime.",
)
@click.option("--strict", is_flag=True, help="Refuse a model of which a part would run in float.")
@mode_option
@click.option("--batch", default=32, show_default=True, type=click.IntRange(min=1), help="Rows a run.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of a run.")
def command(
    model: str,
    data: str,
    rows: str | None,
    prep: str | None,
    output: str | None,
    engine: str,
    strict: bool,
    mode: str,
    batch: int,
    threads: int,
) -> None:
    """Run a model on samples, batch by batch.

    The reference engine runs a quantised model in integers, with exactly the codes that onnxruntime computes at its
    default level. Nodes without an integer kernel run in onnxruntime; they are listed, or refused with --strict.
    With --mode tflite-double it computes what LiteRT's reference kernels make of the model, in fixed point;
    tflite-single rounds each product once, as TFLite can be built to.

    \b
    Examples:
      zc run int8.onnx --data test.npz --prep imagenet -o out.npz
      zc run int8.onnx --data test.npz --rows :8 --strict
      zc run int8.onnx --data test.npz --mode tflite-double -o lite.npz
      zc run model.onnx --data images/ --prep 'pm1 crop=224' --engine ort
    """
    from pathlib import Path

    import numpy as np

    from zc.cli import tables
    from zc.cli.options import load_data
    from zc.errors import ZcError
    from zc.ir.files import write_atomically
    from zc.ir.model import load

    if output is not None and not output.endswith(".npz"):
        raise ZcError(f"-o {output}: outputs are written as .npz; give the file that ending")
    if engine == "ort" and (strict or mode != "ort"):
        raise ZcError("--strict and --mode are for the reference engine; onnxruntime runs every node as it does")
    loaded = load(model)
    run = _engine(loaded, engine, threads, strict, mode)
    samples = load_data(loaded.inputs, data, rows, prep)
    for text in samples.notes:
        tables.note(text)
    results = _joined(run(feeds) for feeds in samples.batches(batch))
    if output is not None:
        write_atomically(Path(output), lambda file: np.savez(file, allow_pickle=False, **results))
    tables.table(["output", "type", "shape", "min", "mean", "max"], [_line(n, v) for n, v in results.items()], left=3)
    click.echo(samples.origin)


def _engine(model: "Model", engine: str, threads: int, strict: bool, mode: str) -> "Callable[[Any], dict[str, Array]]":
    if engine == "ort":
        from zc.execute import Runner

        return Runner(model, threads=threads, native=True).run
    from zc.cli import tables
    from zc.runtime import Session

    session = Session(model, threads=threads, strict=strict, mode=mode)
    for node in session.float_nodes:
        tables.note(f"{node.op} '{node.node}' runs in float: {node.reason}")
    names = [o.name for o in session.outputs]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _joined(results: "Iterable[dict[str, Array]]") -> "dict[str, Array]":
    """Batches one behind the other, where an output has a row for each sample."""
    import numpy as np

    from zc.errors import ZcError

    found = list(results)
    joined = {}
    for name in found[0]:
        parts = [batch[name] for batch in found]
        if len(parts) > 1 and (parts[0].ndim == 0 or len({p.shape[1:] for p in parts}) > 1):
            raise ZcError(f"output '{name}' of several batches cannot be put together; give --rows for one batch")
        joined[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return joined


def _line(name: str, value: "Array") -> list[str]:
    shape = "x".join(map(str, value.shape)) or "-"
    if value.dtype.kind not in "fiub" or not value.size:
        return [name, str(value.dtype), shape, "", "", ""]
    figures = (float(value.min()), float(value.mean()), float(value.max()))
    return [name, str(value.dtype), shape, *(f"{figure:.5g}" for figure in figures)]
