"""What `zc groups` does."""

from dataclasses import asdict
from pathlib import Path

import click

from zc.backends import find_backend
from zc.cli import tables
from zc.cli.options import apply_shapes, load_data
from zc.errors import ZcError
from zc.ir.model import load, write_atomically
from zc.passes.prune.page import headline, render_html
from zc.passes.prune.prune import analyse
from zc.passes.prune.summary import GroupsSummary, GroupSummary, summarise
from zc.pipeline.base import Context
from zc.pipeline.registry import find

_WIDTHS = 6


def show_groups(
    source: str,
    data: tuple[str | None, str | None, str | None],
    patterns: tuple[tuple[str, ...], tuple[str, ...]],
    target: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
    html: str | None,
) -> None:
    """Clean a copy in memory, analyse it and print."""
    if html is not None and Path(html).exists() and Path(source).exists() and Path(html).samefile(source):
        raise ZcError(f"{html}: is the model; name another file to write the page to")
    place = find_backend(target or "ort-cpu").target
    model = load(source)
    apply_shapes(model, shapes)
    given, rows, prep = data
    if given is None and (rows or prep):
        raise ZcError("--calib-rows and --prep speak of samples, but --calib DATA is not given")
    samples = None if given is None else load_data(model.inputs, given, rows, prep)
    find("clean")().run(model, Context(place, samples))
    found = summarise(model, analyse(model, *patterns), place, samples)
    if html is not None:
        page = render_html(found)
        write_atomically(Path(html), lambda file: file.write(page.encode()))
    if as_json:
        tables.json_out(asdict(found))
        return
    _print(found)


def _print(found: GroupsSummary) -> None:
    click.echo(headline(found))
    if found.groups:
        click.echo()
        headers = ("group", "widths that pay", "weights", "channels", "together", "MACs", "bytes", "us")
        tables.table(headers, [_row(g) for g in found.groups], left=3)
        click.echo("MACs, bytes and us: of one channel; us by the table of the target, as half of the group saves")
    if found.pinned:
        click.echo()
        rows = [(p.node, p.reason, f"{p.channels} of {p.of}") for p in found.pinned]
        tables.table(("may not leave", "why", "channels"), rows, left=2)


def _row(group: GroupSummary) -> tuple[str, ...]:
    widths = [*map(str, group.pays)]
    if len(widths) > _WIDTHS:
        widths = [*widths[: _WIDTHS // 2], "...", *widths[-_WIDTHS // 2 :]]
    return (
        group.name,
        " ".join(widths) or "?",
        str(len(group.members)),
        str(group.channels),
        str(group.atom),
        "?" if group.macs is None else tables.si(group.macs),
        f"{group.bytes:,.0f}",
        "?" if group.ms is None else f"{group.ms * 1e3:.2f}",
    )
