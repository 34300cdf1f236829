"""``hb-tta download``: the files that a family's models are loaded from, and no others."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hb_tta.errors import UserError, choose_from
from hb_tta.families import get_family
from hb_tta.hub_files import HubFile, Repository
from hb_tta.network import hub_answers
from hb_tta.progress import progress
from hb_tta.report import renderers
from hb_tta.report.cells import Cell, Table
from hb_tta.weights import Weights, as_weights

DESCRIPTION = """\
Fetches what a family's models are loaded from into the Hugging Face cache: of a repository
that holds a model several times over (other runtimes, other precisions) one form alone. It
says first how large it is. Whatever stops it, the same command again goes on at the byte
where it stopped. HF_HOME names another place for the cache, and `hf auth login` gives access
to what is not for everybody.

Without --role: what `hb-tta augment` and `lmms-eval --augment` load. The roles clip (tpt),
detector (mumu) and variation (image_variation) are fetched when they are named."""

EXAMPLES = """\
examples:
  hb-tta download --family sdxl --dry-run
  hb-tta download --family sdxl
  hb-tta download --family sdxl --role clip
  hb-tta download some-team/sdxl-fine-tune"""

USUAL = ("generator", "image_encoder", "lora", "mllm", "evaluator")
"""The roles that are fetched where none is named."""


@dataclass(frozen=True)
class Part:
    """One repository's files for one role."""

    role: str
    repository: Repository
    files: Sequence[HubFile]

    @property
    def missing(self) -> list[HubFile]:
        """Those that are not here."""
        return [file for file in self.files if not self.repository.has(file)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta download [ID …] [--family NAME] [--role ROLE …] [options]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("ids", metavar="ID", nargs="*", help="model repositories of the hub")
    parser.add_argument("--family", metavar="NAME", help="whose models (default: sdxl)")
    parser.add_argument(
        "--role",
        action="append",
        metavar="ROLE",
        help="which of them, may be repeated; with an ID, what it is for",
    )
    parser.add_argument("--dry-run", action="store_true", help="say how large it is, and stop")


def run(arguments: argparse.Namespace) -> int:
    """Say what is missing, and fetch it."""
    from huggingface_hub import constants

    wanted = _wanted(arguments)
    remote = [(role, weights) for role, weights in wanted if not weights.is_folder()]
    if not remote:
        print("all of its weights lie on this machine: there is nothing to fetch")
        return 0
    if not constants.HF_HUB_OFFLINE and not hub_answers():
        raise UserError("the hub cannot be reached: connect, and give the command again")
    parts = [_part(role, weights) for role, weights in remote]
    missing = _missing(parts)
    print(_table(parts), flush=True)
    size = sum(file.size for _, file in missing)
    if arguments.dry_run or not missing:
        return 0
    _check_room(size)
    _fetch(missing, size)
    print(f"fetched: {len(missing)} files, {_gigabytes(size)}")
    return 0


def _wanted(arguments: argparse.Namespace) -> list[tuple[str, Weights]]:
    if arguments.ids:
        if arguments.family:
            raise UserError("--family names repositories of its own: give it, or their ids")
        role = (arguments.role or [""])[0]
        return [(role, as_weights(name)) for name in arguments.ids]
    family = get_family(arguments.family or "sdxl")
    for role in arguments.role or ():
        if role not in family.roles:
            raise UserError(
                f"family {family.name!r} has no role {role!r}{choose_from(role, family.roles)}"
            )
    roles = arguments.role or [role for role in USUAL if role in family.roles]
    return [(role, family.roles[role]) for role in dict.fromkeys(roles)]


def _part(role: str, weights: Weights) -> Part:
    with _network(weights.location):
        commit = weights.newest()
        repository = Repository(weights.location, commit)
        return Part(role, repository, repository.needed(subfolder=weights.subfolder, role=role))


def _missing(parts: Sequence[Part]) -> list[tuple[Repository, HubFile]]:
    """What is to be fetched, each file once: two roles may share a repository."""
    found = {(p.repository.name, f.name): (p.repository, f) for p in parts for f in p.missing}
    return list(found.values())


def _table(parts: Sequence[Part]) -> str:
    rows: list[list[Cell | str]] = [
        [
            f"{part.role or 'model'}: {part.repository.name}",
            str(len(part.files)),
            _gigabytes(sum(file.size for file in part.files)),
            _gigabytes(sum(file.size for file in part.missing)),
        ]
        for part in parts
    ]
    return renderers.text(Table(["model", "files", "size", "to fetch"], rows))


def _check_room(size: int) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(
            f"{place} has {_gigabytes(free)} free and {_gigabytes(size)} are to come: free some, "
            "name another place with HF_HOME, or fetch less with --role"
        )


def _fetch(missing: Sequence[tuple[Repository, HubFile]], size: int) -> None:
    with progress("fetching", "byte", size, unit_scale=True) as told:
        for repository, file in missing:
            with _network(repository.name):
                repository.fetch(file, told.update)


class _network:
    """Turns what the network's libraries raise into a sentence."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        from huggingface_hub import errors

        if isinstance(error, errors.OfflineModeIsEnabled):
            raise UserError(
                "HF_HUB_OFFLINE forbids to ask the hub: unset it, and give the command again"
            ) from error
        if isinstance(error, errors.GatedRepoError):
            raise UserError(
                f"the hub's {self._name!r} is not for everybody: ask for access on its page, then "
                "log in (hf auth login)"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            raise UserError(
                f"the hub shows no model {self._name!r}: check the name, or log in (hf auth login)"
            ) from error
        if isinstance(error, Exception) and not isinstance(error, UserError) and _is_network(error):
            raise UserError(
                f"the hub stopped answering about {self._name!r} ({type(error).__name__}): give "
                "the same command again, it goes on where it stopped"
            ) from error


def _is_network(error: Exception) -> bool:
    """Of the HTTP client below, whose name depends on the hub library's version, or of a socket."""
    names = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(
        names & {"httpx", "httpx2", "httpcore", "huggingface_hub", "requests"}
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
