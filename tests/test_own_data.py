"""A person's own images and rows, in every form, for `hb-tta augment` and for training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from augmenting import picture

from hb_tta.cli import main
from hb_tta.cli.requests import Asked, Failure, Request, read_asked, read_requests
from hb_tta.datasets import hub
from hb_tta.datasets.own import OwnExamples, open_rows
from hb_tta.datasets.rows import Columns
from hb_tta.datasets.samples import Example
from hb_tta.errors import UserError
from hb_tta.images import pixel_digest
from hb_tta.training.data import BadRecord, Rows, open_source

QUICK = ("--method", "randaugment", "-n", "2")  # needs no model


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: three pictures, a store of its own."""
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    folder = tmp_path / "work"
    (folder / "pics").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for number, name in enumerate(("a", "b", "c")):
        picture(number).save(folder / "pics" / f"{name}.png")
    return folder


ROWS = [
    {"image": "pics/a.png", "question": "Is it, perhaps, red?", "answer": "yes", "id": "7"},
    {"image": "pics/b.png", "question": 'Does it say "stop"?\nOr go?', "answer": "no", "id": "8"},
    {"image": "pics/c.png", "question": "Wie groß?", "answer": "3", "id": "9"},
]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


def array(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8-sig")


def table(path: Path, delimiter: str = ",", encoding: str = "utf-8", end: str = "\n") -> None:
    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if set(text) & set('",;\t\n') else text

    lines = [delimiter.join(ROWS[0])]
    lines += [delimiter.join(map(field, row.values())) for row in ROWS]
    path.write_bytes((end.join(lines) + end).encode(encoding))


def parquet(path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).to_parquet(path)


def with_pictures(path: Path) -> None:
    """Images inside the file, as the hub's data sets have them."""
    datasets = pytest.importorskip("datasets")
    rows = [{**r, "image": {"bytes": Path(r["image"]).read_bytes(), "path": None}} for r in ROWS]
    kinds = dict.fromkeys(ROWS[0], datasets.Value("string")) | {"image": datasets.Image()}
    path.parent.mkdir(exist_ok=True)
    features = datasets.Features(kinds)
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)


def saved(path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(path)


FORMS: dict[str, Any] = {
    "rows.jsonl": jsonl,
    "rows.json": array,
    "lines.json": jsonl,
    "rows.csv": table,
    "semicolons.csv": lambda path: table(path, ";", "utf-8-sig", "\r\n"),
    "rows.tsv": lambda path: table(path, "\t"),
    "rows.parquet": parquet,
    "hub/train-0.parquet": with_pictures,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same_to_augment_and_to_training(work: Path, form: str) -> None:
    FORMS[form](work / form)
    # What lies in a folder of its own starts there.
    place = form.split("/")[0]
    rows = open_rows(place)
    assert rows is not None
    asked = list(read_requests(rows, "vqa"))
    assert all(isinstance(request, Request) for request in asked)
    assert [r.question for r in asked if isinstance(r, Request)] == [r["question"] for r in ROWS]
    assert [r.others for r in asked if isinstance(r, Request)] == [
        {"answer": row["answer"], "id": row["id"]} for row in ROWS
    ]
    read = list(Rows(OwnExamples(rows)).read(0, 9))
    assert [r.context.guidance for r in read if isinstance(r, Example)] == [
        row["question"] for row in ROWS
    ]
    assert [r.context.ground_truth for r in read if isinstance(r, Example)] == ["yes", "no", "3"]
    digests = [pixel_digest(r.context.image) for r in read if isinstance(r, Example)]
    assert digests == [pixel_digest(picture(number)) for number in range(3)]
    some = list(Rows(OwnExamples(rows)).read(1, 2))
    assert [r.context.guidance for r in some if isinstance(r, Example)] == [ROWS[1]["question"]]
    assert Rows(OwnExamples(rows)).fingerprint() == Rows(OwnExamples(rows)).fingerprint()


def test_a_saved_data_set_and_one_of_several_splits(work: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved(work / "saved")
    rows = open_rows("saved")
    assert rows is not None and len(list(rows)) == 3
    both = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(ROWS[:number]) for name, number in (("a", 1), ("b", 2))}
    )
    both.save_to_disk(work / "both")
    with pytest.raises(UserError, match="has the splits a, b: name one behind it, as in both:a"):
        open_rows("both")
    rows = open_rows("both:b")
    assert rows is not None and len(list(rows)) == 2
    with pytest.raises(UserError, match="no split 'c': choose from a, b"):
        open_rows("both:c")


def test_without_the_extra_a_sentence_has_the_pip_line(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet(work / "rows.parquet")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'hb-tta\[train\]'"):
        open_rows("rows.parquet")


# ── What is named on the command line ────────────────────────────────────────────────────────────


def asked(*named: str, **given: Any) -> Asked:
    return read_asked(named, given.pop("question", None), given.pop("task", "vqa"), **given)


def told(found: Asked) -> list[tuple[str, str]]:
    return [(str(r.image), r.question) for r in found.lines if isinstance(r, Request)]


def test_images_folders_and_patterns_have_one_question(work: Path) -> None:
    a, b, c = (str(Path("pics", f"{name}.png")) for name in "abc")
    assert told(asked(a)) == [(a, "")]
    assert told(asked(a, "Is it?")) == [(a, "Is it?")]
    assert told(asked(a, b)) == [(a, ""), (b, "")]  # the second is no question
    assert told(asked(a, b, "Is it?")) == [(a, "Is it?"), (b, "Is it?")]
    assert told(asked("pics", "Is it?")) == [(p, "Is it?") for p in (a, b, c)]
    assert told(asked("pics/*.png", "Is it?")) == [(p, "Is it?") for p in (a, b, c)]
    assert told(asked(a, "pics", question="b.png")) == [(p, "b.png") for p in (a, a, b, c)]
    assert [asked(a, "Is it?").many, asked("pics").many] == [False, True]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        (["pics/a.png", "pics/gone.png"], "no image 'pics/gone.png': check the path; a question"),
        (["pics/a.png", "What", "pics/b.png"], "no image 'What': check the path; a question"),
        (["pics/a.png", "What?", "pics/b.png"], "no file matches 'What.'.*a question comes last"),
        (["pics/*.jpg"], "no file matches 'pics/.\\.jpg'"),
        (["empty"], "folder empty holds no image"),
        (["pics/a.png", "rows.csv"], "rows.csv holds rows and stands beside others"),
        (["rows.csv", "What?"], "a question stands beside rows.csv"),
        (["gone.csv"], "no file or folder 'gone.csv': check the path"),
        (["book.xlsx"], "no file or folder 'book.xlsx'"),
        (["two"], "'two' holds a.csv, b.jsonl: name the one to read"),
    ],
)
def test_what_does_not_go_together_is_told(work: Path, named: list[str], sentence: str) -> None:
    table(work / "rows.csv")
    for folder in ("empty", "two"):
        (work / folder).mkdir()
    table(work / "two" / "a.csv")
    jsonl(work / "two" / "b.jsonl")
    with pytest.raises(UserError, match=sentence):
        list(asked(*named).lines)


def test_a_folder_is_read_by_the_rows_in_it(work: Path) -> None:
    (work / "pics" / "metadata.csv").write_text("file_name,query\nb.png,Is it b?\n")
    (work / "pics" / "other.jsonl").write_text("{}\n")
    (work / "pics" / ".hidden.csv").write_text("x\n")
    assert told(asked("pics")) == [("pics/b.png", "Is it b?")]


# ── Columns ──────────────────────────────────────────────────────────────────────────────────────


def requests_of(text: str, name: str = "rows.csv", **columns: str) -> list[Request | Failure]:
    Path(name).write_text(text)
    rows = open_rows(name)
    assert rows is not None
    return list(read_requests(rows, "vqa", Columns(**columns)))


def test_columns_are_guessed_from_usual_names_or_named(work: Path) -> None:
    for names in ("image,question", "img_path,query", "File Name,Prompt", "filepath,instruction"):
        (one,) = requests_of(f"{names}\npics/a.png,Is it?\n")
        assert isinstance(one, Request) and (str(one.image), one.question) == (
            "pics/a.png", "Is it?",
        )  # fmt: skip
    (one,) = requests_of(
        "image,left,asks\nx.png,pics/a.png,Is it?\n", image="left", question="asks"
    )
    assert isinstance(one, Request) and (str(one.image), one.question) == ("pics/a.png", "Is it?")
    assert one.others == {"image": "x.png"}


@pytest.mark.parametrize(
    ("names", "columns", "sentence"),
    [
        ("a,b", {}, "names no \"image\", only 'a', 'b': name the column with --image-column"),
        ("image,b", {"question": "quetsion"}, "no column 'quetsion': choose from image, b"),
        ("image,frage", {"question": "frag"}, "did you mean 'frage'"),
        ("path,file_name,question", {}, "may all be the image: name one with --image-column"),
        ("image,query,prompt", {}, "may all be the question: name one with --question-column"),
        ("image,image", {}, "has 'image' twice in its first line"),
        ("pics/a.png,Is it?", {}, "names no \"image\", only 'pics/a.png'"),
    ],
)
def test_a_table_without_what_it_needs_is_told_whole(
    work: Path, names: str, columns: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        requests_of(f"{names}\n{'pics/a.png,' * names.count(',')}x\n", **columns)


def test_rows_under_other_names_are_no_rows_without_a_question(work: Path) -> None:
    """LLaVA's rows: nothing is trained on, nor augmented, with an empty question."""
    row = {"image": "pics/a.png", "conversations": [{"from": "human", "value": "Is it?"}]}
    (found,) = requests_of(json.dumps(row) + "\n", "llava.jsonl")
    assert isinstance(found, Failure) and "no question among its columns 'conv" in found.reason
    source = open_source("llava.jsonl")
    assert source is not None
    (bad,) = source.read(0, 1)
    assert isinstance(bad, BadRecord) and "it has no question" in bad.reason
    for sound in ({"image": "pics/a.png"}, {**row, "question": ""}, {**row, "task": "object"}):
        (found,) = requests_of(json.dumps(sound) + "\n", "sound.jsonl")
        assert isinstance(found, Request)  # the image as a whole, and it says so
    assert main(["augment", "llava.jsonl", *QUICK, "--task", "generic"]) == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "pics/a.png"}, "it has no question, which a row of the task 'vqa' needs"),
        ({"image": "pics/a.png", "question": " "}, "it has no question"),
        ({"image": "pics/a.png", "task": "hoi"}, "it has no question"),
        ({"image": "pics/a.png", "question": "?", "answer": ["yes"]}, '"answer" is a list'),
        ({"image": "", "question": "?"}, '"image" is empty'),
        ({"image": 3, "question": "?"}, '"image" is 3'),
        ({"image": "https://a.b/c.png", "question": "?"}, "its image is an address"),
    ],
)
def test_what_training_needs_it_asks_for(work: Path, row: dict[str, Any], reason: str) -> None:
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    source = open_source("rows.jsonl")
    assert source is not None
    (bad,) = source.read(0, 1)
    assert isinstance(bad, BadRecord) and bad.reason.startswith("line 1: ") and reason in bad.reason


# ── The folder that comes of it ──────────────────────────────────────────────────────────────────


def manifest(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


def test_the_manifest_keeps_other_columns_and_trains_as_it_is(work: Path) -> None:
    Path("rows.csv").write_text(
        "image,question,answer,index,views\npics/a.png,Is it?,yes,11,12\npics/b.png,And?,no,21,22\n"
    )
    assert main(["augment", "rows.csv", *QUICK, "--out", "deep/out"]) == 0
    first, second = manifest("deep/out")
    assert first["image"] == "../../pics/a.png" and (first["index"], second["index"]) == (2, 3)
    assert first["answer"] == "yes" and len(first["views"]) == 2
    assert (first["source_index"], first["source_views"]) == ("11", "12")
    source = open_source("deep/out/manifest.jsonl")
    assert source is not None
    read = [r for r in source.read(0, 9) if isinstance(r, Example)]
    assert [(r.context.guidance, r.context.ground_truth) for r in read] == [
        ("Is it?", "yes"),
        ("And?", "no"),
    ]
    assert pixel_digest(read[0].context.image) == pixel_digest(picture(0))
    # Augmented again it says the same, and nothing piles up.
    assert main(["augment", "deep/out/manifest.jsonl", *QUICK, "--out", "again"]) == 0
    assert [line.keys() for line in manifest("again")] == [first.keys(), second.keys()]
    assert main(["augment", "deep/out", *QUICK, "--out", "once more"]) == 0  # its folder, too


def test_images_without_a_file_get_one_beside_the_manifest(work: Path) -> None:
    with_pictures(work / "hub" / "train-0.parquet")
    assert main(["augment", "hub", *QUICK, "--out", "out"]) == 0
    lines = manifest("out")
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"images/{number:06d}-[0-9a-f]{{8}}\.png", line["image"])
    assert (work / "out" / lines[0]["image"]).read_bytes() == (work / "pics/a.png").read_bytes()
    source = open_source("out/manifest.jsonl")
    assert source is not None and all(isinstance(row, Example) for row in source.read(0, 9))


def test_index_html_shows_the_images_up_to_a_number(work: Path) -> None:
    picture(5).save(work / "pics" / "d e.tiff")  # which no browser shows
    assert main(["augment", "pics", "Is it <b>?", *QUICK, "--out", "out"]) == 0
    page = (work / "out" / "index.html").read_text()
    assert page.count("<figure") == 4 * 3 and "Is it &lt;b&gt;?" in page
    assert 'src="../pics/a.png"' in page and 'src="views/000001-seed0-' in page
    assert page.count("data:image/png;base64,") == 1 and "4 images" in page
    assert "img-src data: 'self'" in page
    assert main(["augment", "pics", "Is it <b>?", *QUICK, "--out", "out", "--sheet", "2"]) == 0
    page = (work / "out" / "index.html").read_text()
    assert page.count("<figure") == 2 * 3 and "the first 2 of 4 images" in page
    assert main(["augment", "pics", *QUICK, "--out", "out", "--sheet", "0"]) == 0
    assert not (work / "out" / "index.html").exists()  # that of other views does not stay


def test_hidden_files_are_no_images(work: Path) -> None:
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/._a.png", "._a.png"):
        (work / "pics" / name).parent.mkdir(exist_ok=True)
        (work / "pics" / name).write_bytes(b"resource fork")
    assert main(["augment", "pics", *QUICK, "--out", "out"]) == 0
    assert len(manifest("out")) == 3


@pytest.mark.parametrize(
    ("name", "asked_for"),
    [
        ("org/name", ("org/name", None, None)),
        ("org/name:train", ("org/name", None, "train")),
        ("org/name/part:test", ("org/name", "part", "test")),
    ],
)
def test_a_name_of_the_hub_may_have_a_configuration_and_a_split(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str, asked_for: tuple[Any, ...]
) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[Any, ...]] = []

    def load(place: str, config: str | None, **how: Any) -> Any:
        asked.append((place, config, how["split"]))
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = open_rows(name)
    assert rows is not None and len(list(rows)) == 3
    assert asked == [asked_for]
    assert told(read_asked([name], None, "vqa"))[0][1] == ROWS[0]["question"]


def test_what_is_neither_here_nor_on_the_hub_is_a_sentence(work: Path) -> None:
    with pytest.raises(UserError, match="no file or folder 'org/name', and of the hub the data"):
        open_rows("org/name")  # there is no network here
    with pytest.raises(UserError, match="there is no file or folder 'pics/none/of/it'"):
        open_rows("pics/none/of/it")
