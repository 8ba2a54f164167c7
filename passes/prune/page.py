"""Groups as a page for the browser: a bar for each, as long as its share of the weights, and its members below."""

from collections.abc import Iterator
from html import escape

from zc.figures import size_text
from zc.page import html_page
from zc.passes.prune.summary import GroupsSummary, GroupSummary

_WIDTH = 420.0


def render_html(found: GroupsSummary) -> str:
    """A page with all groups and the reasons for what may not leave; it needs no other file."""
    parts = [f"<p class=summary>{escape(headline(found))}</p>"]
    if found.groups:
        parts += [_KEY, *_rows(found)]
    if found.pinned:
        parts.append("<h2>What may not leave</h2><ul>")
        parts += [
            f"<li>{escape(p.node)} ({p.channels} of {p.of} channels) {escape(p.reason)}</li>" for p in found.pinned
        ]
        parts.append("</ul>")
    return html_page(f"Groups of {found.model}", parts, _STYLE)


def headline(found: GroupsSummary) -> str:
    """The whole in a line."""
    channels = sum(g.channels for g in found.groups)
    time = "" if found.ms is None else f", {found.ms:.3g} ms by the table of the target"
    macs = "MACs not known" if found.macs is None else f"{found.macs:,} MACs"
    return (
        f"{found.model}: {len(found.groups)} groups of {channels:,} channels that may leave; "
        f"{macs}, {size_text(found.bytes)} of weights{time}"
    )


def _rows(found: GroupsSummary) -> Iterator[str]:
    for group in found.groups:
        bars = "".join(_bar(kind, share) for kind, share in _shares(group, found))
        facts = f"{group.channels} channels" + (f", {group.atom} together" if group.atom > 1 else "")
        yield f"<details><summary>{escape(group.name)} <span class=facts>{facts}</span>{bars}</summary>"
        yield f"<p>{escape(cost_text(group))}{_widths(group)}</p><ul>"
        yield f"<li>made by {escape(', '.join(group.made_by) or 'no layer')}</li>"
        for member in group.members:
            axes = ",".join(map(str, member.axes))
            yield f"<li>{escape(member.weight)} axis {axes}: {member.params / group.atom:,.0f} elements a channel</li>"
        yield "</ul></details>"


def cost_text(group: GroupSummary) -> str:
    """What a channel costs, in words."""
    macs = "MACs not known" if group.macs is None else f"{group.macs:,.0f} MACs"
    time = "" if group.ms is None else f", {group.ms * 1e3:.3g} us"
    return f"a channel costs {macs}, {group.bytes:,.0f} bytes{time}"


def _widths(group: GroupSummary) -> str:
    if not group.pays:
        return ""
    return f"; widths that pay: {', '.join(map(str, group.pays))}"


def _shares(group: GroupSummary, found: GroupsSummary) -> Iterator[tuple[str, float]]:
    """The group's part of the whole: what would be saved if all of it left."""
    yield "bytes", group.bytes * group.channels / max(found.bytes, 1)
    if group.macs is not None and found.macs:
        yield "macs", group.macs * group.channels / found.macs
    if group.ms is not None and found.ms:
        yield "ms", max(group.ms * group.channels / found.ms, 0.0)


def _bar(kind: str, share: float) -> str:
    width = min(share, 1.0) * _WIDTH
    return (
        f'<svg viewBox="0 0 {_WIDTH + 60:.0f} 10" role="img" aria-label="{kind} {share:.1%}">'
        f'<rect class="{kind}" width="{width:.1f}" height="8"/>'
        f'<text x="{width + 6:.1f}" y="8">{share:.1%} {kind}</text></svg>'
    )


_KEY = (
    "<p>Bars: the part of all weights, multiply-accumulates and time that the channels of a group take part in. "
    "A layer between two groups counts for both.</p>"
)
_STYLE = """svg { display: block; width: 30rem; height: 10px; margin-left: 1.2rem; font-size: 9px; fill: currentColor }
rect.bytes { fill: #2a7ae2 } rect.macs { fill: #e2892a } rect.ms { fill: #3a9a5b }
.facts { opacity: .7 } details { margin: .6rem 0 }
"""
