"""The paper's scale through the same code: tiny models in the layouts of the hub, a tiny MME."""

from __future__ import annotations

import shutil

import pytest
from huggingface_hub import constants
from PIL import Image
from sdxl_folders import _snapshot, save_hub_cache
from tiny_models import save_llava_next

from hb_tta.cli import main

MLLM = "llava-hf/llava-v1.6-mistral-7b-hf"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with what family sdxl generates and answers with."""
    root = save_hub_cache(tmp_path / "hub")
    save_llava_next(_snapshot(root, MLLM, "d" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    return root


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
        for n, category in enumerate(
            ("existence", "count", "position", "color", "scene", "posters")
        )
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
        "--augment_args", "base=stabilityai/stable-diffusion-xl-base-1.0,height=64,width=64",
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
