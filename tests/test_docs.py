"""The documentation tells what is so."""

import io
import re
import runpy
import tokenize
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    path
    for folder in (ROOT, ROOT / "docs")
    for path in sorted(folder.glob("*.md"))
    if path.name != "LOG.md"
]
WITH_PYTHON = [
    page
    for page in PAGES
    if "```python" in page.read_text(encoding="utf-8")
    and page.name != "serve.md"  # it wants a server: test_serve_docs.py
]


def blocks(language: str, text: str = README) -> list[str]:
    """The contents of a page's fenced blocks of one language; "" of those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in fenced if name == language]


def commands_in(text: str) -> list[str]:
    """What a page has a person type: a line of a block, or between back quotes."""
    typed = [line for block in [*blocks("", text), *blocks("bash", text)] for line in
             block.replace("\\\n", " ").splitlines()]  # fmt: skip
    return typed + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def by_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# ── What is written can be done ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", WITH_PYTHON, ids=by_page)
def test_a_pages_python_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    space: dict = {"__name__": "__main__"}
    for snippet in blocks("python", page.read_text(encoding="utf-8")):
        exec(compile(snippet, page.name, "exec"), space)
    told = capfd.readouterr()
    assert "Loading weights" not in told.err
    assert "None" not in told.out, "an example shows something"
    if page.name == "README.md":
        assert [view.mode for view in space["views"]] == ["RGB"] * 4
        assert len({view.tobytes() for view in space["views"]}) == 4


HELP = (ROOT / "docs" / "help.md").read_text(encoding="utf-8")
HELPS = dict(re.findall(r"^## hb-tta ([a-z -]+)\n(.*?)(?=^## |\Z)", HELP, re.M | re.S))
PASSES_ON = ("lmms-eval", "clip-benchmark", "vlmevalkit")  # options of theirs


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "help.md"], ids=by_page)
def test_commands_and_their_options_are_there(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands_in(text):
        if made := re.match(r"make ([a-z-]+)", line):
            assert made[1] in targets, line
        if module := re.match(r"python -m (hb_tta\.[a-z_.]+)(?![A-Z])", line):
            assert find_spec(module[1]), line
        if not (found := re.match(r"hb-tta ([a-z-]+)", line)):
            continue
        assert found[1] in HELPS, line
        options = re.findall(r"(?<![\w-])--?[a-z][\w-]*", line.split("#")[0].split("|")[0])
        if found[1] not in PASSES_ON:
            assert [o for o in options if not re.search(rf"{o}\b", HELPS[found[1]])] == [], line


def test_the_package_is_claimed_for_no_registry_where_it_is_not():
    for page in PAGES:
        if page.name == "help.md":
            continue  # who reads it has the package, and pip adds an extra to what is installed
        for line in commands_in(page.read_text(encoding="utf-8")):
            assert not re.search(r"pip install ['\"]?hb-tta", line), (page, line)


def test_both_of_torchs_packages_come_from_one_index():
    """A torchvision of the other kind cannot be imported."""
    for line in commands_in(README):
        if "download.pytorch.org" in line and line.startswith("pip"):
            assert "torch torchvision --index-url https://download.pytorch.org/whl/cpu" in line


def test_every_setting_of_a_training_is_explained():
    from hb_tta.training.recipes import FREE, RECIPES, Settings

    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    table = text.partition("## Every setting\n")[2].partition("## Every setting of MUMU")[0]
    firsts = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    told = dict(re.findall(r"`(\w+)`( ∘)?", " ".join(firsts)))
    assert set(told) == {one.name for one in fields(Settings)}
    assert {name for name, free in told.items() if free} == FREE
    recipes = " ".join(
        row for row in text.partition("## Every setting")[0].splitlines() if row[:3] == "| `"
    )
    assert set(RECIPES) <= set(re.findall(r"`([\w-]+)`", recipes))


def test_every_setting_of_views_is_explained():
    from hb_tta.settings import OPTIONS
    from hb_tta.settings.augmented import AT_ONCE, COMBINING, combinations

    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    table = text.partition("## Which views")[2].partition("## ")[0]
    firsts = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", firsts)) == {*OPTIONS, *COMBINING, AT_ONCE}
    assert all(f"`{name}`" in table for name in combinations())


def test_every_table_and_figure_of_the_papers_has_its_place():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    hummingbird, mumu = text.split("## MUMU")
    tables, figures = hummingbird.split("### Figures")
    first = [re.match(r"\| ([\d, ]+) ", row) for row in figures.splitlines()]
    numbers = {int(n) for found in first if found for n in found[1].split(",")}
    assert numbers == set(range(1, 19))
    rows = [re.match(r"\| (\d+) ", row) for row in tables.splitlines()]
    assert {int(found[1]) for found in rows if found} == set(range(1, 13))
    told = {
        int(n) for n in re.findall(r"\d+", " ".join(re.findall(r"figures? ([\d, toand]+)", mumu)))
    }
    assert {1, 2, 3, 4, 9, 10, 11, 12} <= told and "not yet" not in mumu


# ── The pictures ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pictures() -> dict:
    return runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))


def test_the_strip_is_what_the_bundled_models_draw(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path))
    kept = np.asarray(Image.open(pictures["STRIP"]).convert("RGB"), np.int16)
    drawn = np.asarray(pictures["strip"](), np.int16)
    assert drawn.shape == kept.shape, "run `make pictures`"
    # Rounding moves a value by one, and a newer Pillow an edge of a letter.
    assert (np.abs(drawn - kept) > 8).mean() < 0.005, "run `make pictures`"


def test_the_things_to_put_into_prompts_are_the_worlds(pictures):
    for name, drawn in pictures["things"]().items():
        with Image.open(pictures["PICTURES"] / f"{name}.png") as kept:
            assert np.array_equal(np.asarray(kept), np.asarray(drawn)), "run `make pictures`"


def test_pictures_are_small_and_told_to_who_cannot_see_them(pictures):
    for path in (pictures["STRIP"], pictures["REPORT"]):
        assert path.stat().st_size < 150_000
        (told,) = re.findall(rf"!\[(.*)\]\(docs/pictures/{path.name}\)", README)
        assert len(told) > 40
    assert Image.open(pictures["REPORT"]).size == pictures["PAGE"]


def test_a_page_is_photographed_after_its_script(pictures, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<body style='background:#fff'></body>")
    shot = pictures["photograph"](page, "document.body.style.background = '#00f'")
    assert shot.size == pictures["PAGE"] and shot.getpixel((5, 5)) == (0, 0, 255)


# ── Links, the tree ──────────────────────────────────────────────────────────────────────────────


def test_the_help_page_is_what_the_commands_print():
    script = runpy.run_path(str(ROOT / "docs" / "make_help.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["help_page"](), "run `make docs`"


def test_no_help_swallows_the_end_of_a_line():
    """One ``\\`` at a line's end joins it to the next in Python; what is to be shown needs two."""
    modules = sorted((ROOT / "hb_tta" / "cli").glob("*.py"))
    swallowed = [
        f"{path.name}, line {token.start[0]}"
        for path in modules
        for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
        if token.type == tokenize.STRING
        and re.search(r"(?<!\\)(?:\\\\)*\\\n", token.string.removeprefix('"""\\\n'))
    ]
    assert modules and swallowed == []


def tree() -> list[str]:
    """The paths of the README's file tree."""
    (listing,) = [block for block in blocks("") if block.startswith("hb_tta/\n")]
    paths, folder = [], ""
    for line in listing.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith("  ") else name
        paths.append(folder + name if line.startswith("  ") else name)
    return paths


def test_the_readmes_tree_is_on_disk_and_names_each_once():
    assert [path for path in tree() if tree().count(path) > 1] == []
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_readmes_tree_leaves_out_no_module():
    modules = {f"hb_tta/{path.name}" for path in (ROOT / "hb_tta").glob("[a-z]*.py")}
    folders = {f"hb_tta/{path.parent.name}/" for path in (ROOT / "hb_tta").glob("*/__init__.py")}
    assert (modules | folders) - set(tree()) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (page.parent / link).exists()] == []
