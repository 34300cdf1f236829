"""Folders that are no store, links out of one, entries that are whole and odd."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
from fuzz.commands import told_by

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.store import NewEntry, Store, content_key
from hb_tta.store.entries import _footer
from hb_tta.store.layout import MARK

KEY, OTHER = content_key({"a": 1}), content_key({"a": 2})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.put_group("views", [NewEntry(KEY, b"png", {"seed": 1})])
    return store


FOREIGN = {
    "restic": f"data/{KEY[:2]}/{KEY}",
    "bazel": f"cas/{KEY[:2]}/{KEY}",
    "look-alike": f"views/{KEY[:2]}/{KEY}.png",
}


@pytest.mark.parametrize("path", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("action", ["info", "verify", "prune"])
def test_another_tools_folder_is_refused(tmp_path, path, action):
    file = tmp_path / "theirs" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"dear")
    limits = ["--older-than", "0", "--max-gb", "0", "--verify"] if action == "prune" else []
    with pytest.raises(UserError, match="is no store of hb-tta, it has no file .hb-tta-store"):
        told_by(["store", action, "--store", str(tmp_path / "theirs"), *limits])
    assert file.read_bytes() == b"dear"


@pytest.mark.parametrize(
    "path",
    [
        f"data/{KEY[:2]}/{KEY}",  # another namespace
        f"views/{KEY[:2]}/{OTHER}",  # without the ending of views
        f"views/{KEY[:2]}/{KEY}.txt",
        f"views/zz/{KEY}.png",
        f"descriptions/{KEY[:2]}/notes.json",
        f".damaged/data/{KEY}",
    ],
)
def test_in_a_store_only_its_own_files_are_touched(store, path):
    file = store.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"dear")
    removed = store.prune(older_than=0, max_bytes=0, verify=True)
    assert file.read_bytes() == b"dear"
    assert removed.entries.files == 1 and removed.damaged.files == 0


@pytest.mark.parametrize("link", ["namespace", "shard", "entry", "aside"])
def test_no_link_is_followed_out_of_it(store, tmp_path, link):
    outside = tmp_path / "outside" / OTHER[:2]
    outside.mkdir(parents=True)
    dear = outside / f"{OTHER}.json"
    dear.write_bytes(b"dear")
    places = {
        "namespace": (store.root / "descriptions", outside.parent),
        "shard": (store.root / "descriptions" / OTHER[:2], outside),
        "entry": (store.root / "descriptions" / OTHER[:2] / dear.name, dear),
        "aside": (store.root / ".damaged" / "descriptions", outside),
    }
    place, target = places[link]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    assert "descriptions" not in store.info().namespaces
    store.prune(older_than=0, max_bytes=0, verify=True)
    assert dear.read_bytes() == b"dear"


def test_the_first_entry_makes_the_mark_and_an_empty_folder_needs_none(tmp_path):
    (tmp_path / "store").mkdir()
    store = Store(tmp_path / "store")
    assert store.info().namespaces == {}
    store.put("features", KEY, b"", {})
    assert (store.root / MARK).read_bytes() == b""
    (store.root / MARK).unlink()
    with pytest.raises(UserError, match="no store"):
        store.verify()
    store.put("features", OTHER, b"", {})  # an older version's store, used again
    assert store.verify() == []


@pytest.mark.parametrize(
    "manifest",
    [
        b"[]",
        b"null",
        b'{"namespace": "views"}',
        b'{"namespace": "views", "key": "KEY"}',
        b'{"namespace": "views", "key": "KEY", "meta": []}',
        b'{"namespace": "views", "key": "KEY", "meta": "NUMBER"}',
        b"DEEP",
        b"\xff",
        b"",
    ],
)
def test_a_whole_entry_with_an_odd_manifest_is_damaged(store, manifest):
    [entry] = store.entries()
    text = manifest.replace(b"KEY", KEY.encode()).replace(b'"NUMBER"', b"9" * 5000)
    body = b"png\n" + text.replace(b"DEEP", b"[" * 100_000)
    entry.path.write_bytes(body + _footer(body, 3))
    assert len(store.verify()) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HbTtaWarning)
        assert store.read("views", KEY) is None
    assert "is damaged" in str(caught[0].message)
    assert store.prune(verify=True).damaged.files == 1


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"description": 3}', b"{}", b"[" * 9999])
def test_a_description_that_is_none_is_written_again(tmp_path, payload):
    from hb_tta.views.make import _text_in

    assert _text_in(payload) is None
    assert _text_in(json.dumps({"description": "a circle"}).encode()) == "a circle"


def test_a_mark_that_is_a_link_or_a_folder_is_none(store):
    (store.root / MARK).unlink()
    os.symlink("/dev/null", store.root / MARK)
    with pytest.raises(UserError, match="no store"):
        store.info()
