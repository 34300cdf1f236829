"""Generators by name: the built-in ones, and those that other packages install."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageOps
from sdxl_folders import reference

import hb_tta.generators
from hb_tta import Augmenter
from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators import GeneratorSpec, HummingbirdSpec, build_spec, get_method, list_methods

PLUGIN = Path(__file__).parent / "test_package_plugin"
BUILT_IN = [
    *("hummingbird", "i2t2i", "randaugment", "image_variation", "image_translation"),
    *("textual_inversion", "diffusers", "mumu", "jitter", "crops", "noise", "filter"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder into which pip has installed the other package."""
    root = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, root / "source")  # building writes beside the source
    target = root / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
    )
    return target


def test_an_installed_package_adds_a_generator(installed: Path, monkeypatch):
    assert list_methods() == BUILT_IN
    monkeypatch.syspath_prepend(installed)
    assert list_methods() == [*BUILT_IN, "mirror"]
    assert "hb_tta_mirror" not in sys.modules
    spec = get_method("mirror").from_family(get_family("pocket"))
    assert isinstance(spec, GeneratorSpec) and not spec.needs_description
    image = reference()
    ((left, right),) = spec.load().generate([(image, None)], [[0, 1]])
    assert left.tobytes() == image.tobytes()
    assert right.tobytes() == ImageOps.mirror(image).tobytes()


def test_its_own_setting_is_settable_by_name(installed: Path, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.syspath_prepend(installed)
    spec: Any = build_spec("mirror", "pocket", {"every": "3"})
    assert spec == get_method("mirror").from_family(get_family("pocket"), every=3)
    assert spec.every == 3 and spec.to_json()["every"] == 3
    assert spec.fitter()("any text") == ("any text", False)
    with pytest.raises(UserError, match="mirror has no setting 'evry', did you mean 'every'"):
        build_spec("mirror", "pocket", {"evry": 3})
    image = reference()
    augmenter = Augmenter.from_pretrained("mirror", family="pocket", store=tmp_path, every=3)
    assert augmenter.generator_spec == spec
    views = [view.tobytes() for view in augmenter(image, n=4)]
    assert [view == image.tobytes() for view in views] == [True, False, False, True]
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["methods"]["mirror"].startswith("Mirrors the reference image")
    every = listed["settings"]["mirror"]["every"]
    assert every["default"] == {"pocket": 2, "sdxl": 2}
    assert every["help"].startswith("seeds that are multiples")


def fake_package(folder: Path, name: str, **generators: str) -> Path:
    """A package's metadata with entry points; the modules that they name need not exist."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = ["[hb_tta.generators]", *(f"{key} = {value}" for key, value in generators.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def test_names_resolve_to_spec_classes():
    assert get_method("hummingbird") is HummingbirdSpec


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(UserError, match="no method 'hummingbrid', did you mean 'hummingbird'"):
        get_method("hummingbrid")


def test_a_package_that_does_not_import_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "broken_hb_tta.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(fake_package(tmp_path, "bad-one", bad="broken_hb_tta:Spec"))
    assert list_methods() == [*BUILT_IN, "bad"]
    with pytest.raises(UserError, match="'bad' of the package 'bad-one' does not import .*ZeroDiv"):
        get_method("bad")
    assert get_method("hummingbird") is HummingbirdSpec


def test_a_package_that_names_no_spec_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(fake_package(tmp_path, "odd-one", odd="pathlib:Path"))
    with pytest.raises(UserError, match="'odd-one' is no GeneratorSpec: it lacks method, needs_d"):
        get_method("odd")


def test_a_package_may_not_take_a_built_in_name(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(fake_package(tmp_path, "thief", randaugment="pathlib:Path"))
    for ask in (list_methods, lambda: get_method("randaugment")):
        with pytest.raises(UserError, match="'thief' names its generator 'randaugment'"):
            ask()


def test_two_packages_may_not_share_a_name(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(fake_package(tmp_path / "1", "first", same="pathlib:Path"))
    monkeypatch.syspath_prepend(fake_package(tmp_path / "2", "second", same="pathlib:PurePath"))
    with pytest.raises(UserError, match="both name a generator 'same'"):
        list_methods()


def test_every_public_name_imports():
    for name in hb_tta.generators.__all__:
        assert getattr(hb_tta.generators, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        importlib.import_module("hb_tta.generators").Nothing  # noqa: B018
