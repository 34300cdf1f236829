"""The augmenter: what it gives, what decides it, and that nothing is made twice or leaks."""

import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
from augmenting import CONTEXTS, GOLDEN, Make, picture, pixels
from PIL import Image
from safetensors.torch import load_file, save_file

from hb_tta import Augmentation, Augmenter, DescribedContext, MultimodalContext, UserError
from hb_tta.context import evaluation_context
from hb_tta.describe import DescriberSpec
from hb_tta.images import PixelDigests
from hb_tta.store import Store
from hb_tta.views.make import VIEWS_PER_BATCH
from hb_tta.views.plan import LARGEST_WINDOW, Planner, windows

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
    given, asked, empty = augmenter.augment(
        [
            DescribedContext(picture(0), "a red circle"),
            DescribedContext(picture(0), "a red circle", "what is it?"),
            DescribedContext(picture(0), ""),
        ],
        n=1,
    )
    assert given == asked and given.description == "a red circle"
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


TOLD = DescribedContext(picture(0), "a red circle")


def key_of(augmenter: Augmenter, context: DescribedContext = TOLD, seed: int = 0) -> str:
    """Of a view."""
    (keys,) = augmenter.view_keys([context], n=1, seed=seed)
    assert keys is not None
    return keys[0]


def written_under(augmenter: Augmenter, context: MultimodalContext = CONTEXTS[0]) -> str:
    """The key of a context's description, which need not be written."""
    planner = Planner(augmenter._models, needs_description=True, digests=PixelDigests())
    (key,) = planner.context(evaluation_context(context, 0), 0).description_keys
    return key


@pytest.fixture
def nudged() -> Image.Image:
    image = picture(0)
    image.putpixel((0, 0), (1, 2, 3))
    return image


def test_all_that_changes_a_view_changes_its_key(
    make_augmenter: Make, nudged: Image.Image, tmp_path: Path
) -> None:
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "retrained")
    lora = load_file(tmp_path / "retrained" / "adapter_model.safetensors")
    save_file({k: v * 2 for k, v in lora.items()}, tmp_path / "retrained/adapter_model.safetensors")
    keys = [
        key_of(make_augmenter()),
        key_of(make_augmenter(), seed=1),
        key_of(make_augmenter(), TOLD._replace(image=nudged)),
        key_of(make_augmenter(), TOLD._replace(description="a blue circle")),
        key_of(make_augmenter(), TOLD._replace(description="")),
        key_of(make_augmenter(lora=None)),
        key_of(make_augmenter(lora=tmp_path / "retrained")),
        key_of(make_augmenter(num_inference_steps=3)),
        key_of(make_augmenter(guidance_scale=3.0)),
        key_of(make_augmenter(dtype="bfloat16")),
        key_of(make_augmenter("i2t2i")),
    ]
    assert len(set(keys)) == len(keys)


def test_all_that_changes_a_description_changes_its_key(
    make_augmenter: Make, tiny_describer: DescriberSpec, nudged: Image.Image, tmp_path: Path
) -> None:
    other_mllm = tiny_models.save_llava(tmp_path / "other_mllm", seed=1)
    question = CONTEXTS[0].guidance
    keys = [
        written_under(make_augmenter()),
        written_under(make_augmenter(), MultimodalContext(nudged, question)),
        written_under(make_augmenter(), MultimodalContext(picture(0), "Is there a cat?")),
        written_under(make_augmenter(), MultimodalContext(picture(0), question, "hoi")),
        written_under(make_augmenter(describer=replace(tiny_describer, max_new_tokens=17))),
        written_under(make_augmenter(describer=other_mllm)),
    ]
    assert len(set(keys)) == len(keys)


def test_nothing_else_changes_a_key(make_augmenter: Make, tmp_path: Path) -> None:
    key, written = key_of(make_augmenter()), written_under(make_augmenter())
    shutil.copytree(GOLDEN, tmp_path / "copy")
    moved = make_augmenter(base=tmp_path / "copy/pipeline", lora=tmp_path / "copy/lora_unet")
    assert key_of(moved) == key
    elsewhere = make_augmenter(store=tmp_path / "elsewhere", device="cpu", keep_loaded=False)
    assert key_of(elsewhere) == key and written_under(elsewhere) == written
    asked = TOLD._replace(guidance="Is there a cat?", task="hoi")
    assert key_of(make_augmenter(batch_size=1, describer=None), asked) == key
    suffix = " Please answer yes or no.\nAnswer the question using a single word or phrase."
    question = MultimodalContext(picture(0), CONTEXTS[0].guidance + suffix)
    assert written_under(make_augmenter(lora=None), question) == written


def test_questions_that_lead_to_one_description_share_their_views(
    make_augmenter: Make, tmp_path: Path
) -> None:
    augmenter, store = make_augmenter(), Store(tmp_path / "store")
    (asked,) = augmenter.augment(CONTEXTS[:1], n=2)
    (entry,) = (entry for entry in store.entries() if entry.namespace == "descriptions")
    payload, _ = store.read("descriptions", entry.key) or (b"", {})
    text = json.loads(payload)["description"]
    (told,) = augmenter.augment([DescribedContext(picture(0), text, "Another one?")], n=3)
    assert told.keys[:2] == asked.keys and told.files[:2] == asked.files
    assert store.info().namespaces["views"].files == 3


def test_the_keys_of_views_follow_from_descriptions(make_augmenter: Make) -> None:
    augmenter = make_augmenter()
    assert augmenter.view_keys([CONTEXTS[0], TOLD], n=2)[0] is None
    (made,) = augmenter.augment(CONTEXTS[:1], n=2)
    assert augmenter.view_keys(CONTEXTS[:1], n=2) == [made.keys]


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


def test_a_context_is_handed_out_as_soon_as_its_views_are_there(
    make_augmenter: Make, tmp_path: Path
) -> None:
    contexts = [MultimodalContext(picture(seed)) for seed in range(40)]
    augmenter, store = make_augmenter("randaugment"), Store(tmp_path / "store")
    handed_out = augmenter.iter_augment(iter(contexts), n=2)
    first = next(handed_out)
    assert store.info().namespaces["views"].files == VIEWS_PER_BATCH  # of 80
    rest = list(handed_out)
    assert [first, *rest] == make_augmenter("randaugment").augment(contexts, n=2)
    assert [a.keys for a in (first, *rest)] == augmenter.view_keys(contexts, n=2)


def test_the_parts_that_are_planned_together_grow_to_a_bound() -> None:
    parts = list(windows(range(20_000)))
    sizes = [len(part) for part in parts]
    assert sizes[:3] == [16, 32, 64] and max(sizes) == LARGEST_WINDOW
    assert [number for part in parts for number in part] == list(range(20_000))


def test_an_iterable_is_read_as_its_views_are_made(make_augmenter: Make) -> None:
    read: list[int] = []

    def contexts() -> Iterator[MultimodalContext]:
        for seed in range(40):
            read.append(seed)
            yield MultimodalContext(picture(seed), ground_truth="yes" if seed == 39 else None)

    handed_out = make_augmenter("randaugment").iter_augment(contexts(), n=1)
    next(handed_out)
    assert 0 < len(read) < 39
    with pytest.raises(UserError, match="context 39 carries its ground truth"):
        list(handed_out)


def test_views_are_made_without_being_handed_out(make_augmenter: Make, tmp_path: Path) -> None:
    augmenter = make_augmenter("randaugment")
    augmenter.make(CONTEXTS, n=2)
    keys = [key for keys in augmenter.view_keys(CONTEXTS, n=2) for key in keys or ()]
    assert len(keys) == 8 and all(Store(tmp_path / "store").has("views", key) for key in keys)
    with pytest.raises(UserError, match="store=False keeps nothing"):
        make_augmenter("randaugment", store=False).make(CONTEXTS)


def test_stored_views_are_read_once(make_augmenter: Make, tmp_path: Path) -> None:
    make_augmenter().augment(CONTEXTS[:3], n=4)
    opened: list[str] = []
    listening = True

    def hear(event: str, arguments: tuple) -> None:
        if listening and event == "open" and str(tmp_path / "store") in str(arguments[0]):
            opened.append(Path(arguments[0]).suffix)

    sys.addaudithook(hear)
    make_augmenter().augment(CONTEXTS[:3], n=4)
    listening = False
    # Three descriptions, and the one file that says which weights' views there are.
    assert sorted(opened) == [".json"] * (3 + 1) + [".png"] * 12


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
    payload, meta = store.read("views", entry.key) or (b"", {})
    assert [payload] == augmentation.files and meta["description"] == augmentation.description
    # Nothing else is told of a view: no answer, no path, no host; many questions may share it.
    assert set(meta) == {"pixels", "description", "shortened", "generator", "seed"}
    assert meta["seed"] == 0 and meta["generator"] == augmentation.spec["generator"]
    (written,) = (entry for entry in store.entries() if entry.namespace == "descriptions")
    _, meta = store.read("descriptions", written.key) or (b"", {})
    assert set(meta) == {"pixels", "guidance", "task", "describer"}
    assert meta["guidance"] == CONTEXTS[0].guidance
    assert meta["describer"] == augmentation.spec["describer"]


def test_an_augmenter_says_what_it_is(make_augmenter: Make, tmp_path: Path) -> None:
    told = repr(make_augmenter())
    assert told.startswith("<Augmenter hummingbird: base=") and "\n" not in told
    for part in ("num_inference_steps=2", "lora_unet'", "describer=", "task='vqa'", "device='cpu'"):
        assert part in told
    assert repr(str(tmp_path / "store")) in told
    assert "store" not in repr(make_augmenter("randaugment", store=False))
