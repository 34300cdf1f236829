"""A store at an address, on file:// — what a real S3 server adds is in test_s3.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.store import NewEntry, Store, content_key, open_store
from hb_tta.store import tiered as tiers
from hb_tta.store.remote import Unreachable
from hb_tta.store.tiered import TieredStore

KEYS = [content_key({"i": i}) for i in range(5)]
ENTRIES = [NewEntry(key, key[:9].encode(), {"i": key[:3]}) for key in KEYS]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HB_TTA_STORE_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr(tiers, "ALIVE_SECONDS", 0.0)
    monkeypatch.setattr("hb_tta.store.remote.PAUSE", 0.0)
    (tmp_path / "far").mkdir()
    return f"file://{tmp_path / 'far'}"


def test_what_lies_there_is_a_store(place, tmp_path):
    store = open_store(place)
    assert isinstance(store, TieredStore)
    store.put_group("views", ENTRIES)
    there = Store(tmp_path / "far")
    assert there.verify() == [] and [e.key for e in there.entries()] == sorted(KEYS)
    other = TieredStore(place, tmp_path / "other")
    assert other.lacks("views", [*KEYS, content_key({})]) == {content_key({}): None}
    other.fetch("views", KEYS)
    shutil.rmtree(tmp_path / "far")
    assert [other.read("views", e.key) for e in ENTRIES] == [(e.payload, e.meta) for e in ENTRIES]
    with pytest.raises(UserError, match="no store at .* any more|does not answer"):
        other.read("views", content_key({}))


def test_nobody_is_asked_offline_and_what_is_made_waits(place, monkeypatch, capsys):
    monkeypatch.setenv("HB_TTA_STORE_OFFLINE", "1")
    with pytest.warns(match="does not take what is made .*OFFLINE"):
        open_store(place).put_group("views", ENTRIES)
    assert open_store(place).read("views", KEYS[0]) is not None
    assert main(["store", "sync", "--store", place]) == 1
    assert "0 entries sent, 5 still waiting" in capsys.readouterr().out
    with pytest.raises(UserError, match="5 entries are here alone"):
        open_store(place).prune(max_bytes=0)
    monkeypatch.delenv("HB_TTA_STORE_OFFLINE")
    assert main(["store", "sync", "--store", place]) == 0
    assert "5 entries sent, 0 still waiting" in capsys.readouterr().out
    assert main(["store", "info", "--store", place]) == 0
    assert "5 files" in capsys.readouterr().out
    assert open_store(place).prune(max_bytes=0).entries.files == 5  # here, not there
    assert open_store(place).read("views", KEYS[0]) is not None


def test_damage_there_counts_as_missing(place, tmp_path):
    open_store(place).put_group("views", ENTRIES)
    file = next((tmp_path / "far/views").glob("*/*"))
    file.write_bytes(file.read_bytes()[:-1])
    other = TieredStore(place, tmp_path / "other")
    assert [damage.key for damage in other.verify()] == [file.stem]
    with pytest.warns(match="is damaged .* counts as missing"):
        assert other.read("views", file.stem) is None


def test_a_request_is_tried_again_and_then_told(place, tmp_path, monkeypatch):
    store = TieredStore(place, tmp_path / "one")
    store.put_group("views", ENTRIES)
    system, root = store._asked().system
    real, asked = system.cat_file, []

    def flaky(path, **more):
        asked.append(path)
        if len(asked) % 3:
            raise TimeoutError("it took too long")
        return real(path, **more)

    monkeypatch.setattr(system, "cat_file", flaky)
    assert store._asked().get([f"views/{KEYS[0][:2]}/{KEYS[0]}.png"])
    monkeypatch.setattr(system, "cat_file", lambda path: 1 / 0)
    with pytest.raises(Unreachable, match="division"):
        store._asked().get([".hb-tta-store"])
    with pytest.raises(UserError, match="does not answer .division by zero.*OFFLINE=1"):
        store.read("views", content_key({}))


@pytest.mark.parametrize("address", ["nowhere://x/y", "://", "s4://b"])
def test_what_is_no_address(address):
    with pytest.raises(UserError, match="address|opened"):
        open_store(address)


def test_a_folder_has_nothing_to_send(tmp_path, capsys):
    assert main(["store", "sync", "--store", str(tmp_path)]) == 1
    assert "is a folder, from which nothing is sent" in capsys.readouterr().err


def test_room_is_made_by_use_without_all_entries_in_memory(tmp_path):
    import os

    store = Store(tmp_path)
    store.put_group("views", ENTRIES)
    files = sorted(store.entries(), key=lambda entry: entry.key)
    for age, entry in enumerate(files):
        os.utime(entry.path, (1000 + age // 2, 1000 + age // 2))  # two of each time
    size = files[0].size
    assert store.prune(max_bytes=3 * size).entries.files == 2
    assert [e.key for e in store.entries()] == [e.key for e in files[2:]]
    assert store.prune(max_bytes=2 * size).entries.files == 1  # one of two of that time
    assert store.prune(max_bytes=2 * size).entries.files == 0
    assert store.prune(older_than=0.0, max_bytes=10**9).entries.files == 2
