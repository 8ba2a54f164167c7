"""`zc diff`: how two models differ."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zc.ir.model import Model


@click.command(short_help="Show how two models differ.")
@click.argument("a", metavar="A.onnx")
@click.argument("b", metavar="B.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--html", metavar="FILE", help="Also write a page for the browser; it needs no other file.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Entries shown of each group; 0 for none.",
)
@click.pass_context
def command(ctx: click.Context, a: str, b: str, as_json: bool, html: str | None, limit: int) -> None:
    """Show how two models differ: matched by structure, not by line.

    A renamed value or node is a rename, not a removal and an addition. Weights that differ are shown with how far they
    are apart. Either of the two may be a text that `zc print` wrote (FILE.txt), as golden files are. How the models
    were made (metadata zc.*) and the documentation of single nodes are not compared.

    Exit code: 0 if they are equal, 1 if they differ, 2 if something is wrong.

    \b
    Examples:
      zc diff model.onnx out.onnx
      zc diff model.onnx out.onnx --html diff.html
      zc diff model.onnx expected.txt --json
    """
    from pathlib import Path

    from zc.errors import ZcError
    from zc.ir.diff import diff, render_html, render_text, to_json
    from zc.ir.model import write_atomically
    from zc.measure.weights import total_bytes, total_params

    difference = diff(_read(a), _read(b), measure=lambda model: (total_params(model), total_bytes(model)))
    if html is not None:
        path = Path(html)
        if path.exists() and any(path.samefile(model) for model in (a, b)):
            raise ZcError(f"{html}: is one of the models; name another file to write the page to")
        page = render_html(difference)
        write_atomically(path, lambda file: file.write(page.encode()))
    if as_json:
        import json

        click.echo(json.dumps(to_json(difference), indent=2, allow_nan=False))
    else:
        click.echo(render_text(difference, limit=limit), nl=False)
    ctx.exit(0 if difference.equal else 1)


def _read(path: str) -> "Model":
    """A model from an ONNX file, or from a text with hashed or full weights."""
    from pathlib import Path

    from zc.errors import ZcError
    from zc.ir.model import load
    from zc.ir.text import parse_text

    file = Path(path)
    if file.suffix != ".txt" or not file.is_file():
        return load(file)
    try:
        model = parse_text(file.read_text(encoding="utf-8"), hashed=True)
    except UnicodeDecodeError as err:
        raise ZcError(f"{path}: is no text") from err
    except ZcError as err:
        raise ZcError(f"{path}: {err}") from err
    model.path = file
    return model
