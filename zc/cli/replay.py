"""`zc replay`: make a written model again and compare."""

import click

from zc.cli.options import plugin_option


@click.command(short_help="Make a written model again and compare.")
@click.argument("model", metavar="OUT.onnx")
@click.option("--source", metavar="MODEL.onnx", help="The model it was made from; by default beside OUT.onnx.")
@click.option("--calib", metavar="DATA", help="The calibration samples, if it was made with some.")
@click.option("-o", "--output", metavar="FILE.onnx", help="Also write what was made.")
@plugin_option
def command(model: str, source: str | None, calib: str | None, output: str | None, plugins: tuple[str, ...]) -> None:
    """Make a model again from what its metadata says, and compare the two.

    Source, samples and plugins must have the hashes that were recorded. Exit code 0: the same weights and graph; 1:
    they differ (another version or another processor may round differently; `zc diff` shows where).

    \b
    Examples:
      zc replay out.onnx --source model.onnx --calib samples.npz
      zc replay out.onnx -o again.onnx
    """
    from zc.cli.replaying import replay

    replay(model, source, calib, output, plugins)
