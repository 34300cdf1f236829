"""The paper's scale through the same code: tiny models in the layouts of the hub, a tiny MME."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from sdxl_folders import _snapshot, save_hub_cache
from test_rewards import save_evaluator
from tiny_models import save_llava_next
from tiny_mumu import save_idefics2, save_mumu
from tiny_pipelines import save_sd1, save_variation

from hb_tta.cli import main
from hb_tta.datasets.bongard_hoi import BONGARD_SPLITS, TRAINING_FILE
from hb_tta.datasets.imagenet import IMAGENET, _synsets
from hb_tta.experiments.paper import table11
from hb_tta.experiments.registry import get_experiment, list_experiments
from hb_tta.families import get_family

MLLM = "llava-hf/llava-v1.6-mistral-7b-hf"
BASE = "stabilityai/stable-diffusion-xl-base-1.0"
CLIP = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with what family sdxl generates and answers with."""
    root = save_hub_cache(tmp_path / "hub")
    save_llava_next(_snapshot(root, MLLM, "d" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    return root


CATEGORIES = (
    "existence", "count", "position", "color", "scene", "posters", "artwork",
    "commonsense_reasoning",
)  # fmt: skip


@pytest.fixture
def mme(tmp_path):
    """A copy of MME with one image a category."""
    import datasets

    rows = [
        {
            "question_id": f"{category}/1.png",
            "image": Image.new("RGB", (32, 32), (40 * n, 0, 0)),
            "question": f"Is there a {thing} in this image? Please answer yes or no.",
            "answer": answer,
            "category": category,
        }
        for n, category in enumerate(CATEGORIES)
        for thing, answer in (("dog", "Yes"), ("cat", "No"))
    ]
    folder = tmp_path / "mme"
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(folder)
    return folder


def line(tmp_path, mme, *more: str) -> list[str]:
    return [
        "reproduce", "table1", "--family", "sdxl", "--limit", "1", "--steps", "1",
        "--methods", "randaugment", "hummingbird", "--mllm", MLLM, "--data", f"mme={mme}",
        "--out", str(tmp_path / "out"), "--store", str(tmp_path / "store"), "--device", "cpu",
        "--augment_args", f"base={BASE},height=64,width=64",
        "--quiet", *more,
    ]  # fmt: skip


def test_table_1_of_family_sdxl_on_tiny_folders(hub, mme, tmp_path, capsys):
    assert main(line(tmp_path, mme, "--check")) == 0
    assert "table1 has all that it needs" in capsys.readouterr().out
    assert main(line(tmp_path, mme)) == 0
    first = capsys.readouterr()
    rows = [text.split(" | ")[1] for text in first.out.splitlines() if text.startswith("| llava")]
    assert rows[:3] == ["Real only", "RandAugment", "Hummingbird"]
    assert "posters" not in first.out and "paper 95.00" in first.out
    # Everything is kept: the same again loads no model.
    shutil.rmtree(hub / "models--llava-hf--llava-v1.6-mistral-7b-hf" / "blobs", ignore_errors=True)
    assert main(line(tmp_path, mme)) == 0
    assert capsys.readouterr().out == first.out


# ── Every method and table ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def whole_hub(hub):
    """What else family sdxl is made of: an evaluator, two towers of a CLIP, a pipeline, an MLLM."""
    save_evaluator(_snapshot(hub, "Salesforce/blip2-itm-vit-g", "e" * 40))
    save_llava_next(_snapshot(hub, "OpenGVLab/InternVL3-8B-hf", "f" * 40), seed=1)
    variation = _snapshot(hub, "lambdalabs/sd-image-variations-diffusers", "0" * 40)
    (variation.parents[1] / "refs" / "v2.0").write_text("0" * 40)
    save_variation(variation)
    save_sd1(_snapshot(hub, "CompVis/stable-diffusion-v1-4", "1" * 40))
    (clip,) = (hub / ("models--" + CLIP.replace("/", "--")) / "snapshots").iterdir()
    for file in Path(get_family("pocket").weights("clip").location).iterdir():
        if not (clip / file.name).exists():  # open_clip's files beside those of transformers
            shutil.copy(file, clip)
    return hub


@pytest.fixture
def bongard(tmp_path):
    """A task of two sides in each file of Bongard-HOI."""
    folder = tmp_path / "bongard"
    (folder / "images").mkdir(parents=True)

    def row(kind: str, n: int) -> dict[str, str]:
        name = f"images/{kind}{n}.png"
        pixels = np.random.default_rng(n).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
        return {"im_path": name, "sub_class": "person", "act_class": kind, "obj_class": "chair"}

    task = [[row("stand_by", n) for n in range(7)], [row("sit_at", 9 + n) for n in range(7)], "sit"]
    for name in (*BONGARD_SPLITS.values(), TRAINING_FILE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps([task]))
    return folder


@pytest.fixture
def imagenet(tmp_path):
    """A folder a class of each variant, one and the same picture in all."""
    first = tmp_path / "imagenet" / "picture.png"
    first.parent.mkdir()
    Image.new("RGB", (32, 32), (90, 0, 40)).save(first)
    for variant, synsets in IMAGENET.items():
        for wnid in _synsets(synsets):
            folder = first.parent / variant / wnid
            folder.mkdir(parents=True)
            os.link(first, folder / "1.png")
    return first.parent


@pytest.fixture
def prompts(tmp_path):
    """Two prompts of photographs."""
    file = tmp_path / "prompts.jsonl"
    Image.new("RGB", (40, 24), (9, 90, 9)).save(tmp_path / "man.png")
    lines = ["a <img:man.png> man", "a <img:man.png> man and his <img:man.png> dog"]
    file.write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))
    return file


@pytest.mark.soak
def test_every_method_and_table_of_family_sdxl_on_tiny_folders(
    whole_hub, mme, bongard, imagenet, prompts, mirror, tmp_path, monkeypatch
):
    # ResNet-50 has its real size, and little to do.
    monkeypatch.setitem(table11.SIDES, "resnet50", 32)
    monkeypatch.setattr(table11, "BATCH", 1)
    monkeypatch.setattr(table11, "_iterations", lambda options: 1)
    monkeypatch.setattr(table11, "_tasks", lambda options: 1)
    mumu = save_mumu(tmp_path / "mumu", save_idefics2(tmp_path / "idefics2"))
    told = [
        "reproduce", "site", "--family", "sdxl", "--quick", "--limit", "1", "--steps", "2",
        "--mumu", str(mumu), "--out", str(tmp_path / "out"), "--store", str(tmp_path / "store"),
        "--data", f"mme={mme}", "--data", f"bongard-hoi={bongard}",
        "--data", f"imagenet={imagenet}", "--data", f"prompts={prompts}",
        "--device", "cpu", "--quiet", "--augment_args",
        "height=64,width=64,learning_steps=1",
    ]  # fmt: skip
    assert main(told) == 0
    site = tmp_path / "out" / "site"
    text = (site / "index.html").read_text()
    built = [name for name in list_experiments() if not get_experiment(name).unbuilt]
    lacking = [name for name in built if not (site / f"{name}.html").is_file()]
    assert lacking == [], text[text.find("<h2>Not run") :]
    rows = (site / "table1.html").read_text()
    for label in ("Image Variation", "Image Translation", "Textual Inversion", "I2T2I SDXL",
                  "mirror", "Hummingbird"):  # fmt: skip
        assert label in rows
    for number in (2, 3, 4, 8, 9, 11):  # a generator of another package is a row of each
        assert "mirror" in (site / f"table{number}.html").read_text(), number
