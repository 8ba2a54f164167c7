"""`zc targets`: list the places of deployment, or explain one."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zc.target import Target


@click.command(short_help="List the places of deployment, or explain one.")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the places of deployment, or explain one: what it writes, its options, what runs in integers, its rules.

    \b
    Examples:
      zc targets
      zc targets ort-cpu
    """
    import inspect

    from zc.backends import find_backend, names, owner
    from zc.pipeline import options

    if name is None:
        width = max(len(n) for n in names())
        for each in names():
            backend = find_backend(each)
            endings = " ".join(backend.suffixes)
            paragraph = " ".join((inspect.getdoc(type(backend)) or "").split("\n\n")[0].split())
            click.echo(f"{each:<{width}}  {endings:<12}  {paragraph.split('. ')[0].rstrip('.')}")
        return
    backend = find_backend(name)
    click.echo(f"{backend.name} ({owner(backend.name)}; writes {', '.join(backend.suffixes) or '.onnx'})\n")
    click.echo(inspect.getdoc(type(backend)) or "")
    click.echo("\nOptions:" if options.explain(type(backend)) else "\nIt has no options.")
    for option in options.explain(type(backend)):
        click.echo(f"  {option.name}  {option.type} (default {option.default or 'none'})")
        click.echo(click.wrap_text(option.doc, 100, " " * 6, " " * 6))
    click.echo("\nQuantisation:")
    for what, text in _quantisation(backend.target):
        click.echo(click.wrap_text(f"{what}: {text}", 100, "  ", " " * 6))
    if backend.rules:
        click.echo("\nRules:")
        for rule in backend.rules:
            text = f"{rule.name} ({rule.severity}): {rule.what} [{rule.source}]"
            click.echo(click.wrap_text(text, 100, "  ", " " * 6))


def _quantisation(target: "Target") -> list[tuple[str, str]]:
    symmetric = ", zero point 0" if target.symmetric_activations else ""
    bias = "int32" if target.integer_bias else "float"
    rows = [
        ("activations", f"{target.activations}{symmetric}"),
        ("weights", f"int8, {'a scale for each output channel' if target.per_channel else 'one scale'}; bias {bias}"),
        ("layers in integers", ", ".join(sorted(target.weighted_ops))),
        ("between them", ", ".join(sorted(target.integer_ops))),
        ("on the codes themselves", ", ".join(sorted(target.transparent_ops))),
        ("half precision", ", ".join(sorted(target.half_ops.keys() | target.casts_half))),
    ]
    rows += [(f"{op} stays float", why) for op, why in sorted(target.float_ops.items())]
    return [(what, text or "none") for what, text in rows]
