"""A person's own rows, damaged: what is sound is read as it stands, the rest is told by its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzz import Part, Trial, told_if_not
from fuzz.mutating import damaged_lines, edited, mutated, text_of
from hb_tta.cli.requests import Failure, Request, read_requests
from hb_tta.datasets.own import OwnExamples, open_rows
from hb_tta.datasets.samples import Example
from hb_tta.training.data import BadRecord, Rows

ROWS = [
    {"image": f"{n}.png", "question": f"Is it {n}, perhaps?", "answer": f"answer {n}", "id": n}
    for n in range(5)
]
LINES = [json.dumps(row).encode() for row in ROWS]
TABLE = [b"image,question,answer"] + [
    f'{row["image"]},"{row["question"]}",{row["answer"]}'.encode() for row in ROWS
]
ARRAY = json.dumps(ROWS, indent=1).encode()


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file's name and bytes."""
    match draw(st.sampled_from(("lines", "lines", "table", "array", "edited", "edited array"))):
        case "lines":
            return "rows.jsonl", draw(damaged_lines(LINES))
        case "table":
            return "rows.csv", draw(damaged_lines(TABLE))
        case "array":
            return draw(st.sampled_from(("rows.json", "rows.jsonl"))), draw(mutated(ARRAY))
        case "edited":
            rows = draw(edited(ROWS, most=4))
            lines = [text_of(row) for row in rows] if isinstance(rows, list) else [text_of(rows)]
            return "rows.jsonl", "\n".join(lines).encode("utf-8", "surrogatepass")
        case _:
            return "rows.json", text_of(draw(edited(ROWS))).encode("utf-8", "surrogatepass")


def lay(drawn: tuple[str, bytes], folder: Path) -> Trial:
    name, data = drawn
    path = folder / name
    path.write_bytes(data)
    sound = [row for row, line in zip(ROWS, LINES, strict=True) if line in data.split(b"\n")]

    def run() -> tuple[list[Any], list[Any]]:
        rows = open_rows(str(path))
        assert rows is not None
        asked = list(read_requests(rows, "vqa"))
        again = open_rows(str(path))
        assert again is not None
        examples = OwnExamples(again)
        trained = list(Rows(examples).read(0, 99))
        examples.fingerprint()
        return asked, trained

    def wrong(found: tuple[list[Any], list[Any]]) -> str | None:
        asked, trained = found
        if len(asked) != len(trained):
            return f"{len(asked)} rows to augment and {len(trained)} to train on"
        kinds = [isinstance(one, Request | Failure) for one in asked]
        kinds += [isinstance(one, Example | BadRecord) for one in trained]
        if not all(kinds):
            return "something that is no row came out"
        pairs = {(r.question, Path(str(r.image)).name) for r in asked if isinstance(r, Request)}
        lost = [row for row in sound if (row["question"], row["image"]) not in pairs]
        if name == "rows.jsonl" and not data.lstrip(b"\xef\xbb\xbf \n").startswith(b"[") and lost:
            return f"sound rows were not read: {lost}"
        numbers = [one.index for one in asked]
        return told_if_not(numbers == sorted(set(numbers)), f"numbers {numbers}")

    return Trial(run, wrong)


PART = Part("rows", count=3000, inputs=files(), lay=lay)
