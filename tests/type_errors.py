"""Errors that cross from one of the three folders into another, to be found by `make lint`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The file that an error is put into, the error, and what the type checker says of it.
PLANTED = (
    (
        "hb_tta/cli/train.py",
        "from hb_tta.training.rollout import Rollout; Rollout.no_such_method()",
        '"type[Rollout]" has no attribute "no_such_method"',
    ),
    (
        "integrations/clip_benchmark.py",
        "from hb_tta.training.recipes import get_recipe; get_recipe(1)",
        'Argument 1 to "get_recipe" has incompatible type "int"; expected "str"',
    ),
    (
        "training/train.py",
        "from hb_tta.disk import write_aside; write_aside('a', 'text')",
        'Argument 2 to "write_aside" has incompatible type "str"; expected "bytes"',
    ),
)


def assert_planted_are_found(root: Path) -> None:
    """Put the check and the errors into the checkout ``root``, and see that it finds just them."""
    shutil.copytree(ROOT / ".ci", root / ".ci")
    shutil.copy(ROOT / "pyproject.toml", root)
    for name, code, _ in PLANTED:
        with open(root / name, "a", encoding="utf-8") as file:
            file.write(f"\n\ndef _planted() -> None:\n    {code}\n")
    command = [sys.executable, str(root / ".ci" / "typecheck.py"), "--no-error-summary"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    told = sorted(line for line in done.stdout.splitlines() if ": error: " in line)
    assert len(told) == len(PLANTED), done.stdout
    for line, (name, _, message) in zip(told, PLANTED, strict=True):
        assert line.startswith(f"hb_tta/{name.removeprefix('hb_tta/')}:")
        assert message in line
