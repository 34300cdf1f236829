"""The environments that make makes: which versions they take, and what each target does there."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
TOOLS = [Requirement(line) for line in EXTRAS["dev"] if not line.startswith("hb-tta[")]
(TAKEN,) = (Requirement(line).extras for line in EXTRAS["dev"] if line.startswith("hb-tta["))
OURS = [
    Requirement(line)
    for lines in (PYPROJECT["project"]["dependencies"], *(EXTRAS[name] for name in TAKEN))
    for line in lines
]
LINE = re.compile(r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.]*)")


def versions(constraints: str) -> dict[str, str]:
    """name → version of constraints, which are nothing else: no address, no local build."""
    lines = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {match["name"]: match["version"] for match in found if match}


def steps(target: str, *settings: str) -> str:
    """What make would do for a target."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "--dry-run", target, *settings]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment
    ).stdout


# ── Versions ────────────────────────────────────────────────────────────────────────────────────


def test_the_constraints_hold_all_that_is_asked_for_within_its_range():
    chosen = versions((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for requirement in (*TOOLS, *OURS):
        assert requirement.specifier.contains(chosen[canonicalize_name(requirement.name)])
    assert len(chosen) > 2 * len(OURS)  # what those ask for is held too


def test_a_constraint_has_the_indexes_spelling_and_no_local_part():
    pinned = runpy.run_path(str(ROOT / ".ci" / "constraints.py"))["pinned"]
    package = {"metadata": {"name": "Open_CLIP.torch", "version": "2.9.1.post1+cpu"}}
    assert pinned(package) == "open-clip-torch==2.9.1.post1"


def test_the_lowest_are_the_lower_bounds_and_the_tools_are_those_of_the_constraints():
    command = [sys.executable, str(ROOT / ".ci" / "lowest.py")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    chosen = versions((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    expected = {
        canonicalize_name(tool.name): chosen[canonicalize_name(tool.name)] for tool in TOOLS
    }
    for requirement in OURS:
        bounds = {one.operator: one.version for one in requirement.specifier}
        if ">=" in bounds:  # else another line has it: filelock's upper bound stands alone
            expected[canonicalize_name(requirement.name)] = bounds[">="]
    assert versions(lines) == expected
    assert {canonicalize_name(one.name) for one in (*OURS, *TOOLS)} == set(expected)


def test_what_is_heavy_or_quarrels_stays_out_of_the_development_environment():
    assert TAKEN == {"train", "reproduce", "lmms-eval", "clip-benchmark", "serve"}
    (scale,) = (Requirement(one) for one in EXTRAS["scale"] if one.startswith("hb-tta["))
    assert scale.extras == {"s3", "ray"}


def test_harnesses_that_quarrel_have_an_environment_and_tests_of_their_own():
    taken = steps("harnesses", "--always-make")
    pip = ".venv-harnesses/bin/python -m pip install  -c .venv-harnesses/constraints.txt -e"
    assert f'{pip} ".[harnesses]"' in taken
    assert "PIP_CONSTRAINT" not in taken  # it would hold what the quarrel is about
    (harnesses,) = (Requirement(one) for one in EXTRAS["harnesses"] if one.startswith("hb-tta["))
    assert harnesses.extras == {"vlmevalkit", "serve"}
    for module in ("test_vlmevalkit", "test_inspect_ai"):
        assert f"tests/{module}.py" in taken
        text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(r"pytest.importorskip\(\n?.*reason=", text), module  # in `make test`


def test_what_is_for_few_has_an_environment_and_tests_of_its_own():
    taken = steps("test-scale", "--always-make")
    assert '.venv-scale/bin/python -m pip install  -c constraints.txt -e ".[dev,scale]"' in taken
    for module in ("test_s3", "test_ray"):
        assert f"tests/{module}.py" in taken
        text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(r"pytest.importorskip\(\n?.*reason=", text), module  # in `make test`


# ── Targets ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", ["demo", "test", "soak", "lint", "docs", "pictures"])
def test_make_installs_where_it_must_and_only_there(target, tmp_path):
    setting = f"VENV={tmp_path}"
    assert "venv" in steps(target, setting)
    assert 'pip install  -c constraints.txt -e ".[dev]"' in steps(target, setting)
    assert "PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=" in steps(target, setting)
    stamp = tmp_path / ".installed"
    stamp.touch()
    assert "pip install" not in steps(target, setting)
    os.utime(stamp, (0, 0))  # pyproject.toml or the constraints have changed since
    assert "pip install" in steps(target, setting)


def test_the_ends_of_the_ranges_have_environments_of_their_own():
    # Also where they are made already.
    newest, lowest = (steps(name, "--always-make") for name in ("test-newest", "test-lowest"))
    assert ".venv-newest/bin/python -m pip install  --upgrade --upgrade-strategy eager -e" in newest
    assert ".venv-lowest/bin/python -m pip install  -c .venv-lowest/constraints.txt -e" in lowest
    assert "python3 .ci/lowest.py > .venv-lowest/constraints.txt" in lowest
    for taken in (newest, lowest):
        assert "-c constraints.txt" not in taken and "PIP_CONSTRAINT" not in taken
        assert "-m pytest" in taken


def test_the_soak_tests_are_left_out_by_default():
    assert "not soak" in PYPROJECT["tool"]["pytest"]["ini_options"]["addopts"]


def test_ci_runs_the_readmes_test_command():
    assert re.search(r"^make test$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(), re.MULTILINE)
