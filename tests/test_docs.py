"""The documentation tells what is so."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    path
    for folder in (ROOT, ROOT / "docs")
    for path in sorted(folder.glob("*.md"))
    if path.name != "LOG.md"
]


def blocks(language: str) -> list[str]:
    """The contents of the README's fenced blocks of one language; "" of those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in fenced if name == language]


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    snippets = blocks("python")
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert len(snippets) == 3
    assert [view.mode for view in namespace["views"]] == ["RGB"] * 4
    assert len({view.tobytes() for view in namespace["views"]}) == 4


def test_the_help_page_is_what_the_commands_print():
    script = runpy.run_path(str(ROOT / "docs" / "make_help.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["help_page"](), "run `make docs`"


def tree() -> list[str]:
    """The paths of the README's file tree."""
    (listing,) = [block for block in blocks("") if block.startswith("hb_tta/\n")]
    paths, folder = [], ""
    for line in listing.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith("  ") else name
        paths.append(folder + name if line.startswith("  ") else name)
    return paths


def test_the_readmes_tree_is_on_disk():
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_readmes_tree_leaves_out_no_module():
    modules = {f"hb_tta/{path.name}" for path in (ROOT / "hb_tta").glob("[a-z]*.py")}
    folders = {f"hb_tta/{path.parent.name}/" for path in (ROOT / "hb_tta").glob("*/__init__.py")}
    assert (modules | folders) - set(tree()) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_commands_of_the_readme_exist():
    from hb_tta.cli import COMMANDS

    named = set(re.findall(r"hb-tta ([a-z-]+)", README))
    assert named and named <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
