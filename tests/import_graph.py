"""Which module of the package imports which, read from the sources without importing them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MODULE_NAME = re.compile(r"hb_tta(\.\w+)+(:\w+)?")


# When a module asks for another one: when it is imported itself; when one of its functions runs, or
# for types alone; or it has but the name in a string, as tables of plugins do.
AT_ONCE, LATER, BY_NAME = "at once", "later", "by name"


class Import(NamedTuple):
    """A module that another one asks for, and when: AT_ONCE, LATER or BY_NAME."""

    target: str
    when: str


Graph = dict[str, list[Import]]


def read_graph(root: Path, folders: Mapping[str, str]) -> Graph:
    """Every module of ``folders`` (package → folder under ``root``) with its imports of others."""
    files = {
        module_name(package, path.relative_to(root / folder)): path
        for package, folder in folders.items()
        for path in (root / folder).rglob("*.py")
    }
    graph: Graph = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found = imports_of(path.read_text(encoding="utf-8"), package, files)
        graph[module] = [one for one in found if one.target != module]
    return graph


def module_name(package: str, path: Path) -> str:
    """The dotted name of a file in the package's folder."""
    parts = [package, *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, package: str, modules: Mapping[str, object]) -> list[Import]:
    """The imports of a source in a package, of these modules alone."""
    return [
        Import(target, when)
        for name, when in _named(ast.parse(source), package, AT_ONCE)
        if (target := _longest(name, modules)) is not None
    ]


def _named(node: ast.AST, package: str, when: str) -> Iterator[tuple[str, str]]:
    """Dotted names that a tree imports, ``from a import b`` as a.b."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            origin = _origin(child, package)
            yield from ((f"{origin}.{alias.name}", when) for alias in child.names)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            if MODULE_NAME.fullmatch(child.value):
                yield child.value.partition(":")[0], BY_NAME
        yield from _named(child, package, LATER if _delays(child) else when)


def _origin(node: ast.ImportFrom, package: str) -> str:
    """What stands between ``from`` and ``import``, in full."""
    above = package.rsplit(".", node.level - 1)[0] if node.level else ""
    return ".".join(filter(None, (above, node.module)))


def _delays(node: ast.AST) -> bool:
    """Whether what stands in it does not run when the module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _longest(name: str, modules: Mapping[str, object]) -> str | None:
    """The module that a dotted name is, or is a member of."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def circles(graph: Graph) -> list[list[str]]:
    """Modules that reach each other by imports, a sorted list a circle; names do not count."""
    reached = {module: reachable(graph, module) for module in graph}
    found = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }
    return sorted(sorted(circle) for circle in found)


def reachable(graph: Graph, module: str) -> set[str]:
    """All modules that a module's imports lead to."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        its = graph[waiting.pop()]
        new = {one.target for one in its if one.when != BY_NAME} - seen
        seen |= new
        waiting += new
    return seen
