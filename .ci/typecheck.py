"""Run mypy over the code as it installs: training and integrations as parts of hb_tta.

    python .ci/typecheck.py [mypy's arguments]     (part of `make lint`)

In the checkout they are folders beside hb_tta, where mypy does not look for ``hb_tta.training``:
every name imported from there would be Any, and anything done with it right. So it reads a tree of
links, in which each folder lies where pyproject.toml installs it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = ("benchmarks", "tests", "docs", ".ci")  # what uses the package


def main() -> int:
    """Check, and give mypy's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        link_tree(ROOT, Path(folder))
        cache = ROOT / ".mypy_cache"
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(cache), *sys.argv[1:]]
        return subprocess.run(command, cwd=folder).returncode


def link_tree(root: Path, tree: Path) -> None:
    """Fill ``tree`` with links to the sources under ``root``."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    folders = project["tool"]["setuptools"]["package-dir"]
    for package in sorted(
        folders, key=len
    ):  # a package before the parts that it gets from elsewhere
        target = tree.joinpath(*package.split("."))
        target.mkdir()
        for path in (root / folders[package]).iterdir():
            (target / path.name).symlink_to(path.resolve())
    for name in BESIDE:
        (tree / name).symlink_to((root / name).resolve())


if __name__ == "__main__":
    sys.exit(main())
