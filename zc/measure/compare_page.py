"""A comparison of values as lines to read, as a page with a plot, and as JSON."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from zc.measure.compare import ComparedValue, ValueComparison
from zc.page import html_page

HEADERS = ("value", "layer", "shape", "alone", "accumulated", "cosine")
"""Of `row`."""

_NAMED = 4


def summary(c: ValueComparison, threshold: float) -> list[str]:
    """What matters most, a line each."""
    lines = [f"{len(c.values)} values compared over {c.rows} rows"]
    bad, fall = c.first_bad(threshold), c.biggest_fall()
    if bad is not None and bad.alone is not None:
        lines.append(
            f"first bad layer: {_layer(bad)}: alone {decibels_text(bad.alone.sqnr_db)} dB, below {threshold:g}"
        )
    else:
        lines.append(f"no layer adds so much error that it falls below {threshold:g} dB alone")
    if fall is not None:
        before = "as in the first model" if math.isinf(fall.before_db) else f"{fall.before_db:.1f} dB"
        now = decibels_text(fall.total.sqnr_db)
        lines.append(f"biggest fall: {_layer(fall)}: accumulated from {before} to {now} dB")
    scaled = [v.name for v in c.values if v.scaled]
    if scaled:
        lines.append(
            f"{_counted(scaled, 'value')} scaled by a constant in {c.names[1]}, which is divided out: {_some(scaled)}"
        )
    if c.other_shape:
        told = [f"{name} {shape_text(x)} -> {shape_text(y)}" for name, x, y in c.other_shape]
        lines.append(f"{_counted(told, 'value')} of another size and not compared: {_some(told)}")
    if c.only_a:
        lines.append(f"{_counted(c.only_a, 'value')} only in {c.names[0]} (fused or removed): {_some(c.only_a)}")
    if c.only_b:
        lines.append(f"{_counted(c.only_b, 'value')} only in {c.names[1]}: {_some(c.only_b)}")
    return [*lines, *c.notes]


def row(value: ComparedValue) -> list[str]:
    """A line of a table, under `HEADERS`."""
    return [
        value.name,
        value.op or "input",
        shape_text(value.shape),
        "?" if value.alone is None else decibels_text(value.alone.sqnr_db),
        decibels_text(value.total.sqnr_db),
        f"{value.total.cosine:.5f}",
    ]


def to_json(c: ValueComparison, threshold: float) -> dict[str, Any]:
    """As plain values."""
    bad, fall = c.first_bad(threshold), c.biggest_fall()
    return {
        "models": list(c.names),
        "rows": c.rows,
        "threshold_db": threshold,
        "first_bad": None if bad is None else bad.name,
        "biggest_fall": None if fall is None else fall.name,
        "values": [_value_json(v) for v in c.values],
        "other_shape": [{"value": n, "a": list(x), "b": list(y)} for n, x, y in c.other_shape],
        "only_a": list(c.only_a),
        "only_b": list(c.only_b),
        "notes": list(c.notes),
    }


def render_html(c: ValueComparison, threshold: float) -> str:
    """A page with a plot and a table of all values; it needs no other file."""
    first, *rest = summary(c, threshold)
    parts = [f"<p class=summary>{escape(first)}</p>", *(f"<p>{escape(line)}</p>" for line in rest)]
    parts += ["<h2>Signal to noise in dB, in the order of the graph</h2>", *_plot(c.values, threshold)]
    parts.append("<h2>Values</h2><table><tr>" + "".join(f"<th>{h}</th>" for h in HEADERS) + "</tr>")
    for value in c.values:
        bad = value.alone is not None and value.alone.sqnr_db < threshold
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row(value))
        parts.append(f"<tr{' class=bad' * bad}>{cells}</tr>")
    return html_page(" \N{RIGHTWARDS ARROW} ".join(c.names), [*parts, "</table>"], _STYLE)


def shape_text(shape: Sequence[int]) -> str:
    """`1x64x8x8`."""
    return "x".join(map(str, shape)) or "-"


def decibels_text(value: float) -> str:
    """`23.4`; `equal` where nothing differs."""
    return "equal" if value == math.inf else "none" if value == -math.inf else f"{value:.1f}"


def _layer(value: ComparedValue) -> str:
    what = f"{value.op} '{value.node}'" if value.op else f"the input '{value.name}'"
    return what if value.name == value.node or not value.op else f"{what} (value '{value.name}')"


def _counted(items: Sequence[str], what: str) -> str:
    return f"{len(items)} {what}{'s are' if len(items) > 1 else ' is'}"


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_NAMED]) + (", ..." if len(items) > _NAMED else "")


def _value_json(value: ComparedValue) -> dict[str, Any]:
    return {
        "value": value.name,
        "in_b": value.other,
        "op": value.op,
        "node": value.node,
        "shape": list(value.shape),
        "alone_db": None if value.alone is None else value.alone.sqnr_db,
        "alone_cosine": None if value.alone is None else value.alone.cosine,
        "accumulated_db": value.total.sqnr_db,
        "accumulated_cosine": value.total.cosine,
        "before_db": value.before_db,
        "scaled": value.scaled,
    }


# ---- the plot

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1100, 300, 40, 20
_HIGHEST = 60.0


def _plot(values: Sequence[ComparedValue], threshold: float) -> Iterable[str]:
    """The accumulated figures as a line, those of each layer alone as dots; what is above the top stands on it."""
    figures = [v.total.sqnr_db for v in values] + [v.alone.sqnr_db for v in values if v.alone is not None]
    low = math.floor(min(0.0, *(max(f, -40.0) for f in figures)) / 10) * 10
    step = (_WIDTH - _LEFT - 10) / max(len(values) - 1, 1)

    def x(place: int) -> float:
        return _LEFT + place * step

    def y(figure: float) -> float:
        share = (min(max(figure, low), _HIGHEST) - low) / (_HIGHEST - low)
        return 10 + (1 - share) * (_HEIGHT - _BOTTOM - 10)

    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="signal to noise by value">'
    for mark in range(int(low), int(_HIGHEST) + 1, 10):
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark}</text>'
    yield f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y(threshold):.1f}" y2="{y(threshold):.1f}"/>'
    points = " ".join(f"{x(i):.1f},{y(v.total.sqnr_db):.1f}" for i, v in enumerate(values))
    yield f'<polyline class="total" points="{points}"/>'
    for i, value in enumerate(values):
        said = f"{value.name}: alone {row(value)[3]}, accumulated {row(value)[4]} dB"
        for kind, one in (("total", value.total), ("alone", value.alone)):
            if one is not None:
                tip = f"<title>{escape(said)}</title>"
                yield f'<circle class="{kind}" cx="{x(i):.1f}" cy="{y(one.sqnr_db):.1f}" r="3">{tip}</circle>'
    yield "</svg>"
    key = [f"<span class={kind}>&#9679;</span> {text}" for kind, text in (("total", "accumulated"), ("alone", "alone"))]
    yield f"<p>{', '.join(key)}; dashed: the threshold</p>"


_STYLE = """svg { width: 100%; height: auto; font-size: 12px; fill: currentColor }
.grid { stroke: currentColor; opacity: .15 } .limit { stroke: #d33; stroke-dasharray: 6 4 }
polyline.total { fill: none; stroke: #2a7ae2; stroke-width: 1.5 }
circle.total { fill: #2a7ae2 } span.total { color: #2a7ae2 }
circle.alone { fill: #e2892a } span.alone { color: #e2892a }
table { border-collapse: collapse; font: 13px/1.5 ui-monospace, monospace }
td, th { padding: 0 .8rem 0 0; text-align: right } td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left }
td:first-child { overflow-wrap: anywhere } tr.bad td { color: #d33 }
"""
