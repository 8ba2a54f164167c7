"""`zc groups`: the channels of a model that may leave together, and what they cost."""

import click

from zc.cli.options import data_options, target_option


@click.command(short_help="Show which channels prune may remove together, and what they cost.")
@click.argument("model", metavar="MODEL.onnx")
@data_options("--calib", what="Samples whose first row gives open dimensions their sizes")
@click.option("--skip", multiple=True, metavar="GLOB", help="Nodes or weights whose output channels stay; repeatable.")
@click.option("--only", multiple=True, metavar="GLOB", help="Nodes or weights that alone may be cut; repeatable.")
@target_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--html", metavar="FILE", help="Also write a page that draws them; it needs no other file.")
def command(
    model: str,
    data: str | None,
    rows: str | None,
    prep: str | None,
    skip: tuple[str, ...],
    only: tuple[str, ...],
    target: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
    html: str | None,
) -> None:
    """Show which channels of a model may leave, and which only together: what `prune` chooses from.

    The model is cleaned first, as it is before `prune`. For each group of channels: how many there are, how many leave
    together at least, what one costs in multiply-accumulates, in bytes of weights and in microseconds by the target's
    table (what half of the group saves), the widths that fill the target's kernels, and the weights that get narrower.
    Then what may not leave, and why.

    \b
    Examples:
      zc groups model.onnx
      zc groups model.onnx --html groups.html
      zc groups encoder.onnx --calib tokens.npz --only '*/intermediate/*' --json
    """
    from zc.cli.grouping import show_groups

    show_groups(model, (data, rows, prep), (skip, only), target, shapes, as_json, html)
