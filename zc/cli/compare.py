"""`zc compare`: how far the values inside two models are apart."""

from typing import TYPE_CHECKING

import click

from zc.cli.options import data_options

if TYPE_CHECKING:
    from zc.measure.compare import ComparedValue


@click.command(short_help="Show where the values inside two models part.")
@click.argument("a", metavar="A.onnx")
@click.argument("b", metavar="B.onnx")
@data_options("--data", what="Samples to run on", required=True)
@click.option(
    "--threshold", default=20.0, show_default=True, metavar="DB", help="A layer that leaves less alone is bad."
)
@click.option(
    "--sort",
    type=click.Choice(["graph", "alone", "accumulated"]),
    default="graph",
    show_default=True,
    help="Order of the table; by a figure, the worst first.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only so many lines of the table.")
@click.option("--all", "show_all", is_flag=True, help="Also the values to which their layer adds no error.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run; by default all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--html", metavar="FILE", help="Also write a page with a plot; it needs no other file.")
def command(
    a: str,
    b: str,
    data: str,
    rows: str | None,
    prep: str | None,
    threshold: float,
    sort: str,
    top: int | None,
    show_all: bool,
    threads: int | None,
    as_json: bool,
    html: str | None,
) -> None:
    """Show where the values inside two models part: a model and its compressed form, or any two of the same net.

    For each value that both models have, the signal-to-noise ratio in dB: accumulated (both run on the same samples)
    and alone (its layer of B computes from the values of A, so that only its own error shows). A value of a quantised
    model is what its codes stand for. Values are matched by structure and name, as in `zc diff`; those that match
    nothing, or have other sizes after pruning, are counted.

    \b
    Examples:
      zc compare model.onnx int8.onnx --data images/ --prep imagenet --rows 0:64
      zc compare model.onnx int8.onnx --data test.npz --sort alone --top 10
      zc compare model.onnx pruned.onnx --data test.npz --html compare.html
    """
    from pathlib import Path

    from zc.cli import tables
    from zc.cli.options import load_data
    from zc.cli.progress import tracker
    from zc.errors import ZcError
    from zc.ir.model import load, write_atomically
    from zc.measure.compare import compare_values
    from zc.measure.compare_page import HEADERS, render_html, row, summary, to_json

    if html is not None and any(Path(html).exists() and Path(html).samefile(model) for model in (a, b)):
        raise ZcError(f"{html}: is one of the models; name another file to write the page to")
    models = load(a), load(b)
    samples = load_data(models[0].inputs, data, rows, prep)
    for text in samples.notes:
        tables.note(text)
    with tracker() as track:
        result = compare_values(*models, samples, threads=threads, track=track)
    if html is not None:
        page = render_html(result, threshold)
        write_atomically(Path(html), lambda file: file.write(page.encode()))
    if as_json:
        tables.json_out(to_json(result, threshold))
        return
    shown = [v for v in result.values if show_all or not v.exact]
    lines = _sorted(shown, sort)[:top]
    if lines:
        tables.table(HEADERS, [row(v) for v in lines], left=2)
    hidden = len(result.values) - len(shown)
    if hidden:
        click.echo(f"{hidden} values to which their layer adds no error are not shown (--all)")
    for line in (*summary(result, threshold), samples.origin):
        click.echo(line)


def _sorted(values: "list[ComparedValue]", order: str) -> "list[ComparedValue]":
    if order == "alone":
        return sorted(values, key=lambda v: float("inf") if v.alone is None else v.alone.sqnr_db)
    return sorted(values, key=lambda v: v.total.sqnr_db) if order == "accumulated" else values
