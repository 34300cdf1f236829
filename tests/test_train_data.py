"""Recipes, settings on the command line, and the sources of samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hb_tta.cli import main
from hb_tta.cli.requests import Request, read_requests
from hb_tta.datasets.bongard_hoi import BongardExamples
from hb_tta.datasets.folders import FolderExamples
from hb_tta.datasets.imagenet import imagenet_examples
from hb_tta.datasets.own import OwnExamples, open_rows
from hb_tta.datasets.pocket import PocketExamples
from hb_tta.datasets.pocket_training import PocketHoiExamples, PocketObjectExamples
from hb_tta.datasets.samples import Example
from hb_tta.describe import DescriberSpec
from hb_tta.errors import UserError
from hb_tta.images import pixel_digest
from hb_tta.pocket.objects import CLASSES
from hb_tta.pocket.world import HELD_OUT_LOOKS, MIRROR_RELATIONS, UNSEEN_PAIRS
from hb_tta.training.data import BadRecord, Interleaved, Rows, open_source
from hb_tta.training.prepare import Order, Prepared, Share, describe_all, suited
from hb_tta.training.recipes import RECIPES, get_recipe, to_json, with_changes
from hb_tta.weights import Weights


def own(path: Path) -> Rows:
    rows = open_rows(str(path))
    assert rows is not None
    return Rows(OwnExamples(rows))


def save_image(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)
    return path


# ── Recipes and settings ────────────────────────────────────────────────────────────────────────


def test_the_papers_recipes_have_the_papers_figures():
    for name in ("paper-vqa", "paper-hoi", "paper-object"):
        s = get_recipe(name)
        assert (s.num_inference_steps, s.gradient_steps, s.lora_rank) == (25, 5, 8)
        assert s.learning_rate == 5e-6 and s.batch_size == 8 * 8 and s.max_steps == 50_000
    released = get_recipe("released")
    assert released.lora_dropout == 0.1 and released.batch_size == 8 * 16
    assert released.loss_scale == 100 and "match_probability" in released.rewards


def test_every_recipe_is_plain_json():
    for name in RECIPES:
        written = json.loads(json.dumps(to_json(get_recipe(name))))
        assert written.get("lora_alpha", 32) == 32 and written["max_steps"] > 0


def test_changes_have_the_types_of_their_settings():
    s = with_changes(
        get_recipe("pocket"),
        [
            "learning_rate=1e-4", "max_steps=7", "samples=none", "random_gradient_steps=true",
            "rewards.global=0", "rewards.clip_text=0.5", "trackers=tensorboard,wandb",
            "target_modules=to_q", "reward_weights.clip_text=/some/where", "judge=none",
        ],
    )  # fmt: skip
    assert (s.learning_rate, s.max_steps, s.samples) == (1e-4, 7, None)
    assert s.random_gradient_steps is True
    assert s.rewards == {
        "global": 0.0,
        "fine_grained": get_recipe("pocket").rewards["fine_grained"],
        "clip_text": 0.5,
    }
    assert s.trackers == ("tensorboard", "wandb") and s.target_modules == ("to_q",)
    assert s.reward_weights == {"clip_text": "/some/where"}
    assert with_changes(s, ["rewards=global:1"]).rewards == {"global": 1.0}


@pytest.mark.parametrize(
    "change, message",
    [
        ("lr=1", "no setting 'lr'"),
        ("max_steps", "no '='"),
        ("max_steps=many", "that is no int"),
        ("max_steps=0", "max_steps=0 is out of range"),
        ("memory=all", "choose from none, block"),
        ("rewards.clip_text=1", "judge=clip_text is a reward that is followed"),
        ("gradient_steps=26", "more than the 12 steps"),
        ("gradient_at=start", "gradient_at='start' is not known: choose from end, anywhere"),
        ("drift_weight=-1", "use 0 or more"),
        ("decay_steps=7", "leaves nothing to learn until max_steps=90"),
        (
            "max_sample_gradient=0",
            "max_sample_gradient=0.0 is out of range: use more than 0, or none",
        ),
        ("learning_rate=nan", "learning_rate=nan"),
        ("rewards=global:0", "weight 0"),
        ("lora_dropout=1", "use 0 or more, less than 1"),
        ("seed.x=1", "no setting 'seed.x'"),
        ("held_out=0", "held_out=0 is out of range: use 1 or more"),
        ("dtype=int8", "choose from float32"),
    ],
)
def test_a_wrong_change_is_one_sentence(change, message):
    with pytest.raises(UserError, match=message) as raised:
        with_changes(get_recipe("pocket"), [change])
    assert "\n" not in str(raised.value)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(UserError, match="paper-hoi"):
        get_recipe("papers")


# ── Sources ─────────────────────────────────────────────────────────────────────────────────────


def test_jsonl_rows_and_what_is_wrong_with_them(tmp_path):
    save_image(tmp_path / "images" / "a.png", 9)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    rows = [
        {"image": "images/a.png", "question": "Is it red?", "answer": "yes"},
        {"image": "images/a.png", "task": "object", "description": "a red square"},
        {"image": "images/missing.png", "question": "Is it red?"},
        {"image": "images/a.png"},
        {"question": "no image"},
        {"image": "images/a.png", "task": "sing"},
        {"image": "images/a.png", "question": 3},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{not json\n")
    source = own(path)
    assert source.size() == 8
    read = list(source.read(0, 100))
    first, second = read[:2]
    assert isinstance(first, Example) and first.context.ground_truth == "yes"
    assert first.context.guidance == "Is it red?" and first.description is None
    assert isinstance(second, Example) and second.description == "a red square"
    reasons = [bad.reason for bad in read[2:] if isinstance(bad, BadRecord)]
    assert len(reasons) == 6
    parts = ("missing.png", "no question", 'no "image"', "'sing'", '"question" is 3', "not JSON")
    for number, (reason, part) in enumerate(zip(reasons, parts, strict=True), 3):
        assert reason.startswith(f"line {number}: ") and part in reason
    assert [pixel_digest(r.context.image) for r in source.read(1, 2) if isinstance(r, Example)]


def test_an_empty_file_is_told(tmp_path):
    (tmp_path / "data.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="is empty"):
        open_source(str(tmp_path / "data.jsonl"))


def test_pocket_rows_do_not_depend_on_how_they_are_read():
    some, whole = Rows(PocketExamples()), Rows(PocketExamples())
    rows = list(whole.read(0, 28))
    again = [*some.read(20, 28), *some.read(0, 20)]
    assert [r.description for r in again] == [r.description for r in rows[20:] + rows[:20]]
    truths = [r.context.ground_truth for r in rows]
    assert truths.count("yes") == truths.count("no") == 14
    assert Rows(PocketExamples(seed=1)).fingerprint() != whole.fingerprint()


@pytest.mark.parametrize("kind", [PocketHoiExamples, PocketObjectExamples])
def test_the_other_pocket_rows_are_what_trainings_may_see(kind):
    rows, later = list(Rows(kind()).read(0, 24)), list(Rows(kind()).read(20, 24))
    assert [r.description for r in later] == [r.description for r in rows[20:]]
    for row in rows:
        truth, guidance = row.context.ground_truth, row.context.guidance
        if kind is PocketHoiExamples:
            assert row.context.task == "hoi" and guidance.startswith("cross | ")
            shape = guidance.removeprefix("cross | ")
            assert (truth, shape) not in UNSEEN_PAIRS and truth in MIRROR_RELATIONS
            assert truth in row.description and shape in row.description
        else:
            assert row.context.task == "object" and truth in CLASSES
            assert truth in row.description
            assert (*reversed(truth.split()), row.description.split()[-1]) not in HELD_OUT_LOOKS
    assert Rows(kind(seed=1)).fingerprint() != Rows(kind()).fingerprint()
    with pytest.raises(UserError, match="draws its own scenes"):
        kind(Path("rows.jsonl"))


@pytest.mark.parametrize("form", ["mark", "array", "mark and array", "windows"])
def test_a_file_may_begin_with_a_mark_or_be_an_array(tmp_path, form):
    save_image(tmp_path / "a.png", 9)
    rows = [{"image": "a.png", "question": f"q{n}", "answer": "ja ü"} for n in range(3)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    plain = tmp_path / "plain.jsonl"
    plain.write_text(text, encoding="utf-8")
    if "array" in form:
        text = json.dumps(rows, ensure_ascii=False, indent=1)
    if form == "windows":
        text = text.replace("\n", "\r\n")
    path = tmp_path / "data.jsonl"
    path.write_bytes(text.encode("utf-8-sig" if "mark" in form else "utf-8"))
    source, same = open_source(str(path)), open_source(str(plain))
    assert source is not None and same is not None
    read = list(source.read(0, 9))
    assert [r.context.guidance for r in read if isinstance(r, Example)] == ["q0", "q1", "q2"]
    assert source.fingerprint() == same.fingerprint()
    rows = open_rows(str(path))
    assert rows is not None
    asked = [r.question for r in read_requests(rows, "vqa") if isinstance(r, Request)]
    assert asked == ["q0", "q1", "q2"]


def test_rows_are_told_by_their_own_lines_and_items(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\n{"image": "gone.png", "question": "?"}\n\n"text"\n\xff\n')
    reasons = [bad.reason for bad in own(path).read(0, 9)]
    assert reasons[0].startswith("line 2: there is no image")
    assert reasons[1].startswith("line 4: it is not a JSON object")
    assert reasons[2].startswith("line 5: it is not UTF-8")
    path.write_text('[{"image": "gone.png", "question": "?"},\n 3]')
    reasons = [bad.reason for bad in own(path).read(0, 9)]
    assert reasons[0].startswith("item 1: there is no image")
    assert reasons[1].startswith("item 2: it is not a JSON object")
    path.write_text('[{"image": "gone.png"},')
    with pytest.raises(UserError, match="no JSON array"):
        own(path)


def test_images_in_class_folders(tmp_path):
    root = tmp_path / "train"
    for number, name in enumerate(("n01", "n02_b") * 4):
        save_image(root / name / f"{number}.JPEG", number)
    for name in (".ipynb_checkpoints/0.JPEG", "n01/.ipynb_checkpoints/1.JPEG", "n01/._0.JPEG"):
        save_image(root / name, 99)
    save_image(root / "__MACOSX" / "n01" / "0.JPEG", 99)
    (tmp_path / "classes.txt").write_text("n01 of another data set\n")

    def truths() -> list[str]:
        read = Rows(FolderExamples(root)).read(0, 99)
        return sorted(str(r.context.ground_truth) for r in read if isinstance(r, Example))

    assert truths() == ["n01"] * 4 + ["n02 b"] * 4
    (root / "classes.txt").write_text("n01 tench, Tinca tinca\nn02_b goldfish\n")
    assert truths() == ["goldfish"] * 4 + ["tench"] * 4
    with pytest.raises(UserError, match="there is no folder"):
        FolderExamples(tmp_path / "nothing")
    with pytest.raises(UserError, match="one folder 'train', whose images lie deeper"):
        FolderExamples(tmp_path)


def test_folders_of_wordnet_ids_are_named_as_for_evaluation(tmp_path):
    for name in ("n01440764", "n01443537"):
        save_image(tmp_path / name / "0.png", 5)
    read = Rows(imagenet_examples(tmp_path)).read(0, 2)
    assert {r.context.ground_truth for r in read if isinstance(r, Example)} == {"tench", "goldfish"}


def test_bongard_hoi_takes_positives_once(tmp_path):
    for number in range(3):
        save_image(tmp_path / "hake" / "images" / f"{number}.png", number)

    def item(number: int, action: str) -> dict:
        return {
            "im_path": f"./hake/images/{number}.png", "sub_class": "person", "act_class": action,
            "obj_class": "sports_ball",
        }  # fmt: skip

    tasks = [
        [[item(2, "hold")], [item(0, "kick"), item(1, "kick")], "kick"],
        [[item(2, "hold")], [item(1, "kick"), item(7, "kick")], "kick"],
    ]
    (tmp_path / "bongard_hoi_train.json").write_text(json.dumps(tasks))
    source = Rows(BongardExamples(tmp_path))
    assert source.size() == 3
    first, _, missing = source.read(0, 9)
    assert isinstance(first, Example) and isinstance(missing, BadRecord)
    assert first.context.guidance == "person | sports ball"
    assert (first.context.ground_truth, first.context.task) == ("kick", "hoi")
    with pytest.raises(UserError, match="--data FOLDER"):
        BongardExamples(None)


def test_hub_data_is_read_from_a_copy(tmp_path):
    """VQAv2's and GQA's columns, through the real ``datasets``, from local folders."""
    datasets = pytest.importorskip("datasets")
    png = save_image(tmp_path / "a.png", 200).read_bytes()
    rows = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": png, "path": None}, {"bytes": b"broken", "path": None}] * 2,
            "question": [f"q{n}" for n in range(4)],
            "multiple_choice_answer": ["yes"] * 4,
        },
        features=datasets.Features(
            image=datasets.Image(),
            question=datasets.Value("string"),
            multiple_choice_answer=datasets.Value("string"),
        ),
    )
    folder = tmp_path / "vqa" / "data"
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "validation-00000-of-00001.parquet")
    source = open_source(str(tmp_path / "vqa"), "vqav2")
    assert source is not None
    read = list(source.read(1, 4))
    assert [type(row) for row in read] == [BadRecord, Example, BadRecord]
    assert isinstance(read[1], Example) and read[1].context.guidance == "q2"


def test_sources_take_turns():
    a, b = Rows(PocketExamples(seed=1)), Rows(PocketExamples(seed=2))
    mixed = Interleaved([a, b])
    rows = [r.description for r in mixed.read(0, 8) if isinstance(r, Example)]
    assert rows[::2] == [r.description for r in a.read(0, 4) if isinstance(r, Example)]
    assert rows[1::2] == [r.description for r in b.read(0, 4) if isinstance(r, Example)]
    assert [r.description for r in mixed.read(3, 6) if isinstance(r, Example)] == rows[3:6]


@pytest.mark.parametrize("data, message", [("nowhere", "is no file"), (None, "names no data")])
def test_missing_data_is_told(data, message):
    with pytest.raises(UserError, match=message):
        open_source(data)


@pytest.mark.parametrize(
    "name, told",
    [
        ("data.csv", "line 2: there is no image"),
        ("data.json", "line 1: it is not JSON"),
        ("data.parquet", "cannot be read"),
        ("data.txt", "no data that is read"),
        ("folder", "would not be read"),
    ],
)
def test_the_pocket_recipe_never_takes_bundled_scenes_for_data(tmp_path, name, told, capsys):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("image,question\na.png,what?\n")
    out = tmp_path / "run"
    assert main(["train", "--recipe", "pocket", "--data", str(path), "--out", str(out)]) == 1
    assert told in capsys.readouterr().err
    assert not (out / "run.json").exists()  # it never began


def test_a_folder_needs_its_layout_or_its_rows(tmp_path):
    save_image(tmp_path / "a.png", 3)
    with pytest.raises(UserError, match="data_format"):
        open_source(str(tmp_path))
    with pytest.raises(UserError, match="did you mean 'imagenet'"):
        open_source(str(tmp_path), "imagnet")
    (tmp_path / "rows.csv").write_text("image,question,answer\na.png,Is it red?,yes\n")
    source = open_source(str(tmp_path))
    assert source is not None and source.size() == 1
    (read,) = source.read(0, 9)
    assert isinstance(read, Example) and read.context.ground_truth == "yes"


# ── Order and shards ────────────────────────────────────────────────────────────────────────────


def test_every_epoch_has_every_sample_once_in_another_order():
    order = Order(10, seed=3)
    places = [order(place) for place in range(30)]
    for epoch in range(3):
        assert sorted(i for e, i in places if e == epoch) == list(range(10))
    assert places[:10] != [(0, i) for _, i in places[10:20]]
    assert [Order(10, seed=3)(place) for place in (25, 4)] == [places[25], places[4]]
    assert [Order(10, seed=4)(place) for place in range(10)] != places[:10]


def test_processes_share_the_shards(tmp_path):
    """What two processes write is what one writes; bad rows are kept with their reasons."""
    spec = DescriberSpec(Weights("nobody/asks"))
    for name, processes in (("one", 1), ("two", 2)):
        for rank in range(processes):
            describe_all(
                Rows(PocketExamples()), 50, tmp_path / name, spec, share=Share(rank, processes),
                device="cpu", progress=lambda *given: None,
            )  # fmt: skip
    ours, theirs = (
        {f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert ours == theirs and len(ours) == 4


def test_nothing_to_train_on_is_told(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"image": "missing.png"}\n' * 3)
    source, spec = own(path), DescriberSpec(Weights("nobody/asks"))
    describe_all(
        source, 3, tmp_path / "d", spec, share=Share(), device="cpu",
        progress=lambda *given: None,
    )  # fmt: skip
    from safetensors.numpy import save_file

    save_file(
        {"negative_prompt_embeds": np.zeros((1, 2), np.float32)},
        tmp_path / "d" / "negative.safetensors",
    )
    with pytest.raises(UserError, match="no sample is left .* 3 bad: line 1"):
        Prepared(tmp_path / "d", tmp_path / "d", 3, 1)


def test_held_out_rows_follow_the_number_of_good_ones():
    numbers = {1: 1, 4: 1, 10: 2, 100: 20, 319: 63, 320: 64, 4096: 64}
    assert {rows: suited(rows) for rows in numbers} == numbers
    assert all(get_recipe(name).held_out is None for name in RECIPES)
