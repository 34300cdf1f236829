"""What speaks to the person: one exception and one warning. Anything else raised is a bug."""


class UserError(Exception):
    """A mistake that a person can mend.

    Its message is one sentence that names the thing, the value and the way out; the command
    line prints it without a traceback (``--debug`` shows one).
    """


class HbTtaWarning(UserWarning):
    """What a person should know of a run that goes on: a setting ignored, a text shortened.

    The command line shows warnings of this class alone, each in a line, wherever they come from.
    """


def shown(value: object, most: int = 120) -> str:
    """A value as a sentence shows it: on one line, and shortened where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of lists in lists
        return f"a {type(value).__name__} beyond all bounds"
    return text if len(text) <= most else f"{text[: most - 1]}…"
