"""Hostile inputs by the thousand: nothing that a person can name may end in a traceback, hang or
quietly become something else.

    make fuzz                                      every part, all of its inputs (minutes)
    make fuzz FUZZ="images store --count 200"      some parts, fewer inputs
    tests/hostile/                                 the cases found so far, and a few inputs of
                                                   every part (seconds, in `make test`)

**A part** is a file ``part_NAME.py`` in this folder that has a ``PART``. It is found by its name;
nothing else has to be told of it::

    def lay(input, folder: Path) -> Trial:
        '''Write the input into an empty folder, and say how it is tried.'''
        path = folder / "entry.json"
        path.write_bytes(input)
        return Trial(lambda: read_entry(path), wrong=lambda found: told_if_not(found == KNOWN))

    PART = Part("entries", count=2000, inputs=mutated(SOUND_FILE), lay=lay)

- ``inputs`` is a hypothesis strategy; ``fuzz.mutating`` has what parts share: ``mutated(bytes)``,
  ``edited(json)`` with ``text_of(json)``, ``damaged_lines(lines)``, ``hostile_texts()``,
  ``hostile_values()``.
- ``lay`` is called once an input, with a folder of its own; sound files that all inputs share are
  made once, where the part's module is imported or in a cached function. What ``lay`` raises is a
  fault of the part.
- ``Trial.run`` does what a person would do, through the outermost door that is quick (a function of
  the package, ``hb_tta.cli.main``; no process a trial). What comes of it:

  | what happens | counted as |
  | --- | --- |
  | it returns, and ``wrong(returned)`` gives None | fine |
  | it raises ``UserError`` with a sentence: one line, no control characters | refused |
  | it raises ``UserError`` with anything else | bad sentence |
  | it returns, and ``wrong(returned)`` tells what is not as it should be | silent change |
  | it raises anything else, or the process dies | traceback |
  | it takes longer than ``Part.seconds`` | hang |

The first two are right. ``wrong`` is what a part is worth: it must compare what came out with what
is known of the input (the sound original, a second way in, what was drawn), not repeat the code.
``make fuzz`` prints the counts of every part, and exits with 1 where any of the last four is not 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Trial:
    """An input that lies ready.

    Attributes:
        run: tries it.
        wrong: what is wrong with what ``run`` returned, in a few words; None: nothing.
    """

    run: Callable[[], Any]
    wrong: Callable[[Any], str | None] = lambda _: None


@dataclass(frozen=True)
class Part:
    """One kind of input.

    Attributes:
        name: as in the file's name.
        count: of inputs in ``make fuzz``.
        inputs: what is drawn; its ``repr`` is what a failure shows.
        lay: see the package's docstring.
        seconds: a trial that takes longer is a hang. The first pays for imports: see ``warm``.
        warm: imports what trials need, before the first.
    """

    name: str
    count: int
    inputs: SearchStrategy[Any]
    lay: Callable[[Any, Path], Trial]
    seconds: float = 10.0
    warm: Callable[[], object] = lambda: None


def told_if_not(right: bool, said: str = "it differs") -> str | None:
    """``said`` where something is not right: for ``Trial.wrong``."""
    return None if right else said
