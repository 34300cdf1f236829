"""Results folders that `hb-tta report` is given: whole ones with a file edited or damaged.

The figures are those of the numbers that the samples files hold, or there are none; what stands
beside the samples changes no figure; and no image from elsewhere gets onto the page.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image
from report_files import line, png, said, write_augmented, write_plain, write_run

from fuzz import Part, Trial, told_if_not
from fuzz.commands import told_by
from fuzz.mutating import edited, mutated, text_of
from hb_tta.report.album import data_uri
from hb_tta.store import Store

SECRET = Image.new("RGB", (9, 9), (1, 2, 3))
METRICS = {
    "exact": lambda n, right: {"exact_match": float(right)},
    "letters": lambda n, right: {
        "acc": {"category": "ab"[n % 2], "pred": "A", "answer": "BA"[right], "question_id": n},
        "submission": {str(n): "A"},
    },
    "rated": lambda n, right: {"rating": {"score": 1 + 3 * right, "clip": n // 2}, "error": 0.5},
}


@cache
def sound() -> Path:
    """Folders of MME and of other metrics, each of a plain and an augmented run, and the store."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-sound-"))
    store = Store(root / "store")
    write_plain(root / "mme" / "plain")
    write_augmented(root / "mme" / "hb", store)
    for name, metrics in METRICS.items():
        for run, right in (("plain", "11101000"), ("hb", "11011100")):
            lines = [_line(n, r == "1", metrics, run, store) for n, r in enumerate(right)]
            about = {"configs": {name: {"metric_list": [{"metric": "rating"}, {"metric": "error"}],
                                        "cluster_key": "clip"}},
                     "higher_is_better": {name: {"error": False}}}  # fmt: skip
            path = write_run(root / name / run, lines, task=name)
            results = path.with_name("20260101_000000_results.json")
            results.write_text(json.dumps({**json.loads(results.read_text()), **about}))
    return root


def _line(n: int, right: bool, metrics: Any, run: str, store: Store) -> dict[str, Any]:
    one = {k: v for k, v in line(n, right).items() if k != "mme_perception_score"}
    if run == "hb":
        one["token_counts"] = [{"hb_tta": said(n, store)}]
    return {**one, **metrics(n, right)}


@st.composite
def folders(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A task, one of its files, and what that is now."""
    task = draw(st.sampled_from(("mme", *METRICS)))
    files = sorted(
        str(path.relative_to(sound() / task)) for path in (sound() / task).rglob("*.json*")
    )
    name = draw(st.sampled_from(files))
    data = (sound() / task / name).read_bytes()
    if draw(st.integers(0, 3)) == 0:
        return task, name, draw(mutated(data))
    if name.endswith(".json"):
        return task, name, _bytes(draw(edited(json.loads(data))))
    lines = data.split(b"\n")[:-1]
    place = draw(st.integers(0, len(lines) - 1))
    lines[place] = _bytes(draw(edited(json.loads(lines[place]))))
    return task, name, b"\n".join(lines) + b"\n"


def _bytes(document: Any) -> bytes:
    return text_of(document).encode("utf-8", "surrogatepass")


def lay(drawn: tuple[str, str, bytes], folder: Path) -> Trial:
    task, name, data = drawn
    shutil.copytree(sound() / task, folder / task)
    (folder / task / name).write_bytes(data)
    for outside in (folder / task).rglob("hb_tta/*"):  # "../../x" leads there from images/
        if outside.is_dir():
            (outside.parent / "x.png").write_bytes(png(SECRET))
    out = folder / "out"
    command = ["report", str(folder / task / "plain"), str(folder / task / "hb")]
    command += ["--json", f"{out}.json", "--out", f"{out}.html", "--store", str(sound() / "store")]

    def run() -> dict[str, Any]:
        told_by(command)
        return json.loads(Path(f"{out}.json").read_text("utf-8"))

    def wrong(figures: dict[str, Any]) -> str | None:
        page = Path(f"{out}.html").read_text("utf-8")
        if data_uri(png(SECRET)) in page:
            return "an image from outside is on the page"
        if "<script>alert" in page:
            return "a text became a part of the page"
        if "_samples_" not in name:
            same = _figures(figures) == _figures(_sound_figures(task))
            return told_if_not(same, "figures changed")
        return _not_the_lines(figures, data)

    return Trial(run, wrong)


@cache
def _sound_figures(task: str) -> dict[str, Any]:
    out = sound() / f"{task}.json"
    folders = [str(sound() / task / run) for run in ("plain", "hb")]
    told_by(["report", *folders, "--json", str(out), "--out", f"{out}.html",
             "--store", str(sound() / "store")])  # fmt: skip
    return json.loads(out.read_text("utf-8"))


def _figures(figures: dict[str, Any]) -> list[str]:
    """Each run's scores; what runs are called may be another."""
    return sorted(json.dumps(_scores(run), sort_keys=True) for run in figures["runs"])


def _scores(run: dict[str, Any]) -> dict[str, Any]:
    if "categories" in run:
        return {name: its["acc"] for name, its in run["categories"].items()}
    return {name: its["score"] for name, its in run["metrics"].items()}


def _not_the_lines(figures: dict[str, Any], data: bytes) -> str | None:
    """Compares the scores of the edited file's run, one of the two, with the means of its lines.

    A question that has no number in one of the runs is left out of both.
    """
    lines = [json.loads(one) for one in data.split(b"\n") if one.strip()]
    found = []
    for run in figures["runs"]:
        for name, its in run.get("metrics", {}).items():
            read = [_number(one.get(name)) for one in lines]
            values = [value for value in read if value is not None]
            if its["questions"] == len(values):
                found.append(abs(sum(values) / len(values) - its["score"]) < 1e-9)
        if "categories" in run:
            rights = [_mme(one) for one in lines]
            if run["categories"]["all"]["questions"] == len(rights):
                mean = 100 * sum(rights) / len(rights)
                found.append(abs(mean - run["categories"]["all"]["acc"]) < 1e-9)
    told = f"the scores are not those of the lines: {figures}"
    return told_if_not(not found or any(found), told)


def _mme(one: dict[str, Any]) -> float:
    scores = [one.get(f"mme_{part}_score") for part in ("perception", "cognition")]
    return float(next(s["score"] for s in scores if isinstance(s, dict)) == 1)


def _number(value: Any) -> float | None:
    if isinstance(value, dict):
        if "score" in value:
            return _number(value["score"])
        return float(value.get("pred") == value.get("answer"))
    return float(value) if isinstance(value, int | float) else None


PART = Part("reports", count=2000, inputs=folders(), lay=lay, seconds=30.0)
