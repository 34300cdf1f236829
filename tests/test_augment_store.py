"""The augmenter and its store: nothing is made twice, nothing finished is lost."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from augmenting import (
    CONTEXTS,
    Make,
    augment_here,
    contents,
    finish,
    logged,
    picture,
    pixels,
    settings,
    start,
)

from hb_tta import UserError, progress
from hb_tta.store import Store

pytest_plugins = ["augmenting"]
# A model with random weights does not come to an end.
pytestmark = pytest.mark.filterwarnings("ignore:the description was too long")


def test_the_second_time_loads_no_torch_and_rewrites_nothing(
    tiny_mllm: Path, tmp_path: Path
) -> None:
    log, wanted = tmp_path / "log", settings(tiny_mllm, tmp_path)
    keys = augment_here(wanted)
    before = contents(Store(tmp_path / "store"))
    assert len(keys) == 16 and sorted(keys) == sorted(before)
    again = finish(start(tmp_path, log, wanted))
    assert again == {"keys": keys, "imported": []}
    assert logged(log) == [] and contents(Store(tmp_path / "store")) == before


def test_a_killed_process_loses_no_finished_view(tiny_mllm: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    process = start(tmp_path, log, settings(tiny_mllm, tmp_path, n=10, batch_size=1))
    while len(logged(log)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = contents(store)
    assert 3 <= len(finished) < 40
    assert store.verify() == []
    augment_here(settings(tiny_mllm, tmp_path, n=10, batch_size=7))
    after = contents(store)
    assert len(after) == 40 and {key: after[key] for key in finished} == finished


def test_two_processes_make_nothing_twice(tiny_mllm: Path, tmp_path: Path) -> None:
    log, wanted = tmp_path / "log", settings(tiny_mllm, tmp_path, n=6)
    backwards = {**wanted, "contexts": wanted["contexts"][::-1]}
    running = [start(tmp_path, log, each) for each in (wanted, backwards)]
    keys = [finish(process)["keys"] for process in running]
    assert sorted(keys[0]) == sorted(keys[1])
    assert sorted(logged(log)) == sorted(set(keys[0]))


def test_without_a_store_nothing_is_written(
    make_augmenter: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "default"))
    make_augmenter(store=False)(picture(0), "Is it?", n=1)
    assert not (tmp_path / "default").exists()
    make_augmenter(store=None)(picture(0), "Is it?", n=1)
    assert Store().root == tmp_path / "default"
    assert Store().info().namespaces["views"].files == 1


def test_a_damaged_view_is_made_again(make_augmenter: Make, tmp_path: Path) -> None:
    first = make_augmenter().augment(CONTEXTS[:2], n=2)
    entry = next(e for e in Store(tmp_path / "store").entries() if e.key == first[1].keys[1])
    data = bytearray(entry.path.read_bytes())
    data[50] ^= 1
    entry.path.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        second = make_augmenter().augment(CONTEXTS[:2], n=2)
    assert abs(pixels(second[1].views) - pixels(first[1].views)).max() <= 1
    assert second[0] == first[0]


def test_a_lost_description_is_written_again_and_its_views_are_found(
    make_augmenter: Make, tmp_path: Path
) -> None:
    (first,) = make_augmenter().augment(CONTEXTS[:1], n=1)
    shutil.rmtree(tmp_path / "store" / "descriptions")
    augmenter = make_augmenter(fresh=True)
    (again,) = augmenter.augment(CONTEXTS[:1], n=1)
    assert again == first and augmenter._models.loaded == ["describer"]
    (more,) = augmenter.augment(CONTEXTS[:1], n=2)
    assert more.description == first.description and more.keys[0] == first.keys[0]


def test_a_store_that_cannot_be_used_is_told_before_a_model_is_loaded(
    make_augmenter: Make, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    augmenter = make_augmenter(store=tmp_path / "file" / "store", fresh=True)
    with pytest.raises(UserError, match="file/store"):
        augmenter(picture(0), "Is it?")
    assert augmenter._models.loaded == []


def test_progress_is_shown_where_it_is_asked_for(
    make_augmenter: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    augmenter = make_augmenter("randaugment", batch_size=2)
    augmenter.augment(CONTEXTS, n=2)
    assert capsys.readouterr().err == ""  # no terminal, and done before the first line
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    augmenter.augment(CONTEXTS, n=2, seed=9, progress=True)
    told = capsys.readouterr().err
    assert "planning: 100%" in told and "generating:" in told and "/8" in told
