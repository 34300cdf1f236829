"""Rows that are odd: each is its own fault, in every file and at both doors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hb_tta.cli.requests import Failure, Request, read_requests
from hb_tta.datasets.own import open_rows
from hb_tta.datasets.samples import Example
from hb_tta.errors import UserError
from hb_tta.training.data import BadRecord, open_source

SOUND = {"image": "a.png", "question": "Is it?", "answer": "yes"}
ODD: dict[str, str | bytes] = {
    "a number of 5,000 digits": '{"image": "a.png", "question": "?", "id": ' + "7" * 5000 + "}",
    "nesting": '{"image": "a.png", "question": "?", "id": ' + "[" * 9000 + "]" * 9000 + "}",
    "a list": "[1]",
    "null": "null",
    "a lone number": "3",
    "another encoding": b'{"image": "\xe9.png"}',
    "a home of nobody": '{"image": "~a.png", "question": "?"}',
    "half a character": '{"image": "\\ud800.png", "question": "?"}',
    "a null character": '{"image": "a\\u0000.png", "question": "?"}',
    "a folder": '{"image": ".", "question": "?"}',
    "an object for a path": '{"image": {"path": null}, "question": "?"}',
    "a very long path": '{"image": "' + "a" * 5000 + '.png", "question": "?"}',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    return tmp_path


def bytes_of(odd: str | bytes) -> bytes:
    return odd if isinstance(odd, bytes) else odd.encode()


def trained(path: str) -> list[Any]:
    source = open_source(path)
    assert source is not None
    return list(source.read(0, 99))


def asked(path: str) -> list[Request | Failure]:
    rows = open_rows(path)
    assert rows is not None
    return list(read_requests(rows, "vqa"))


# An array is one text, in one encoding.
FORMS = [(k, f) for k in ODD for f in ("lines", "array") if (k, f) != ("another encoding", "array")]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_an_odd_row_takes_no_other_with_it(folder: Path, kind: str, form: str) -> None:
    parts = [json.dumps(SOUND).encode(), bytes_of(ODD[kind]), json.dumps(SOUND).encode()]
    path = "rows.jsonl"
    if form == "lines":
        Path(path).write_bytes(b"\n".join(parts))
    else:
        Path(path).write_bytes(b"[" + b",\n".join(parts) + b"]")
    kinds = [type(row) for row in trained(path)]
    assert kinds == [Example, BadRecord, Example]
    first, _, last = asked(path)  # an image is looked at later
    assert isinstance(first, Request) and isinstance(last, Request)


@pytest.mark.parametrize(
    "odd",
    [
        b'a.png,"never closed,yes',
        b"a.png,Is it, perhaps,yes",
        b"a.png",
        b"\xff\xfe.png,Is it?,yes",
        b'a.png,"closed"too early,yes',
        b"a\0.png,Is it?,yes",
        b'a.png,"' + b"x" * 200_000 + b'",yes',
    ],
    ids=["open quote", "fields", "too few", "encoding", "text after a quote", "null", "field size"],
)
def test_an_odd_row_of_a_table_takes_no_other_with_it(folder: Path, odd: bytes) -> None:
    lines = [b"image,question,answer", b"a.png,Is it?,yes", odd, *[b"a.png,Is it?,yes"] * 300]
    Path("rows.csv").write_bytes(b"\r\n".join(lines))
    kinds = [type(row) for row in trained("rows.csv")]
    source = open_source("rows.csv")
    assert source is not None and source.size() == 302
    assert kinds == [Example, BadRecord, *[Example] * 97]
    assert [type(row) for row in asked("rows.csv")[2:]] == [Request] * 300


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.jsonl", b"\n \n", "is empty"),
        ("rows.json", b'{\n"data": [\n{"image": "a.png"}\n]\n}', "holds one JSON object"),
        ("rows.json", b"[1, 2", "no JSON array"),
        ("rows.json", b"[" * 100_000, "no JSON array"),
        ("rows.csv", b"", "no names"),
        ("rows.csv", b"image,question\n", "holds no rows"),
        ("rows.csv", "image,question\na.png,?\n".encode("utf-16"), "is UTF-16"),
        ("rows.csv", b'"image,question\na.png,?\n', "line 1: it is no row of CSV"),
        ("rows.parquet", b"PAR1 and no more", "cannot be read"),
        ("rows.xlsx", b"PK", "no data that is read"),
    ],
)
def test_a_file_that_is_none_is_a_sentence(folder: Path, name: str, data: bytes, told: str) -> None:
    Path(name).write_bytes(data)
    with pytest.raises(UserError, match=told) as raised:
        trained(name)
    assert "\n" not in str(raised.value)


def test_a_text_without_an_end_takes_no_time(folder: Path) -> None:
    for text in (b'[{"image": "' + b"a b \\\\" * 20_000 + b"}]", b'["' + b"\\" * 99_999 + b"]"):
        Path("rows.json").write_bytes(text)
        assert [type(row) for row in trained("rows.json")] == [BadRecord]


def test_a_pipe_is_waited_for_by_nobody(folder: Path) -> None:
    import os

    for name in ("rows.jsonl", "rows.csv"):
        os.mkfifo(name)
        with pytest.raises((UserError, OSError)):
            open_rows(name)
