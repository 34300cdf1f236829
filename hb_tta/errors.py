"""What speaks to the person: one exception and one warning. Anything else raised is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that a person can mend.

    Its message is one sentence that names the thing, the value and the way out; the command
    line prints it without a traceback (``--debug`` shows one).
    """


class HbTtaWarning(UserWarning):
    """What a person should know of a run that goes on: a setting ignored, a text shortened.

    The command line shows warnings of this class alone, each in a line, wherever they come from.
    """


def meant(name: object, choices: Iterable[str]) -> str | None:
    """The choice that a mistyped name is close to, in any case of letters; ``None``: none is."""
    by_letters = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).strip().lower(), list(by_letters), n=1)
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
