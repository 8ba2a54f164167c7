"""`zc passes`: list the passes, or explain one."""

import click

from zc.cli.options import plugin_option


@click.command(short_help="List the passes, or explain one.")
@click.argument("name", required=False)
@plugin_option
def command(name: str | None, plugins: tuple[str, ...]) -> None:
    """List the passes, or explain one: what it does, its options, their types and defaults.

    \b
    Examples:
      zc passes
      zc passes prune
      zc passes my-pass --plugin my_pass.py
    """
    import inspect

    from zc.cli.options import load_plugins
    from zc.pipeline import options, registry

    load_plugins(plugins)
    if name is None:
        width = max(len(n) for n in registry.names())
        for each in registry.names():
            cls = registry.find(each)
            kind = "exact" if cls.exact else "lossy"
            click.echo(f"{each:<{width}}  {kind}  {(inspect.getdoc(cls) or '').splitlines()[0]}")
        return
    cls = registry.find(name)
    click.echo(f"{name} ({registry.owner(name)}; {'exact: outputs are proven unchanged' if cls.exact else 'lossy'})\n")
    click.echo(inspect.getdoc(cls) or "")
    if cls.requires:
        click.echo(f"\nRuns before it: {', '.join(cls.requires)}")
    help_of = options.explain(cls)
    if help_of:
        click.echo("\nOptions:")
        width = max(len(o.name) for o in help_of)
        for option in help_of:
            click.echo(f"  {option.name:<{width}}  {option.type} (default {option.default or 'none'})")
            if option.doc:
                click.echo(click.wrap_text(option.doc, 100, " " * (width + 4), " " * (width + 4)))
    else:
        click.echo("\nIt has no options.")
