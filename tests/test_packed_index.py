"""Digests of very many things in one file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hb_tta import packed_index
from hb_tta.packed_index import PackedIndex


def digest(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def test_what_was_put_is_found_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = PackedIndex(path)
    assert index.get("1") is None and not path.exists()
    for number in range(300):
        index.put(str(number), digest(number))
    assert index.get("7") == digest(7)
    index.save()
    found = PackedIndex(path)
    assert [found.get(str(number)) for number in range(300)] == [digest(i) for i in range(300)]
    assert [found.get(str(number)) for number in range(300, 400)] == [None] * 100


def test_two_at_once_lose_nothing_of_each_other_and_the_last_word_counts(tmp_path: Path) -> None:
    one, two = PackedIndex(tmp_path / "index"), PackedIndex(tmp_path / "index")
    assert one.get("a") is None is two.get("a")
    one.put("a", digest(1))
    two.put("b", digest(2))
    one.save()
    two.put("a", digest(3))
    two.save()
    assert one.get("b") is None or one.get("b") == digest(2)
    both = PackedIndex(tmp_path / "index")
    assert (both.get("a"), both.get("b"), len(both)) == (digest(3), digest(2), 2)


def test_memory_and_the_file_have_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_index, "ADDED", 10)
    monkeypatch.setattr(packed_index, "MOST", 25)
    index = PackedIndex(tmp_path / "index")
    for number in range(35):
        index.put(str(number), digest(number))
        assert len(index._added) < 10 and len(index) <= 25
    index.save()
    assert index.get("34") == digest(34) and index.get("0") is None


@pytest.mark.parametrize("where", [0, 60, 80, 110, -1])
def test_a_damaged_record_or_file_is_as_if_it_were_not_there(tmp_path: Path, where: int) -> None:
    path = tmp_path / "index"
    index = PackedIndex(path)
    for number in range(20):
        index.put(str(number), digest(number))
    index.save()
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    hurt = PackedIndex(path)
    found = [hurt.get(str(number)) for number in range(20)]
    assert all(one in (None, digest(number)) for number, one in enumerate(found)) and None in found
    for number in range(20):
        hurt.put(str(number), digest(number))
    hurt.save()
    assert all(PackedIndex(path).get(str(number)) == digest(number) for number in range(20))


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 500])
def test_another_kind_of_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index").write_bytes(content)
    index = PackedIndex(tmp_path / "index")
    assert index.get("a") is None
    index.put("a", digest(1))
    index.save()
    assert PackedIndex(tmp_path / "index").get("a") == digest(1)


def test_a_place_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    index = PackedIndex(tmp_path / "file" / "index")
    index.put("a", digest(1))
    assert index.get("a") == digest(1)
    index.save()
    nowhere = PackedIndex(None)
    nowhere.put("a", digest(1))
    nowhere.save()
    assert nowhere.get("a") == digest(1)
