"""What runs in a cluster's actors, without a cluster; and what the command line says of one."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from augmenting import picture

from hb_tta import Augmenter, MultimodalContext
from hb_tta.cli import main
from hb_tta.cluster import Asked, Job, Place, Pool, Pools
from hb_tta.cluster.actors import Describer, Generator
from hb_tta.cluster.rows import FAILURE, KEY, contexts_of, table_of
from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.images import PixelDigests
from hb_tta.settings import ViewSettings
from hb_tta.spelling import Unfit
from hb_tta.store import Store

SETTINGS = {"family": "pocket", "n": 2}


def job_of(store: Path, **changed) -> Job:
    asked = {**SETTINGS, "store": str(store), **changed}
    return Job.of("jitter", asked, "vqa", ViewSettings.of("jitter", asked).augmenter())


def images(folder: Path, count: int) -> list[Any]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    return [PixelDigests().known(path) for path in paths]


def asked_of(found: Sequence[Any]) -> list[Asked]:
    return [
        Asked(f"{number:064x}", DescribedContext(image, None, "Is it red?", "vqa"))
        for number, image in enumerate(found)
    ]


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_context_comes_out_of_a_row_as_it_went_in(tmp_path):
    (known,) = images(tmp_path, 1)
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    contexts = [
        DescribedContext(known, None, "Is there a “dog”?\n", "vqa"),
        DescribedContext(file.getvalue(), "a red dog", "person | ride | bicycle", "hoi"),
    ]
    table = table_of(Asked(f"{i:064x}", one) for i, one in enumerate(contexts))
    assert contexts_of(table.to_pylist()) == contexts
    assert table[KEY].to_pylist() == ["0" * 64, f"{1:064x}"]
    assert table[FAILURE].to_pylist() == [None, None]


# ── Pools ────────────────────────────────────────────────────────────────────────────────────────


def test_a_pool_as_it_is_written():
    assert Pool.parse("4") == Pool(4, 1.0, 4)
    assert Pool.parse("4:0.5") == Pool(4, 0.5, 4) and Pool.parse("4:.5").each == 0.5
    for wrong in ("", "-1", "4:0", "4:", "x", "4:0.5:1", "1e3", "٣"):
        with pytest.raises(Unfit, match="N:SHARE"):
            Pool.parse(wrong)


def test_pools_fill_what_there_is_and_no_describer_stands_by_idle():
    eight = {"GPU": 8.0, "CPU": 64.0}
    assert Pools().on(eight, gpus=True, describes=True) == (Pool(8), Pool(8))
    assert Pools().on(eight, gpus=True, describes=False) == (Pool(8), None)
    assert Pools().on(eight, gpus=False, describes=False) == (Pool(62), None)
    one = {"GPU": 1.0, "CPU": 8.0}  # both cannot be there at once: one does both
    assert Pools().on(one, gpus=True, describes=True) == (Pool(1), None)
    halves = Pools(Pool.parse("1:0.5"), Pool.parse("1:0.5"))
    assert halves.on(one, gpus=True, describes=True) == tuple(halves)


def test_actors_that_do_not_fit_are_told_before_ray_waits_for_ever():
    asked = Pools(Pool.parse("2"), Pool.parse("1"))
    with pytest.raises(UserError, match="need 3 and the cluster has 2 GPUs: ask for fewer"):
        asked.on({"GPU": 2.0, "CPU": 8.0}, gpus=True, describes=True)
    with pytest.raises(UserError, match="need 3 and the cluster has 2 processors beside the 2"):
        asked.on({"CPU": 4.0}, gpus=False, describes=True)


# ── Actors ───────────────────────────────────────────────────────────────────────────────────────


def test_an_actor_makes_what_an_augmenter_on_its_store_finds(tmp_path):
    found = images(tmp_path / "images", 3)
    job = pickle.loads(pickle.dumps(job_of(tmp_path / "store")))
    batch = Generator(job)(table_of(asked_of(found)))
    assert batch[FAILURE].to_pylist() == [None] * 3
    contexts = [one.context for one in asked_of(found)]
    here = Augmenter.from_pretrained("jitter", family="pocket", store=tmp_path / "store")
    assert not here.lacks(contexts, 2)
    assert len(list(Store(tmp_path / "store").entries("views"))) == 6


def test_an_actor_says_which_row_failed_and_does_the_others(tmp_path):
    found = images(tmp_path / "images", 4)
    picture(9).save(found[1].path)
    found[2].path.unlink()
    job = job_of(tmp_path / "store")
    batch = Generator(job)(table_of(asked_of(found)))
    failures = batch[FAILURE].to_pylist()
    assert [bool(one) for one in failures] == [False, True, True, False]
    assert "changed while it was in work" in failures[1] and "there is no image" in failures[2]
    picture(1).save(found[1].path)  # what failed in one stage is left alone by the next
    assert Describer(job)(batch)[FAILURE].to_pylist() == failures
    assert Generator(job)(batch)[FAILURE].to_pylist() == failures
    assert len(list(Store(tmp_path / "store").entries("views"))) == 4


def test_an_actor_with_other_models_or_another_version_refuses(tmp_path):
    table = table_of(asked_of(images(tmp_path / "images", 1)))
    job = job_of(tmp_path / "store")
    other = Job(job.method, job.asked, job.task, {**job.spec, "x": 1}, job.folder)
    with pytest.raises(UserError, match="are not those that the work was planned with"):
        Generator(other)(table)
    old = Job(job.method, job.asked, job.task, job.spec, job.folder, version="0.0.1")
    with pytest.raises(UserError, match=r"planned by 0\.0\.1: install one version"):
        Generator(old)(table)


# ── A run's place ────────────────────────────────────────────────────────────────────────────────


def test_a_place_reads_what_failed_and_no_store_takes_it_for_entries(tmp_path):
    import pyarrow.parquet as parquet

    store = Store(tmp_path / "store")
    store.put("views", "0" * 64, b"view", {})
    place = Place(store, "0123456789abcdef")
    assert not place.begun and place.failures() == {}
    Path(place.done).mkdir(parents=True)
    rows = table_of(asked_of(images(tmp_path / "images", 2))).to_pylist()
    rows[1][FAILURE] = "it is odd"
    parquet.write_table(table_of([]).from_pylist(rows), Path(place.done, "0.parquet"))
    assert place.failures() == {rows[1][KEY]: "it is odd"}
    assert store.info().namespaces["views"].files == 1 and store.verify() == []
    place.remove()
    assert not Path(place.done).exists() and store.read("views", "0" * 64)


def test_an_address_that_is_asked_nothing_is_no_place(tmp_path, monkeypatch):
    from hb_tta.store import TieredStore

    monkeypatch.setenv("HB_TTA_STORE_OFFLINE", "1")
    with pytest.raises(UserError, match="HB_TTA_STORE_OFFLINE is set"):
        Place(TieredStore(f"file://{tmp_path}/far", tmp_path / "cache"), "0123456789abcdef")


# ── What lacks ───────────────────────────────────────────────────────────────────────────────────


def test_contexts_that_need_the_same_have_one_key_and_others_another(tmp_path):
    one, two = images(tmp_path / "images", 2)
    augmenter = Augmenter.from_pretrained("jitter", family="pocket", store=tmp_path / "store")
    contexts = [
        MultimodalContext(one, "Is it red?"),
        MultimodalContext(one, "Is it blue?"),  # the method reads no question
        MultimodalContext(two, "Is it red?"),
    ]
    keys = [key for _, key in augmenter.lacking(contexts, 2)]
    assert keys[0] == keys[1] != keys[2]
    others = augmenter.lacking(contexts[:1], 3), augmenter.lacking(contexts[:1], 2, seed=1)
    assert len({keys[0], *(key for other in others for _, key in other)}) == 3
    augmenter.make(contexts[:1], 2)
    assert [key is None for _, key in augmenter.lacking(contexts, 2)] == [True, True, False]


# ── The command line ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("option", ["--address=auto", "--generators=2", "--describers=1:0.5"])
def test_options_of_a_cluster_need_one(option, tmp_path, capsys):
    picture(0).save(tmp_path / "a.png")
    assert main(["augment", str(tmp_path / "a.png"), option, f"--out={tmp_path}/out"]) == 1
    assert f"{option.split('=')[0]} is for --engine ray" in capsys.readouterr().err


def test_options_that_no_cluster_can_do(tmp_path, capsys):
    picture(0).save(tmp_path / "a.png")
    command = ["augment", str(tmp_path / "a.png"), "--engine=ray", f"--out={tmp_path}/out"]
    assert main([*command, "--generators=0"]) == 1
    assert "--generators 0 makes no views" in capsys.readouterr().err
    assert main([*command, "--dry-run"]) == 1
    assert "leave out --engine ray" in capsys.readouterr().err


def test_what_is_there_needs_no_cluster_and_what_lacks_says_that_ray_is_missing(tmp_path, capsys):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", "question": "Red?"}))
    command = ["augment", str(tmp_path / "rows.jsonl"), "--method=jitter", "--family=pocket"]
    command += [f"--store={tmp_path}/store", f"--out={tmp_path}/out", "-n2"]
    if importlib.util.find_spec("ray") is None:
        assert main([*command, "--engine=ray"]) == 1
        assert "pip install 'hb-tta[ray]'" in capsys.readouterr().err
    assert main(command) == 0
    assert main([*command, "--engine=ray", "--address=192.0.2.1:1"]) == 0  # nobody is there


def test_a_cluster_may_have_a_device_that_is_not_here(tmp_path, no_gpu, capsys):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", "question": "Red?"}))
    command = ["augment", str(tmp_path / "rows.jsonl"), "--method=jitter", "--family=pocket"]
    command += [f"--store={tmp_path}/store", f"--out={tmp_path}/out", "-n2"]
    assert main([*command, "--device=cuda"]) == 1
    assert "device 'cuda' is not to be had" in capsys.readouterr().err
    assert main(command) == 0  # what the cluster would make
    assert main([*command, "--engine=ray", "--address=192.0.2.1:1", "--device=cuda"]) == 0
    with pytest.raises(UserError, match="device 'cuda' is not to be had"):
        augmenter = ViewSettings.of("jitter", {"family": "pocket", "device": "cuda"}).augmenter()
        augmenter.augment([MultimodalContext(picture(1), "Red?")])


def test_an_address_where_nobody_is_is_told_at_once():
    from hb_tta.cluster import pipeline

    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"):
        with pytest.raises(OSError):
            pipeline._knock(address)
    for address in (None, "auto", "local"):  # Ray finds those itself
        pipeline._knock(address)
