"""What speaks to the person: one exception and one warning. Anything else raised is a bug."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

# Control characters; halves of surrogate pairs, which UTF-8 cannot hold; line and paragraph ends;
# of the format characters those that turn the direction of writing round.
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: object) -> str:
    """A text on one line that no terminal obeys: control characters as in Python, ``\\x1b``.

    A file's name may hold anything, and what is told of it may go to a terminal.
    """
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in _UNSEEN or char in _TURNING else char
        for char in str(text)
    )


def told(sentence: str, most: int = 900) -> str:
    """A sentence without the middles of what is too long in it: what was typed may be a whole file.

    A word loses all behind its first 400 characters (a path may be longer than that, and is seldom
    read so far), a sentence its middle: the way out stands at the end.
    """
    words = re.sub(r"\S{400,}", lambda word: f"{word[0][:399]}…", sentence)
    return words if len(words) <= most else f"{words[: most - 300]} … {words[-297:]}"


class UserError(Exception):
    """A mistake that a person can mend.

    Its message is one sentence that names the thing, the value and the way out; the command
    line prints it without a traceback (``--debug`` shows one).
    """

    def __str__(self) -> str:
        return told(visible(super().__str__()))


class HbTtaWarning(UserWarning):
    """What a person should know of a run that goes on: a setting ignored, a text shortened.

    The command line shows warnings of this class alone, each in a line, wherever they come from.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


def meant(name: object, choices: Iterable[str]) -> str | None:
    """The choice that a mistyped name is close to, in any case of letters; ``None``: none is."""
    by_letters = {choice.lower(): choice for choice in choices}
    given = name if isinstance(name, str) else shown(name)
    close = difflib.get_close_matches(given.strip().lower()[:100], list(by_letters), n=1)
    return by_letters[close[0]] if close else None


def choose_from(name: object, choices: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: ``, did you mean …? choose from …``.

    Args:
        name: as it was given.
        choices: all that are known, in the order to tell them.
    """
    known = list(choices)
    close = meant(name, known)
    hint = f", did you mean {close!r}?" if close else ":"
    return f"{hint} choose from {', '.join(known)}"


def shown(value: object, most: int = 120) -> str:
    """A value as a sentence shows it: on one line, and shortened where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of lists in lists
        return f"a {type(value).__name__} beyond all bounds"
    return text if len(text) <= most else f"{text[: most - 1]}…"
