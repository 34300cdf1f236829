"""Files with one JSON object a line, or one array of objects over as many lines as it likes.

Empty lines are skipped, and a byte-order mark is no part of the text. An item of an array that
cannot be read (a number of 5,000 digits, too deep a nesting) is that item's fault alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.datasets.rows import Row
from hb_tta.errors import UserError
from hb_tta.reading import lines_in, parse_json, read_bytes

_MARK = b"\xef\xbb\xbf"
# Possessive: of a quote that is never closed nothing is tried twice.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]', re.DOTALL)


class JsonRows:
    """The rows of such a file.

    Args:
        file: its name may end as it likes; in one that ends in ``.json`` an object over several
            lines is told from one a line.

    Raises:
        UserError: there is no such file, it holds nothing, or it begins as an array and is none.
    """

    columns: tuple[str, ...] | None = None

    def __init__(self, file: Path) -> None:
        self.name, self.root, self._file = str(file), file.parent, file
        try:
            if next(iter(self), None) is None:
                raise UserError(
                    f'{self.name} is empty: write one {{"image": path, "question": …}} a line'
                )
        except OSError as error:
            raise UserError(f"{self.name!r} cannot be read: {error.strerror}") from error

    def __iter__(self) -> Iterator[Row]:
        """See ``OwnRows``."""
        lines = lines_in(self._file)
        first = next(lines, None)
        if first is None:
            return
        start = first[1].lstrip()[:1]
        if start == b"[" or (start == b"{" and self._is_one_object(first[1])):
            yield from self._items(read_bytes(self._file).removeprefix(_MARK))
            return
        yield Row(first[0], f"line {first[0]}", first[1])
        for number, line in lines:
            yield Row(number, f"line {number}", line)

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """See ``OwnRows``."""
        return islice(self._all, start, stop)

    def size(self) -> int:
        """The number of rows."""
        return len(self._all)

    def fingerprint(self) -> Any:
        """Of the file's text; its images are told by their own digests later."""
        text = b"".join(_canonical(row.content) for row in self._all)
        return {"jsonl": hashlib.sha256(text).hexdigest()}

    @cached_property
    def _all(self) -> list[Row]:
        return list(self)

    def _is_one_object(self, first: bytes) -> bool:
        """Whether a file that is called JSON holds an object that goes on after its first line."""
        if self._file.suffix.lower() != ".json":
            return False
        try:
            parse_json(first)
        except ValueError:
            return True
        return False

    def _items(self, text: bytes) -> Iterator[Row]:
        try:
            items = parse_json(text)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.name!r} is no UTF-8 text: save it as UTF-8") from error
        except ValueError as error:
            items = _pieces(text)
            if items is None:
                raise UserError(
                    f"{self.name!r} begins with {text.lstrip()[:1].decode()!r} and is no JSON "
                    f"array ({error}): write one object a line"
                ) from error
        if not isinstance(items, list):
            raise UserError(
                f"{self.name!r} holds one JSON object: write an array of objects, [{{…}}, {{…}}], "
                "or one a line"
            )
        for number, item in enumerate(items, 1):
            yield Row(number, f"item {number}", item)


def _pieces(text: bytes) -> list[bytes] | None:
    """The texts of an array's items, found by their brackets; ``None`` where they do not match."""
    pieces, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        mark = token[0][:1]
        if mark in b"[{":
            depth += 1
            start = token.end() if depth == 1 else start
        elif mark in b"]}":
            depth -= 1
        if depth == 0 and mark == b"]":
            pieces.append(text[start : token.start()].strip())
            return None if text[token.end() :].strip() else [p for p in pieces if p]
        if depth == 1 and mark == b",":
            pieces.append(text[start : token.start()].strip())
            start = token.end()
    return None


def _canonical(content: Any) -> bytes:
    """A line as it is but for its end, or an item of an array as a line."""
    if isinstance(content, bytes):
        return content.rstrip(b"\r\n") + b"\n"
    if isinstance(content, Mapping | list):
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    return json.dumps(content).encode() + b"\n"
