"""What the machine does: no network, no memory, times that prove nothing, another batch."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hb_tta import Augmenter, MultimodalContext, network
from hb_tta.cli import NO_MEMORY, main
from hb_tta.device import enough_memory, is_out_of_memory
from hb_tta.errors import UserError
from hb_tta.file_index import FileIndex, file_digest
from hb_tta.generators.reading import reading
from hb_tta.settings import ViewSettings
from hb_tta.weights import Weights

pytest_plugins = ["augmenting"]
QUICK = ("--method", "randaugment", "--family", "pocket")

# ── Times ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def large(tmp_path, monkeypatch) -> Path:
    """A file that counts as large and old."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(FileIndex, "_FRESH_NS", 0)
    monkeypatch.setattr(FileIndex, "_SMALL", 3)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"weights 1")
    return path


def normalised(monkeypatch: pytest.MonkeyPatch, times: dict[str, int], flags: int = 0) -> None:
    """A file system whose files all have these times, as an image has that was built to repeat."""
    real = os.stat

    class Status:
        def __init__(self, found: os.stat_result) -> None:
            self._found = found

        def __getattr__(self, name: str) -> Any:
            return times[name] if name in times else getattr(self._found, name)

    monkeypatch.setattr(Path, "stat", lambda self, **how: Status(real(self, **how)))
    status = os.statvfs("/")
    fields = [*status[:8], status.f_flag & ~os.ST_RDONLY | flags, status[9]]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))


SECOND = 1_000_000_000
BUILT = {"st_mtime_ns": 0, "st_ctime_ns": 0}
DATED = {"st_mtime_ns": 1_700_000_000 * SECOND, "st_ctime_ns": 1_700_000_000 * SECOND}
MOUNTED = {"st_mtime_ns": 123_456_789_123, "st_ctime_ns": 123_456_789_123}


@pytest.mark.parametrize(
    ("times", "flags"),
    [(BUILT, 0), (DATED, 0), (MOUNTED, os.ST_RDONLY)],
    ids=["epoch", "whole second", "read only"],
)
def test_other_weights_under_the_same_made_up_times(large, monkeypatch, times, flags):
    normalised(monkeypatch, times, flags)
    digests = []
    for content in (b"weights 1", b"weights 2"):
        large.write_bytes(content)
        index = FileIndex("index.json")
        digests.append(index.digest(large))
        index.save()
    assert digests[0] != digests[1] == file_digest(large)


def test_times_of_a_kernel_are_believed(large, monkeypatch):
    index = FileIndex("index.json")
    known = index.digest(large)
    index.save()
    monkeypatch.setattr("hashlib.file_digest", None)  # nobody may hash it again
    assert FileIndex("index.json").digest(large) == known


def test_a_small_file_is_read_each_time_whatever_its_times(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(FileIndex, "_FRESH_NS", 0)
    path = tmp_path / "config.json"
    normalised(monkeypatch, MOUNTED)
    digests = set()
    for content in (b"1", b"2", b"3"):
        path.write_bytes(content)
        index = FileIndex("index.json")
        digests.add(index.digest(path))
        index.save()
    assert len(digests) == 3


# ── Memory ───────────────────────────────────────────────────────────────────────────────────────

SHORT = [
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_memory_that_is_short_is_named(error, monkeypatch, capsys):
    assert is_out_of_memory(error)
    with pytest.raises(UserError, match="8 views do not fit into memory: take fewer"):
        with enough_memory("8 views", "take fewer"):
            raise error
    with pytest.raises(UserError, match="the weights 'a/b' do not fit into memory"):
        with reading(Weights("a/b"), "a pipeline"):
            raise error

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("hb_tta.cli.store.run", fail)
    assert main(["store", "info"]) == 1
    assert capsys.readouterr().err == f"hb-tta: {NO_MEMORY}\n"


@pytest.mark.parametrize("error", [RuntimeError("shape"), OSError(2, "none"), ValueError("x")])
def test_what_has_nothing_to_do_with_memory_stays_itself(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        with enough_memory("8 views", "take fewer"):
            raise error


@pytest.mark.parametrize("number", ["1000000000", "10001", "9" * 5000, "1e9"])
def test_more_views_than_anybody_needs_are_refused_at_the_door(tmp_path, number, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    started = time.monotonic()
    with pytest.raises(SystemExit):
        main(["augment", str(tmp_path / "a.png"), *QUICK, "-n", number])
    with pytest.raises(UserError, match="whole number of at least 1 and at most 10000"):
        ViewSettings.parse("randaugment", f"family=pocket,n={number}")
    assert time.monotonic() - started < 5
    assert "at most 10000" in capsys.readouterr().err


# ── Network ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def silent():
    """An endpoint that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


COMMANDS = {
    "augment": ["augment", "a.png"],
    "train": ["train", "--recipe", "paper-vqa", "--out", "run"],
    "tpt": ["tpt", "--task", "pocket_objects", "--clip", "org/name"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_network_that_leads_nowhere_is_told_in_seconds(tmp_path, silent, command):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    own = {"HF_ENDPOINT": silent, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "hb_tta.cli", *COMMANDS[command]],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )
    # Of which up to 3.5 s of waiting; the rest is for a busy machine to start Python.
    assert time.monotonic() - started < 20
    assert done.returncode == 1
    assert done.stderr.startswith("hb-tta: the weights ")
    assert done.stderr.count("\n") == 1 and "the hub cannot be reached" in done.stderr


def test_the_question_is_asked_once(silent, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", silent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "SECONDS", 0.2)
    monkeypatch.setattr(network, "_asked", {})
    assert not network.hub_answers()
    started = time.monotonic()
    assert not network.hub_answers()
    assert time.monotonic() - started < 0.1
    from huggingface_hub import constants

    with network.at_once():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE and socket.getdefaulttimeout() is None


def test_a_data_set_of_the_hub_is_refused_before_it_is_waited_for(monkeypatch):
    from hb_tta.datasets import hub

    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    with pytest.raises(UserError, match="lie on the hub, which cannot be reached"):
        hub.load_rows("org/name", None, None, "train")


# ── Batches ──────────────────────────────────────────────────────────────────────────────────────


def context(number: int) -> MultimodalContext:
    from augmenting import picture

    return MultimodalContext(picture(number), f"Is there a {number}?")


def made(make_augmenter: Any, tmp_path: Path, numbers: list[int], **how: Any) -> dict[int, Any]:
    """Context → its views' bytes, out of a store of their own."""
    augmenter: Augmenter = make_augmenter(fresh=True, store=False, device="cpu", **how)
    found = augmenter.augment([context(number) for number in numbers], n=3)
    return {number: views.files for number, views in zip(numbers, found, strict=True)}


def test_deterministic_views_are_made_one_at_a_time_on_one_thread(make_augmenter, monkeypatch):
    import torch

    from hb_tta.generators.pipeline import PipelineGenerator

    seen = []
    generate = PipelineGenerator.generate

    def watched(self, contexts, seeds, **how):
        seen.append((len(contexts), [len(its) for its in seeds], torch.get_num_threads()))
        return generate(self, contexts, seeds, **how)

    monkeypatch.setattr(PipelineGenerator, "generate", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        made(make_augmenter, Path(), [0, 1], deterministic=True, batch_size=8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, [1], 1)] * 6
    assert not torch.are_deterministic_algorithms_enabled()


def test_neighbours_threads_and_batch_size_move_no_byte(make_augmenter, tmp_path):
    import torch

    before = torch.get_num_threads()
    alone = made(make_augmenter, tmp_path, [1], deterministic=True)
    torch.set_num_threads(2)
    try:
        others = made(make_augmenter, tmp_path, [2, 1, 0], deterministic=True, batch_size=7)
    finally:
        torch.set_num_threads(before)
    assert alone[1] == others[1]


def test_the_setting_goes_through_every_door_and_has_keys_of_its_own(tmp_path):
    from hb_tta.cli import build_parser
    from hb_tta.cli.augment import view_settings
    from hb_tta.settings.augmented import AugmentSettings

    asked = ["augment", "a.png", *QUICK]
    plain = view_settings(build_parser().parse_args(asked))
    flagged = view_settings(build_parser().parse_args([*asked, "--deterministic"]))
    named = ViewSettings.parse("randaugment", "family=pocket,deterministic=true")
    harness = AugmentSettings.parse("randaugment", "family=pocket,deterministic=true").views
    assert flagged.deterministic and harness.deterministic and not plain.deterministic
    assert named == replace(harness, seeds="fixed")
    assert ViewSettings.from_json(named.to_json()) == named
    ours, theirs = named.augmenter(store=None).spec, plain.augmenter(store=None).spec
    assert ours["generator"] == {**theirs["generator"], "deterministic": True}
    assert named.digest(ours) != plain.digest(theirs)
