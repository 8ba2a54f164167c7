"""Sizes that are known only by name: integer polynomials over symbols, with equal forms for equal values.

A size is a plain int, or a `Poly` over dimension names: with x of shape [N,4,8], `Size(x)` is 32*N. What has no exact
polynomial (a division that leaves a rest, a minimum) becomes a symbol of its own that spells the operation, so that the
same operation on the same sizes still compares equal. `None` stands for a number about which nothing is known.
"""

from collections.abc import Iterable
from dataclasses import dataclass

Monomial = tuple[str, ...]
"""Symbols with repetition, sorted; () is the constant term."""


@dataclass(frozen=True)
class Poly:
    """A sum of products of symbols that is no plain number. Every symbol stands for a size: an integer >= 0."""

    terms: tuple[tuple[Monomial, int], ...]
    """Monomials with their factors, sorted, none zero."""

    @property
    def text(self) -> str:
        """The polynomial as a person writes it."""
        return " + ".join("*".join([*([str(c)] if c != 1 or not m else []), *m]) for m, c in self.terms)

    @property
    def symbol(self) -> str | None:
        """The name when this is one symbol alone."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            return self.terms[0][0][0]
        return None

    @property
    def never_negative(self) -> bool:
        """Is it certain, from the signs alone, that the value is >= 0?"""
        return all(c > 0 for _, c in self.terms)


Size = int | Poly
_MOST = 240  # characters; a longer polynomial says nothing that a rewrite could use, and nested ones grow exponentially
Element = Size | None


def symbol(name: str) -> Poly:
    """The size that is called `name`."""
    return Poly((((name,), 1),))


def add(a: Element, b: Element) -> Element:
    """A + b."""
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return _bounded(_collect((*_terms(a), *_terms(b))))


def mul(a: Element, b: Element) -> Element:
    """A * b."""
    if a is None or b is None:
        return 0 if a == 0 or b == 0 else None
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return _bounded(_collect((tuple(sorted((*m, *n))), c * d) for m, c in _terms(a) for n, d in _terms(b)))


def sub(a: Element, b: Element) -> Element:
    """A - b."""
    return add(a, mul(b, -1))


def div(a: Element, b: Element) -> Element:
    """A / b as ONNX divides integers (truncating); None for a division by zero."""
    if a is None or b is None or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    exact = _divide(a, b)
    if exact is not None:
        return exact
    return _bounded(symbol(f"({_text(a)})/({_text(b)})")) if _positive(a, b) else None


def mod(a: Element, b: Element) -> Element:
    """A % b with the sign of b."""
    if a is None or b is None or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if _divide(a, b) is not None:
        return 0
    return _bounded(symbol(f"({_text(a)})%({_text(b)})")) if _positive(a, b) else None


def smaller(a: Element, b: Element) -> Element:
    """min(a, b)."""
    return _extreme("min", a, b)


def larger(a: Element, b: Element) -> Element:
    """max(a, b)."""
    return _extreme("max", a, b)


def equal(a: Element, b: Element) -> bool | None:
    """Are two elements equal? None when it depends on the sizes at run time."""
    if a is None or b is None:
        return None
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    difference = sub(a, b)
    for one in (difference, mul(difference, -1)):
        # a constant part >= 1 and nothing negative: the value is >= 1
        if isinstance(one, Poly) and one.never_negative and any(m == () for m, _ in one.terms):
            return False
    return None


def _extreme(name: str, a: Element, b: Element) -> Element:
    if a is None or b is None:
        return None
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b) if name == "min" else max(a, b)
    for less, more in ((a, b), (b, a)):
        gap = sub(more, less)
        if isinstance(gap, Poly) and gap.never_negative:
            return less if name == "min" else more
    if not _positive(a, b):
        return None
    return _bounded(symbol(f"{name}({', '.join(sorted((_text(a), _text(b))))})"))


def _terms(value: Size) -> tuple[tuple[Monomial, int], ...]:
    return value.terms if isinstance(value, Poly) else (((), value),)


def _collect(terms: Iterable[tuple[Monomial, int]]) -> Size:
    total: dict[Monomial, int] = {}
    for monomial, factor in terms:
        total[monomial] = total.get(monomial, 0) + factor
    kept = tuple(sorted((m, c) for m, c in total.items() if c))
    if not kept:
        return 0
    return kept[0][1] if len(kept) == 1 and kept[0][0] == () else Poly(kept)


def _divide(a: Size, b: Size) -> Size | None:
    """A / b when b is one product that divides every term of a; sizes in b are taken to be nonzero."""
    divisor = _terms(b)
    if len(divisor) != 1 or divisor[0][1] == 0:
        return None
    symbols, factor = divisor[0]
    result = []
    for monomial, c in _terms(a):
        rest = list(monomial)
        for name in symbols:
            if name not in rest:
                return None
            rest.remove(name)
        if c % factor:
            return None
        result.append((tuple(rest), c // factor))
    return _collect(result)


def _positive(*values: Size) -> bool:
    return all(v >= 0 if isinstance(v, int) else v.never_negative for v in values)


def _bounded(value: Size) -> Element:
    return value if isinstance(value, int) or len(value.text) <= _MOST else None


def _text(value: Size) -> str:
    return value.text if isinstance(value, Poly) else str(value)
