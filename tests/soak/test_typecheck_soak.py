"""The type check sees what is wrong in the code as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from type_errors import ROOT, assert_planted_are_found

pytestmark = pytest.mark.soak


def test_errors_in_the_real_code_are_found(tmp_path: Path) -> None:
    for name in ("hb_tta", "training", "integrations", "benchmarks", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "weights", "golden")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    assert_planted_are_found(tmp_path)
