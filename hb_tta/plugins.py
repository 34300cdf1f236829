"""One registry for whatever has a name: generators, rewards, rules that combine views.

A registry is a plain table of the built-in things and an entry-point group for other packages'.
Another package adds one with, in its pyproject.toml,

    [project.entry-points."hb_tta.generators"]
    my_method = "my_package.specs:MySpec"

Nothing is imported until a name is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

from hb_tta.errors import UserError, choose_from


@dataclass(frozen=True)
class Registry:
    """What is found by name in one table and one entry-point group.

    Attributes:
        kind: what a thing is called in a sentence, such as "generator".
        group: of entry points, "generators" for those of ``hb_tta.generators``.
        built_in: name → "module:attribute". A test may put a name in and take it out again.
        fault: what is wrong with an object that a package offers under a name; ``None``: nothing.
        asked: what a person who asks for a name calls it, if not ``kind``.
    """

    kind: str
    group: str
    built_in: dict[str, str]
    fault: Callable[[str, Any], str | None]
    asked: str = ""

    def names(self) -> list[str]:
        """The built-in names, then those of other packages.

        Raises:
            UserError: a package claims a name that is taken.
        """
        return [*self.built_in, *sorted(self._plugins())]

    def get(self, name: str) -> Any:
        """What has that name.

        Raises:
            UserError: the name is unknown or claimed twice, or its package does not import or
                offers something else.
        """
        plugins = self._plugins()
        if name in self.built_in or name in plugins:
            return self._load(name, plugins)
        raise UserError(
            f"there is no {self.asked or self.kind} {name!r}"
            f"{choose_from(name, [*self.built_in, *sorted(plugins)])}"
        )

    def package(self, name: str) -> str | None:
        """Whose a name is: another package with its version, or None of a built-in one."""
        entry = self._plugins().get(name)
        if entry is None:
            return None
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value

    def all(self) -> dict[str, Any]:
        """Everything by name, in the order of ``names``.

        Raises:
            UserError: as of ``get``.
        """
        plugins = self._plugins()
        return {name: self._load(name, plugins) for name in [*self.built_in, *sorted(plugins)]}

    def _plugins(self) -> dict[str, metadata.EntryPoint]:
        """The other packages' entry points by name."""
        found: dict[str, metadata.EntryPoint] = {}
        for entry in _entry_points(f"hb_tta.{self.group}", _installed(), metadata.entry_points):
            if entry.name in self.built_in:
                raise UserError(
                    f"the package {_package(entry)!r} names its {self.kind} {entry.name!r} as a "
                    "built-in one: rename it there, or uninstall the package"
                )
            if entry.name in found and found[entry.name].value != entry.value:
                raise UserError(
                    f"the packages {_package(found[entry.name])!r} and {_package(entry)!r} both "
                    f"name a {self.kind} {entry.name!r}: uninstall one"
                )
            found[entry.name] = entry
        return found

    def _load(self, name: str, plugins: dict[str, metadata.EntryPoint]) -> Any:
        if name in self.built_in:
            module, attribute = self.built_in[name].split(":")
            return getattr(importlib.import_module(module), attribute)
        entry = plugins[name]
        whose = f"the {self.kind} {entry.name!r} of the package {_package(entry)!r}"
        try:
            found = entry.load()
        except Exception as error:  # whatever a stranger's module does at import
            raise UserError(
                f"{whose} does not import ({type(error).__name__}: {error}): repair or uninstall "
                "the package"
            ) from error
        fault = self.fault(entry.name, found)
        if fault:
            raise UserError(f"{whose} {fault}")
        return found


def _installed() -> tuple[tuple[str, int], ...]:
    """Where packages are, and when one came or went there."""
    found = []
    for path in sys.path:
        with contextlib.suppress(OSError):
            found.append((path, os.stat(path or os.curdir).st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=16)
def _entry_points(
    group: str,
    installed: tuple[tuple[str, int], ...],
    find: Callable[..., Iterable[metadata.EntryPoint]],
) -> tuple[metadata.EntryPoint, ...]:
    """A group's entry points: reading all packages' takes ten milliseconds, a question's share."""
    return tuple(find(group=group))


def _package(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def lacks(found: Any, *parts: str) -> list[str]:
    """Those attributes that an object does not have."""
    return [part for part in parts if not hasattr(found, part)]
