"""One page for the browser that needs nothing else: the frame and the look that all our pages share."""

from collections.abc import Iterable
from html import escape


def html_page(title: str, body: Iterable[str], style: str = "") -> str:
    """A page with this title and these parts of HTML. style: CSS of its own."""
    return "\n".join([_HEAD.format(title=escape(title), style=style), *body, "</body></html>"]) + "\n"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin: 1.5rem 0 .3rem }}
.summary {{ font-weight: 600 }}
details {{ margin: .2rem 0 }} summary {{ cursor: pointer }}
p, summary, li {{ overflow-wrap: anywhere }}
li {{ font: 13px/1.5 ui-monospace, monospace }}
{style}</style></head><body>
<h1>{title}</h1>"""
