"""Write constraints.txt: the versions that pip chooses today for the development environment.

    python3.11 .ci/constraints.py [arguments of pip install]     (`make constraints`)

pip itself chooses, so that its configuration counts (indexes, caps, proxies), and nothing of that
is written down but names and versions.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HEAD = """\
# The development environment, as `make constraints` found it on Python {python}, {system}.
# Every make target installs with it; `make test-newest` does without.
"""


def main() -> None:
    """Resolve in an empty environment, and write the file anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    python = "{}.{}".format(*sys.version_info)
    if python != oldest:  # what it can run, all can
        sys.exit(
            f"constraints are made with the oldest Python: make constraints PYTHON=python{oldest}"
        )
    lines = sorted(pinned(package) for package in resolve(sys.argv[1:]) if is_of_an_index(package))
    head = HEAD.format(python=python, system=f"{platform.system()} {platform.machine()}")
    (ROOT / "constraints.txt").write_text("\n".join([head, *lines, ""]), encoding="utf-8")
    print(f"constraints.txt: {len(lines)} packages")


def resolve(arguments: list[str]) -> list[dict[str, Any]]:
    """What pip would install, from its own report."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "install", "-qq"]
        report = Path(folder, "report.json")
        command = [*pip, *arguments, "--dry-run", "--ignore-installed", "--report", str(report)]
        subprocess.run([*command, "-e", ".[dev]"], cwd=ROOT, check=True)
        return json.loads(report.read_text(encoding="utf-8"))["install"]


def is_of_an_index(package: dict[str, Any]) -> bool:
    """Whether it has a version to choose: the project itself has none."""
    return "dir_info" not in package["download_info"]


def pinned(package: dict[str, Any]) -> str:
    """``name==version``; a local part (2.9+cpu) says which build, and any build will do."""
    name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
    return f"{name}=={package['metadata']['version'].partition('+')[0]}"


if __name__ == "__main__":
    main()
