"""Views as PNG and as WebP: what is in them, where they lie, what they are called."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from augmenting import picture, pixels
from PIL import Image

from hb_tta import Augmenter, MultimodalContext
from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.settings import ViewSettings
from hb_tta.store import Store
from hb_tta.views.encode import encoded, read_format


def views(store: Path, format: str, method: str = "jitter"):
    augmenter = Augmenter.from_pretrained(method, family="pocket", store=store, format=format)
    return augmenter.augment([MultimodalContext(picture(1), "")], n=2)[0]


def test_without_loss_the_pixels_are_pngs(tmp_path):
    png, webp = views(tmp_path, "png"), views(tmp_path, "webp")
    assert (pixels(png.views) == pixels(webp.views)).all()
    assert sum(map(len, webp.files)) < sum(map(len, png.files))
    assert set(png.keys).isdisjoint(webp.keys)  # a setting of the spec
    assert "format" not in png.spec["generator"] and webp.spec["generator"]["format"] == "webp"


def test_a_quality_is_a_spec_of_its_own_and_shows_what_the_file_shows(tmp_path):
    low, high = views(tmp_path, "webp:20"), views(tmp_path, "webp:95")
    exact = pixels(views(tmp_path, "png").views)
    off = [np.abs(pixels(each.views) - exact).mean() for each in (low, high)]
    assert off[0] > off[1] > 0
    assert len({*low.keys, *high.keys}) == 4
    again = views(tmp_path, "webp:20")
    assert again.files == low.files  # from the store, bytes and all


def test_the_store_names_a_file_by_what_is_in_it(tmp_path):
    views(tmp_path, "png"), views(tmp_path, "webp"), views(tmp_path, "webp:50")
    store = Store(tmp_path)
    suffixes = sorted(entry.path.suffix for entry in store.entries())
    assert suffixes == [".png", ".png", ".webp", ".webp", ".webp", ".webp"]
    assert store.verify() == [] and store.info().namespaces["views"].files == 6
    for entry in store.entries():
        assert store.has("views", entry.key)
        with Image.open(entry.path) as image:  # what describes it, behind, disturbs no reader
            image.load()
            assert image.format == entry.path.suffix[1:].upper()
    webp = next(entry for entry in store.entries() if entry.path.suffix == ".webp")
    webp.path.write_bytes(webp.path.read_bytes()[:-3])
    with pytest.warns(match="damaged"):
        assert store.read("views", webp.key) is None
    assert not store.has("views", webp.key) and store.info().set_aside.files == 1


def test_the_command_writes_webp_and_tidies_up_either(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    picture(1).save("a.png")
    asked = ["augment", "a.png", "--method", "jitter", "-n", "1", "--out", "out"]
    assert main([*asked, "--format", "webp:80"]) == 0
    (file,) = (tmp_path / "out/views").iterdir()
    assert file.suffix == ".webp" and Image.open(io.BytesIO(file.read_bytes())).format == "WEBP"
    assert file.name in (tmp_path / "out/index.html").read_text()
    assert main(asked) == 0
    assert [path.suffix for path in (tmp_path / "out/views").iterdir()] == [".png"]
    with pytest.raises(SystemExit):
        main([*asked, "--format", "webp:0"])
    assert "use png, webp (without loss) or webp:QUALITY, 1 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["webp:101", "webp:", "webp:x", "jpeg", "", None, 3, "png:5"])
def test_what_is_no_format(value):
    for read in (read_format, lambda it: ViewSettings("jitter", format=it)):
        with pytest.raises(UserError, match=r"is not known: use png, webp"):
            read(value)


def test_one_spelling(tmp_path):
    assert ViewSettings.parse("jitter", "format=webp:080").format == "webp:80"
    settings = ViewSettings("jitter", family="pocket", format="webp")
    assert ViewSettings.from_json(settings.to_json()) == settings
    assert encoded(picture(1), "webp")[8:12] == b"WEBP"
