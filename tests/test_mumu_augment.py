"""The method mumu: the description's words are found in the image and go before their words."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from sdxl_folders import PIPELINE
from tiny_mumu import picture, save_idefics2, save_mumu, save_owlvit

from hb_tta import Augmenter, DescribedContext, MultimodalContext
from hb_tta.cli import main
from hb_tta.context import SeenWord
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators import Generator, HummingbirdSpec, get_method
from hb_tta.generators.mumu.generator import prompt_of
from hb_tta.generators.mumu.prompt import Prompt
from hb_tta.generators.mumu.spec import MumuSpec, PromptSpec
from hb_tta.generators.settings import family_defaults
from hb_tta.store import Store
from hb_tta.views.words import NOTHING
from hb_tta.weights import Weights

IMAGE = picture(0, 80, 64)
TEXT = "a red circle left of a blue dog"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "mumu": str(save_mumu(folder / "mumu", save_idefics2(folder / "idefics2"))),
        "detector": str(save_owlvit(folder / "owlvit")),
        "base": str(PIPELINE),
    }


def settings(folders: dict[str, str], **changed: Any) -> dict[str, Any]:
    """With thresholds at which the random detector finds something in anything."""
    return {
        **folders, "num_inference_steps": 1, "guidance_scale": 2.0, "box_threshold": 0.0,
        "text_threshold": 0.0, "least_area": 1, "most_share": 1.0, **changed,
    }  # fmt: skip


def make(folders: dict[str, str], store: Any, **changed: Any) -> Augmenter:
    return Augmenter.from_pretrained(
        "mumu", family="pocket", describer=None, store=store, device="cpu",
        **settings(folders, **changed),
    )  # fmt: skip


@pytest.fixture(scope="module")
def augmenter(folders, tmp_path_factory) -> Augmenter:
    return make(folders, tmp_path_factory.mktemp("store"))


def test_words_are_found_and_their_boxes_told(augmenter):
    (found,) = augmenter.augment([DescribedContext(IMAGE, TEXT)], n=2)
    assert len(found.views) == 2 and found.warnings == []
    assert [box["word"] for box in found.boxes] == ["red circle", "blue dog"]
    for box in found.boxes:
        assert TEXT[box["start"] : box["end"]] == box["word"]
        left, top, right, bottom = box["box"]
        assert 0 <= left < right <= 80 and 0 <= top < bottom <= 64
        assert 0 <= box["score"] <= 1
    assert found.spec["generator"]["detector"].startswith("sha256:")
    (entry,) = [e for e in augmenter.store.entries() if e.namespace == "boxes"]
    assert augmenter.store.read("boxes", entry.key)[1]["description"] == TEXT


def test_the_views_are_those_of_the_prompt(augmenter):
    context = DescribedContext(IMAGE, TEXT)
    (found,) = augmenter.augment([context], n=1, seed=4)
    seen = tuple(SeenWord(**{**box, "box": tuple(box["box"])}) for box in found.boxes)
    prompt = prompt_of(context._replace(boxes=seen))
    assert prompt.written("#") == "a # red circle left of a # blue dog"
    generator = augmenter._models._on_device["generator"]
    (image,) = generator.generate([prompt], [[4]])[0]
    assert image.tobytes() == found.views[0].tobytes()
    (words,) = generator.generate([prompt_of(context._replace(boxes=()))], [[4]])[0]
    assert words.tobytes() != image.tobytes()


def test_a_prompts_generator_takes_described_contexts_too(folders):
    base, mumu = Weights(folders["base"]), Weights(folders["mumu"])
    spec = PromptSpec(base, mumu=mumu, num_inference_steps=1, guidance_scale=2.0)
    generator = spec.load("cpu")
    assert isinstance(generator, Generator)
    seen = (SeenWord("red circle", 2, 12, (0.0, 0.0, 40.0, 40.0), 1.0),)
    context = DescribedContext(IMAGE, TEXT, boxes=seen)
    none, (image,) = generator.generate([context, context], [[], [4]])
    (prompted,) = generator.generate([prompt_of(context)], [[4]])[0]
    assert none == [] and image.tobytes() == prompted.tobytes()
    for given, seeds, said in (
        ([Prompt(("a dog",)), context], [[1], [1]], "prompts and contexts stand beside each other"),
        ([Prompt(("a dog",))], [], "1 prompts came with 0 lists of seeds"),
        ([context], [[1], [2]], "1 contexts came with 2 lists of seeds"),
        ([context._replace(description=None)], [[1]], "context 0 has no description"),
        ([context, context._replace(boxes=None)], [[1], [1]], "context 1 has no boxes"),
    ):
        with pytest.raises(UserError, match=said):
            generator.generate(given, seeds)


def test_a_second_call_finds_all_in_the_store(augmenter, folders):
    (first,) = augmenter.augment([DescribedContext(IMAGE, TEXT)], n=2)
    again = make(folders, augmenter.store)
    assert not again.lacks([DescribedContext(IMAGE, TEXT)], n=2)
    (second,) = again.augment([DescribedContext(IMAGE, TEXT)], n=2)
    assert again._models.loaded == []
    assert (second.boxes, second.files) == (first.boxes, first.files)


def test_new_seeds_look_at_no_image_again(augmenter, folders, monkeypatch):
    augmenter.augment([DescribedContext(IMAGE, TEXT)], n=1)
    again = make(folders, augmenter.store)
    again._models._on_device["generator"] = augmenter._models._on_device["generator"]
    monkeypatch.setattr(type(again._models), "find", lambda *_: pytest.fail("it looks again"))
    (found,) = again.augment([DescribedContext(IMAGE, TEXT)], n=1, seed=77)
    assert len(found.boxes) == 2


def test_nothing_found_is_words_alone_and_a_warning(folders, tmp_path):
    augmenter = make(folders, tmp_path, box_threshold=1.0)
    with pytest.warns(UserWarning, match="none of the description's words was found"):
        (found,) = augmenter.augment([DescribedContext(IMAGE, TEXT)], n=1)
    assert found.boxes == [] and found.warnings == [NOTHING]
    (again,) = make(folders, tmp_path, box_threshold=1.0).augment(
        [DescribedContext(IMAGE, TEXT)], n=1
    )
    assert again.warnings == [NOTHING], "also from the store"
    generator = augmenter._models._on_device["generator"]
    bare = DescribedContext(IMAGE, TEXT, boxes=())
    assert generator.generate([bare], [[0]])[0][0].tobytes() == found.views[0].tobytes()


def test_at_most_so_many_crops(folders, tmp_path, augmenter):
    text = "a dog, a cat, a man, a house and a tree"
    one = make(folders, tmp_path, crops=1)
    three = make(folders, tmp_path)
    for each in (one, three):
        each._models._on_device["generator"] = augmenter._models._on_device.get("generator")
        if each._models._on_device["generator"] is None:
            each.unload()
    (found,) = one.augment([DescribedContext(IMAGE, text)], n=1)
    assert len(found.boxes) == 1
    (found,) = three.augment([DescribedContext(IMAGE, text)], n=1)
    assert len(found.boxes) == 3
    starts = [box["start"] for box in found.boxes]
    assert starts == sorted(starts)


def test_boxes_are_the_detectors_or_nobodys(augmenter, folders):
    given = DescribedContext(IMAGE, TEXT, boxes=())
    with pytest.raises(UserError, match="context 0 comes with boxes"):
        augmenter.augment([given])
    generator = augmenter._models._on_device["generator"]
    with pytest.raises(UserError, match=r"context 1 has no boxes.*spec.finder\(\)"):
        generator.generate([given, (IMAGE, TEXT)], [[0], [0]])


def test_other_methods_look_for_nothing():
    assert HummingbirdSpec(Weights("a/b")).finder() is None
    assert get_method("randaugment")().finder() is None


def test_a_family_without_the_roles_says_so(folders):
    for role in ("mumu", "detector"):
        if role in get_family("pocket").roles:
            continue
        rest = {name: value for name, value in settings(folders).items() if name != role}
        with pytest.raises(UserError, match=f"family 'pocket' has no {role}: name one by"):
            Augmenter.from_pretrained("mumu", family="pocket", **rest)


def test_the_families_defaults_are_the_papers_and_the_pocket_worlds():
    sdxl, pocket = (family_defaults(MumuSpec, get_family(name)) for name in ("sdxl", "pocket"))
    assert (sdxl["num_inference_steps"], sdxl["guidance_scale"]) == (50, 6.0)
    assert (pocket["num_inference_steps"], pocket["guidance_scale"]) == (10, 2.0)
    assert pocket["least_area"] < 64 and "least_area" not in sdxl


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"crops": 5}, "crops=5 is out of range: use 0 to 4"),
        ({"box_threshold": 1.5}, "box_threshold=1.5 is out of range"),
        ({"text_threshold": float("nan")}, "text_threshold=nan is out of range"),
        ({"least_area": -1}, "least_area=-1"),
        ({"most_share": 0.0}, "most_share=0.0"),
    ],
)
def test_settings_of_finding_out_of_range(folders, setting, sentence):
    with pytest.raises(UserError, match=sentence):
        make(folders, False, **setting)


def test_settings_of_finding_are_in_the_keys(folders):
    spec = make(folders, False).generator_spec
    for setting in ({"crops": 2}, {"box_threshold": 0.1}, {"text_threshold": 0.1},
                    {"least_area": 2}, {"most_share": 0.5}):  # fmt: skip
        other = make(folders, False, **setting).generator_spec
        assert other.to_json() != spec.to_json()
        assert other.finder().to_json() != spec.finder().to_json()


def test_the_manifest_keeps_the_boxes(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    IMAGE.save(tmp_path / "scene.png")
    rows = [{"image": "scene.png", "question": "?", "description": TEXT}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    args = ",".join(f"{name}={value}" for name, value in settings(folders).items())
    command = ["augment", str(tmp_path / "rows.jsonl"), "--method", "mumu", "--family", "pocket",
               "-n", "1", "--out", str(tmp_path / "out"), "--augment_args", args]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(command) == 0, capsys.readouterr().err
    (line,) = [
        json.loads(x) for x in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    ]
    assert [box["word"] for box in line["boxes"]] == ["red circle", "blue dog"]
    assert Store(tmp_path / "store").info().namespaces["boxes"].files == 1


def test_the_describer_writes_what_is_found(folders, tmp_path, monkeypatch):
    """description → detector → crops → views, with the bundled describer."""
    augmenter = Augmenter.from_pretrained(
        "mumu", family="pocket", store=tmp_path, device="cpu", **settings(folders)
    )
    from hb_tta.pocket.tasks import pocket_mme

    scene = next(pocket_mme("dev"))
    (found,) = augmenter.augment([MultimodalContext(scene.image, scene.question)], n=1)
    assert found.description and found.boxes
    for box in found.boxes:
        assert found.description[box["start"] : box["end"]] == box["word"]
