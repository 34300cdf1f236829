"""Print constraints that hold the package's own requirements at their lowest versions.

    python .ci/lowest.py > FILE     (`make test-lowest`)

The development tools stay where constraints.txt has them, and what is only required by others is
pip's choice: it has to fit the low ones.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*?\])?(>=(?P<lowest>[\w.]+))?")


def main() -> None:
    """Print a line a package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    tools = extras.pop("dev")
    own = [extras[name] for name in taken(tools)]
    print("\n".join(lowest([*project["dependencies"], *sum(own, [])])))
    chosen = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    print("\n".join(of_names(chosen, [name_of(tool) for tool in tools])))


def taken(tools: Iterable[str]) -> list[str]:
    """The extras that the development environment takes: the others are in no constraints."""
    own = next(line for line in tools if line.startswith("hb-tta["))
    return own.removeprefix("hb-tta[").removesuffix("]").split(",")


def lowest(requirements: Iterable[str]) -> list[str]:
    """The requirements that have a lower bound, held there."""
    found = (REQUIREMENT.match(requirement) for requirement in requirements)
    return [f"{name_of(one[0])}=={one['lowest']}" for one in found if one and one["lowest"]]


def of_names(constraints: Iterable[str], names: Iterable[str]) -> list[str]:
    """The constraints of these packages."""
    wanted = set(names)
    return [line for line in constraints if name_of(line) in wanted]


def name_of(requirement: str) -> str:
    """The package's name as indexes spell it."""
    found = REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", found["name"]).lower() if found else ""


if __name__ == "__main__":
    main()
