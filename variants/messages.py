"""What is said of somebody else's mistake: the nearest name, and what their code raised."""

from collections.abc import Iterable
from difflib import get_close_matches

# Of what somebody else's code raised, characters.
_LONGEST = 300


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known."""
    known = list(known)
    # Whatever its case: LSTM is lstm.
    folded = {one.casefold(): one for one in known}
    close = [folded[one] for one in get_close_matches(name.casefold(), folded, n=3)]
    hint = f"; did you mean {' or '.join(close)}?" if close else ";"
    return f"{hint} known: {', '.join(known) or 'none'}"


def told(error: BaseException) -> str:
    """What was raised, on one line of plain letters, cut where it has no end."""
    # As text a SyntaxError names file and line; its repr holds the source besides.
    whole = f"{type(error).__name__}: {error}" if isinstance(error, SyntaxError) else repr(error)
    return printable(whole)


def printable(text: str) -> str:
    """Text as one line: no control characters, which a terminal would obey, and no more than a line holds."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
