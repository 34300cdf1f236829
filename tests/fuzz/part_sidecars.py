"""Sidecars of evaluations: whatever an earlier run left there, this run's answers are kept."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

from fuzz import Part, Trial, told_if_not
from fuzz.mutating import damaged_lines, hostile_texts
from hb_tta.integrations.sidecar import Sidecar

IDENTITY = ("doc_id", "request")
OLD = [{"doc_id": n, "request": 0, "answer": f"answer {n}\u2028 goes on"} for n in range(4)]


@st.composite
def runs(draw: st.DrawFn) -> tuple[bytes, str]:
    lines = [json.dumps(line, ensure_ascii=False).encode() for line in OLD]
    return draw(damaged_lines(lines)), draw(hostile_texts())


def lay(drawn: tuple[bytes, str], folder: Path) -> Trial:
    earlier, answer = drawn
    path = folder / "mme.jsonl"
    path.write_bytes(earlier)
    whole = [
        line
        for line in OLD
        if json.dumps(line, ensure_ascii=False).encode()
        in (text.strip() for text in earlier.split(b"\n"))
    ]

    def run() -> list[dict]:
        sidecar = Sidecar(folder, 0, IDENTITY)
        for number in (2, 7):
            sidecar.add("mme", {"doc_id": number, "request": 0, "answer": answer}, {})
        sidecar.write()
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]

    def wrong(lines: list[dict]) -> str | None:
        by_id = {line["doc_id"]: line for line in lines if "doc_id" in line}
        ours = [by_id[n]["answer"] == answer for n in (2, 7) if n in by_id]
        if ours != [True, True]:
            return f"this run's answers are not there: {lines}"
        lost = [old for old in whole if old["doc_id"] not in by_id]
        kept = [file for file in folder.iterdir() if file != path and file.read_bytes() == earlier]
        return told_if_not(not lost or bool(kept), f"earlier lines are lost: {lost}")

    return Trial(run, wrong)


PART = Part("sidecars", count=1500, inputs=runs(), lay=lay)
