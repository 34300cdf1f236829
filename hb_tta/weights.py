"""Weights by what they contain, not by where they lie: the names of models in keys of the store.

Nothing here imports torch: whether the store holds an image is known before any model is loaded.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path
from typing import NamedTuple

from hb_tta.errors import UserError
from hb_tta.file_index import FileIndex
from hb_tta.hub_files import Repository
from hb_tta.network import at_once, hub_answers
from hb_tta.reading import read_text, user_path

# What is fetched of a hub repository: safetensors, configurations, vocabularies, templates.
_FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_NOT_FETCHED = ("*.fp16.safetensors", "*openvino*", "*onnx*", "*flax*")

_PACKAGE = Path(__file__).absolute().parent

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@total_ordering
@dataclass(frozen=True)
class Weights:
    """Where the weights and configuration of a model are: a folder or a hub repository.

    A location that is an existing folder is that folder; otherwise it must look like a hub id,
    ``organisation/name``, and is one.

    Attributes:
        location: a folder or a hub id.
        subfolder: the part of it that holds the model (``"image_encoder"``); the whole otherwise.
        revision: of a hub id, a branch, tag or commit; "main" otherwise.
    """

    location: str
    subfolder: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", os.fspath(self.location))

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Weights):
            return NotImplemented
        return self._order() < other._order()

    def is_folder(self) -> bool:
        """Whether the location is a folder of this machine rather than a hub id.

        Raises:
            UserError: it is neither an existing folder nor like a hub id.
        """
        folder = user_path(self.location)
        if self.location and folder.is_dir():
            return True
        if self.location and folder.exists():
            raise UserError(f"{self.location!r} is a file: name the folder that holds the weights")
        if not _HUB_ID.fullmatch(self.location) or self.location[0] in ".~":
            raise UserError(
                f"{self.location!r} is no folder and no hub id: check the path, or give an id"
                " of the hub: 'organisation/name'"
            )
        return False

    @property
    def name(self) -> str | None:
        """What they are called on every machine: the hub's id, the place of what is bundled.

        None of a folder of somebody's own.
        """
        folder = user_path(self.location).absolute()
        inside = f"/{self.subfolder}" if self.subfolder else ""
        if folder.is_relative_to(_PACKAGE):
            return f"hb_tta:{folder.relative_to(_PACKAGE).as_posix()}{inside}"
        if folder.is_dir() or not _HUB_ID.fullmatch(self.location):
            return None
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.location}{inside}{revision}"

    def is_here(self) -> bool:
        """Whether they are named on this machine: a folder, or a commit in the hub's cache."""
        if user_path(self.location).is_dir():
            return (user_path(self.location) / (self.subfolder or "")).is_dir()
        return bool(_HUB_ID.fullmatch(self.location)) and self._cached_commit() is not None

    def fingerprint(self) -> str:
        """What stands for these weights in a spec: equal where the content is equal.

        Of a hub id ``"hub:<commit>"``, with ``"/<subfolder>"`` behind it if there is one: two LoRAs
        of one repository are two. Of a folder ``"sha256:<digest>"`` over the names and digests of
        its files, wherever it lies: what ``sha256sum`` prints for them in order of their names,
        hashed once more. Markdown and hidden files do not count, nor ``__pycache__``.

        The large files' digests are kept in an index beside the store (``FileIndex``), so that the
        second time costs a look at their sizes and times.

        Where the weights are not on this machine and a set of views was imported that they made
        (``known_by``), it is what its makers told.

        Raises:
            UserError: the folder is missing or empty, or the hub's commit is not known.
        """
        known = _known.get()
        if known is not None and self.name in known.names and not self.is_here():
            known.used.append(self.name or "")
            return known.names[self.name or ""]
        if self.is_folder():
            return f"sha256:{_folder_digest(self._folder())}"
        commit = self.commit()
        return f"hub:{commit}/{self.subfolder}" if self.subfolder else f"hub:{commit}"

    def commit(self) -> str | None:
        """The commit that a hub id stands for, 40 hex digits; None of a folder.

        It is the one that the hub's cache on this machine holds for the revision, also where the
        hub has moved on: views stay what they are until ``hb-tta download`` fetches the new one.
        Where the cache holds none, the hub is asked, and the answer is kept in the cache.

        Raises:
            UserError: the cache holds none and the hub cannot be asked, or knows of none.
        """
        if self.is_folder():
            return None
        if self.revision and _COMMIT.fullmatch(self.revision):
            return self.revision
        # Fetching one tiny file is the documented call that keeps a revision's commit in the cache.
        commit = self._cached_commit() or Path(self._fetch(self.revision, ".gitattributes")).name
        if not _COMMIT.fullmatch(commit):
            raise UserError(
                f"the hub's cache does not know the commit of {self.location!r}: run"
                f" `hb-tta download {self.location}`, or name a folder"
            )
        return commit

    def newest(self) -> str:
        """The commit that the hub has now for the revision, which the cache then knows for it.

        Raises:
            UserError: the hub cannot be asked, or knows of none.
        """
        return Path(self._fetch(self.revision, ".gitattributes")).name

    def local_folder(self, role: str | None = None) -> str:
        """The folder to load from, subfolder included; a hub id is fetched first where needed.

        A fetched snapshot is that of ``commit()``. It leaves out pickles and the duplicates for
        other runtimes.

        Args:
            role: what it is loaded as, where the repository may hold it in several forms, of which
                one is fetched (``hub_files.needed``).

        Raises:
            UserError: the folder is missing, or the hub's files can not be had.
        """
        if self.is_folder():
            return str(self._folder())
        inside = f"{self.subfolder}/" if self.subfolder else ""
        patterns = self._names(role) or [inside + pattern for pattern in _FETCHED]
        snapshot = self._fetch(self.commit(), *patterns)
        folder = Path(snapshot, self.subfolder or "")
        if not folder.is_dir():
            raise UserError(f"the hub's {self.location!r} has no folder {self.subfolder!r}")
        return str(folder)

    def file(self, name: str) -> Path:
        """One file of the folder; of a hub id it is fetched first where needed, alone.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: the hub's can not be had.
        """
        if self.is_folder():
            path = self._folder() / name
        else:
            path = self._fetched_file(f"{self.subfolder}/{name}" if self.subfolder else name)
        if not path.is_file():
            raise FileNotFoundError(f"it has no {name}")
        return path

    def _fetched_file(self, name: str) -> Path:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.location, name, revision=self.commit())
        if isinstance(cached, str):
            return Path(cached)
        return Path(self._fetch(self.commit(), name), name)

    def _names(self, role: str | None) -> list[str]:
        """The files of one form; none where the hub cannot be asked, or nobody wants to know."""
        from huggingface_hub import constants

        if role is None or constants.HF_HUB_OFFLINE or not hub_answers():
            return []
        repository = Repository(self.location, self.commit() or "")
        with suppress(Exception):  # the fetch that follows has the sentences
            return [f.name for f in repository.needed(subfolder=self.subfolder, role=role)]
        return []

    def _order(self) -> tuple[str, str, str]:
        return self.location, self.subfolder or "", self.revision or ""

    def _folder(self) -> Path:
        folder = user_path(self.location) / (self.subfolder or "")
        if not folder.is_dir():
            raise UserError(f"the weights {self.location!r} have no folder {self.subfolder!r}")
        return folder

    def _cached_commit(self) -> str | None:
        from huggingface_hub import constants

        repository = Path(constants.HF_HUB_CACHE, "models--" + self.location.replace("/", "--"))
        try:
            commit = read_text(repository / "refs" / (self.revision or "main")).strip()
        except (OSError, ValueError):
            return None
        return commit if _COMMIT.fullmatch(commit) else None

    def _fetch(self, revision: str | None, *patterns: str) -> str:
        """The folder of a snapshot whose files of these patterns are here."""
        from huggingface_hub import errors, snapshot_download

        try:
            with at_once():
                return snapshot_download(
                    self.location,
                    revision=revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=list(_NOT_FETCHED),
                )
        except errors.RevisionNotFoundError as error:
            raise UserError(
                f"the hub's {self.location!r} has no revision {self.revision!r}: check its name"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"the hub shows no model {self.location!r}: check the name, ask for access and log"
                " in (hf auth login), or name a folder"
            ) from error
        except Exception as error:  # the HTTP client below has exceptions of its own
            absent = isinstance(error, errors.LocalEntryNotFoundError)  # what the sentence says
            why = "" if absent else f" ({type(error).__name__})"
            raise UserError(
                f"the weights {self.location!r} are not all on this machine and the hub cannot be"
                f" reached{why}: connect and run `hb-tta download` for all models of photographs or"
                f" `hb-tta download {self.location}` for these, or name a folder"
            ) from error


class Known(NamedTuple):
    """Names of weights that are not here.

    Attributes:
        names: ``Weights.name`` → fingerprint.
        used: those that stood in for weights.
    """

    names: Mapping[str | None, str]
    used: list[str]


_known: ContextVar[Known | None] = ContextVar("known", default=None)


@contextmanager
def known_by(names: Mapping[str, str]) -> Iterator[Known]:
    """Inside it a fingerprint may be had of weights that are not on this machine.

    Args:
        names: ``Weights.name`` → fingerprint, from whoever has them.
    """
    known = Known({name: it for name, it in names.items()}, [])
    token = _known.set(known)
    try:
        yield known
    finally:
        _known.reset(token)


def names_of(fingerprints: Collection[str], weights: Iterable[Weights]) -> dict[str, str]:
    """Name → fingerprint, of those weights that are here and have one of the fingerprints."""
    found = {}
    for one in weights:
        if one.name is not None and one.is_here():
            with suppress(UserError):
                fingerprint = one.fingerprint()
                if fingerprint in fingerprints:
                    found[one.name] = fingerprint
    return found


def as_weights(source: str | os.PathLike[str] | Weights) -> Weights:
    """A folder, hub id or ``Weights`` as ``Weights``."""
    return source if isinstance(source, Weights) else Weights(os.fspath(source))


# ── Folders ──────────────────────────────────────────────────────────────────────────────────────


def _folder_digest(folder: Path) -> str:
    index = FileIndex("fingerprints.json")
    try:
        lines = [f"{index.digest(path)}  {name}\n" for name, path in sorted(_files(folder))]
    except OSError as error:
        raise UserError(
            f"the weights in {str(folder)!r} cannot be read ({error.strerror}): check"
            f" {error.filename!r}"
        ) from error
    if not lines:
        raise UserError(f"the folder {str(folder)!r} holds no weights: name the one that does")
    index.save()
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name with "/", path) of the files that count; links are followed, as loading does."""
    entered = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(parent)
        if place in entered:  # a link that leads back up
            folders.clear()
            continue
        entered.add(place)
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in names:
            if name[0] != "." and not name.lower().endswith(".md"):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path
