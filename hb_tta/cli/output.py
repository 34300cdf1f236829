"""The folder that ``hb-tta augment`` fills: the views as files, and a line of JSON a request."""

from __future__ import annotations

import hashlib
import json
import os
import re
from bisect import insort
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from hb_tta.cli.requests import Failure, Line
from hb_tta.cli.sheet import PAGE, Sheet
from hb_tta.disk import holds, write_aside
from hb_tta.errors import UserError
from hb_tta.locks import held, owned
from hb_tta.reading import open_regular, read_json
from hb_tta.seen import Seen
from hb_tta.shards import Shard
from hb_tta.store import content_key

if TYPE_CHECKING:
    from hb_tta.augment import Augmentation

MANIFEST, SPECS, VIEWS, IMAGES = "manifest.jsonl", "specs.json", "views", "images"
OWN = (
    *("index", "image", "question", "task", "description"),
    *("warnings", "spec_hash", "views", "real_score", "dropped", "boxes", "failure"),
)
"""What the manifest itself says of an image; a row's column of such a name gets ``source_``."""
_VIEW_NAME = re.compile(r"(\d{6,})-seed\d+(-[0-9a-f]{8})?\.(png|webp)")
_SPECS_LOCK = ".hb-tta-specs.lock"


class Output:
    """Writes views, and a line of ``manifest.jsonl`` a request, as they come.

    A view's file is named by its request's index, its seed and the beginning of its key: a name
    taken from the question could tell the answer, and with the key a file that an earlier run's
    manifest lists never comes to hold another picture. ``specs.json`` has every spec under its
    hash. Once a run is whole, views that its manifest does not list are removed. The manifest keeps
    a row's other columns, and is itself a file of rows, to be trained on or augmented again: the
    paths in it start from its folder.

    Several parts of a run may fill one folder at once: each has a manifest and a page of its own,
    ``manifest-00002-of-00008.jsonl``, whose lines are those that the whole run's would have.

    Args:
        folder: made as needed, and this run's or part's alone while it is entered.
        sheet: how many images ``index.html`` shows; 0: there is none.
        shard: which part of a run this is; ``None``: the whole.
        command: whose views they are, for the page.

    Attributes:
        manifest: the file of lines.
        images, views: how many were written, or found right.
        sheet: the page.
    """

    def __init__(
        self,
        folder: Path,
        sheet: int = 0,
        shard: Shard | None = None,
        *,
        command: str = "augment",
    ) -> None:
        self.folder = folder
        self._part = "" if shard is None else f"-{shard.name}"
        manifest, page = (name if shard is None else shard.of(name) for name in (MANIFEST, PAGE))
        self.manifest = folder / manifest
        self.sheet = Sheet(folder / page, sheet, command)
        self.images = self.views = 0
        self._indices = Seen()
        self._held = ExitStack()
        self._listed = Seen()
        self._failures: list[Failure] = []  # by index
        self._specs: dict[str, dict[str, Any]] = {}
        self._lines: Lines

    def fail(self, failure: Failure) -> None:
        """Take a line that could not be used; it is written in its place among the others."""
        self._indices.update([str(failure.index)])
        insort(self._failures, failure, key=lambda it: it.index)

    def add(
        self,
        request: Line[Any],
        augmentation: Augmentation,
        dropped: Sequence[bytes] = (),
    ) -> list[Path]:
        """Write the views of one request, and then its line; gives the views' files.

        Args:
            dropped: the candidates that are not shown, as files, for the page.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        self._write_failures(before=request.index)
        self._indices.update([str(request.index)])
        image = self._image(request)
        names = [
            f"{VIEWS}/{request.index:06d}-seed{seed}-{key[:8]}{_suffix(file)}"
            for seed, key, file in zip(
                augmentation.seeds, augmentation.keys, augmentation.files, strict=True
            )
        ]
        for name, file in zip(names, augmentation.files, strict=True):
            write_result(self.folder / name, file)
        self._lines.write(
            {
                "index": request.index,
                **request.told(image, augmentation.description),
                **others(request.others),
                "warnings": augmentation.warnings,
                "spec_hash": self._kept(augmentation.spec),
                **_judged(augmentation),
                **({} if augmentation.boxes is None else {"boxes": augmentation.boxes}),
                "views": [
                    {"seed": seed, "file": name, **score}
                    for seed, name, score in zip(
                        augmentation.seeds, names, _scores(augmentation), strict=True
                    )
                ],
            }
        )
        self._listed.update(names)
        self.sheet.add(request, image, augmentation, names, dropped)
        self.images += 1
        self.views += len(names)
        return [self.folder / name for name in names]

    def __enter__(self) -> Self:
        self._held.enter_context(owned(self.folder, self._part))
        self._lines = Lines(self.manifest)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._held:
            if error is None:
                self._write_failures()
            self._lines.close(whole=error is None)
            if error is None:
                self._remove_stale()
                if self.images:
                    self.sheet.write(self.images)

    def _remove_stale(self) -> None:
        """Remove the views of other runs, by the names that only we give.

        A part of a run removes those of its own images alone.
        """
        stale: list[str] = []
        with suppress(OSError), os.scandir(self.folder / VIEWS) as found:
            stale = [it.path for it in found if self._is_stale(it.name)]
        for path in stale:
            with suppress(OSError):  # it does no harm
                os.unlink(path)

    def _is_stale(self, name: str) -> bool:
        ours = _VIEW_NAME.fullmatch(name)
        mine = ours and (not self._part or str(int(ours[1])) in self._indices)
        return bool(mine) and f"{VIEWS}/{name}" not in self._listed

    def _image(self, request: Line[Any]) -> str:
        """The path of the reference as the manifest has it; one that is no file yet becomes one."""
        if isinstance(request.image, bytes):
            digest = hashlib.sha256(request.image).hexdigest()
            name = f"{IMAGES}/{request.index:06d}-{digest[:8]}{_suffix(request.image)}"
            write_result(self.folder / name, request.image)
            return name
        try:
            return Path(os.path.relpath(request.image, self.folder)).as_posix()
        except ValueError:  # on Windows, another drive
            return str(request.image.absolute())

    def _write_failures(self, before: float = float("inf")) -> None:
        while self._failures and self._failures[0].index < before:
            failure = self._failures.pop(0)
            self._lines.write({"index": failure.index, "failure": failure.reason})

    def _kept(self, spec: dict[str, Any]) -> str:
        """The hash under which ``specs.json`` has a spec."""
        spec_hash = content_key(spec)
        if spec_hash not in self._specs:
            self._specs[spec_hash] = spec
            with held(self.folder.absolute() / _SPECS_LOCK, -1):  # parts of a run add theirs
                specs = {**_read_specs(self.folder / SPECS), **self._specs}
                write_result(self.folder / SPECS, json.dumps(specs, indent=2).encode())
        return spec_hash


def _judged(augmentation: Augmentation) -> dict[str, Any]:
    """What a judge said beside the views' scores; nothing where there was none."""
    if augmentation.scores is None:
        return {}
    dropped = [{"seed": s, "key": key, "score": score} for s, key, score in augmentation.dropped]
    return {"real_score": augmentation.real_score, "dropped": dropped}


def _scores(augmentation: Augmentation) -> list[dict[str, float]]:
    if augmentation.scores is None:
        return [{} for _ in augmentation.seeds]
    return [{"score": score} for score in augmentation.scores]


def others(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A row's other columns as the manifest keeps them: plain JSON under names of their own.

    What an earlier manifest said of its own views is no column of the row.
    """
    again = "spec_hash" in columns and "views" in columns
    kept: dict[str, Any] = {}
    for name, value in columns.items():
        if name in OWN and again:
            continue
        with suppress(TypeError, ValueError):  # a picture, or what JSON cannot say
            kept[f"source_{name}" if name in OWN else name] = json.loads(_json(value))
    return kept


def _json(value: Any) -> str:
    """Plain JSON; of what is none, dates and numbers of other libraries, the text."""
    if isinstance(value, bytes | bytearray) or isinstance(value, Mapping) and "bytes" in value:
        raise TypeError

    def text(other: Any) -> str | None:
        return None if isinstance(other, bytes) else str(other)

    return json.dumps(value, default=text, allow_nan=False)


def _suffix(image: bytes) -> str:
    """How the name of such a file ends."""
    for start, suffix in ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"GIF8", ".gif")):
        if image.startswith(start):
            return suffix
    return ".webp" if image[8:12] == b"WEBP" else ".img"


class Lines:
    """A file of JSON lines that grows, and that no part of a run makes shorter than it was.

    The lines go to a file beside it until they are as many as those of an earlier run; then that
    one's are replaced, and the file grows in place. A run that ends before that leaves the earlier
    lines as they are, unless it ends well.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.part")
        self._file: IO[bytes] | None = None
        self._written = 0
        self._earlier = _count_lines(path)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; it is in the file when this returns.

        Raises:
            UserError: it cannot be written.
        """
        data = json.dumps(line).encode("ascii") + b"\n"  # so "\n" alone ends a line
        try:
            if self._file is None:
                self._aside.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self._aside, "wb", buffering=0)  # noqa: SIM115
            self._file.write(data)
            self._written += 1
            if self._written == max(1, self._earlier):
                os.replace(self._aside, self._path)
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def close(self, *, whole: bool) -> None:
        """End the file.

        Args:
            whole: whether these are all lines of the run, which then replace those of any other.

        Raises:
            UserError: they cannot be written.
        """
        if self._file is None:
            return
        self._file.close()
        if self._written >= max(1, self._earlier):
            return
        try:
            if whole:
                os.replace(self._aside, self._path)
            else:
                self._aside.unlink()
        except OSError as error:
            raise _unwritten(self._path, error) from error


def write_result(path: Path, data: bytes) -> None:
    """Write a file that a person asked for with ``--out``; one that is right already is left.

    Raises:
        UserError: it cannot be written.
    """
    if holds(path, data):
        return
    try:
        write_aside(path, data, flush=False)  # it can be made again
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be written ({error.strerror or error}): mend that or name another "
        "place with --out; the store keeps the views, so they are not generated again"
    )


def _count_lines(path: Path) -> int:
    with suppress(OSError), open_regular(path) as file:
        return sum(1 for _ in file)
    return 0


def _read_specs(path: Path) -> dict[str, Any]:
    """The specs of earlier runs, whose lines may stay."""
    with suppress(OSError, ValueError):
        specs = read_json(path)
        return specs if isinstance(specs, dict) else {}
    return {}
