"""Methods that change the image itself: no model, no description, any size, a seed a view."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augmenting import picture
from PIL import Image, ImageFilter

from hb_tta import Augmenter, MultimodalContext, UserError
from hb_tta.generators import ImageSpec, get_method

METHODS = ("jitter", "crops", "noise", "filter")
SIZES = [(64, 64), (1, 1), (1, 300), (301, 7), (640, 480)]


def views(method: str, image: Image.Image, seeds: list[int], **settings: Any) -> list[Image.Image]:
    return get_method(method)(**settings).load().generate([(image, None)], [seeds])[0]


def away(view: Image.Image, image: Image.Image) -> float:
    """The mean distance of a view's pixels from the image's, of 255."""
    return float(np.abs(np.asarray(view, int) - np.asarray(image, int)).mean())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_views_of_any_size_are_of_the_images_own(method, size):
    for view in views(method, picture(0, *size), [0, 2**64 - 1, -1]):
        assert (view.mode, view.size) == ("RGB", size)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_decides_its_view_alone(method):
    image = picture(0)
    before = image.tobytes()
    alone = {seed: views(method, image, [seed])[0].tobytes() for seed in range(12)}
    together = views(method, image, [3, 1, 3])
    assert [view.tobytes() for view in together] == [alone[3], alone[1], alone[3]]
    assert len(set(alone.values())) == (1 if method == "filter" else 12)
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
@pytest.mark.parametrize("method", METHODS)
def test_other_modes_become_rgb(method, mode):
    assert views(method, picture(0).convert(mode), [0])[0].mode == "RGB"


def test_jitter_moves_and_zooms_no_further_than_it_says():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3))
    image = Image.fromarray(ramp)
    for view in views("jitter", image, list(range(50)), zoom=0):
        moved = (np.asarray(view, int)[:, 32, 0] - 128) / 4
        assert np.ptp(moved) == 0 and abs(moved[0]) <= 4.01
    for view in views("jitter", image, list(range(50)), shift=0):
        slope = (int(np.asarray(view)[0, 56, 0]) - int(np.asarray(view)[0, 8, 0])) / 48 / 4
        assert 0.91 <= slope <= 1.01
    assert views("jitter", image, [0], shift=0, zoom=0)[0].tobytes() == image.tobytes()


def test_crops_show_a_part_of_their_size():
    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3))
    for view in views("crops", Image.fromarray(ramp), list(range(50))):
        row = np.asarray(view, int)[25, :, 0]
        part = (row[90] - row[10]) / 80
        assert np.sqrt(0.5) - 0.03 <= part <= 1.01
    assert views("crops", picture(0), [0], smallest=1)[0].tobytes() == picture(0).tobytes()


def test_noise_is_as_strong_as_it_says():
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    for sigma in (0.05, 0.15):
        (view,) = views("noise", grey, [7], sigma=sigma)
        pixels = np.asarray(view, float) / 255
        assert abs(pixels.std() - sigma) < 0.003 and abs(pixels.mean() - 128 / 255) < 0.002
    (burnt,) = views("noise", Image.new("RGB", (9, 9), (255, 0, 255)), [0], sigma=9.0)
    assert set(np.unique(np.asarray(burnt))) <= set(range(256))


def test_filters_are_those_of_pillow():
    image = picture(0)
    for settings, expected in (
        ({}, ImageFilter.BoxBlur(1)),
        ({"kind": "box", "radius": 3}, ImageFilter.BoxBlur(3)),
        ({"kind": "median"}, ImageFilter.MedianFilter(3)),
        ({"kind": "median", "radius": 2}, ImageFilter.MedianFilter(5)),
    ):
        (view,) = views("filter", image, [5], **settings)
        assert view.tobytes() == image.filter(expected).tobytes()
        assert away(view, image) > 1


def test_a_filter_gives_one_view_however_many_are_asked_for(tmp_path):
    augmenter = Augmenter.from_pretrained("filter", family="pocket", store=tmp_path)
    with pytest.warns(UserWarning, match="filter makes 1 view of an image, whatever the seed: n=4"):
        (made,) = augmenter.augment([MultimodalContext(picture(0))], n=4, seed=3)
    assert made.seeds == [3] and len(made.views) == len(made.keys) == 1
    assert made.warnings == ["filter makes 1 view of an image, whatever the seed: n=4 gives 1"]
    (one,) = augmenter.augment([MultimodalContext(picture(0))], n=1, seed=3)
    assert one.warnings == [] and one.keys == made.keys
    assert augmenter.view_keys([MultimodalContext(picture(0))], n=4, seed=3) == [made.keys]


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("jitter", {"shift": 0.6}, "shift=0.6 is out of range"),
        ("jitter", {"shift": float("nan")}, "shift=nan is out of range"),
        ("jitter", {"zoom": -0.1}, "zoom=-0.1 is out of range"),
        ("crops", {"smallest": 0.0}, "smallest=0.0 is out of range"),
        ("crops", {"smallest": 1.5}, "smallest=1.5 is out of range"),
        ("noise", {"sigma": 0.0}, "sigma=0.0 is out of range"),
        ("noise", {"sigma": float("inf")}, "sigma=inf is out of range"),
        ("filter", {"kind": "gauss"}, "kind='gauss'.*box.*median"),
        ("filter", {"radius": 0}, "radius=0 is out of range"),
    ],
)
def test_mistaken_settings(method, settings, told, tmp_path):
    with pytest.raises(UserError, match=told):
        Augmenter.from_pretrained(method, family="pocket", store=tmp_path, **settings)


def test_every_setting_that_changes_a_pixel_is_in_the_key():
    for method, settings in (
        ("jitter", [{}, {"shift": 0.1}, {"zoom": 0.2}]),
        ("crops", [{}, {"smallest": 0.9}]),
        ("noise", [{}, {"sigma": 0.2}]),
        ("filter", [{}, {"kind": "median"}, {"radius": 2}]),
    ):
        told = [get_method(method)(**its).to_json() for its in settings]
        assert len({str(one) for one in told}) == len(told)
        assert all(one["method"] == method and one["version"] == 1 for one in told)
    assert get_method("jitter")(shift=0).to_json() == get_method("jitter")(shift=0.0).to_json()
    assert all(issubclass(get_method(name), ImageSpec) for name in (*METHODS, "randaugment"))


def test_they_import_no_torch(tmp_path: Path):
    picture(0).save(tmp_path / "a.png")
    code = f"""
import sys
from hb_tta import Augmenter
for method in {METHODS!r}:
    augmenter = Augmenter.from_pretrained(method, family="pocket", store={str(tmp_path / "s")!r})
    assert len(augmenter({str(tmp_path / "a.png")!r}, "Is it?", n=1)) == 1
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
