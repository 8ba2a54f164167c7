"""Figures as a person reads them."""


def size_text(count: float) -> str:
    """Bytes in decimal units: `512 B`, `84.06 kB`, `1.23 MB`."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
