"""The augmenter: what it gives, what decides it, and that nothing is made twice or leaks."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from augmenting import GOLDEN, contents, finish, logged, models, picture, start
from PIL import Image
from safetensors.torch import load_file, save_file

from hb_tta import Augmentation, Augmenter, DescribedContext, MultimodalContext, UserError
from hb_tta.describe import DescriberSpec
from hb_tta.families import get_family
from hb_tta.fingerprint import Weights
from hb_tta.generators import get_method
from hb_tta.models import Models
from hb_tta.store import Store

Make = Callable[..., Augmenter]


@pytest.fixture(scope="module")
def mllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_llava(tmp_path_factory.mktemp("mllm"))


@pytest.fixture(scope="module")
def describer(mllm: Path) -> DescriberSpec:
    return DescriberSpec(Weights(str(mllm)), max_new_tokens=16)


@pytest.fixture(scope="module")
def loaded() -> dict[str, Augmenter]:
    """Augmenters of earlier tests with their models, by settings."""
    return {}


@pytest.fixture
def make(describer: DescriberSpec, tmp_path: Path, loaded: dict[str, Augmenter]) -> Make:
    """Augmenters on the golden pipeline and a tiny LLaVA, with a store of the test's own."""

    def make(method: str = "hummingbird", *, fresh: bool = False, **changed: Any) -> Augmenter:
        store = changed.pop("store", tmp_path / "store")
        settings = {**models(Path(), describer=describer), **changed}
        if method == "randaugment":
            settings = {}
        elif method == "i2t2i":
            settings.pop("lora")
        new = Augmenter.from_pretrained(method, family="pocket", store=store, **settings)
        if fresh:
            return new
        same = copy(loaded.setdefault(f"{method} {settings}", new))
        same.store = new.store
        return same

    return make


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image).astype(int) for image in images])


CONTEXTS = [
    MultimodalContext(picture(0), "Is there a red circle left of the square?"),
    MultimodalContext(picture(1, 80, 40), "How many triangles are there?"),
    MultimodalContext(picture(2), "", "object"),
    MultimodalContext(picture(3), "person | ride | bicycle", "hoi"),
]


# ── What it gives ────────────────────────────────────────────────────────────────────────────────


def test_an_image_and_a_question_give_views(make: Make) -> None:
    views = make()(picture(0), "Is there a red circle?", n=3, seed=7)
    assert [(view.mode, view.size) for view in views] == [("RGB", (64, 64))] * 3
    assert len({view.tobytes() for view in views}) == 3


@pytest.mark.parametrize("method", ["hummingbird", "i2t2i", "randaugment"])
def test_every_method_goes_one_way(make: Make, method: str) -> None:
    augmenter = make(method)
    augmentations = augmenter.augment(CONTEXTS, n=2, seed=5)
    for augmentation in augmentations:
        assert augmentation.seeds == [5, 6]
        assert len(augmentation.views) == len(set(augmentation.keys)) == 2
        assert augmentation.spec["generator"]["method"] == method
        assert json.loads(json.dumps(augmentation.spec)) == augmentation.spec
        needed = augmenter.generator_spec.needs_description
        assert bool(augmentation.description) == needed
        assert (augmentation.spec["describer"] is not None) == needed
    assert make(method).augment(CONTEXTS, n=2, seed=5) == augmentations  # from the store


def test_view_i_uses_seed_plus_i(make: Make) -> None:
    many = make(store=False).augment(CONTEXTS[:1], n=3, seed=5)[0]
    one = make(store=False).augment(CONTEXTS[:1], n=1, seed=6)[0]
    assert many.seeds == [5, 6, 7]
    assert many.keys[1] == one.keys[0]
    assert abs(pixels(many.views[1:2]) - pixels(one.views)).max() <= 1


def test_a_view_does_not_depend_on_the_batch_around_it(make: Make) -> None:
    one_by_one = make(store=False, batch_size=1).augment(CONTEXTS, n=3)
    for batched in (
        make(store=False, batch_size=16).augment(CONTEXTS, n=3),
        make(store=False, batch_size=5).augment(CONTEXTS[::-1], n=3)[::-1],
    ):
        for a, b in zip(one_by_one, batched, strict=True):
            assert (a.description, a.keys, a.seeds) == (b.description, b.keys, b.seeds)
            assert abs(pixels(a.views) - pixels(b.views)).max() <= 1


def test_the_same_context_twice_is_made_once(make: Make, tmp_path: Path) -> None:
    first, second = make().augment([CONTEXTS[0], CONTEXTS[0]], n=2)
    assert first == second
    assert Store(tmp_path / "store").info().namespaces["views"].files == 2


def test_an_image_comes_in_any_way(make: Make, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    augmenter = make()
    (expected,) = augmenter(picture(0), "Is it?", n=1)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        (view,) = augmenter(source, "Is it?", n=1)
        assert view == expected


def test_the_task_of_the_augmenter_is_that_of_a_call(make: Make) -> None:
    augmenter = make(task="hoi")
    views = augmenter(picture(0), "person | bicycle", n=1)
    (same,) = augmenter.augment([MultimodalContext(picture(0), "person | bicycle", "hoi")], n=1)
    (other,) = augmenter.augment([MultimodalContext(picture(0), "person | bicycle")], n=1)
    assert views == same.views and same.keys != other.keys


# ── Descriptions ─────────────────────────────────────────────────────────────────────────────────


def test_a_description_that_comes_along_is_used_as_it_is(make: Make) -> None:
    augmenter = make(describer=None)
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


def test_without_a_describer_a_description_is_missed(make: Make) -> None:
    with pytest.raises(UserError, match="context 0 has no description and there is no describer"):
        make(describer=None)(picture(0), "Is it?")


def test_a_description_too_long_is_shortened_and_says_so(make: Make) -> None:
    long = "A red circle on a sandy beach. " * 30
    with pytest.warns(UserWarning, match="too long for the text encoders and was shortened"):
        (augmentation,) = make().augment([DescribedContext(picture(0), long)], n=1)
    assert augmentation.description and long.startswith(augmentation.description)
    assert augmentation.description.endswith("beach.")
    assert ["shortened" in warning for warning in augmentation.warnings] == [True]
    (again,) = make().augment([DescribedContext(picture(0), long)], n=1)
    assert again == augmentation  # the store remembers what was told


def test_a_question_too_long_is_shortened_and_says_so(make: Make) -> None:
    with pytest.warns(UserWarning, match="the question has 99999 characters"):
        (augmentation,) = make().augment([MultimodalContext(picture(0), "word " * 20_000)], n=1)
    assert augmentation.warnings[0].startswith("the question has 99999 characters")


@pytest.mark.parametrize("question", ["", "这是什么？", "a\x00b\ud800", "<b>&amp;</b>?", "<image>"])
def test_questions_in_any_script(make: Make, question: str) -> None:
    assert len(make()(picture(0), question, n=1)) == 1


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────


def key_of(augmenter: Augmenter, context: MultimodalContext = CONTEXTS[0], seed: int = 0) -> str:
    return augmenter.view_keys([context], n=1, seed=seed)[0][0]


def test_all_that_changes_a_view_changes_its_key(
    make: Make, describer: DescriberSpec, tmp_path: Path
) -> None:
    nudged = picture(0)
    nudged.putpixel((0, 0), (1, 2, 3))
    other_mllm = tiny_models.save_llava(tmp_path / "other_mllm", seed=1)
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "retrained")
    lora = load_file(tmp_path / "retrained" / "adapter_model.safetensors")
    save_file({k: v * 2 for k, v in lora.items()}, tmp_path / "retrained/adapter_model.safetensors")
    question = CONTEXTS[0].guidance
    keys = [
        key_of(make()),
        key_of(make(), seed=1),
        key_of(make(), MultimodalContext(nudged, question)),
        key_of(make(), MultimodalContext(picture(0), "Is there a cat?")),
        key_of(make(), MultimodalContext(picture(0), question, "hoi")),
        key_of(make(lora=None)),
        key_of(make(lora=tmp_path / "retrained")),
        key_of(make(num_inference_steps=3)),
        key_of(make(guidance_scale=3.0)),
        key_of(make(dtype="bfloat16", describer=describer)),
        key_of(make(describer=replace(describer, max_new_tokens=17))),
        key_of(make(describer=other_mllm)),
        key_of(make("i2t2i")),
    ]
    assert len(set(keys)) == len(keys)


def test_nothing_else_changes_a_key(make: Make, describer: DescriberSpec, tmp_path: Path) -> None:
    key = key_of(make())
    shutil.copytree(GOLDEN, tmp_path / "copy")
    moved = make(generator=tmp_path / "copy/pipeline", lora=tmp_path / "copy/lora_unet")
    assert key_of(moved) == key
    suffix = " Please answer yes or no.\nAnswer the question using a single word or phrase."
    same = MultimodalContext(picture(0), CONTEXTS[0].guidance + suffix)
    assert key_of(make(batch_size=1), same) == key
    assert key_of(make(store=tmp_path / "elsewhere", device="cpu", keep_loaded=False)) == key


def test_a_method_without_description_ignores_the_question(make: Make) -> None:
    first, second = make("randaugment").augment(
        [MultimodalContext(picture(0), "Is it?"), MultimodalContext(picture(0), "", "hoi")], n=2
    )
    assert first == second and first.description is None


# ── The store ────────────────────────────────────────────────────────────────────────────────────


def settings(mllm: Path, folder: Path, **changed: Any) -> dict[str, Any]:
    """Of an ``augment_process``."""
    paths = []
    for seed in range(4):
        picture(seed).save(folder / f"{seed}.png")
        paths.append((str(folder / f"{seed}.png"), f"Is there a {seed}?"))
    return {
        "method": "hummingbird",
        "models": models(mllm),
        "store": str(folder / "store"),
        "contexts": paths,
        "n": 4,
        "batch_size": 2,
        **changed,
    }


def test_the_second_time_loads_no_torch_and_rewrites_nothing(mllm: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = finish(start(tmp_path, log, settings(mllm, tmp_path)))
    before = contents(Store(tmp_path / "store"))
    assert "torch" in first["imported"]
    assert sorted(logged(log)) == sorted(first["keys"]) == sorted(before)
    second = finish(start(tmp_path, log, settings(mllm, tmp_path)))
    assert second["imported"] == []
    assert second["keys"] == first["keys"] and len(logged(log)) == 16
    assert contents(Store(tmp_path / "store")) == before


def test_a_killed_process_loses_no_finished_view(mllm: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    process = start(tmp_path, log, settings(mllm, tmp_path, n=10, batch_size=1))
    while len(logged(log)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = contents(store)
    assert 3 <= len(finished) < 40
    assert store.verify() == []
    finish(start(tmp_path, tmp_path / "rest", settings(mllm, tmp_path, n=10, batch_size=7)))
    after = contents(store)
    assert len(after) == 40 and {key: after[key] for key in finished} == finished
    assert sorted(logged(tmp_path / "rest")) == sorted(after.keys() - finished.keys())


def test_three_processes_make_nothing_twice(mllm: Path, tmp_path: Path) -> None:
    log, wanted = tmp_path / "log", settings(mllm, tmp_path, n=6)
    backwards = {**wanted, "contexts": wanted["contexts"][::-1]}
    running = [start(tmp_path, log, each) for each in (wanted, backwards, wanted)]
    keys = [finish(process)["keys"] for process in running]
    assert sorted(keys[0]) == sorted(keys[1]) == sorted(keys[2])
    assert sorted(logged(log)) == sorted(set(keys[0]))


def test_without_a_store_nothing_is_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "default"))
    make(store=False)(picture(0), "Is it?", n=1)
    assert not (tmp_path / "default").exists()
    make(store=None)(picture(0), "Is it?", n=1)
    assert Store().root == tmp_path / "default"
    assert Store().info().namespaces["views"].files == 1


def test_a_damaged_view_is_made_again(make: Make, tmp_path: Path) -> None:
    first = make().augment(CONTEXTS[:2], n=2)
    entry = next(e for e in Store(tmp_path / "store").entries() if e.key == first[1].keys[1])
    data = bytearray(entry.path.read_bytes())
    data[50] ^= 1
    entry.path.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        second = make().augment(CONTEXTS[:2], n=2)
    assert abs(pixels(second[1].views) - pixels(first[1].views)).max() <= 1
    assert second[0] == first[0]


def test_a_lost_description_is_written_again_only_when_it_is_needed(
    make: Make, tmp_path: Path
) -> None:
    (first,) = make().augment(CONTEXTS[:1], n=1)
    shutil.rmtree(tmp_path / "store" / "descriptions")
    augmenter = make(fresh=True)
    (again,) = augmenter.augment(CONTEXTS[:1], n=1)
    assert again == first and augmenter._models.loaded == []
    (more,) = augmenter.augment(CONTEXTS[:1], n=2)
    assert more.description == first.description and more.keys[0] == first.keys[0]


# ── Ground truth ─────────────────────────────────────────────────────────────────────────────────


def test_a_ground_truth_stops_at_the_door(make: Make, tmp_path: Path) -> None:
    told = replace(CONTEXTS[1], ground_truth="zebra crossing")
    for method in ("hummingbird", "i2t2i", "randaugment"):
        with pytest.raises(UserError, match="context 1 carries its ground truth"):
            make(method).augment([CONTEXTS[0], told], n=1)
    assert not (tmp_path / "store").exists()


def test_no_entry_and_no_name_knows_of_a_ground_truth(make: Make, tmp_path: Path) -> None:
    """Two data sets that differ in their answers alone fill a store with the same bytes."""
    stores = []
    for answer in ("zebra", "giraffe"):
        samples = [(context, answer) for context in CONTEXTS]
        store = tmp_path / answer
        make(store=store, batch_size=1).augment([context for context, _ in samples], n=2)
        files = {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}
        assert not any(answer.encode() in data for data in files.values())
        stores.append(files)
    assert stores[0] == stores[1]


def test_what_reaches_the_models_has_no_place_for_a_ground_truth() -> None:
    assert "ground_truth" not in DescribedContext._fields
    fields = inspect.signature(Augmenter.__call__).parameters
    assert list(fields) == ["self", "image", "question", "n", "seed"]


# ── Models ───────────────────────────────────────────────────────────────────────────────────────


def test_the_models_take_turns_where_there_is_no_room_for_both(describer: DescriberSpec) -> None:
    family = get_family("pocket").with_roles(generator=GOLDEN / "pipeline", lora=None)
    spec = get_method("hummingbird").from_family(family, num_inference_steps=1, dtype="float32")
    context = MultimodalContext(picture(0), "Is it?")
    seen = {}
    for keep in (True, False, None):
        pair = Models(spec, describer, device="cpu", keep_loaded=keep)
        text = pair.describe([context])
        loaded = [pair.loaded]
        view = pair.generate([(picture(0), "a cat")], [[0]])
        loaded.append(pair.loaded)
        assert pair.describe([context]) == text
        loaded.append(pair.loaded)
        assert pair.generate([(picture(0), "a cat")], [[0]]) == view
        pair.unload()
        assert pair.loaded == []
        seen[keep] = loaded
    assert seen[False] == [["describer"], ["generator"], ["describer"]]
    assert seen[True] == seen[None] == [["describer"], *[["describer", "generator"]] * 2]


def test_an_augmenter_works_on_after_unload(make: Make) -> None:
    augmenter = make(store=False, fresh=True)
    first = augmenter.augment(CONTEXTS[:1], n=1)
    augmenter.unload()
    assert augmenter.augment(CONTEXTS[:1], n=1) == first


def test_weights_that_change_under_an_augmenter_are_noticed(make: Make, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "lora")
    augmenter = make(lora=tmp_path / "lora", fresh=True)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(file).items()}, file)
    with pytest.raises(UserError, match="weights on disk changed"):
        augmenter(picture(0), "Is it?", n=1)
    assert "views" not in Store(tmp_path / "store").info().namespaces


def test_the_hubs_layouts_of_sdxl(tmp_path: Path) -> None:
    """What ``family="sdxl"`` loads, in folders laid out as the repositories on the hub are."""
    unet = json.loads((GOLDEN / "pipeline/unet/config.json").read_text())
    width = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "hummingbird" / "lora_unet_65000")
    family = get_family("sdxl").with_roles(
        generator=tiny_models.without_image_encoder(GOLDEN / "pipeline", tmp_path / "base"),
        image_encoder=tiny_models.save_image_encoder(tmp_path / "clip", projection_dim=width),
        lora=Weights(str(tmp_path / "hummingbird"), subfolder="lora_unet_65000"),
    )
    augmenter = Augmenter.from_pretrained(
        "hummingbird",
        family=family,
        describer=tiny_models.save_llava_next(tmp_path / "llava"),
        store=tmp_path / "store",
    )
    (augmentation,) = augmenter.augment(CONTEXTS[:1], n=1)
    generator = augmentation.spec["generator"]
    assert (generator["num_inference_steps"], generator["guidance_scale"]) == (25, 15.0)
    assert generator["lora"] and generator["image_encoder"]
    assert augmentation.views[0].size == (64, 64)


# ── Mistakes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"n": 0}, "n=0 views are none: use 1 or more"),
        ({"n": -3}, "n=-3"),
        ({"n": True}, "n=True is no whole number"),
        ({"n": 1.5}, "n=1.5 is no whole number"),
        ({"n": None}, "n=None is no whole number"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": 2**63}, "is out of range"),
        ({"seed": "0"}, "seed='0' is no whole number"),
    ],
)
def test_mistaken_numbers(make: Make, call: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()(picture(0), "Is it?", **call)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"task": "caption"}, "task 'caption' is not known: choose from vqa, hoi, object, generic"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"generator": "no/such/folder"}, "no folder and no hub id"),
        ({"lora": "no/such/folder"}, "no folder and no hub id"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
    ],
)
def test_mistaken_settings(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**settings)


def test_mistaken_names() -> None:
    with pytest.raises(UserError, match="no method 'humingbird': choose from hummingbird, i2t2i"):
        Augmenter.from_pretrained("humingbird", family="pocket")
    with pytest.raises(UserError, match="no family 'sd3'"):
        Augmenter.from_pretrained("hummingbird", family="sd3")


def test_mistaken_contexts(make: Make) -> None:
    augmenter = make()
    for contexts, sentence in (
        ([picture(0)], "context 0 is a Image: give a MultimodalContext"),
        ([("missing.png", "a cat")], "there is no image 'missing.png'"),
        ([MultimodalContext(picture(0), "", "caption")], "task 'caption' is not known"),
        ([MultimodalContext(picture(0), None)], "has the guidance None"),  # type: ignore[arg-type]
        ([(picture(0), 3)], "has the description 3"),
        ([(picture(0), "a\ud800")], "which is no Unicode text"),
    ):
        with pytest.raises(UserError, match=sentence):
            augmenter.augment(contexts)


def test_a_describer_that_is_not_there(make: Make) -> None:
    augmenter = make(describer="no/such/folder")
    with pytest.raises(UserError, match="no folder and no hub id"):
        augmenter(picture(0), "Is it?")
    augmenter.augment([(picture(0), "a red circle")], n=1)  # which needs none


def test_settings_that_a_method_ignores_give_a_warning(mllm: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as caught:
        Augmenter.from_pretrained(
            "randaugment",
            family="pocket",
            lora=GOLDEN / "lora_unet",
            describer=mllm,
            cpu_offload=True,
            store=tmp_path,
        )
    told = " ".join(str(warning.message) for warning in caught)
    assert "ignores lora" in told and "describer is ignored" in told and "cpu_offload" in told


def test_no_contexts_give_nothing(make: Make) -> None:
    assert make().augment([]) == []


def test_an_augmentation_is_plain_data(make: Make) -> None:
    (augmentation,) = make("randaugment").augment([MultimodalContext(picture(0))], n=1)
    assert isinstance(augmentation, Augmentation)
    assert augmentation.keys and not augmentation.warnings
    with pytest.raises(AttributeError):
        augmentation.seeds = []  # type: ignore[misc]


def test_a_view_in_the_store_opens_anywhere(make: Make, tmp_path: Path) -> None:
    (augmentation,) = make().augment(CONTEXTS[:1], n=1)
    store = Store(tmp_path / "store")
    (entry,) = (entry for entry in store.entries() if entry.namespace == "views")
    assert Image.open(entry.path).convert("RGB").tobytes() == augmentation.views[0].tobytes()
    manifest = store.manifest("views", entry.key)
    assert manifest and manifest["description"] == augmentation.description
    assert manifest["guidance"] == CONTEXTS[0].guidance and manifest["seed"] == 0
    assert {"generator": manifest["generator"], "describer": manifest["describer"]} == (
        augmentation.spec
    )
