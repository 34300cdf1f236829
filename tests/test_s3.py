"""A store on a real S3 server of this host, and all that goes wrong between."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from augmenting import picture

pytest.importorskip("s3fs", reason="the extra s3 is not installed: see `make test-scale`")
pytest.importorskip("moto", reason="moto[server] is not installed: see `make test-scale`")

from s3_server import KEYS, Faults, s3_server

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.store import NewEntry, content_key
from hb_tta.store import tiered as tiers
from hb_tta.store.tiered import TieredStore

ADDRESS = "s3://views/set"


def entries(count: int, first: int = 0) -> list[NewEntry]:
    each = ((content_key({"i": i}), b"%d" % i * 500) for i in range(first, first + count))
    return [NewEntry(key, payload, {"i": payload[:8].decode()}) for key, payload in each]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faults]:
    import boto3

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as (url, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setattr(tiers, "ALIVE_SECONDS", 0.0)
        boto3.client("s3").create_bucket(Bucket="views")
        yield faults


def bucket():
    import boto3

    return boto3.resource("s3").Bucket("views")


def test_what_one_machine_makes_another_reads_and_keeps(server, tmp_path):
    one, two = TieredStore(ADDRESS, tmp_path / "one"), TieredStore(ADDRESS, tmp_path / "two")
    made = entries(12)
    assert list(one.lacks("views", [e.key for e in made])) == [e.key for e in made]
    one.put_group("views", made)
    assert two.lacks("views", [e.key for e in made]) == {}
    two.fetch("views", [e.key for e in made])
    server.share = 1.0  # nothing answers any more: what is here is used
    for entry in made:
        assert two.read("views", entry.key) == (entry.payload, dict(entry.meta))
    with pytest.raises(UserError, match="does not answer .* HB_TTA_STORE_OFFLINE=1"):
        two.read("views", content_key({"i": -1}))


def test_one_request_in_ten_fails_and_nothing_is_lost_or_wrong(server, tmp_path):
    server.share, made = 0.1, entries(30)
    one, two = TieredStore(ADDRESS, tmp_path / "one"), TieredStore(ADDRESS, tmp_path / "two")
    for start in range(0, 30, 10):
        one.put_group("views", made[start : start + 10])
    two.fetch("views", [entry.key for entry in made])
    assert server.failed >= 3 and one.sync().waiting == 0
    for entry in made:
        assert two.local.read("views", entry.key) == (entry.payload, dict(entry.meta))
    assert two.verify() == []


def test_uploads_that_fail_wait_and_go_later(server, tmp_path):
    made = entries(6)
    store = TieredStore(ADDRESS, tmp_path / "one")
    store.put_group("views", made[:2])
    server.share, server.kinds = 1.0, ("half",)
    server.only = lambda method, path: method == "PUT"
    with pytest.warns(match=f"{ADDRESS} does not take what is made .* waits in"):
        store.put_group("views", made[2:4])
    assert store.info().waiting == 2
    fresh = TieredStore(ADDRESS, tmp_path / "two")
    assert set(fresh.lacks("views", [e.key for e in made])) == {e.key for e in made[2:]}
    server.share = 0.0
    again = TieredStore(ADDRESS, tmp_path / "one")  # another process, later
    again.put_group("views", made[4:])
    assert again.info().waiting == 0
    assert TieredStore(ADDRESS, tmp_path / "three").lacks("views", [e.key for e in made]) == {}


def test_a_bucket_that_vanishes_is_told_and_what_was_made_stays(server, tmp_path):
    made = entries(4)
    store = TieredStore(ADDRESS, tmp_path / "one")
    store.put_group("views", made[:2])
    bucket().objects.delete()
    bucket().delete()
    with pytest.warns(match="does not take what is made"):
        store.put_group("views", made[2:])
    with pytest.raises(UserError, match=f"there is no store at {ADDRESS} any more"):
        store.read("views", content_key({"i": -1}))
    assert store.read("views", made[3].key) is not None and store._waiting.count() == 2
    with pytest.raises(UserError, match="are here alone"):
        store.prune(max_bytes=0)


def test_a_bucket_that_never_was(server, tmp_path):
    store = TieredStore("s3://nowhere/set", tmp_path / "one")
    with pytest.raises(UserError, match="s3://nowhere/set does not answer"):
        store.read("views", content_key({}))


def test_a_damaged_object_is_never_served(server, tmp_path):
    made = entries(3)
    store = TieredStore(ADDRESS, tmp_path / "one")
    store.put_group("views", made)
    whole = next(iter(bucket().objects.filter(Prefix=f"set/views/{made[0].key[:2]}/")))
    whole.put(Body=whole.get()["Body"].read()[:-9])
    other = TieredStore(ADDRESS, tmp_path / "two")
    assert [damage.key for damage in other.verify()] == [made[0].key]
    with pytest.warns(match="is damaged .* counts as missing"):
        assert other.read("views", made[0].key) is None
    other.put_group("views", made[:1])  # it was made again
    assert TieredStore(ADDRESS, tmp_path / "three").read("views", made[0].key) is not None


def test_a_full_disk_here_costs_nothing(server, tmp_path, monkeypatch):
    made = entries(3)
    full = TieredStore(ADDRESS, tmp_path / "one")

    def refuse(namespace, entries):
        raise UserError("the store is on a full disk")

    monkeypatch.setattr(full.local, "put_group", refuse)
    with pytest.warns(match="nothing more is kept on this machine"):
        full.put_group("views", made)
    assert full.read("views", made[1].key) == (made[1].payload, dict(made[1].meta))
    server.share, server.kinds = 1.0, ("error",)
    with pytest.raises(UserError, match="takes no more and .* takes nothing"):
        full.put_group("views", entries(1, first=9))


def test_four_parts_on_it_do_what_one_run_does(server, tmp_path, monkeypatch):
    """And the store may then be used with nobody to ask."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        picture(number).save(f"{number}.png")
    rows = [{"image": f"{n}.png", "question": "Is it?"} for n in range(6)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["augment", "rows.jsonl", "--method", "jitter", "-n", "2", "--store", ADDRESS]
    server.share = 0.05
    for number in (1, 2, 3, 4):  # machines of their own: each has its own cache
        monkeypatch.setenv("HB_TTA_STORE_CACHE", str(tmp_path / f"cache{number}"))
        assert main([*asked, "--out", "parts", "--shard", f"{number}/4"]) == 0
    shards = sorted((tmp_path / "parts").glob("manifest-*"))
    merged = [json.loads(line) for path in shards for line in path.read_bytes().splitlines()]
    server.share = 0.0
    monkeypatch.setenv("HB_TTA_STORE_CACHE", str(tmp_path / "fresh"))
    puts = []
    server.only = lambda method, path: puts.append(method)
    server.share = 1.0  # looks at every request; fails none
    assert main([*asked, "--out", "whole"]) == 0
    assert "PUT" not in puts and puts.count("GET") >= 12  # all of it was there
    whole = [json.loads(line) for line in open(tmp_path / "whole/manifest.jsonl", "rb")]
    assert sorted(merged, key=lambda line: line["index"]) == whole
    monkeypatch.setenv("HB_TTA_STORE_OFFLINE", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert main([*asked, "--out", "offline"]) == 0


def test_four_processes_at_once_harm_nothing(server, tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_s3 import ADDRESS, entries
from hb_tta.store.tiered import TieredStore
store = TieredStore(ADDRESS, sys.argv[1])
for start in range(0, 16, 8):
    store.put_group("views", entries(8, start))
assert store.sync().waiting == 0
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name)]) for name in "abcd"
    ]
    assert [process.wait(900) for process in running] == [0] * 4
    store = TieredStore(ADDRESS, tmp_path / "e")
    assert store.verify() == [] and store.info().namespaces["views"].files == 16
