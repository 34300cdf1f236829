"""The type check looks across the borders of the three folders (tests/soak: in the real code)."""

from __future__ import annotations

from pathlib import Path

from type_errors import assert_planted_are_found

# As little as the errors need; where the package is used from, there must be something to check.
SOURCES = {
    "hb_tta/__init__.py": "",
    "hb_tta/disk.py": "def write_aside(path: str, data: bytes) -> None: ...",
    "hb_tta/cli/__init__.py": "",
    "hb_tta/cli/train.py": "",
    "training/__init__.py": "",
    "training/recipes.py": "def get_recipe(name: str) -> None: ...",
    "training/rollout.py": "class Rollout: ...",
    "training/train.py": "",
    "integrations/__init__.py": "",
    "integrations/clip_benchmark.py": "",
    "benchmarks/speed.py": "",
    "docs/make_help.py": "",
    "tests/test_all.py": "",
}


def test_errors_across_the_folders_are_found(tmp_path: Path) -> None:
    for name, code in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    assert_planted_are_found(tmp_path)
