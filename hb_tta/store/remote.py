"""Files at an fsspec address, such as ``s3://bucket/views``: whole ones, many at once, tried again.

What a server says is told apart in two ways alone: a file is not there, or the address does not
work (``Unreachable``), whatever exceptions its client has for that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hb_tta.errors import UserError

AT_ONCE = 16  # requests in flight
TRIES, PAUSE = 4, 0.2  # of each request; seconds before the second, doubled each time
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60


class Unreachable(Exception):
    """The address does not work just now: the network, the server, a permission, the bucket."""


class Remote:
    """The files below an address, by their names from there. Making one asks nobody.

    Args:
        address: of a folder, as fsspec writes it.

    Raises:
        UserError: there is no such kind of address here.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._of_process: dict[int, tuple[Any, str]] = {}
        _ = self.system  # a kind that is not installed is told before any work

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of those files that are there.

        Raises:
            Unreachable: one could not be asked for.
        """
        found = self._each(names, self._get)
        return {name: data for name, data in found.items() if data is not None}

    def put(self, files: Mapping[str, bytes]) -> dict[str, Exception]:
        """Write files; those that could not be written, and why. A file is whole or not there."""
        failed: dict[str, Exception] = {}

        def put(name: str) -> None:
            try:
                self._put(name, files[name])
            except Unreachable as error:
                failed[name] = error

        self._each(files, put)
        return failed

    def sizes(self, folders: Iterable[str]) -> dict[str, dict[str, int]]:
        """Folder → the names of its files and their bytes; nothing where there is none.

        Raises:
            Unreachable: one could not be asked for.
        """
        return self._each(folders, lambda folder: self._listed(folder, "file"))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted.

        Raises:
            Unreachable: it could not be asked for.
        """
        return sorted(self._listed(folder, "directory"))

    def _listed(self, folder: str, kind: str) -> dict[str, int]:
        system, root = self.system
        listed = self._tried(lambda: system.ls(f"{root}/{folder}", detail=True, refresh=True))
        found = [one for one in listed or () if one["type"] == kind]
        return {one["name"].rstrip("/").rsplit("/", 1)[-1]: one["size"] or 0 for one in found}

    def remove(self, name: str) -> None:
        """Remove a file, where there is one.

        Raises:
            Unreachable: it could not be.
        """
        system, root = self.system
        self._tried(lambda: system.rm_file(f"{root}/{name}"))

    def _each(self, names: Iterable[str], do: Any) -> dict[str, Any]:
        asked = list(names)
        if len(asked) == 1:
            return {asked[0]: do(asked[0])}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(asked, pool.map(do, asked), strict=True))

    def _get(self, name: str) -> bytes | None:
        system, root = self.system
        return self._tried(lambda: system.cat_file(f"{root}/{name}"))

    def _put(self, name: str, data: bytes) -> None:
        system, root = self.system
        path = f"{root}/{name}"

        def write() -> bool:
            if _is_local(system):  # no such server makes a half-written file visible
                return _write_aside(system, path, data)
            system.pipe_file(path, data)
            return True

        if self._tried(write) is None:
            raise Unreachable("there is no such place to write in")

    def _tried(self, ask: Any) -> Any:
        """What was asked for, None where it is not there; asked again when something fails."""
        for attempt in range(TRIES):
            try:
                return ask()
            except FileNotFoundError:
                return None
            except (PermissionError, ImportError) as error:
                raise Unreachable(_told(error)) from error
            except Exception as error:  # every client has its own
                if attempt == TRIES - 1:
                    raise Unreachable(_told(error)) from error
                time.sleep(PAUSE * 2**attempt)
        raise AssertionError

    @property
    def system(self) -> tuple[Any, str]:
        """The file system, and the address's place in it; a forked child has its own."""
        process = os.getpid()
        if process not in self._of_process:
            self._of_process = {process: _opened(self.address)}
        return self._of_process[process]


def _opened(address: str) -> tuple[Any, str]:
    import fsspec

    kind, _, place = address.partition("://")
    if not kind or not place.strip("/"):
        raise UserError(f"{address!r} is no address: write it as in s3://bucket/views")
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if kind == "s3" and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": ANSWER_SECONDS}
        options["config_kwargs"] = {**waits, "retries": {"max_attempts": 2}}
    try:
        system, root = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        extra = 'pip install "hb-tta[s3]"' if kind == "s3" else f"install what {kind}:// needs"
        raise UserError(f"{address} cannot be opened ({error}): {extra}") from error
    except ValueError as error:
        raise UserError(f"{address} is no address that fsspec knows ({error})") from error
    return system, root.rstrip("/")


def _is_local(system: Any) -> bool:
    protocols = system.protocol if isinstance(system.protocol, list | tuple) else [system.protocol]
    return "file" in protocols


def _write_aside(system: Any, path: str, data: bytes) -> bool:
    from hb_tta.disk import write_aside

    write_aside(path, data, flush=False)
    return True


def _told(error: Exception) -> str:
    lines = " ".join(str(error).split())
    return lines[:200] or type(error).__name__
