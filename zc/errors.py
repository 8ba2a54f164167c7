"""The errors that a user may see. Each is one line: what is wrong, where, and what to do."""


class ZcError(Exception):
    """The input or the command is wrong (exit code 2)."""

    exit_code = 2

    def __init__(self, message: object) -> None:
        """One line, whatever the names in a damaged file hold: characters that break or hide it are escaped."""
        text = str(message)
        if not text.isprintable():
            text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        super().__init__(text)


class CheckFailed(ZcError):  # noqa: N818
    """A check did not hold: a file differs, a proof failed (exit code 1)."""

    exit_code = 1


class GateMissed(ZcError):  # noqa: N818
    """A gate that the user set was missed; nothing was written (exit code 3)."""

    exit_code = 3


def nearest(word: str, known: list[str]) -> str:
    """` (did you mean 'x'?)` for the known word that is closest to `word`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
