"""What a question gives to choose from, and which of it is right and was chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hb_tta.report.document import visible
from hb_tta.report.records import Record

# "A. red", "(B) blue", "C: green" in lines of their own.
_LINE = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]*(\S.*)$", re.MULTILINE)
# "B", "(B)", "B.", "B. red", "Answer: B", "the answer is (B)"
_CHOSEN = re.compile(r"(?:.*\b[Aa]nswer\b[^A-Z]*?)?\(?([A-Z])\)?(?:[.):].*)?", re.DOTALL)


@dataclass(frozen=True)
class Option:
    """One of a question's options.

    Attributes:
        letter: that stands for it; "" where there is none.
        text: of it.
    """

    letter: str
    text: str

    def is_meant(self, answer: str) -> bool:
        """Whether an answer chooses it: by its letter, or in its words."""
        said = answer.strip()
        if said.lower().rstrip(".") == self.text.lower().rstrip("."):
            return True
        found = _CHOSEN.fullmatch(said)
        return bool(self.letter) and found is not None and found[1] == self.letter


def options_of(record: Record) -> list[Option]:
    """A question's options: its record's own, or the lettered lines of its text, from A on."""
    if record.options:
        return [Option("", text) for text in record.options]
    found = [Option(*match) for match in _LINE.findall(record.text)]
    letters = "".join(option.letter for option in found)
    # A prompt with examples letters several questions: whose options are meant is not known then.
    in_order = len(letters) > 1 and "ABCDEFGHIJKLMNOPQRSTUVWXYZ".startswith(letters)
    return found if in_order else []


def html(records: Sequence[Record], names: Sequence[str]) -> str:
    """A list of the options: the right one, and which runs chose each; "" where there are none.

    Args:
        records: of one question, a run each.
        names: of the runs.
    """
    items = []
    for option in options_of(records[0]):
        right = " class=right" if option.is_meant(records[0].target) else ""
        chosen = "".join(
            f"<small>{visible(name)}</small>"
            for record, name in zip(records, names, strict=True)
            if option.is_meant(record.answer)
        )
        letter = f"<b>{visible(option.letter)}</b> " if option.letter else ""
        mark = " ✓" if right else ""
        items.append(f"<li{right}><span dir=auto>{letter}{visible(option.text)}{mark}</span>"
                     f"{chosen}</li>")  # fmt: skip
    return f'<ul class="options">{"".join(items)}</ul>' if items else ""
