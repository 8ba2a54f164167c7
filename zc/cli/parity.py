"""`zc parity`: one model at several places of deployment, side by side."""

from math import isfinite
from typing import TYPE_CHECKING

import click

from zc.cli.options import data_options, label_option, plugin_option

if TYPE_CHECKING:
    from zc.backends.parity import Place


@click.command(short_help="Compare one model at several places of deployment.")
@click.argument("model", metavar="MODEL.onnx")
@click.option("--targets", default="all", show_default=True, metavar="LIST", help="Targets, as ort-cpu,tflite; or all.")
@data_options("--data", what="Samples to compare on", required=True)
@click.option("--calib", metavar="DATA", help="Calibration samples; by default the first half of --data, at most 200.")
@click.option("-p", "--passes", "pipeline", metavar="PIPELINE", help="For all of them; by default each target's own.")
@click.option("--metric", help="As in `zc eval`; by default top1 where there are labels, else agree.")
@label_option
@click.option("--label-offset", default=0, help="Added to the labels (models with a background class: 1).")
@click.option("--shape", "shapes", multiple=True, metavar="INPUT=SIZES", help="Fix the shape of an input; repeatable.")
@click.option("--keep", metavar="DIR", help="Keep the artifacts in this folder.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@plugin_option
def command(
    model: str,
    targets: str,
    data: str,
    rows: str | None,
    prep: str | None,
    calib: str | None,
    pipeline: str | None,
    metric: str | None,
    label_key: str | None,
    label_offset: int,
    shapes: tuple[str, ...],
    keep: str | None,
    seed: int,
    as_json: bool,
    plugins: tuple[str, ...],
) -> None:
    """Make a float model's artifact for each target, run each where that can be, and compare them on the same rows.

    The columns: the metric and its difference from the float model; per cent of rows with the same choice (agree);
    signal to noise of the outputs; per cent of output elements that are equal / 1 / 2 / more steps of 8 bits away from
    what the quantised ONNX model says (lsb); size; and, where the place is this machine, the time of a row beside the
    float model's. A place that is not this machine is predicted: the same arithmetic in onnxruntime.

    \b
    Examples:
      zc parity model.onnx --data test.npz --prep imagenet
      zc parity model.onnx --targets ort-cpu,tensorrt --data test.npz --calib train.npz --calib-rows 0:200 --keep out
    """
    from pathlib import Path

    from zc.backends import find_backend, names
    from zc.backends.parity import parity
    from zc.cli import tables
    from zc.cli.options import apply_shapes, load_data, load_plugins
    from zc.cli.progress import tracker
    from zc.errors import ZcError
    from zc.ir.model import load

    load_plugins(plugins)
    chosen = [find_backend(t) for t in (names() if targets == "all" else [t.strip() for t in targets.split(",")])]
    loaded = load(model)
    apply_shapes(loaded, shapes)
    samples = load_data(loaded.inputs, data, rows, prep, label_key)
    if calib is not None:
        fit = load_data(loaded.inputs, calib, None, prep)
    else:
        half = min(200, samples.rows // 2)
        if not half:
            raise ZcError(f"{data}: has {samples.rows} rows, too few to calibrate and to compare; give --calib DATA")
        fit, samples = samples.take(0, half), samples.take(half, samples.rows)
    if keep is not None and not Path(keep).is_dir():
        raise ZcError(f"--keep {keep}: there is no such folder")
    for text in dict.fromkeys((*fit.notes, *samples.notes)):
        tables.note(text)
    with tracker() as track:
        found = parity(
            loaded,
            chosen,
            samples,
            fit,
            pipeline=pipeline,
            metric=metric or ("agree" if samples.labels is None else "top1"),
            label_offset=label_offset,
            keep=None if keep is None else Path(keep),
            seed=seed,
            track=track,
        )
    if as_json:
        from dataclasses import asdict

        tables.json_out({"model": loaded.name, "samples": samples.origin, "places": [asdict(one) for one in found]})
        return
    name = found[0].score.metric if found[0].score else ""
    headers = ("target", "pipeline", "by", name, "diff", "agree", "dB", "lsb 0/1/2/more %", "size", "ms", "time")
    tables.table(headers, [_row(one) for one in found if not one.failed], left=3)
    for one in found:
        for text in one.warnings:
            tables.note(f"{one.target}: {text}", "warning")
        if one.failed:
            tables.note(f"{one.target}: {one.failed}", "warning")


def _row(one: "Place") -> tuple[str, ...]:
    from zc.figures import size_text
    from zc.measure.evaluate import figure

    return (
        one.target,
        one.pipeline if len(one.pipeline) <= 24 else f"{one.pipeline[:21]}...",
        one.where,
        "" if one.score is None else figure(one.score.value),
        "" if one.difference is None or not isfinite(one.difference.value) else f"{one.difference.value:+.2f}",
        "" if one.agreement is None else f"{one.agreement:.2f}",
        "" if one.sqnr is None else f"{one.sqnr:.1f}",
        "" if one.steps is None else str(one.steps),
        size_text(one.bytes),
        "" if one.latency is None else f"{one.latency.ms:.3g}",
        "" if one.latency is None else f"x{one.latency.ratio:.2f}",
    )
