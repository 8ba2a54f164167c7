"""--dim NAME=SIZE and --shape INPUT=SIZES: sizes of dimensions that a model leaves open."""

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


def shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes by name of an input, of texts as `input=1,3,224,224`. ZcError for a text of another form."""
    found = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        parts = numbers.replace("x", ",").split(",")
        if not name or not all(p.isdecimal() and int(p) > 0 for p in parts):
            raise ZcError(f"--shape {text}: expected INPUT=SIZES, as input=1,3,224,224")
        found[name] = tuple(int(p) for p in parts)
    return found
