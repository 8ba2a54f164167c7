"""Overrides: other settings for some nodes, by operator or by name.

    Conv per_channel=false           for one operator
    /head/* float                    for the nodes of these names; stronger than what is said of their operator
    /fc/MatMul weight_bits=4 method=mse

What is said later wins among operators, and among names. The settings of a weight are those of the node that reads it.
The range of a value is read as its maker says if that runs in integers, else as the first of its readers does.
"""

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from zc.errors import ZcError, nearest
from zc.ir.graph import Node
from zc.ir.model import Model
from zc.passes.patterns import first_match, require_matches
from zc.passes.quantize.form import Form
from zc.passes.quantize.select import words_of
from zc.pipeline.options import read_value

LOCAL = ("method", "percentile", "clip_cost", "per_channel", "bias_correct", "weight_bits", "rounding")
"""Fields of a form that may differ from node to node."""
FLOAT, INTEGER = "float", "int8"
_TEXT = re.compile(rf"(?P<pattern>\S.*?)\s+(?P<rest>{FLOAT}|{INTEGER}|\w+=\S+(\s+\w+=\S+)*)\s*")


@dataclass(frozen=True)
class Override:
    """What is said of some nodes."""

    text: str
    pattern: str
    settings: Mapping[str, Any]
    kind: str = ""
    """`float` or `int8`, if that is what is said."""


def parse_override(text: str) -> Override:
    """`PATTERN float`, `PATTERN int8` or `PATTERN key=value ...`. ZcError where it is none, or a value is wrong."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ZcError(f"overrides: cannot read '{text}'; write 'PATTERN float' or 'PATTERN key=value ...'")
    pattern, rest = found["pattern"], found["rest"]
    if rest in (FLOAT, INTEGER):
        return Override(text, pattern, {}, rest)
    hints = typing.get_type_hints(Form)
    settings = {}
    for part in rest.split():
        key, _, value = part.partition("=")
        if key not in LOCAL:
            listed = ", ".join(LOCAL)
            raise ZcError(f"overrides: '{key}' of '{pattern}'{nearest(key, list(LOCAL))}; a node has {listed}")
        settings[key] = read_value("pass 'quantize'", key, value, hints[key])
    return Override(text, pattern, settings)


class Overrides:
    """All overrides of a pass, for the nodes of one model and of its copies."""

    def __init__(self, texts: Sequence[str], model: Model) -> None:
        """ZcError for a pattern that no node of the model matches."""
        nodes = [cast(Node, n) for scope in model.scopes() for n in scope.nodes]
        ops = {n.op for n in nodes}
        parsed = [parse_override(text) for text in texts]
        require_matches("overrides", [o.pattern for o in parsed], [w for n in nodes for w in words_of(n)], "node")
        self.rules = sorted(parsed, key=lambda o: o.pattern not in ops)  # operators first; the sort is stable

    def of(self, node: Node) -> list[Override]:
        """What is said of a node, the strongest last."""
        words = words_of(node)
        return [rule for rule in self.rules if first_match(words, [rule.pattern]) is not None]

    def keep_float(self, node: Node) -> str | None:
        """The reason why a node is to stay float, or None."""
        said = [rule for rule in self.of(node) if rule.kind]
        return f"quantize:overrides={said[-1].text}" if said and said[-1].kind == FLOAT else None

    def form(self, node: Node, form: Form) -> Form:
        """The form of a node, where `form` is that of the others."""
        settings: dict[str, Any] = {}
        for rule in self.of(node):
            settings |= rule.settings
        return replace(form, **settings) if settings else form

    @property
    def fewest_bits(self) -> int:
        """Of weights, among the overrides."""
        return min((int(rule.settings.get("weight_bits", 8)) for rule in self.rules), default=8)
