"""How an integration stops a harness's run that it cannot do right."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from hb_tta.errors import UserError


class AugmentationFailed(SystemExit):
    """Ends the process with a sentence on stderr and status 1.

    Harnesses and some of their models catch every ``Exception``: the run would end with status 0,
    or the question would count as answered wrongly. This is none.
    """

    told = False  # whether one was raised in this process

    def __init__(self, sentence: str) -> None:
        AugmentationFailed.told = True
        super().__init__(f"hb-tta: {sentence}")

    @classmethod
    def because(cls, error: BaseException) -> AugmentationFailed:
        """For an error that is nobody's mistake: its traceback is shown."""
        traceback.print_exception(error)
        return cls(f"the augmented evaluation stopped: {type(error).__name__}: {error}")


@contextmanager
def stopping() -> Iterator[None]:
    """Turns an error into the end of the run: it is never scored as a wrong answer."""
    try:
        yield
    except UserError as error:
        raise AugmentationFailed(str(error)) from error
    except Exception as error:
        raise AugmentationFailed.because(error) from error
