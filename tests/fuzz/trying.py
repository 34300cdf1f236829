"""Trying the inputs of a part, and what came of each."""

from __future__ import annotations

import shutil
import tempfile
import traceback
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz import Part
from hb_tta.errors import UserError

FINE, REFUSED = "fine", "refused"
FAULTS = ("traceback", "hang", "silent change", "bad sentence")


@dataclass(frozen=True)
class Outcome:
    """What came of an input: ``FINE``, ``REFUSED`` or one of ``FAULTS``, and what was said."""

    kind: str
    said: str = ""


def parts() -> dict[str, Part]:
    """Every part by its name."""
    files = sorted(Path(__file__).parent.glob("part_*.py"))
    found = [import_module(f"fuzz.{file.stem}").PART for file in files]
    return {part.name: part for part in found}


def try_inputs(
    part: Part,
    count: int,
    start: int,
    on_outcome: Callable[[Any, Outcome, Path], object],
    before: Callable[[Any], object] = lambda _: None,
) -> None:
    """Try so many inputs, drawn from ``start``; the same ones each time.

    Args:
        on_outcome: told the input, what came of it, and the folder in which it lies.
        before: told every input before its trial.
    """
    part.warm()
    left, draw = count, start
    while left > 0 and draw < start + 50:  # a strategy that has few inputs ends early

        @seed(draw)
        @settings(
            max_examples=left,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(part.inputs)
        def each(value: Any) -> None:
            nonlocal left
            if left <= 0:
                return
            left -= 1
            before(value)
            folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
            try:
                on_outcome(value, tried(part, value, folder), folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        each()
        draw += 1


def tried(part: Part, value: Any, folder: Path) -> Outcome:
    """What comes of one input."""
    trial = part.lay(value, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            returned = trial.run()
    except UserError as error:
        fault = faulty_sentence(str(error))
        return Outcome(REFUSED) if fault is None else Outcome("bad sentence", fault)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return Outcome("traceback", traceback.format_exc(limit=-6))
    wrong = trial.wrong(returned)
    return Outcome(FINE) if wrong is None else Outcome("silent change", wrong)


def faulty_sentence(sentence: str) -> str | None:
    """What is wrong with what a person is told; None: nothing."""
    if not sentence.strip():
        return "it says nothing"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in sentence):
        return f"it has more than one line, or a terminal would obey it: {sentence!r:.600}"
    if len(sentence) > 1000:
        return f"it is {len(sentence)} characters long: {sentence!r:.300}"
    return None
