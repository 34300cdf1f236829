"""What hostile inputs are made of: sound files with a few things changed, and odd values."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

# ── Texts and values ─────────────────────────────────────────────────────────────────────────────

TEXTS = (
    "", " ", "\0", "\n", "\r\n", "\t", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x85", "\u2028",
    "\u2029", "\ud800", "\ufeff", "\u202e", "é", "漢字", "👩‍👩‍👧", "~", "~a.png",
    "../../x", "/etc/passwd", "a/../../b", "..", ".", "-", "--help", "a" * 300, "a" * 70_000,
    "{}", "{0}", "%s", "None",
    "nan", "inf", "1e999", "0", "-1", "true", "null", "<script>alert(1)</script>", "file:///etc",
    "https://example.invalid/a.png", "con", "a\\b", "*", "?", "a=b,c=d", "@x", "$HOME", "`id`",
)  # fmt: skip

NUMBERS = (
    0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, -1e-308, float("nan"),
    float("inf"), float("-inf"),
)  # fmt: skip

# What ``json.dumps`` does not write: too deep, too long, no JSON. ``text_of`` puts them in.
RAW = (
    "[" * 100_000,
    "[" * 5000 + "]" * 5000,
    '{"a":' * 3000 + "1" + "}" * 3000,
    "9" * 5000,
    "-" + "9" * 5000 + ".5",
    "1e5000",
    "NaN",
    "'single'",
    "01",
    "{,}",
    '"\\ud800"',
    '{"a": 1, "a": 2}',
)
_RAW_NAME = "@raw {}@"


def hostile_texts() -> SearchStrategy[str]:
    """Known trouble, and any text; lone surrogates among it."""
    return st.one_of(st.sampled_from(TEXTS), st.text(st.characters(), max_size=20))


def hostile_values() -> SearchStrategy[Any]:
    """Anything that JSON can hold, and some that only a file can."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(NUMBERS),
        st.integers(),
        st.floats(),
        hostile_texts(),
        st.sampled_from(range(len(RAW))).map(_RAW_NAME.format),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(hostile_texts(), inner, max_size=3)
        ),
        max_leaves=6,
    )


def text_of(document: Any, **options: Any) -> str:
    """JSON text of a value of ``hostile_values`` or ``edited``, raw parts in their places."""
    text = json.dumps(document, **options)
    for number, raw in enumerate(RAW):
        text = text.replace(json.dumps(_RAW_NAME.format(number)), raw)
    return text


# ── Sound things with a few changes ──────────────────────────────────────────────────────────────


@st.composite
def edited(draw: DrawFn, document: Any, most: int = 3) -> Any:
    """A JSON document some of whose items were replaced, removed, renamed or added."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(changed))
        if not places:
            return draw(hostile_values())
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        _edit(draw, holder, key)
    return changed


def _edit(draw: DrawFn, holder: Any, key: Any) -> None:
    what = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "add")))
    if what == "replace":
        holder[key] = draw(hostile_values())
    elif what == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, draw(hostile_values()) if what == "add" else holder[key])
    else:
        holder[draw(hostile_texts())] = draw(hostile_values()) if what == "add" else holder.pop(key)


def _places(document: Any) -> Any:
    """(holder, key) of every item, however deep."""
    items: Any = ()
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for key, value in items:
        yield document, key
        yield from _places(value)


@st.composite
def mutated(draw: DrawFn, data: bytes, most: int = 3) -> bytes:
    """A file's bytes with up to ``most`` cuts, flips, copies, insertions or runs of zeros."""
    for _ in range(draw(st.integers(1, most))):
        data = _mutate(draw, data)
    return data


def _mutate(draw: DrawFn, data: bytes) -> bytes:
    place = _place(draw, len(data))
    length = draw(st.one_of(st.integers(1, 8), st.integers(1, max(1, len(data)))))
    match draw(st.sampled_from(("flip", "byte", "cut", "tail", "zero", "insert", "copy", "drop"))):
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            return (
                data[:place]
                + bytes(byte ^ bit for byte in data[place : place + 1])
                + (data[place + 1 :])
            )
        case "byte":
            return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
        case "cut":
            return data[:place]
        case "tail":
            return data + draw(st.binary(min_size=1, max_size=64))
        case "zero":
            return data[:place] + bytes(min(length, len(data) - place)) + data[place + length :]
        case "insert":
            return data[:place] + draw(st.binary(min_size=1, max_size=16)) + data[place:]
        case "copy":
            start = _place(draw, len(data))
            return data[:place] + data[start : start + length] + data[place:]
        case _:
            return data[:place] + data[place + length :]


def _place(draw: DrawFn, size: int) -> int:
    """Anywhere, and more often near the ends, where formats keep what matters."""
    ends = st.one_of(st.integers(0, min(64, size)), st.integers(max(0, size - 64), size))
    return draw(st.one_of(ends, st.integers(0, size)))


@st.composite
def damaged_lines(draw: DrawFn, lines: Sequence[bytes], most: int = 3) -> bytes:
    """A file of lines (given without their ends), some of which were damaged."""
    kept = list(lines)
    for _ in range(draw(st.integers(1, most))):
        number = draw(st.integers(0, len(kept)))
        odd = draw(st.one_of(st.sampled_from(ODD_LINES), st.binary(max_size=40)))
        match draw(st.sampled_from(("insert", "replace", "remove", "twice", "mutate"))):
            case "insert":
                kept.insert(number, odd)
            case "replace":
                kept[number : number + 1] = [odd]
            case "remove":
                del kept[number : number + 1]
            case "twice":
                kept[number:number] = kept[number : number + 1]
            case _:
                kept[number : number + 1] = [
                    _mutate(draw, line) for line in kept[number : number + 1]
                ]
    end = draw(st.sampled_from((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")))
    last = draw(st.sampled_from((end, end, b"")))
    mark = draw(st.sampled_from((b"", b"", b"", b"\xef\xbb\xbf")))
    return mark + end.join(kept) + last


ODD_LINES = (
    b"", b" ", b"null", b"1", b"[1]", b"[]", b"{}", b'"text"', b"true", b"NaN", b"{", b"}",
    b"\xff\xfe", b"\0", b"\x85", "\u2028".encode(), b'{"a": 1} {"b": 2}', b"9" * 5000,
    b"[" * 100_000, b'{"image": null}', b'{"image": "~a.png"}', b'{"image": "\\ud800.png"}',
    b'{"doc_id": {}}', b"// comment", b"\xef\xbb\xbf{}",
)  # fmt: skip
