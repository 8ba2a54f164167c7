"""`zc print`: a model as canonical text."""

import click


@click.command(short_help="Print a model as canonical text.")
@click.argument("model", metavar="MODEL.onnx")
@click.option(
    "--weights",
    type=click.Choice(["hash", "full", "shape"]),
    default="hash",
    show_default=True,
    help="What stands for weights of more than 16 elements: their sha256, all their numbers, or nothing.",
)
@click.option("--provenance", is_flag=True, help="Also the metadata that says how zc made the model.")
@click.option("-o", "--output", metavar="FILE", help="Write to a file instead of the terminal.")
def command(model: str, weights: str, provenance: bool, output: str | None) -> None:
    """Print a model as canonical text: ONNX's own text grammar, equal for equal models.

    Types and shapes stand on every value for which they can be told. The order of nodes is the model's own; attributes
    are sorted; initializers stand in the order of their first use.
    With --weights full the text reads back as the same model (onnx.parser.parse_model). What has no place in the
    text is told on the error output.

    \b
    Examples:
      zc print model.onnx
      zc print model.onnx --weights full -o model.txt
    """
    from pathlib import Path
    from typing import cast

    from zc.errors import ZcError
    from zc.ir.model import load, write_atomically
    from zc.ir.text import Weights, render, with_shapes

    loaded = load(model)
    text, gaps = render(with_shapes(loaded), weights=cast(Weights, weights), provenance=provenance)
    if output is None:
        click.echo(text, nl=False)
    else:
        path = Path(output)
        if path.exists() and path.samefile(model):
            raise ZcError(f"{output}: is the model itself; name another file to write the text to")
        write_atomically(path, lambda file: file.write(text.encode()))
    if gaps.left_out:
        click.echo(f"zc: {loaded.name}: not shown: {gaps}", err=True)
