"""`zc sensitivity`: which layers suffer from quantisation."""

from typing import TYPE_CHECKING, Any

import click

from zc.cli.options import data_options, label_option, plugin_option

if TYPE_CHECKING:
    from zc.cli.sensing import Sensed


@click.command(short_help="Rank layers by what quantising them costs.")
@click.argument("model", metavar="MODEL.onnx")
@data_options("--calib", what="Calibration samples", required=True)
@click.option(
    "--quantize",
    "text",
    default="quantize",
    show_default=True,
    metavar="PASS",
    help="The pass with its options, as in a pipeline.",
)
@click.option("--target", default="ort-cpu", show_default=True, help="Place of deployment.")
@click.option(
    "--floats",
    default=8,
    show_default=True,
    type=click.IntRange(min=0),
    help="Measure the model with up to so many of the worst layers in float; 0: only the ranking.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only so many lines of the ranking.")
@click.option("--eval", "eval_data", metavar="DATA", help="Also measure accuracy on these samples.")
@click.option("--eval-rows", metavar="A:B", help="Only these rows of --eval.")
@click.option("--metric", default="top1", show_default=True, help="Metric of --eval; see `zc eval --help`.")
@label_option
@click.option("--label-offset", default=0, help="Added to the labels of --eval (models with a background class: 1).")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run; by default all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@plugin_option
def command(**options: Any) -> None:
    """Rank the layers of a float model by what quantising each of them alone costs at the outputs.

    Nothing is written. All figures are measured on calibration rows that are held back, without labels: signal
    (variance) to noise in dB of the output that suffers most, before a last Softmax, and how often the outputs agree
    with the float model. Then: how the model does with the worst 0, 1, 2, 4, ... layers left in float; with --eval,
    the metric of these models too.

    What `quantize:max_drop=...` leaves in float by itself can be given by hand: quantize:skip=NAME+NAME.

    \b
    Examples:
      zc sensitivity model.onnx --calib samples.npz
      zc sensitivity model.onnx --calib images/ --prep imagenet --quantize 'quantize:method=mse' --top 10
      zc sensitivity model.onnx --calib c.npz --eval test.npz --metric top1 --floats 16 --json
    """
    from zc.cli import tables
    from zc.cli.sensing import Options, sense

    as_json, top = options.pop("as_json"), options.pop("top")
    found = sense(Options(**options))
    if as_json:
        tables.json_out(found.to_json())
    else:
        _print(found, top)


def _print(found: "Sensed", top: int | None) -> None:
    from zc.cli.tables import si, table

    whole = sum(one.noise for one in found.ranking) or 1.0
    macs = found.macs or 1
    headers = ("layer", "operator", "alone dB", "agreement", "of the noise", "MACs", "of all")
    rows = [
        (
            one.where,
            one.op,
            f"{one.db:.1f}",
            _percent(one.share),
            _percent(one.noise / whole),
            si(one.macs) if one.macs else "",
            _percent(one.macs / macs) if one.macs else "",
        )
        for one in found.ranking[:top]
    ]
    table(headers, rows, left=2)
    if found.steps:
        click.echo()
        metric = (found.metric,) if found.metric else ()
        lines = [
            (
                str(step.floats) if step.floats else "none",
                f"{step.agreement.sqnr:.1f}",
                _percent(step.agreement.share),
                *((f"{step.score:.4g}",) if step.score is not None else ()),
            )
            for step in found.steps
        ]
        if found.float_score is not None:
            lines.append(("all", "", "", f"{found.float_score:.4g}"))
        table(("worst in float", "SQNR dB", "agreement", *metric), lines, left=0)
    click.echo(f"{len(found.ranking)} layers in integers; {found.origin}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
