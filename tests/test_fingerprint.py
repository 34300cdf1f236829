"""Fingerprints: equal content, equal name; another content, another name; and quick again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_hub import TinyHub

from hb_tta import file_index
from hb_tta.errors import UserError
from hb_tta.weights import Weights

COMMIT, OLDER = "1" * 40, "2" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"more weights",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index and the hub's cache of these tests, away from the person's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def quick_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index files however fresh and small: the tests have just written them."""
    monkeypatch.setattr(file_index.FileIndex, "_FRESH_NS", 0)
    monkeypatch.setattr(file_index.FileIndex, "_SMALL", -1)


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def of(folder: Path, subfolder: str | None = None) -> str:
    return Weights(str(folder), subfolder).fingerprint()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model")


# ── Folders ──────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_is_its_names_and_digests(folder: Path) -> None:
    lines = [f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES)]
    assert of(folder) == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_place_and_times_do_not_matter(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert of(copy) == of(folder)
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert of(linked) == of(folder)


def test_links_inside_count_as_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    """As in the hub's cache, where every file is a link, and a part may be shared by link."""
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "unet").symlink_to(folder / "unet")
    for name in ("config.json", "model.safetensors"):
        (linked / name).symlink_to(folder / name)
    assert of(linked) == of(folder)
    (linked / "unet" / "config.json").write_bytes(b'{"changed": 1}')
    assert of(linked) == of(folder) != of(write(tmp_path / "unchanged"))


def test_a_link_that_leads_back_up_ends(folder: Path) -> None:
    before = of(folder)
    (folder / "unet" / "up").symlink_to(folder)
    assert of(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"weightz"),
        lambda folder: (folder / "config.json").rename(folder / "other.json"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "vocab.txt").write_bytes(b""),
        lambda folder: (folder / "unet").rename(folder / "unet2"),
    ],
    ids=["byte", "name", "fewer", "more", "folder"],
)
def test_a_change_of_content_changes_it(folder: Path, change: Callable[[Path], Any]) -> None:
    before = of(folder)
    change(folder)
    assert of(folder) != before


def test_what_changes_no_pixel_does_not_count(folder: Path) -> None:
    before = of(folder)
    extra = ["README.md", "unet/Card.MD", ".gitattributes", ".cache/x/y", "__pycache__/a.pyc"]
    write(folder, dict.fromkeys(extra, b"text"))
    assert of(folder) == before


def test_a_subfolder_is_a_model_of_its_own(folder: Path, tmp_path: Path) -> None:
    assert of(folder, "unet") == of(folder / "unet") != of(folder)
    before = of(folder, "unet")
    (folder / "model.safetensors").write_bytes(b"other")
    assert of(folder, "unet") == before
    assert Weights(str(folder), "unet").local_folder() == str(folder / "unet")
    assert Weights(str(folder)).local_folder() == str(folder)


def test_folders_without_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty' holds no weights"):
        of(tmp_path / "empty")
    for ask in (
        Weights(str(folder), "lora").fingerprint,
        Weights(str(folder), "lora").local_folder,
    ):
        with pytest.raises(UserError, match="no folder 'lora'"):
            ask()


def test_a_link_to_nothing_is_named(folder: Path) -> None:
    """As where somebody has cleaned the blobs out of the hub's cache."""
    (folder / "gone.safetensors").symlink_to(folder / "nothing")
    with pytest.raises(UserError, match="cannot be read.*gone.safetensors"):
        of(folder)


def test_a_home_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Weights("~/model").fingerprint() == of(folder)
    assert Weights("~/model").local_folder() == str(folder)


@pytest.mark.parametrize(
    "location",
    ["./lora", "../lora", "/nowhere/lora", "~/nowhere", "runs/lora/last", "lora", "a b/c", ""],
)
def test_neither_a_folder_nor_a_hub_id(location: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for ask in (Weights(location).fingerprint, Weights(location).local_folder):
        with pytest.raises(UserError, match="is no folder and no hub id") as told:
            ask()
        assert "'organisation/name'" in str(told.value) and "diffusion" not in str(told.value)


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(UserError, match="is a file: name the folder"):
        of(folder / "model.safetensors")


def test_weights_are_values(folder: Path) -> None:
    assert Weights(folder) == Weights(str(folder))  # type: ignore[arg-type]
    shuffled = [Weights("b"), Weights("a", "x", "v1"), Weights("a", revision="v1"), Weights("a")]
    assert len({*shuffled, *shuffled}) == 4
    assert [str(w.subfolder) for w in sorted(shuffled)] == ["None", "None", "x", "None"]


# ── The index ────────────────────────────────────────────────────────────────────────────────────


def no_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a file was hashed")

    monkeypatch.setattr("hashlib.file_digest", refuse)


def test_the_second_time_hashes_nothing(
    folder: Path, quick_index: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = of(folder)
    no_hashing(monkeypatch)
    assert of(folder) == first
    with pytest.raises(AssertionError):
        (folder / "model.safetensors").write_bytes(b"another")
        of(folder)


def test_fresh_files_are_not_indexed(folder: Path, cache: Path, monkeypatch: Any) -> None:
    """Changed again within one tick of the clock, they would keep their size and times."""
    monkeypatch.setattr(file_index.FileIndex, "_SMALL", -1)
    of(folder)
    assert not (cache / "hb_tta" / "fingerprints.json").exists()


def test_new_bytes_under_old_size_and_time_are_noticed(folder: Path, quick_index: None) -> None:
    path = folder / "model.safetensors"
    before, times = of(folder), path.stat()
    time.sleep(0.02)
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert of(folder) != before


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"[]", b"3", b'{"PATH": 3}', b'{"PATH": []}', b'{"PATH": [7, 1]}']
)
def test_a_damaged_index_is_made_again(
    folder: Path, cache: Path, quick_index: None, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = cache / "hb_tta" / "fingerprints.json"
    index.parent.mkdir(parents=True)
    index.write_bytes(content.replace(b"PATH", str(folder / "model.safetensors").encode()))
    first = of(folder)
    assert first == of(write(folder.parent / "copy"))
    no_hashing(monkeypatch)
    assert of(folder) == first


def test_an_index_with_a_digest_that_is_none_is_not_believed(
    folder: Path, cache: Path, quick_index: None
) -> None:
    first = of(folder)
    index = cache / "hb_tta" / "fingerprints.json"
    known = json.loads(index.read_bytes())
    index.write_text(json.dumps({name: [*record[:-1], "0"] for name, record in known.items()}))
    assert of(folder) == first


def test_an_index_that_cannot_be_written_does_no_harm(
    folder: Path, cache: Path, quick_index: None
) -> None:
    cache.write_text("a file where the cache should be")
    assert of(folder) == of(folder)


def test_the_index_forgets_files_that_are_gone(
    folder: Path, tmp_path: Path, cache: Path, quick_index: None
) -> None:
    of(write(tmp_path / "other"))
    shutil.rmtree(tmp_path / "other")
    of(folder)
    known = json.loads((cache / "hb_tta" / "fingerprints.json").read_bytes())
    assert sorted(known) == sorted(str(folder / name) for name in FILES)


# ── The hub's cache ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """The layout that huggingface_hub leaves behind, of org/name."""
    repository = tmp_path / "hub" / "models--org--name"
    write(repository / "snapshots" / COMMIT)
    write(repository / "refs", {"main": COMMIT.encode(), "v1": OLDER.encode()})
    return repository


def test_a_hub_id_is_the_commit_in_the_cache(cached: Path) -> None:
    assert Weights("org/name").fingerprint() == f"hub:{COMMIT}"
    assert Weights("org/name").commit() == COMMIT
    assert Weights("org/name", revision="v1").fingerprint() == f"hub:{OLDER}"
    assert Weights("org/name", revision="3" * 40).fingerprint() == f"hub:{'3' * 40}"


def test_two_loras_of_one_repository_are_two(cached: Path) -> None:
    one, other = Weights("org/name", "lora_1"), Weights("org/name", "lora_2")
    assert one.fingerprint() == f"hub:{COMMIT}/lora_1" != other.fingerprint()
    assert one.commit() == other.commit() == COMMIT


def test_a_cached_snapshot_is_loaded_without_a_network(cached: Path) -> None:
    snapshot = cached / "snapshots" / COMMIT
    assert Weights("org/name").local_folder() == str(snapshot)
    assert Weights("org/name", "unet").local_folder() == str(snapshot / "unet")
    with pytest.raises(UserError, match="no folder 'lora'"):
        Weights("org/name", "lora").local_folder()


def test_a_folder_of_that_name_goes_before_the_hub(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "org" / "name")
    assert Weights("org/name").fingerprint().startswith("sha256:")
    assert Weights("org/name").commit() is None


@pytest.mark.parametrize("damage", [b"", b"not a commit", b"\xff"])
def test_an_unknown_commit_without_a_network(cached: Path, damage: bytes) -> None:
    (cached / "refs" / "main").write_bytes(damage)
    for weights in (Weights("org/name"), Weights("org/other")):
        with pytest.raises(
            UserError, match=f"{weights.location}.*hb-tta download {weights.location}"
        ):
            weights.fingerprint()


def test_missing_files_without_a_network(cached: Path) -> None:
    with pytest.raises(UserError, match="'org/name' are not all on this machine.*hb-tta download"):
        Weights("org/name", revision="v1").local_folder()


# ── A hub that answers ───────────────────────────────────────────────────────────────────────────

ASK = """
import json, sys
from hb_tta.errors import UserError
from hb_tta.weights import Weights
weights = Weights(*json.loads(sys.argv[1]))
assert "torch" not in sys.modules
try:
    print(json.dumps([getattr(weights, ask)() for ask in sys.argv[2:]]))
except UserError as error:
    print(json.dumps(str(error)))
"""


class Asked:
    """Asks ``Weights`` in a process that talks to a hub at ``endpoint``."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def __call__(self, weights: list[str | None], *asks: str, offline: bool = False) -> Any:
        environment = {**self._environment, "HF_HUB_OFFLINE": str(int(offline))}
        command = [sys.executable, "-c", ASK, json.dumps(weights), *asks]
        ran = subprocess.run(command, env=environment, capture_output=True, check=True)
        return json.loads(ran.stdout.splitlines()[-1])


HUB_FILES = {
    ".gitattributes": b"*.safetensors filter=lfs",
    "README.md": b"# a card",
    "model.safetensors": b"weights",
    "model.fp16.safetensors": b"weights, shorter",
    "pytorch_model.bin": b"a pickle",
    "config.json": b"{}",
    "lora/adapter_config.json": b"{}",
    "lora/adapter_model.safetensors": b"adapter",
}


def test_what_is_asked_of_the_hub_once_is_known_without_it(tmp_path: Path) -> None:
    with TinyHub("org/name", HUB_FILES).running() as hub:
        ask = Asked(tmp_path, hub.endpoint)
        commit = hub.commit
        assert ask(["org/name", "lora"], "fingerprint") == [f"hub:{commit}/lora"]
        assert set(hub.served) <= {".gitattributes"}  # no weights for a name
    assert ask(["org/name"], "fingerprint", offline=True) == [f"hub:{commit}"]


def test_what_is_not_here_is_asked_for_in_the_words_of_a_person(tmp_path: Path) -> None:
    with TinyHub("org/name", HUB_FILES).running() as hub:
        endpoint = hub.endpoint
    said = Asked(tmp_path / "new", endpoint)(["org/name"], "fingerprint", offline=True)
    assert "`hb-tta download` for all" in said and "`hb-tta download org/name`" in said
    assert "LocalEntryNotFound" not in said


def test_weights_are_fetched_without_pickles_and_duplicates(tmp_path: Path) -> None:
    with TinyHub("org/name", HUB_FILES).running() as hub:
        ask = Asked(tmp_path, hub.endpoint)
        (lora,) = ask(["org/name", "lora"], "local_folder")
        assert sorted(os.listdir(lora)) == ["adapter_config.json", "adapter_model.safetensors"]
        assert Path(lora, "adapter_model.safetensors").read_bytes() == b"adapter"
        assert "model.safetensors" not in hub.served
        ask(["org/name"], "local_folder")
    (folder,) = ask(["org/name"], "local_folder", offline=True)
    assert Path(folder, "model.safetensors").read_bytes() == b"weights"
    left_out = {"pytorch_model.bin", "model.fp16.safetensors", "README.md"}
    assert not left_out & (set(hub.served) | set(os.listdir(folder)))


def test_a_hub_that_moves_on_changes_nothing_here(tmp_path: Path) -> None:
    """Weights and fingerprint stay those of one commit until the person fetches the new one."""
    with TinyHub("org/name", HUB_FILES).running() as hub:
        ask = Asked(tmp_path, hub.endpoint)
        before = ask(["org/name"], "fingerprint", "local_folder")
        hub.files["model.safetensors"] = b"retrained"
        assert hub.commit not in before[0]
        assert ask(["org/name"], "fingerprint", "local_folder") == before
        assert Path(before[1], "model.safetensors").read_bytes() == b"weights"


def test_what_the_hub_does_not_have(tmp_path: Path) -> None:
    with TinyHub("org/name", HUB_FILES).running() as hub:
        ask = Asked(tmp_path, hub.endpoint)
        for question in ("fingerprint", "local_folder"):
            assert "shows no model 'org/other'" in ask(["org/other"], question)
            assert "has no revision 'v9'" in ask(["org/name", None, "v9"], question)
        assert "no folder 'nothing'" in ask(["org/name", "nothing"], "local_folder")
    for question in ("fingerprint", "local_folder"):  # nobody listens there any more
        assert "the hub cannot be reached" in Asked(tmp_path / "new", hub.endpoint)(
            ["org/name"], question
        )
