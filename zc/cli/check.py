"""`zc check`: hold a model against the rules of a place of deployment."""

import click

from zc.cli.options import target_option


@click.command(short_help="Hold a model against the rules of a place of deployment.")
@click.argument("model", metavar="MODEL.onnx")
@target_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(model: str, target: str | None, shapes: tuple[str, ...], as_json: bool) -> None:
    """Hold a model against the rules of a place of deployment, and predict how it will run there.

    Each violation comes with its node, the rule, where the rule stands, and what mends it. Exit 1 if there is one that
    the place enforces; what only costs time is listed too. Then: which layers will run in integers, which stay float
    and why, and what vanishes into a neighbour.

    \b
    Examples:
      zc check int8.onnx --target ort-cpu
      zc check int8.onnx --target ort-arm --json
    """
    from zc.cli.checking import check

    check(model, target, shapes, as_json)
