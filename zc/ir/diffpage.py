"""A diff as a page to read, in text and HTML, and as JSON."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from html import escape
from typing import Any, TypeVar

from zc.ir.changes import Diff, EndChange, HeaderChange, NodeChange, NodeInfo, WeightChange
from zc.page import html_page

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Group:
    """Entries that are alike: what they share, and each of them."""

    title: str
    entries: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    groups: tuple[Group, ...]


def render_text(difference: Diff, *, limit: int = 8) -> str:
    """The diff as a page of text: the summary, then a section for each kind of change, alike changes in one group.

    limit: entries that are shown of each group; the rest is counted. 0: the groups alone.
    """
    lines = [difference.summary()]
    for section in sections(difference):
        lines += ["", section.title]
        for group in section.groups:
            lines.append(f"  {group.title}")
            lines += [f"    {entry}" for entry in group.entries[:limit]]
            if len(group.entries) > limit > 0:
                lines.append(f"    ... and {len(group.entries) - limit:,} more")
    return "\n".join(lines) + "\n"


def render_html(difference: Diff) -> str:
    """The diff as one HTML page that needs nothing else."""
    parts = [f"<p class=summary>{escape(difference.summary())}</p>"]
    for section in sections(difference):
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        for group in section.groups:
            if not group.entries:
                parts.append(f"<p>{escape(group.title)}</p>")
                continue
            open_ = " open" if len(group.entries) <= 12 else ""
            items = "".join(f"<li>{escape(entry)}</li>" for entry in group.entries)
            parts.append(f"<details{open_}><summary>{escape(group.title)}</summary><ul>{items}</ul></details>")
        parts.append("</section>")
    return html_page(" \N{RIGHTWARDS ARROW} ".join(difference.names), parts)


def to_json(difference: Diff) -> dict[str, Any]:
    """The diff as plain values; numbers that JSON has no form for are None."""
    plain = {"equal": difference.equal, "summary": difference.summary(), **dataclasses.asdict(difference)}
    return {key: _finite(value) for key, value in plain.items()}


def sections(difference: Diff) -> list[Section]:
    """The page's parts, without the empty ones."""
    d = difference
    found = [
        Section("Model", tuple(Group(_entry(h), ()) for h in d.header)),
        Section("Inputs and outputs", tuple(Group(_end(e), ()) for e in d.ends)),
        Section(
            f"Changed nodes ({len(d.changed):,})",
            _grouped(
                d.changed,
                lambda n: f"{n.op}: " + "; ".join(c.pattern for c in n.changes),
                _changed,
            ),
        ),
        Section(f"Removed nodes ({len(d.removed):,})", _grouped(d.removed, lambda n: n.op, _node)),
        Section(f"Added nodes ({len(d.added):,})", _grouped(d.added, lambda n: n.op, _node)),
        Section(f"Weights that differ ({len(d.weights):,})", _grouped(d.weights, _kind_of_weight, _weight)),
        Section(
            f"Weights removed ({len(d.weights_removed):,})",
            _grouped(d.weights_removed, lambda w: w.type.partition("[")[0], lambda w: f"{w.name}  {w.type}"),
        ),
        Section(
            f"Weights added ({len(d.weights_added):,})",
            _grouped(d.weights_added, lambda w: w.type.partition("[")[0], lambda w: f"{w.name}  {w.type}"),
        ),
        Section(
            f"Values of other shape or type ({len(d.values):,})",
            _grouped(d.values, lambda v: f"{v.before} -> {v.after}", lambda v: _scoped(v.scope, v.name)),
        ),
        Section(
            f"Renamed ({len(d.renamed):,})",
            _grouped(d.renamed, lambda r: f"{r.kind}s", lambda r: f"{r.before or '(no name)'} -> {r.after}"),
        ),
    ]
    return [s for s in found if s.groups]


def _grouped(items: Iterable[T], title: Callable[[T], str], entry: Callable[[T], str]) -> tuple[Group, ...]:
    """Groups of alike items, the biggest first, with their number in the title."""
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(title(item), []).append(entry(item))
    ordered = sorted(groups.items(), key=lambda g: -len(g[1]))
    return tuple(Group(f"{len(entries):,} x {text}", tuple(entries)) for text, entries in ordered)


def _scoped(scope: str, name: str) -> str:
    return f"{name} (in {scope})" if scope else name


def _changed(node: NodeChange) -> str:
    """The node, with the names that the group's title does not tell."""
    inputs = [c for c in node.changes if c.what.startswith(("input", "result")) and " through " not in c.pattern]
    said = "; ".join(f"{c.what}: {c.before or 'none'} -> {c.after or 'none'}" for c in inputs)
    return _scoped(node.scope, node.name) + (f"  {said}" if said else "")


def _node(info: NodeInfo) -> str:
    made = f" -> {info.output}" if not (info.output in info.name or info.name in info.output) else ""
    return _scoped(info.scope, info.name) + made


def _entry(header: HeaderChange) -> str:
    return f"{header.what}: {_clipped(header.before)} -> {_clipped(header.after)}"


def _end(end: EndChange) -> str:
    if end.before is None or end.after is None:
        return f"{end.kind} {end.name} {'removed' if end.after is None else 'added'}: {end.before or end.after}"
    return f"{end.kind} {end.name}: {end.before} -> {end.after}"


def _clipped(text: str | None) -> str:
    if text is None:
        return "none"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def _kind_of_weight(weight: WeightChange) -> str:
    if weight.note:
        return weight.note.partition("[")[0].partition(" '")[0]
    types = [t.partition(" ")[0] for t in (weight.before, weight.after)]
    return "other numbers" if types[0] == types[1] else "another shape or type"


def _weight(weight: WeightChange) -> str:
    types = weight.before if weight.before == weight.after else f"{weight.before} -> {weight.after}"
    said = [weight.name, types]
    if weight.max_abs is not None and weight.relative is not None:
        said.append(f"max |difference| {weight.max_abs:.3g} ({_percent(weight.relative)} of the largest)")
    if weight.sqnr_db is not None:
        said.append(f"SQNR {weight.sqnr_db:.1f} dB")
    return "  ".join(said)


def _percent(share: float) -> str:
    return f"{share * 100:,.0f} %" if share >= 1 else f"{share * 100:.2g} %"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
