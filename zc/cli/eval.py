"""`zc eval`: measure the accuracy of models on data."""

from math import isfinite
from typing import TYPE_CHECKING

import click

from zc.cli.options import data_options, label_option

if TYPE_CHECKING:
    from zc.measure.evaluate import Difference, Score


@click.command(short_help="Measure the accuracy of models on data.")
@click.argument("models", metavar="MODEL.onnx [MODEL2.onnx ...]", nargs=-1, required=True)
@data_options("--data", what="Samples to evaluate on", required=True)
@click.option(
    "--metric",
    default="top1",
    show_default=True,
    help="top1, top5, agree, sqnr, mse, mae, psnr, cosine or pkg:function.",
)
@click.option("--reference", metavar="REF.onnx", help="Model that agree, sqnr, mse, ... compare with.")
@label_option
@click.option("--label-offset", default=0, show_default=True, help="Added to the labels (a background class first: 1).")
@click.option("--output", metavar="NAME", help="The output to look at, where the model has several.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(min=1), help="Rows a run.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run; by default all cores.")
@click.option("--max-drop", metavar="DROP", help="Exit 3 if a later model is worse than the first by more (0.5%).")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    models: tuple[str, ...],
    data: str,
    rows: str | None,
    prep: str | None,
    metric: str,
    reference: str | None,
    label_key: str | None,
    label_offset: int,
    output: str | None,
    batch: int,
    threads: int | None,
    max_drop: str | None,
    as_json: bool,
) -> None:
    """Measure how accurate models are, in one streaming pass over the samples.

    Several models see the same rows, so that the difference from the first is far surer than each figure: its standard
    error is shown. Without --reference, the first of several models is what agree, sqnr, mse, mae, psnr and cosine
    compare with (the last four take labels instead where the samples have them).

    A function of your own takes (outputs: dict of arrays, labels) for all rows and returns a number, or one a row.

    \b
    Examples:
      zc eval model.onnx --data test.npz --prep imagenet
      zc eval model.onnx int8.onnx --data images/ --prep 'pm1 crop=224' --rows 200: --label-offset 1
      zc eval int8.onnx --reference model.onnx --metric agree --data frames.npz
      zc eval model.onnx int8.onnx --data test.npz --max-drop 0.5%
      zc eval model.onnx --data pairs.npz --metric my_metrics:spearman
    """
    from zc.cli import tables
    from zc.cli.gates import points
    from zc.cli.options import load_data
    from zc.cli.progress import tracker
    from zc.errors import GateMissed, ZcError
    from zc.ir.model import load
    from zc.measure.evaluate import evaluate_all
    from zc.measure.gate import missed

    allowed = points(max_drop)
    if allowed is not None and len(models) < 2:
        raise ZcError("--max-drop compares models: name the original first, then the one that may be worse")
    loaded = [load(path) for path in models]
    samples = load_data(loaded[0].inputs, data, rows, prep, label_key)
    for text in samples.notes:
        tables.note(text)
    with tracker() as track:
        scores, differences = evaluate_all(
            loaded,
            samples,
            metric,
            reference=None if reference is None else load(reference),
            batch=batch,
            label_offset=label_offset,
            output=output,
            threads=threads,
            track=track,
        )
    for score in scores:
        for text in score.notes:
            tables.note(text, "warning")
    if as_json:
        tables.json_out(_json(scores, differences, samples.origin))
    else:
        _print(scores, differences, samples.origin)
    for name, score, difference in zip(models[1:], scores[1:], differences, strict=True):
        if allowed is not None and not isfinite(difference.value):
            raise ZcError(
                f"--max-drop: {metric} of {models[0]} is {scores[0].value:g}, so no drop from it can be told; give "
                "--reference, or gate on agree"
            )
        if allowed is not None and missed(difference.value, score.higher_is_better, allowed):
            worse = f"{abs(difference.value):.4g}{_points(score.unit)}"
            raise GateMissed(
                f"{name}: {metric} is worse by {worse} than that of {models[0]}; at most {allowed:g} is allowed"
            )


def _print(scores: "tuple[Score, ...]", differences: "tuple[Difference, ...]", origin: str) -> None:
    from zc.cli.tables import table
    from zc.measure.evaluate import figure

    first = scores[0]
    unit = f" {first.unit}" if first.unit else ""
    headers = ["model", first.metric, "+/-"]
    lines = [[s.model, figure(s.value) + unit, _error(s.error)] for s in scores]
    if differences:
        headers += ["difference", "+/-"]
        lines[0] += ["", ""]
        for line, difference in zip(lines[1:], differences, strict=True):
            known = isfinite(difference.value)  # not from an SQNR of a model to itself
            line += [_signed(difference.value) + _points(first.unit) if known else "", _error(difference.error)]
    table(headers, lines)
    click.echo(
        f"{first.rows} rows of {origin}; +/- is the standard error" + ("; differences are paired" * bool(differences))
    )


def _json(scores: "tuple[Score, ...]", differences: "tuple[Difference, ...]", origin: str) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "samples": origin,
        "scores": [asdict(score) for score in scores],
        "differences": [asdict(difference) for difference in differences],
    }


def _points(unit: str) -> str:
    """Unit of a difference: of percentages, points."""
    return " points" if unit == "%" else f" {unit}" if unit else ""


def _error(error: float | None) -> str:
    return "" if error is None else f"{error:.2g}" if error < 1 else f"{error:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:+.2g}"
