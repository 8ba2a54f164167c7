"""--dim NAME=SIZE: sizes of dimensions that a model leaves open."""

from zc.errors import ZcError


def sizes(texts: tuple[str, ...]) -> dict[str, int]:
    """Sizes by name, of texts as `S=128`. ZcError for a text of another form."""
    found = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal():
            raise ZcError(f"--dim {text}: expected NAME=SIZE, as S=128 or images:2=640")
        found[name] = int(size)
    return found
