"""``Mumu`` and ``hb-tta mumu``: images of prompts, kept, listed, shown; a sentence a mistake."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sdxl_folders import PIPELINE
from tiny_mumu import picture, save_idefics2, save_mumu

from hb_tta import Mumu, families
from hb_tta.cli import main
from hb_tta.cli.output import MANIFEST
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators.mumu.prompt import Prompt
from hb_tta.store import Store

MAN, DOG = picture(0), picture(1)
SETTINGS: dict[str, Any] = {"generator": str(PIPELINE), "steps": 1, "guidance": 2.0}
FLAGS = ["--generator", str(PIPELINE), "--steps", "1", "--guidance", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mumu")
    return save_mumu(folder / "mumu", save_idefics2(folder / "idefics2"))


@pytest.fixture(scope="module")
def known(tmp_path_factory, trained) -> Mumu:
    """With its models, once a test has loaded them."""
    store = tmp_path_factory.mktemp("store")
    return Mumu.from_pretrained(trained, store=store, device="cpu", **SETTINGS)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    MAN.save(tmp_path / "man.png")
    DOG.save(tmp_path / "dog.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    return tmp_path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


# ── Python ───────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_gives_images_that_are_kept(known, trained):
    prompt = ["a", MAN, "man and his", DOG, "dog"]
    images = known(prompt, n=3, seed=5)
    assert [image.mode for image in images] == ["RGB"] * 3
    assert len({image.tobytes() for image in images}) == 3
    again = Mumu.from_pretrained(trained, store=known.store, device="cpu", **SETTINGS)
    assert [image.tobytes() for image in again(prompt, n=3, seed=5)] == [
        image.tobytes() for image in images
    ]
    assert again._models.loaded == [], "all came from the store"
    assert again(prompt, n=1, seed=6)[0].tobytes() == images[1].tobytes()
    assert again._models.loaded == []


def test_many_prompts_are_told_in_order(known):
    prompts = [["a", MAN, "man"], "only words", [DOG]]
    drawn = list(known.iter_draw(iter(prompts), n=2))
    assert [one.description for one in drawn] == ["a <image> man", "only words", "<image>"]
    assert all(one.seeds == [0, 1] and len(one.views) == 2 for one in drawn)
    assert len({key for one in drawn for key in one.keys}) == 6
    entry = known.store.read("views", drawn[0].keys[1])
    assert entry[1]["prompt"] == Prompt.of(prompts[0]).to_json() and entry[1]["seed"] == 1
    assert drawn[0].spec["generator"]["method"] == "mumu"
    assert "detector" not in drawn[0].spec["generator"]


def test_prompts_of_equal_words_and_pixels_are_one(known, tmp_path):
    MAN.save(tmp_path / "copy.png")
    first, second = known.iter_draw([["a", MAN, "man"], f"a <img:{tmp_path}/copy.png> man"], n=1)
    assert first.keys == second.keys


def test_without_a_store_nothing_is_kept(known, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "none"))
    mumu = Mumu(known.spec, store=False, device="cpu")
    mumu._models._on_device.update(known._models._on_device)
    assert len(mumu(["a", MAN, "man"], n=1)) == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokens": 5}, "tokens=5 is no square number"),
        ({"tokens": "many"}, "tokens='many' is no value"),
        ({"colour": 1}, "mumu has no setting 'colour'"),
        ({"generator": "/nowhere"}, "is no folder and no hub id"),
        ({"batch_size": 0}, "batch_size=0 is out of range"),
    ],
)
def test_mistakes_in_settings(trained, change, sentence):
    with pytest.raises(UserError, match=sentence):
        Mumu.from_pretrained(trained, device="cpu", **{**SETTINGS, **change})


@pytest.mark.parametrize(("n", "seed", "sentence"), [
    (0, 0, "n=0 is no number of images"), (1, -1, "seed=-1 is out of range"),
    (1.5, 0, "n=1.5 is no whole number"),
])  # fmt: skip
def test_mistakes_in_numbers(known, n, seed, sentence):
    with pytest.raises(UserError, match=sentence):
        known(["a man"], n=n, seed=seed)


def test_a_family_without_the_weights_says_so():
    with pytest.raises(UserError, match="family 'sdxl' has no mumu: name one by a hub id or"):
        Mumu.from_pretrained("sdxl")


def test_what_is_no_folder_of_mumu(tmp_path):
    (tmp_path / "README.txt").write_text("nothing")
    with pytest.raises(UserError, match="is no MUMU: its mumu.json cannot be read"):
        Mumu.from_pretrained(tmp_path)


def test_a_folder_that_names_a_family_takes_its_generator_and_settings(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "mumu")
    index = json.loads((folder / "mumu.json").read_text())
    (folder / "mumu.json").write_text(json.dumps({**index, "generator": "pocket"}))
    spec = Mumu.from_pretrained(folder, device="cpu").spec
    assert spec.base == get_family("pocket").weights("generator")
    assert (spec.num_inference_steps, spec.guidance_scale) == (10, 2.0)
    elsewhere = Mumu.from_pretrained(trained, generator=str(PIPELINE), device="cpu").spec
    assert (elsewhere.num_inference_steps, elsewhere.guidance_scale) == (50, 6.0)


# ── The command ──────────────────────────────────────────────────────────────────────────────────


def run(*words: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return main(["mumu", *words, *FLAGS])


def test_one_prompt_on_the_command_line(here, trained, capsys):
    text = "a <img:man.png> man and his <img:dog.png> dog"
    assert run(text, "-n", "2", "--seed", "3", "--model", str(trained), "--out", "made") == 0
    files = capsys.readouterr().out.split()
    assert len(files) == 2 and all(Path(file).is_file() for file in files)
    (line,) = lines(here / "made")
    assert line["prompt"] == text
    assert line["description"] == "a <image> man and his <image> dog"
    assert [view["seed"] for view in line["views"]] == [3, 4]
    specs = json.loads((here / "made" / "specs.json").read_text())
    assert specs[line["spec_hash"]]["generator"]["tokens"] == 4
    page = (here / "made" / "index.html").read_text()
    assert "views by hb-tta mumu" in page and "man and his" in page
    assert page.count("<img") >= 3


def test_a_file_of_prompts_goes_on_after_bad_ones(here, trained, capsys):
    rows: list[Any] = [
        {"prompt": "a <img:man.png> man", "who": "him"},
        {"prompt": "a <img:cat.png> cat"},
        {"prompt": "a <img:him> man", "images": {"him": "man.png"}},
        {"prompt": "a man", "images": {"him": "man.png"}},
        {"prompt": ["a"]},
        {"prompt": "words alone"},
        {"prompt": "a <img:man.png> man", "images": ["man.png"]},
        {"prompt": "<img:man.png>" * 5},
        "nothing",
    ]  # fmt: skip
    (here / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{cut\n")
    assert run("prompts.jsonl", "-n", "1", "--model", str(trained)) == 1
    told = capsys.readouterr()
    assert "views: 3, of prompts: 3, in: hb-tta-out" in told.out
    assert "prompts that failed: 7" in told.err
    for sentence in (
        "line 2: <img:cat.png>: there is no image",
        "line 4: the prompt does not use the image 'him'",
        """line 5: its "prompt" is ['a']""",
        """line 7: its "images" are ['man.png']""",
        "line 8: the prompt has 5 images",
        "line 9: it is not a JSON object",
        "line 10: it is not JSON",
    ):
        assert sentence in told.err
    written = lines(here / "hb-tta-out")
    assert [line["index"] for line in written] == list(range(1, 11))
    assert written[0]["who"] == "him" and written[2]["images"]["him"] == "man.png"
    assert "failure" in written[1] and "views" in written[5]
    assert written[0]["views"][0]["file"] != written[2]["views"][0]["file"]


def test_the_same_command_again_loads_nothing(here, trained, capsys, monkeypatch):
    command = ["a <img:man.png> man", "-n", "1", "--model", str(trained)]
    assert run(*command) == 0
    before = capsys.readouterr().out
    monkeypatch.setattr(
        "hb_tta.generators.mumu.generator.load_parts", lambda *_, **__: pytest.fail("it loads")
    )
    assert run(*command) == 0
    assert capsys.readouterr().out == before
    assert len(list(Store(here / "store").entries())) == 1


def test_cut_outs_are_other_images(here, trained):
    mask = Image.new("L", MAN.size)
    mask.paste(255, (8, 0, 32, 24))
    mask.save(here / "man.mask.png")
    for number, more in enumerate(([], ["--cutout"])):
        out = ["--out", str(number), "-n", "1", "--model", str(trained)]
        assert run("a <img:man.png> man", *out, *more) == 0
    plain, cut = ((here / str(i) / lines(here / str(i))[0]["views"][0]["file"]) for i in (0, 1))
    assert plain.name != cut.name
    assert (np.asarray(Image.open(plain)) != np.asarray(Image.open(cut))).any()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a <img:cat.png> cat"], "<img:cat.png>: there is no image"),
        (["a <img:man.png man"], "names no image"),
        ([""], "the prompt is empty"),
        (["none.jsonl"], "there is no file or folder 'none.jsonl'"),
        (["rows.jsonl", "a man"], "rows.jsonl holds prompts and stands beside others"),
        (["a man", "--tokens", "5"], "tokens=5 is no square number"),
        (["a man", "--image-scale", "-1"], "image_scale=-1.0 is out of range"),
        (["a <img:man.png> man", "--cutout"], "no transparency, and there is no mask"),
        (["a man", "--model", "man.png"], "'man.png' is a file"),
        (["a man", "--augment_args", "n=none"], "n='none' is not a whole number"),
    ],
)
def test_a_sentence_for_each_mistake_on_the_command_line(here, trained, capsys, words, sentence):
    (here / "rows.jsonl").write_text("{}")
    model = [] if "--model" in words else ["--model", str(trained)]
    assert run(*words, *model) == 1
    assert sentence in capsys.readouterr().err


def test_the_pages_commands_and_its_python_run(here, trained, capsys, monkeypatch):
    """With the bundled models; then on a folder that a person has, a tiny one, with one step."""
    shutil.copytree(Path(__file__).parents[1] / "docs" / "pictures", here / "docs" / "pictures")
    page = (Path(__file__).parents[1] / "docs" / "mumu.md").read_text(encoding="utf-8")
    sdxl = replace(get_family("sdxl"), method_defaults={"mumu": {"num_inference_steps": 1}})
    monkeypatch.setitem(families._FAMILIES, "sdxl", lambda: sdxl)
    folder = shutil.copytree(trained, here / "my-mumu")
    index = json.loads((folder / "mumu.json").read_text())
    (folder / "mumu.json").write_text(json.dumps({**index, "generator": str(PIPELINE)}))
    blocks = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for line, made in zip(blocks[0].splitlines(), (6, 4), strict=False):
        command = shlex.split(line)
        assert command[:2] == ["hb-tta", "mumu"] and main(command[1:]) == 0
        assert len(capsys.readouterr().out.split()) == made
    (snippet,) = (block for block in blocks if block.startswith("from hb_tta import Mumu"))
    space: dict[str, Any] = {"man": MAN, "dog": DOG}
    exec(snippet, space)
    assert [image.mode for image in space["images"]] == ["RGB"] * 4


def test_help_needs_no_torch():
    from test_package import heavy_after

    code = "from hb_tta.cli import main\ntry: main(['mumu', '--help'])\nexcept SystemExit: pass"
    assert heavy_after(code).splitlines()[-1] == ""
    assert heavy_after("from hb_tta import Mumu").strip() == ""
    assert "torch" in sys.modules, "here it is"
