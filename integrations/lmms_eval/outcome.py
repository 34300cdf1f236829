"""A run that brought no results ends with status 1, whatever lmms-eval says.

lmms-eval catches every error of an evaluation, prints it and ends with status 0
(``lmms_eval.__main__.cli_evaluate``): a script would go on with nothing.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

_WITHOUT_RESULTS = ("-h", "--help", "--power_analysis", "--power-analysis")


def watch(arguments: Sequence[str]) -> None:
    """From now on this process ends with status 1 unless it prints a table of results.

    Args:
        arguments: lmms-eval's; those that ask for no evaluation are let alone.
    """
    if not _asks_for_results(arguments):
        return
    from lmms_eval import utils

    # ``__main__`` takes this name out of utils after its import of the models, and calls it for
    # every evaluation that came to its end.
    printed = _Printed(utils.make_table)
    utils.make_table = printed
    atexit.register(_end, printed)


class _Printed:
    """lmms-eval's ``make_table``, and whether it was called."""

    def __init__(self, make_table: Callable[..., Any]) -> None:
        self._make_table = make_table
        self.called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        return self._make_table(*args, **kwargs)


def _asks_for_results(arguments: Sequence[str]) -> bool:
    command = arguments[0] if arguments and not arguments[0].startswith("-") else "eval"
    if command != "eval" or arguments == ["eval"]:
        return False  # another command, or the wizard
    if any(argument.split("=", 1)[0] in _WITHOUT_RESULTS for argument in arguments):
        return False
    words = " ".join(arguments).replace("=", " ").split()
    return not any(
        option.startswith("--ta") and value.startswith("list")
        for option, value in zip(words, words[1:], strict=False)
    )


def _end(printed: _Printed) -> None:
    """The first to be registered, so the last to run: the others have cleaned up."""
    is_main = os.environ.get("RANK", "0") == "0"  # the others print no table
    if printed.called or not is_main or hasattr(sys, "last_value"):
        return  # an error that nobody caught ends the process with its own status
    from hb_tta.integrations.failure import AugmentationFailed

    if not AugmentationFailed.told:
        print(
            "hb-tta: lmms-eval ended without results: its own lines above say why", file=sys.stderr
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
