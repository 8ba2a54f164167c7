"""`zc emit`: write a model as the artifact of a place of deployment."""

import click

from zc.cli.options import data_options, target_option


@click.command(short_help="Write a model as the artifact of a place of deployment.")
@click.argument("model", metavar="MODEL.onnx")
@click.option("-o", "--output", metavar="OUT", required=True, help="File or folder to write.")
@target_option
@data_options("--calib", what="Samples, for what the target has to measure")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--bench/--no-bench", default=True, show_default=True, help="Time it beside the model, where it runs here."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    model: str,
    output: str,
    target: str | None,
    shapes: tuple[str, ...],
    data: str | None,
    rows: str | None,
    prep: str | None,
    seed: int,
    bench: bool,
    as_json: bool,
) -> None:
    """Write a model as the artifact of a place of deployment, after the passes that the place needs.

    The numbers stay what they are: a float model is written in float, a quantised one in integers (`zc opt` makes
    those). Rules that the model breaks are errors, and nothing is written then; `zc check` lists them all.

    \b
    Examples:
      zc emit model.onnx -o model.ort
      zc emit int8.onnx --target ort-arm -o model.onnx
      zc emit int8.onnx --target tensorrt:rest=float16:dims=N/1/8/32 -o model.trt
    """
    from zc.cli.emitting import emit

    emit(model, output, target, shapes, (data, rows, prep), seed, bench, as_json)
