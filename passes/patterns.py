"""Names as a user writes them in the options `skip` and `only`: globs in which * and ? stand for anything."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from zc.errors import ZcError, nearest


def first_match(words: Iterable[str], patterns: Sequence[str]) -> str | None:
    """The first pattern that one of the words matches, or None."""
    words = list(words)
    return next((p for p in patterns if any(fnmatchcase(word, p) for word in words)), None)


def require_matches(option: str, patterns: Sequence[str], known: Sequence[str], what: str) -> None:
    """ZcError for a pattern that matches none of the known words, with the nearest word or folder.

    option: the option that the patterns were given with. what: the kind of things that have these words.
    """
    for pattern in patterns:
        if not any(fnmatchcase(word, pattern) for word in known):
            close = nearest(pattern, _folders(known) if pattern.endswith("*") else sorted(set(known)))
            raise ZcError(f"{option}={pattern} matches no {what}{close}; * and ? stand for anything")


def as_pattern(word: str) -> str:
    """A pattern that matches this word: `*`, `?` and `[` stand for themselves, `+` would part the list of an option."""
    return "".join(f"[{c}]" if c in "*?[" else "?" if c == "+" else c for c in word)


def _folders(words: Sequence[str]) -> list[str]:
    """Patterns for all that begins alike: `/layer1/*` of `/layer1/conv1/Conv`."""
    found = {word[: i + 1] + "*" for word in words for i, letter in enumerate(word) if letter in "/." and i > 0}
    return sorted(found)
