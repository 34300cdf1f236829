"""MUMU's training at a size of seconds: prompts, alignment, the same run however it is run."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_train import FORK, in_process, kill_after, metrics_of, untimed
from tiny_mumu import save_idefics2

from hb_tta.cli import main
from hb_tta.detect import Box
from hb_tta.detect.whole import KINDS
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators.loading import load_sdxl
from hb_tta.generators.mumu.encoder import Encoder, load_processor, load_vlm
from hb_tta.generators.mumu.folder import load_parts, read_index, unet_lora
from hb_tta.training.mumu.alignment import TextTargets, alignment_loss
from hb_tta.training.mumu.data import Captioned, PocketCaptioned, open_captioned, with_pixels
from hb_tta.training.mumu.models import family_of, load
from hb_tta.training.mumu.prompts import assemble, augmented, draw_prompt
from hb_tta.training.mumu.recipes import MUMU_RECIPES, MumuSettings
from hb_tta.training.recipes import get_recipe
from hb_tta.training.train import train
from hb_tta.weights import Weights


@pytest.fixture(scope="module")
def idefics2(tmp_path_factory) -> Path:
    return save_idefics2(tmp_path_factory.mktemp("idefics2"), patch=8, side=64)


def tiny(idefics2: Path, **changes: Any) -> MumuSettings:
    small = {
        "vlm": str(idefics2), "samples": 12, "held_out": 2, "batch_size": 4, "micro_batch_size": 4,
        "align_steps": 2, "max_steps": 4, "save_steps": 1, "evaluate_steps": 100, "tokens": 4,
        "registers": 2, "connector_width": 16, "connector_layers": 1, "connector_heads": 2,
        "num_inference_steps": 1, "sample_contexts": 1, "warmup_steps": 0, "trackers": None,
        "dtype": "float32", "vlm_rank": 0, "unet_rank": 8, "decay_steps": None,
    }  # fmt: skip
    return replace(get_recipe("pocket-mumu"), **{**small, **changes})


# ── Prompts ─────────────────────────────────────────────────────────────────────────────────────

CAPTION = "two red circles left of a blue square"
CIRCLES = Box("red circles", 4, 15, (2, 2, 12, 12), 0.9)
SQUARE = Box("blue square", 26, 37, (30, 30, 60, 60), 0.8)


def test_crops_stand_before_their_words_and_may_stand_for_them():
    image = Image.new("RGB", (8, 8))
    shown = [(SQUARE, image, True), (CIRCLES, image, False)]
    drawn = assemble(CAPTION, shown)
    assert drawn.prompt.written("[I]") == "two [I] red circles left of a [I] square"
    spans = [(p.start, p.end) for p in drawn.pieces if p.part is image]
    assert [CAPTION[a:b] for a, b in spans] == ["", "blue "]
    assert assemble(CAPTION, []).prompt.written("[I]") == CAPTION


def test_shares_decide_crops_heads_and_words(idefics2):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    head = replace(CIRCLES, word="young man", start=2, end=11, head=(4, 4, 8, 8))
    row = Captioned(
        image, "a young man and a blue square", (head, replace(SQUARE, start=18, end=29))
    )
    settings = tiny(idefics2, augmented_share=0.0, crop_share=1.0, bare_share=0.0)

    def sizes(**changes: Any) -> list[tuple[int, int]]:
        drawn = draw_prompt(row, replace(settings, **changes), {}, np.random.default_rng(1))
        return [one.size for one in drawn.prompt.images]

    assert sizes(head_share=0.0) == [(10, 10), (30, 30)]
    assert sizes(head_share=1.0) == [(4, 4), (30, 30)]
    assert sizes(persons_only=True) == [(10, 10)]
    assert sizes(most_crops=0) == sizes(crop_share=0.0) == []
    whole = draw_prompt(row, replace(settings, whole_share=1.0), KINDS, np.random.default_rng(0))
    assert whole.prompt.parts[-1] == "edges" and whole.prompt.images[-1].size == image.size
    bare = draw_prompt(row, replace(settings, bare_share=1.0), {}, np.random.default_rng(0))
    assert bare.prompt.written("[I]") == "a [I] man and a [I] square"


def test_augmented_crops_differ_and_keep_their_mode():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    made = [augmented(image, np.random.default_rng(seed)) for seed in range(40)]
    assert {one.mode for one in made} == {"RGB"}
    assert len({one.tobytes() for one in made}) > 25
    assert all(0.8 < one.width / 30 <= 1 and 0.8 < one.height / 40 <= 1 for one in made)


def test_the_pockets_boxes_hold_their_things():
    source = PocketCaptioned()
    for row in range(40):
        found = with_pixels(source.read(row), row)
        assert found.boxes, found.caption
        for box in found.boxes:
            assert found.caption[box.start : box.end] == box.word
            x0, y0, x1, y1 = box.box
            assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64
            colour = np.asarray(found.image.crop(tuple(map(int, box.box)))).reshape(-1, 3).std(0)
            assert colour.max() > 20, "a thing on its ground, not ground alone"


# ── Alignment ───────────────────────────────────────────────────────────────────────────────────


def test_each_token_says_its_word_and_an_image_the_words_it_stands_for(idefics2):
    weights = Weights(str(idefics2))
    encoder = Encoder(load_vlm(weights, torch.float32), load_processor(weights), 3)
    base = get_family("pocket").weights("generator")
    pipe = load_sdxl(base, dtype="float32", image_encoder=None, embeds_images=False)
    targets = TextTargets(pipe)
    drawn = assemble(CAPTION, [(SQUARE, Image.new("RGB", (8, 8)), True)])
    rows = targets.rows(drawn, encoder, 4)
    ids, places = encoder.tokenised(drawn.prompt, 4)
    words = pipe.tokenizer.convert_ids_to_tokens(
        pipe.tokenizer(CAPTION, padding="max_length").input_ids
    )
    said = [words[row].removesuffix("</w>") for row in rows]
    real = [word for word in said if word not in ("<|endoftext|>", "<|startoftext|>")]
    assert real == CAPTION.split(), "each once, the image in the place of 'blue'"
    image = [i for i, one in enumerate(ids) if one == encoder.vlm.config.image_token_id]
    assert said[image[-1]] == "blue" and said[0] == "<|startoftext|>"
    assert {said[i] for i in image[:-1]} == {said[-1]} == {"<|endoftext|>"}
    states = targets.states([CAPTION], torch.device("cpu"))
    context = states[:, rows]
    mask = torch.ones(1, len(rows))
    assert alignment_loss(context, mask, [rows], states, 1.0).item() == 0
    assert alignment_loss(context + 1, mask, [rows], states, 0.5).item() == pytest.approx(2)


# ── The same run, however it is run ─────────────────────────────────────────────────────────────


def test_a_killed_run_goes_on_to_the_same_bits(idefics2, tmp_path):
    """With a LoRA of the VLM, through both stages; the folder then loads, and holds all parts."""
    settings = tiny(idefics2, vlm_rank=2, max_steps=5, align_steps=3)
    train(settings, tmp_path / "whole", quiet=True)
    out = tmp_path / "killed"
    for lines in (2, 4):
        kill_after(settings, out, lines=lines, wait=0.0)
    in_process(_quiet_train, settings, out)
    for name in ("checkpoint", "connector/model", "unet_lora/adapter_model", "vlm/adapter_model"):
        ours, theirs = (
            load_file(tmp_path / run / f"{name}.safetensors") for run in ("killed", "whole")
        )
        assert ours.keys() == theirs.keys() and ours
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert untimed(out) == untimed(tmp_path / "whole")
    rows = [row for row in metrics_of(out) if "loss" in row]
    assert [("align" in row, "denoise" in row) for row in rows] == [(True, False)] * 3 + [
        (False, True)
    ] * 2
    assert read_index(Weights(str(out))).registers == 2
    assert load_parts(Weights(str(out)), dtype="float32").told.vlm == str(idefics2)
    assert unet_lora(Weights(str(out))) is not None


def _quiet_train(settings: MumuSettings, out: Path) -> None:
    train(settings, out, quiet=True)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_are_as_one(idefics2, tmp_path, parallel):
    """Data parallel, and with all parameters spread over both (gloo on a CPU): the same losses."""
    settings = tiny(idefics2, vlm_rank=2, max_steps=4, micro_batch_size=2)
    train(settings, tmp_path / "one", quiet=True)
    two_processes(replace(settings, parallel=parallel), tmp_path / "two")
    one, two = (
        [row for row in metrics_of(tmp_path / name) if "loss" in row or "held_out" in row]
        for name in ("one", "two")
    )
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        for name in ("loss", "gradient_norm"):
            if name in ours:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
        for name, value in ours.get("held_out", {}).items():
            assert value == pytest.approx(theirs["held_out"][name], rel=1e-4)
    ours, theirs = (
        load_file(tmp_path / name / "connector" / "model.safetensors") for name in ("one", "two")
    )
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5)


def two_processes(settings: MumuSettings, out: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = [FORK.Process(target=_rank, args=(settings, out, rank, port)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(600)
    assert [child.exitcode for child in children] == [0, 0]


def _rank(settings: MumuSettings, out: Path, rank: int, port: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=port, ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    train(settings, out, quiet=True)


def test_kept_states_change_nothing(idefics2, tmp_path):
    """A frozen VLM's states from the disk: the losses of a second run are those of the first."""
    settings = tiny(idefics2, cache_states=True, cache=str(tmp_path / "cache"), max_steps=3)
    train(settings, tmp_path / "first", quiet=True)
    kept = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(kept) >= 12
    train(settings, tmp_path / "second", quiet=True)
    losses = [
        [row["loss"] for row in metrics_of(tmp_path / name) if "loss" in row]
        for name in ("first", "second")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # they lie there in 16 bits


def test_a_training_goes_on_from_another(idefics2, tmp_path):
    """As mumu-1 does from mumu-align: its weights, with an optimizer and steps of its own."""
    aligned = tiny(idefics2, vlm_rank=2, align_steps=2, max_steps=2, unet_rank=0)
    train(aligned, tmp_path / "align", quiet=True)
    assert not (tmp_path / "align" / "unet_lora").exists()
    still = {"connector_rate": 0.0, "vlm_rate": 0.0, "unet_rate": 0.0, "align_steps": 0}
    begun = tiny(idefics2, vlm_rank=2, start=str(tmp_path / "align"), max_steps=1, **still)
    train(begun, tmp_path / "one", quiet=True)
    for name in ("connector/model", "vlm/adapter_model"):
        ours, theirs = (
            load_file(tmp_path / run / f"{name}.safetensors") for run in ("one", "align")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (tmp_path / "one" / "unet_lora" / "adapter_model.safetensors").exists()


# ── Settings and data ───────────────────────────────────────────────────────────────────────────


def test_the_papers_hyper_parameters():
    one, two = (MUMU_RECIPES[name]() for name in ("mumu-1", "mumu-2"))
    for settings in (one, two):
        assert (settings.vlm_rate, settings.connector_rate, settings.unet_rate) == (
            3e-6,
            1e-5,
            5e-6,
        )
        assert settings.vlm_rank == settings.unet_rank == 8 and settings.connector_layers == 16
        assert (settings.augmented_share, settings.head_share) == (0.2, 0.7)
        assert settings.drop_share == 0.1 and settings.batch_size == 64
    assert (one.tokens, one.most_crops, one.whole_share, one.persons_only) == (324, 3, 0.3, False)
    assert (two.tokens, two.most_crops, two.whole_share, two.persons_only) == (1296, 1, 0.0, True)
    assert MUMU_RECIPES["mumu-align"]().align_steps == MUMU_RECIPES["mumu-align"]().max_steps


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"tokens": 5}, "square"), ({"connector_heads": 5}, "multiple"),
     ({"cache_states": True, "vlm_rank": 8}, "vlm_rank=0"), ({"tokens": 100}, "tokens=100"),
     ({"data": None}, "hb-tta bootstrap"),
     ({"vlm_targets": ("nothing",), "vlm_rank": 2}, "targets"),
     ({"parallel": "fsdp2"}, "accelerate launch")],
)  # fmt: skip
def test_what_does_not_go_together_is_a_sentence(idefics2, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        train(tiny(idefics2, **changes), tmp_path / "run", quiet=True)


def rows_file(tmp_path: Path, **changes: Any) -> Path:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    boxes = [CIRCLES.to_json(), SQUARE.to_json()]
    good = {"index": 1, "image": "a.png", "caption": CAPTION, "size": [64, 64], "boxes": boxes}
    lines = [good, {**good, **changes}]
    path = tmp_path / "boxes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"boxes": [{**CIRCLES.to_json(), "start": 3}]}, "of other words"),
     ({"boxes": [{**CIRCLES.to_json(), "box": [0, 0, 900, 9]}]}, "outside"),
     ({"boxes": [{"word": "x"}]}, "damaged"), ({"boxes": None}, "bootstrap"),
     ({"caption": 3}, "caption"), ({"size": [0, 0]}, "size"), ({"image": "gone.png"}, "gone.png"),
     ({"failure": "no image"}, "no image")],
)  # fmt: skip
def test_a_damaged_row_is_listed_and_the_others_train(idefics2, tmp_path, changes, told):
    path = rows_file(tmp_path, **changes)
    source = open_captioned(tiny(idefics2, data=str(path)))
    assert source.size() == 2 and isinstance(source.read(0), Captioned)
    bad = source.read(1)
    assert told in getattr(bad, "reason", ""), bad


def test_bad_rows_are_counted_and_listed(idefics2, tmp_path):
    path = rows_file(tmp_path, caption="")
    line = path.read_text().splitlines()[0]
    path.write_text(path.read_text() + f"{line}\n" * 3)
    settings = tiny(idefics2, data=str(path), samples=None, held_out=1, max_steps=1, align_steps=1)
    result = train(settings, tmp_path / "run", quiet=True)
    assert result["bad_records"] == 1
    assert "line 2" in (tmp_path / "run" / "bad_records.jsonl").read_text()


def test_dry_run_counts_what_is_trained(idefics2, tmp_path, capsys):
    changes = [f"vlm={idefics2}", "tokens=4", "vlm_rank=2", "dtype=float32"]
    command = ["train", "--recipe", "pocket-mumu", "--dry-run", "--json", "--set", *changes]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    models = load(
        tiny(
            idefics2, vlm_rank=2, unet_rank=16, connector_width=192, connector_layers=3,
            connector_heads=6,
        ),
        family_of(tiny(idefics2)), torch.device("cpu"),
    )  # fmt: skip
    trained = sum(p.numel() for its in models.groups().values() for p in its)
    assert found["trainable_parameters"] == trained
    assert found["tflop_per_sample"] > 0 and found["memory_gib"] > 0


def test_every_setting_of_mumu_is_explained():
    import re

    text = (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8")
    table = text.partition("## Every setting of MUMU")[2]
    firsts = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    told = dict(re.findall(r"`(\w+)`( ∘)?", " ".join(firsts)))
    own = {f.name for f in fields(MumuSettings)} - {f.name for f in fields(_common())}
    assert set(told) == own
    assert {name for name, free in told.items() if free} == MumuSettings.free & own


def _common() -> Any:
    from hb_tta.training.settings import Common

    return Common
