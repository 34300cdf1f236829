"""Benchmarks load right or not at all: class mappings, splits, pocket tasks."""

import json

import numpy as np
import pytest
from PIL import Image

from hb_tta.datasets import (
    BONGARD_SPLITS,
    OBJECT_TASKS,
    bongard_hoi,
    class_names_file,
    image_folder,
    imagenet,
    load_tasks,
)
from hb_tta.errors import UserError
from hb_tta.pocket.hoi import SHOTS, VARIANTS, hoi_tasks, pocket_hoi
from hb_tta.pocket.objects import CLASSES, pocket_objects
from hb_tta.pocket.reading import Place, relations_between
from hb_tta.pocket.world import HELD_OUT_LOOKS, MIRROR_RELATIONS, UNSEEN_PAIRS, render
from hb_tta.tpt.evaluate import query_requests, support_request


def folders(root, names, images=1):
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(images):
            Image.new("RGB", (4, 4)).save(root / name / f"{index}.png")
    return root


# ── Folders and ImageNet ─────────────────────────────────────────────────────────────────────────


def test_numbered_folders_are_indices_not_places_in_the_alphabet(tmp_path):
    """Sorted as texts, "10" comes before "2": that is the famous accuracy of 0.6 %."""
    root = folders(tmp_path / "data", [str(n) for n in range(12)])
    task = image_folder(root, [f"class {n}" for n in range(12)])
    for image, label in task.images:
        assert image.parent.name == str(label)
    assert task.class_names[10] == "class 10"


def test_a_list_of_names_that_says_nothing_of_the_folders_is_refused(tmp_path):
    root = folders(tmp_path / "data", ["n01", "n02"])
    with pytest.raises(UserError, match="do not say which of the 2 folders"):
        image_folder(root, ["cat", "dog"])
    task = image_folder(root, {"n02": "dog", "n01": "cat"})
    assert task.class_names == ("dog", "cat")
    assert [(image.parent.name, label) for image, label in task.images] == [("n02", 0), ("n01", 1)]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"n01": "cat"}, "a folder 'n02'"),
        ({"n01": "a", "n02": "b", "n03": "c"}, "no folder of 'n03'"),
    ],
)
def test_a_class_missing_or_unknown_is_told(tmp_path, names, told):
    root = folders(tmp_path / "data", ["n01", "n02"])
    with pytest.raises(UserError, match=told):
        image_folder(root, names)


def test_a_class_without_images_and_a_missing_root_are_told(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        image_folder(tmp_path / "nowhere")
    root = folders(tmp_path / "data", ["cat"])
    (root / "dog").mkdir()
    with pytest.raises(UserError, match="dog holds no image"):
        image_folder(root)
    with pytest.raises(UserError, match="no class folders"):
        image_folder(root / "cat")


def test_what_other_programs_leave_is_no_class_and_no_image(tmp_path):
    root = folders(tmp_path / "data", ["cat", "dog"])
    for name in (".ipynb_checkpoints", "__MACOSX", "cat/.thumbnails"):
        folders(root, [name])
    Image.new("RGB", (4, 4)).save(root / "dog" / "._0.png")
    task = image_folder(root)
    assert task.class_names == ("cat", "dog")
    assert [image.name for image, _ in task.images] == ["0.png", "0.png"]


def test_a_limit_takes_a_fixed_subset_and_says_so(tmp_path):
    root = folders(tmp_path / "data", ["cat", "dog"], images=20)
    some, again = image_folder(root, limit=10), image_folder(root, limit=10)
    assert some == again
    assert (len(some.images), some.total) == (10, 40)
    assert {label for _, label in some.images} == {0, 1}


def test_imagenet_and_its_variants_map_to_their_own_classes(tmp_path):
    from importlib import resources

    def wnids(file):
        return resources.files("timm.data").joinpath("_info", file).read_text().split()

    everything = imagenet("imagenet", folders(tmp_path / "in", wnids("imagenet_synsets.txt")))
    assert len(everything.class_names) == 1000
    assert everything.class_names[0] == "tench"
    assert everything.class_names[999] == "toilet paper"
    v2 = imagenet("imagenet-v2", folders(tmp_path / "v2", [str(n) for n in range(1000)]))
    assert v2.class_names == everything.class_names
    assert all(image.parent.name == str(label) for image, label in v2.images)
    root = folders(tmp_path / "a", wnids("imagenet_a_synsets.txt"))
    hard = imagenet("imagenet-a", root)
    assert len(hard.class_names) == 200
    by_wnid = dict(zip(wnids("imagenet_synsets.txt"), everything.class_names, strict=True))
    assert all(hard.class_names[label] == by_wnid[i.parent.name] for i, label in hard.images)
    with pytest.raises(UserError, match="800 classes are missing"):
        imagenet("imagenet", root)
    with pytest.raises(UserError, match="by WordNet id"):
        imagenet("imagenet", folders(tmp_path / "odd", ["cat", "dog"]))


def test_class_name_files(tmp_path):
    file = tmp_path / "names"
    for text, names in (("cat\ndog\n", ["cat", "dog"]), ('{"a": "cat"}', {"a": "cat"})):
        file.write_text(text)
        assert class_names_file(file) == names
    file.write_text('["cat"]', encoding="utf-8-sig")
    assert class_names_file(file) == ["cat"]
    for text in ("", "[1, 2]", "{broken"):
        file.write_text(text)
        with pytest.raises(UserError, match="names"):
            class_names_file(file)


# ── Bongard-HOI ──────────────────────────────────────────────────────────────────────────────────


def bongard_file(path, positives=7, negatives=7):
    def row(kind, n, act):
        return {
            "im_path": f"images/{kind}{n}.jpg",
            "sub_class": "person",
            "act_class": act,
            "obj_class": "dining_table",
        }

    task = [
        [row("neg", n, "stand_by") for n in range(negatives)],
        [row("pos", n, "sit_at") for n in range(positives)],
        "sit_at dining_table",
    ]
    path.write_text(json.dumps([task] * 3))
    return path


def test_bongard_hoi_reads_supports_and_queries_and_is_the_same_twice(tmp_path):
    file = bongard_file(tmp_path / "tasks.json")
    loaded, again = bongard_hoi(file, tmp_path), bongard_hoi(file, tmp_path)
    assert loaded == again
    task = loaded.tasks[0]
    assert [image.label for image in task.supports] == [0] * 6 + [1] * 6
    assert [query.image.name for query in task.queries] == ["pos6.jpg", "neg6.jpg"]
    assert [query.label for query in task.queries] == [0, 1]
    assert task.supports[0][2:] == ("person", "sit at", "dining table")
    assert loaded.tasks[0] == loaded.tasks[1]  # a second access gives the same split


def test_bongard_hois_images_are_found_where_training_finds_them(tmp_path):
    """im_path starts from the folder itself, or from hake/, hake/images/ or images/ in it."""
    file = bongard_file(tmp_path / "tasks.json")
    found = tmp_path / "hake" / "images" / "pos6.jpg"
    found.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(found)
    positive, negative = bongard_hoi(file, tmp_path).tasks[0].queries
    assert positive.image == found
    assert negative.image == tmp_path / "images" / "neg6.jpg"  # missing: told when it is read


def test_a_querys_own_annotation_and_side_reach_no_view(tmp_path):
    task = bongard_hoi(bongard_file(tmp_path / "tasks.json"), tmp_path).tasks[0]
    changed = tuple(
        query._replace(label=1 - query.label, agent="SECRET", action="SECRET", object="SECRET")
        for query in task.queries
    )
    told = [(r.guidance, r.task) for r in query_requests(task)]
    hidden = type(task)(task.supports, changed)
    assert [(r.guidance, r.task) for r in query_requests(hidden)] == told
    assert told == [("person | dining table", "hoi")] * 2
    assert support_request(task.supports[0]).guidance == "person | sit at | dining table"


@pytest.mark.parametrize(("sides", "told"), [((1, 7), "no positive"), ((7, 0), "no negative")])
def test_a_task_without_one_kind_of_support_is_told(tmp_path, sides, told):
    file = bongard_file(tmp_path / "tasks.json", *sides)
    with pytest.raises(UserError, match=told):
        bongard_hoi(file, tmp_path)


def test_what_is_no_bongard_file_is_told(tmp_path):
    for text in ("{", "[1]", '[[[{"im_path": "a"}, {}], [{}, {}], ""]]'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="cannot be read as tasks"):
            bongard_hoi(tmp_path / "bad.json", tmp_path)
    with pytest.raises(UserError, match="cannot be read as tasks"):
        bongard_hoi(tmp_path / "none.json", tmp_path)


def test_the_four_splits_have_their_files(tmp_path):
    for file in BONGARD_SPLITS.values():
        bongard_file(tmp_path / file)
    parts = load_tasks("bongard-hoi", data=tmp_path, limit=2)
    assert [len(part.tasks) for part in parts] == [2] * 4
    assert [part.total for part in parts] == [3] * 4


# ── Pocket tasks ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", OBJECT_TASKS)
def test_pocket_objects_are_deterministic_and_named_right(name):
    samples, more = pocket_objects(name, limit=12), pocket_objects(name, limit=20)
    assert [s.image.tobytes() for s in samples] == [s.image.tobytes() for s in more[:12]]
    sealed = pocket_objects(name, "sealed", limit=12)
    assert all(a.scene != b.scene for a, b in zip(samples, sealed, strict=True))
    for sample in more:
        group = sample.scene.groups[0]
        assert CLASSES[sample.label] == f"{group.colour} {group.shape}"
        assert sample.image.size == (64, 64)
        look = (group.shape, group.colour, sample.scene.background)
        assert (look in HELD_OUT_LOOKS) == (name == "pocket_objects_a")
    assert len({sample.label for sample in more}) > 5


def test_a_thing_can_be_seen_in_every_variant():
    for name in OBJECT_TASKS:
        for sample in pocket_objects(name, limit=30):
            spread = np.asarray(sample.image, dtype=float).reshape(-1, 3)
            distance = np.linalg.norm(spread - np.median(spread, 0), axis=1)
            assert (distance > 40).sum() >= 12, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_pocket_hoi_shows_what_it_says(variant):
    unseen_action, unseen_object = VARIANTS[variant]
    actions = set()
    for task in pocket_hoi(variant, limit=25):
        assert ((task.action, task.object) in UNSEEN_PAIRS) == unseen_action
        assert [image.label for image in task.supports] == [0] * SHOTS + [1] * SHOTS
        assert [image.label for image in task.queries] == [0, 1]
        actions.add(task.action)
        for sample in (*task.supports, *task.queries):
            agent, thing = sample.scene.groups
            assert (agent.shape, thing.shape) == ("cross", task.object)
            assert sample.action in MIRROR_RELATIONS
            assert (sample.action == task.action) == (sample.label == 0)
            look = (thing.shape, thing.colour, sample.scene.background)
            assert (look in HELD_OUT_LOOKS) == unseen_object
            places = [[Place(t.x, t.y, t.radius)] for t in sample.scene.things]
            held = relations_between(*places)
            assert (task.action in held) == (sample.label == 0), (task.action, sample.scene)
    assert len(actions) > 1


def test_pocket_hoi_survives_a_mirror():
    for task in pocket_hoi("seen act., seen obj.", limit=20):
        for sample in task.supports:
            mirrored = [[Place(64 - t.x, t.y, t.radius)] for t in sample.scene.things]
            assert (task.action in relations_between(*mirrored)) == (sample.label == 0)


def test_pocket_hoi_is_deterministic_and_its_splits_share_no_scene():
    first, longer = pocket_hoi("seen act., seen obj.", limit=2), hoi_tasks(20_201, False, False)
    assert first == [next(longer), next(longer)]
    sealed = pocket_hoi("seen act., seen obj.", "sealed", limit=2)
    assert not {s.scene for t in first for s in t.supports} & {
        s.scene for t in sealed for s in t.supports
    }
    assert render(first[0].queries[0].scene).tobytes() == first[0].queries[0].image.tobytes()


def test_tasks_by_name():
    assert [part.name for part in load_tasks("pocket_objects_all", limit=3)] == [
        f"{name} (dev)" for name in OBJECT_TASKS
    ]
    hoi = load_tasks("pocket_hoi", split="sealed", limit=2)
    assert [part.total for part in hoi] == [200] * 4
    with pytest.raises(UserError, match="pocket_hoi"):
        load_tasks("cifar")
    with pytest.raises(UserError, match="--data"):
        load_tasks("imagenet")
