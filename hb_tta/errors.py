"""The one exception that speaks to the person: everything else that is raised is a bug."""


class UserError(Exception):
    """A mistake that a person can mend.

    Its message is one sentence that names the thing, the value and the way out; the command
    line prints it without a traceback (``--debug`` shows one).
    """
