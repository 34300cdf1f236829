"""The augmenter: what it gives, what decides it, and that nothing is made twice or leaks."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
from augmenting import CONTEXTS, GOLDEN, Make, picture, pixels
from PIL import Image
from safetensors.torch import load_file, save_file

from hb_tta import Augmentation, Augmenter, DescribedContext, MultimodalContext, UserError
from hb_tta.describe import DescriberSpec
from hb_tta.store import Store

pytest_plugins = ["augmenting"]


# ── What it gives ────────────────────────────────────────────────────────────────────────────────


def test_an_image_and_a_question_give_views(make_augmenter: Make) -> None:
    views = make_augmenter()(picture(0), "Is there a red circle?", n=3, seed=7)
    assert [(view.mode, view.size) for view in views] == [("RGB", (64, 64))] * 3
    assert len({view.tobytes() for view in views}) == 3


@pytest.mark.parametrize("method", ["hummingbird", "i2t2i", "randaugment"])
def test_every_method_goes_one_way(make_augmenter: Make, method: str) -> None:
    augmenter = make_augmenter(method)
    augmentations = augmenter.augment(CONTEXTS, n=2, seed=5)
    for augmentation in augmentations:
        assert augmentation.seeds == [5, 6]
        assert len(augmentation.views) == len(set(augmentation.keys)) == 2
        assert augmentation.spec["generator"]["method"] == method
        assert json.loads(json.dumps(augmentation.spec)) == augmentation.spec
        needed = augmenter.generator_spec.needs_description
        assert bool(augmentation.description) == needed
        assert (augmentation.spec["describer"] is not None) == needed
    assert make_augmenter(method).augment(CONTEXTS, n=2, seed=5) == augmentations  # from the store


def test_view_i_uses_seed_plus_i(make_augmenter: Make) -> None:
    many = make_augmenter(store=False).augment(CONTEXTS[:1], n=3, seed=5)[0]
    one = make_augmenter(store=False).augment(CONTEXTS[:1], n=1, seed=6)[0]
    assert many.seeds == [5, 6, 7]
    assert many.keys[1] == one.keys[0]
    assert abs(pixels(many.views[1:2]) - pixels(one.views)).max() <= 1


def test_a_view_does_not_depend_on_the_batch_around_it(make_augmenter: Make) -> None:
    one_by_one = make_augmenter(store=False, batch_size=1).augment(CONTEXTS, n=3)
    for batched in (
        make_augmenter(store=False, batch_size=16).augment(CONTEXTS, n=3),
        make_augmenter(store=False, batch_size=5).augment(CONTEXTS[::-1], n=3)[::-1],
    ):
        for a, b in zip(one_by_one, batched, strict=True):
            assert (a.description, a.keys, a.seeds) == (b.description, b.keys, b.seeds)
            assert abs(pixels(a.views) - pixels(b.views)).max() <= 1


def test_the_same_context_twice_is_made_once(make_augmenter: Make, tmp_path: Path) -> None:
    first, second = make_augmenter().augment([CONTEXTS[0], CONTEXTS[0]], n=2)
    assert first == second
    assert Store(tmp_path / "store").info().namespaces["views"].files == 2


def test_an_image_comes_in_any_way(make_augmenter: Make, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    augmenter = make_augmenter()
    (expected,) = augmenter(picture(0), "Is it?", n=1)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        (view,) = augmenter(source, "Is it?", n=1)
        assert view == expected


def test_the_task_of_the_augmenter_is_that_of_a_call(make_augmenter: Make) -> None:
    augmenter = make_augmenter(task="hoi")
    views = augmenter(picture(0), "person | bicycle", n=1)
    (same,) = augmenter.augment([MultimodalContext(picture(0), "person | bicycle", "hoi")], n=1)
    (other,) = augmenter.augment([MultimodalContext(picture(0), "person | bicycle")], n=1)
    assert views == same.views and same.keys != other.keys


# ── Descriptions ─────────────────────────────────────────────────────────────────────────────────


def test_a_description_that_comes_along_is_used_as_it_is(make_augmenter: Make) -> None:
    augmenter = make_augmenter(describer=None)
    given, pair, empty = augmenter.augment(
        [
            DescribedContext(picture(0), "a red circle"),
            (picture(0), "a red circle"),
            DescribedContext(picture(0), ""),
        ],
        n=1,
    )
    assert given == pair and given.description == "a red circle"
    assert given.spec["describer"] is None
    assert empty.description == "" and empty.views != given.views
    generator = augmenter.generator_spec.load("cpu")
    ((expected,),) = generator.generate([(picture(0), "a red circle")], [[0]])
    assert abs(pixels(given.views) - pixels([expected])).max() <= 1


def test_without_a_describer_a_description_is_missed(make_augmenter: Make) -> None:
    with pytest.raises(UserError, match="context 0 has no description and there is no describer"):
        make_augmenter(describer=None)(picture(0), "Is it?")


def test_a_description_too_long_is_shortened_and_says_so(make_augmenter: Make) -> None:
    long = "A red circle on a sandy beach. " * 30
    with pytest.warns(UserWarning, match="too long for the text encoders and was shortened"):
        (augmentation,) = make_augmenter().augment([DescribedContext(picture(0), long)], n=1)
    assert augmentation.description and long.startswith(augmentation.description)
    assert augmentation.description.endswith("beach.")
    assert ["shortened" in warning for warning in augmentation.warnings] == [True]
    (again,) = make_augmenter().augment([DescribedContext(picture(0), long)], n=1)
    assert again == augmentation  # the store remembers what was told


def test_a_question_too_long_is_shortened_and_says_so(make_augmenter: Make) -> None:
    with pytest.warns(UserWarning, match="the question has 99999 characters"):
        (augmentation,) = make_augmenter().augment(
            [MultimodalContext(picture(0), "word " * 20_000)], n=1
        )
    assert augmentation.warnings[0].startswith("the question has 99999 characters")


@pytest.mark.parametrize("question", ["", "这是什么？", "a\x00b\ud800", "<b>&amp;</b>?", "<image>"])
def test_questions_in_any_script(make_augmenter: Make, question: str) -> None:
    assert len(make_augmenter()(picture(0), question, n=1)) == 1


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────


def key_of(augmenter: Augmenter, context: MultimodalContext = CONTEXTS[0], seed: int = 0) -> str:
    return augmenter.view_keys([context], n=1, seed=seed)[0][0]


def test_all_that_changes_a_view_changes_its_key(
    make_augmenter: Make, tiny_describer: DescriberSpec, tmp_path: Path
) -> None:
    nudged = picture(0)
    nudged.putpixel((0, 0), (1, 2, 3))
    other_mllm = tiny_models.save_llava(tmp_path / "other_mllm", seed=1)
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "retrained")
    lora = load_file(tmp_path / "retrained" / "adapter_model.safetensors")
    save_file({k: v * 2 for k, v in lora.items()}, tmp_path / "retrained/adapter_model.safetensors")
    question = CONTEXTS[0].guidance
    keys = [
        key_of(make_augmenter()),
        key_of(make_augmenter(), seed=1),
        key_of(make_augmenter(), MultimodalContext(nudged, question)),
        key_of(make_augmenter(), MultimodalContext(picture(0), "Is there a cat?")),
        key_of(make_augmenter(), MultimodalContext(picture(0), question, "hoi")),
        key_of(make_augmenter(lora=None)),
        key_of(make_augmenter(lora=tmp_path / "retrained")),
        key_of(make_augmenter(num_inference_steps=3)),
        key_of(make_augmenter(guidance_scale=3.0)),
        key_of(make_augmenter(dtype="bfloat16", describer=tiny_describer)),
        key_of(make_augmenter(describer=replace(tiny_describer, max_new_tokens=17))),
        key_of(make_augmenter(describer=other_mllm)),
        key_of(make_augmenter("i2t2i")),
    ]
    assert len(set(keys)) == len(keys)


def test_nothing_else_changes_a_key(
    make_augmenter: Make, tiny_describer: DescriberSpec, tmp_path: Path
) -> None:
    key = key_of(make_augmenter())
    shutil.copytree(GOLDEN, tmp_path / "copy")
    moved = make_augmenter(base=tmp_path / "copy/pipeline", lora=tmp_path / "copy/lora_unet")
    assert key_of(moved) == key
    suffix = " Please answer yes or no.\nAnswer the question using a single word or phrase."
    same = MultimodalContext(picture(0), CONTEXTS[0].guidance + suffix)
    assert key_of(make_augmenter(batch_size=1), same) == key
    assert (
        key_of(make_augmenter(store=tmp_path / "elsewhere", device="cpu", keep_loaded=False)) == key
    )


def test_a_method_without_description_ignores_the_question(make_augmenter: Make) -> None:
    first, second = make_augmenter("randaugment").augment(
        [MultimodalContext(picture(0), "Is it?"), MultimodalContext(picture(0), "", "hoi")], n=2
    )
    assert first == second and first.description is None


# ── Ground truth ─────────────────────────────────────────────────────────────────────────────────


def test_a_ground_truth_stops_at_the_door(make_augmenter: Make, tmp_path: Path) -> None:
    told = replace(CONTEXTS[1], ground_truth="zebra crossing")
    for method in ("hummingbird", "i2t2i", "randaugment"):
        with pytest.raises(UserError, match="context 1 carries its ground truth"):
            make_augmenter(method).augment([CONTEXTS[0], told], n=1)
    assert not (tmp_path / "store").exists()


def test_what_reaches_the_models_has_no_place_for_a_ground_truth() -> None:
    assert "ground_truth" not in DescribedContext._fields
    fields = inspect.signature(Augmenter.__call__).parameters
    assert list(fields) == ["self", "image", "question", "n", "seed"]


def test_no_contexts_give_nothing(make_augmenter: Make) -> None:
    assert make_augmenter().augment([]) == []


def test_an_augmentation_is_plain_data(make_augmenter: Make) -> None:
    (augmentation,) = make_augmenter("randaugment").augment([MultimodalContext(picture(0))], n=1)
    assert isinstance(augmentation, Augmentation)
    assert augmentation.keys and not augmentation.warnings
    with pytest.raises(AttributeError):
        augmentation.seeds = []  # type: ignore[misc]


def test_a_view_in_the_store_opens_anywhere(make_augmenter: Make, tmp_path: Path) -> None:
    (augmentation,) = make_augmenter().augment(CONTEXTS[:1], n=1)
    store = Store(tmp_path / "store")
    (entry,) = (entry for entry in store.entries() if entry.namespace == "views")
    assert Image.open(entry.path).convert("RGB").tobytes() == augmentation.views[0].tobytes()
    manifest = store.manifest("views", entry.key)
    assert manifest and manifest["description"] == augmentation.description
    assert set(manifest) == {  # nothing else is told of a view: no answer, no path, no host
        *("pixels", "guidance", "task", "describer", "description", "shortened"),
        *("generator", "seed"),
    }
    assert manifest["guidance"] == CONTEXTS[0].guidance and manifest["seed"] == 0
    assert {"generator": manifest["generator"], "describer": manifest["describer"]} == (
        augmentation.spec
    )
