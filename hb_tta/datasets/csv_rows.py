"""Tables as text: one row a line, fields between commas, semicolons or tabs, names in the first.

The standard library's reader, strictly; a row that it refuses is that row's fault, and a quote that
is never closed takes no other rows with it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, deque
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.datasets.rows import Row
from hb_tta.errors import UserError
from hb_tta.reading import open_regular, read_bytes

DELIMITERS = ",;\t"
MOST_LINES = 200
"""Lines that one row may take; a quote that is open for longer was never closed."""

Line = tuple[int, str]


class CsvRows:
    """The rows of such a file.

    Args:
        file: in UTF-8; a name that ends in ``.tsv`` means tabs, else the first line tells.

    Raises:
        UserError: there is no such file, it is no UTF-8 or holds no row, or two columns have one
            name.
    """

    columns: tuple[str, ...] | None

    def __init__(self, file: Path) -> None:
        self.name, self.root, self._file = str(file), file.parent, file
        try:
            with open_regular(file) as start:
                if start.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                    raise UserError(f"{self.name} is UTF-16 text: save it as UTF-8")
            lines = self._lines()
            first = next(lines, None)
            self._delimiter = _delimiter(file, "" if first is None else first[1])
            self.columns = self._named = self._names()
            if next(iter(self), None) is None:
                raise UserError(f"{self.name} holds no rows: write one below the columns' names")
        except OSError as error:
            raise UserError(f"{self.name!r} cannot be read: {error.strerror}") from error

    def __iter__(self) -> Iterator[Row]:
        """See ``OwnRows``."""
        records = self._records()
        next(records, None)  # the names
        for number, fields in records:
            content = fields if isinstance(fields, UserError) else self._row(fields)
            yield Row(number, f"line {number}", content)

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """See ``OwnRows``."""
        return islice(self._all, start, stop)

    def size(self) -> int:
        """The number of rows."""
        return len(self._all)

    def fingerprint(self) -> Any:
        """Of the file's bytes."""
        return {"csv": hashlib.sha256(read_bytes(self._file)).hexdigest()}

    @cached_property
    def _all(self) -> list[Row]:
        return list(self)

    def _names(self) -> tuple[str, ...]:
        _, names = next(self._records(), (1, []))
        if isinstance(names, UserError):
            raise UserError(f"{self.name}, line 1: {names}")
        named = [name.strip() for name in names]
        while named and not named[-1]:
            named.pop()
        twice = [name for name, count in Counter(named).items() if count > 1]
        if not named or twice:
            what = f"{twice[0]!r} twice" if twice else "no names"
            raise UserError(f"{self.name} has {what} in its first line: name every column once")
        return tuple(named)

    def _row(self, fields: list[str]) -> dict[str, Any] | UserError:
        while len(fields) > len(self._named) and not fields[-1].strip():
            fields.pop()
        if len(fields) != len(self._named):
            return UserError(
                f"it has {len(fields)} fields and the first line names {len(self._named)}: put "
                "quotes around a text that holds the separator"
            )
        if any("\udc80" <= char <= "\udcff" for field in fields for char in field):
            return UserError("it is not UTF-8 text: save the file as UTF-8")
        return {name: field for name, field in zip(self._named, fields, strict=True) if name}

    def _records(self) -> Iterator[tuple[int, list[str] | UserError]]:
        """Every row's number and fields."""
        lines, again = self._lines(), deque[Line]()
        while (first := again.popleft() if again else next(lines, None)) is not None:
            number, text = first
            if not text.strip():
                continue
            if '"' not in text and "\0" not in text:
                yield number, text.rstrip("\r\n").split(self._delimiter)
                continue
            taken: list[Line] = []
            try:
                fed = _fed(first, again, lines, taken)
                yield number, next(csv.reader(fed, delimiter=self._delimiter, strict=True))
            except csv.Error as error:
                again.extendleft(reversed(taken))
                yield number, UserError(f"it is no row of CSV ({error}): mend its quotes")

    def _lines(self) -> Iterator[Line]:
        # surrogateescape: what is no UTF-8 is the fault of its row
        with io.TextIOWrapper(
            open_regular(self._file), "utf-8-sig", errors="surrogateescape", newline=""
        ) as lines:
            yield from enumerate(lines, 1)


def _fed(
    first: Line, again: deque[Line], lines: Iterator[Line], taken: list[Line]
) -> Iterator[str]:
    """The lines that a row may take; all but the first are noted."""
    yield first[1]
    while len(taken) < MOST_LINES:
        line = again.popleft() if again else next(lines, None)
        if line is None:
            return
        taken.append(line)
        yield line[1]


def _delimiter(file: Path, names: str) -> str:
    """What stands between the names most often; a comma where nothing does."""
    if file.suffix.lower() == ".tsv":
        return "\t"
    return max(DELIMITERS, key=names.count)
