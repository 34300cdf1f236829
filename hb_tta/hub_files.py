"""Which files of a hub repository a model needs, how large they are, and fetching them in pieces.

Repositories hold a model several times over, for other runtimes and in other precisions: most of
the 70 GB of SDXL Base 1.0 is never loaded. A fetch that is cut, however it ends, goes on at the
byte where it stopped; the hub's own client begins the file anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hb_tta.errors import UserError
from hb_tta.file_index import file_digest
from hb_tta.reading import read_json

KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja")
OTHER_RUNTIMES = re.compile(r"openvino|onnx|flax|\.fp16\.safetensors")
INDEX = "model_index.json"
PART = ".hb-tta-part"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFile(NamedTuple):
    """A file of a repository at a commit.

    Attributes:
        name: its path in the repository.
        size: bytes.
    """

    name: str
    size: int


def needed(
    files: Iterable[HubFile],
    *,
    subfolder: str | None = None,
    role: str | None = None,
    index: Mapping[str, Any] | None = None,
) -> list[HubFile]:
    """Those that the model of a role is loaded from.

    Args:
        files: of the whole repository.
        subfolder: that holds the model.
        role: "clip" means open_clip's own weights where there are some; every other, the files of
            transformers or diffusers.
        index: what ``model_index.json`` of a diffusers pipeline holds.
    """
    start = f"{subfolder}/" if subfolder else ""
    kept = [
        file
        for file in files
        if file.name.startswith(start)
        and file.name.endswith(KEPT)
        and not OTHER_RUNTIMES.search(file.name)
    ]
    if index is not None:
        parts = {name for name, part in index.items() if isinstance(part, list) and part[-1]}
        kept = [f for f in kept if f.name == INDEX or f.name.split("/")[0] in parts]
    by_folder: dict[str, list[HubFile]] = {}
    for file in kept:
        by_folder.setdefault(os.path.dirname(file.name), []).append(file)
    return [f for its in by_folder.values() for f in _one_form(its, role)]


def _one_form(files: list[HubFile], role: str | None) -> list[HubFile]:
    """The files of one folder without weights that hold the same a second time."""
    weights = {os.path.basename(f.name): f for f in files if f.name.endswith(".safetensors")}
    forms = [[name for name in weights if name.startswith("open_clip")]]
    forms.append([name for name in weights if re.match(r"model(-\d+-of-\d+)?\.", name)])
    if role != "clip":
        forms.reverse()
    chosen = next((form for form in forms if form), list(weights))
    if "model.safetensors" in chosen:  # and in shards as well
        chosen = ["model.safetensors"]
    return [f for f in files if f not in weights.values() or os.path.basename(f.name) in chosen]


class Repository:
    """A model repository of the hub at one commit, seen through the hub's own cache.

    Args:
        name: ``organisation/name``.
        commit: 40 hex digits.
    """

    def __init__(self, name: str, commit: str) -> None:
        self.name, self.commit = name, commit

    def files(self) -> list[HubFile]:
        """All of them; the hub is asked."""
        from huggingface_hub import HfApi

        tree = HfApi().list_repo_tree(self.name, recursive=True, revision=self.commit)
        return [
            HubFile(each.path, size)
            for each in tree
            if (size := getattr(each, "size", None)) is not None
        ]

    def needed(self, *, subfolder: str | None = None, role: str | None = None) -> list[HubFile]:
        """See ``needed``; a pipeline's index is fetched to know its parts."""
        files = self.files()
        index = None
        if subfolder is None and any(file.name == INDEX for file in files):
            found = read_json(self.fetch(HubFile(INDEX, 0)))
            index = found if isinstance(found, dict) else None
        return needed(files, subfolder=subfolder, role=role, index=index)

    def has(self, file: HubFile) -> bool:
        """Whether it is on this machine."""
        return self._here(file.name) is not None

    def fetch(self, file: HubFile, told: Callable[[int], object] = lambda _: None) -> Path:
        """The file on this machine, fetched from where an earlier fetch stopped.

        Args:
            told: of the bytes, as they come.

        Raises:
            UserError: what came is not what the hub says it is.
            OSError, httpx.HTTPError, HfHubHTTPError: the network's or the disk's.
        """
        from huggingface_hub import hf_hub_download

        here = self._here(file.name)
        if here is None:
            self._fetch_blob(file, told)
            here = Path(hf_hub_download(self.name, file.name, revision=self.commit))
        return here

    def _here(self, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.name, name, revision=self.commit)
        return Path(found) if isinstance(found, str) else None

    def _blobs(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE, "models--" + self.name.replace("/", "--"), "blobs")

    def _fetch_blob(self, file: HubFile, told: Callable[[int], object]) -> None:
        """The content under its digest, where the client finds it: only a link is missing then."""
        from filelock import FileLock
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.name, file.name, revision=self.commit)
        about = get_hf_file_metadata(url)
        etag = (about.etag or "").strip('"')
        blob = self._blobs() / etag
        if not etag or "/" in etag or about.size is None or blob.exists():
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(etag + PART)
        with FileLock(f"{part}.lock"):
            _fill(part, url, about.size, told)
            if _SHA256.fullmatch(etag) and file_digest(part) != etag:
                part.unlink()
                raise UserError(
                    f"{file.name} of {self.name} came damaged and was thrown away: give the same "
                    "command again"
                )
            os.replace(part, blob)
        Path(f"{part}.lock").unlink(missing_ok=True)


def _fill(part: Path, url: str, size: int, told: Callable[[int], object]) -> None:
    """Fetch what a file still lacks."""
    from huggingface_hub.utils import build_hf_headers, get_session

    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    told(have)
    if have == size and part.exists():
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
        answer.raise_for_status()
        if have and answer.status_code != 206:  # the server sends all of it
            told(-have)
            have = 0
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            for chunk in answer.iter_bytes(1 << 20):
                file.write(chunk)
                told(len(chunk))
    if part.stat().st_size != size:
        raise ConnectionError(f"{part.stat().st_size} of {size} bytes came")
