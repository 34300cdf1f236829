"""The pocket CLIP: loaded by open_clip's own calls, trained in miniature."""

from itertools import islice

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from hb_tta.pocket.world import render, render_batch, sample_scenes
from hb_tta.training.pocket_family import clip, optimize
from hb_tta.training.pocket_family.run import DEV_SEED, RecipeRun, to_pixels
from hb_tta.training.pocket_family.towers import train_image_encoder

SCALE = 0.005


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RecipeRun:
    """A miniature run with its image encoder and its CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    made = RecipeRun(folder / "work", folder / "weights", scale=SCALE)
    train_image_encoder(made)
    clip.train_clip(made)
    return made


def test_the_text_ends_at_its_highest_id_and_any_text_can_be_read():
    tokenizer = clip.clip_tokenizer(clip.WINDOW)
    ids = clip.tokenize(tokenizer, ["two red circles on grass", "A photo of a zebra, ok?", ""])
    assert ids.shape == (3, clip.WINDOW)
    ends = ids.argmax(1)
    assert (ids[torch.arange(3), ends] == tokenizer.eos_token_id).all()
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert ends.tolist()[0] == 6  # five words behind the start
    assert tokenizer.unk_token_id not in ids


def test_open_clip_loads_the_folder_and_its_tokenizer(run):
    where = f"local-dir:{run.weights / 'clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(where)
    tokenizer = open_clip.get_tokenizer(where)
    texts = ["a photo of a red circle.", "four black crosses on dusk"]
    ids = tokenizer(texts)
    assert torch.equal(ids, clip.tokenize(clip.clip_tokenizer(clip.WINDOW), texts))
    scene = clip.single_objects(DEV_SEED, 1)[0]
    pixels = preprocess(render(scene))[None]
    torch.testing.assert_close(pixels, to_pixels(render_batch([scene])), atol=1e-5, rtol=0)
    with torch.no_grad():
        images, words, scale = model(pixels, ids)
    assert images.shape == (1, 128)
    assert words.shape == (2, 128)
    assert not torch.allclose(words[0], words[1])
    assert scale > 1


def test_what_is_saved_is_what_was_trained(run):
    file = run.weights / "clip" / "open_clip_model.safetensors"
    assert file.stat().st_size < 4_000_000
    assert not list((run.weights / "clip").glob("*.bin"))
    tensors = load_file(file)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    trained = load_file(run.work / "clip.safetensors")
    model, _ = clip.load_clip(run.weights / "clip")
    loaded = model.state_dict()
    for name, value in tensors.items():
        assert torch.equal(value, trained[f"module.clip.{name}"].half()), name
        assert torch.equal(loaded[name], value.float()), name


def test_a_vision_tower_of_as_many_layers_starts_as_the_image_encoder(run):
    model = clip.build_model(clip.model_config(100, vision_layers=5)).eval()
    clip.start_tower(model, run)
    source = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    )
    pixels = to_pixels(render_batch(clip.single_objects(DEV_SEED, 8)))
    with torch.no_grad():
        ours, theirs = model.encode_image(pixels), source(pixels).image_embeds
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_equal_texts_are_no_mistake():
    texts = ["a circle", "a circle", "a square"]
    sure = 20 * torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    shared = clip.contrastive_loss(sure, texts)
    assert shared < clip.contrastive_loss(sure, ["a", "b", "c"]) + 1e-6
    mistaken = sure[[0, 2, 1]]
    assert clip.contrastive_loss(mistaken, texts) > shared + 1


def test_a_wrong_text_counts_against_its_own_picture_alone():
    texts = ["a circle", "a square"]
    plain = 20 * torch.eye(2)
    wrong = torch.tensor([[20.0], [0.0]])  # as near to the first picture as its own text
    with_wrong = torch.cat([plain, wrong], 1)
    alone = clip.contrastive_loss(plain, texts)
    assert clip.contrastive_loss(with_wrong, texts, [1]) < alone + 1e-4
    assert clip.contrastive_loss(with_wrong, texts, [0]) > alone + 0.1


def test_of_two_groups_most_pictures_have_a_wrong_text():
    rng = np.random.default_rng(1)
    scenes = [s for s in islice(sample_scenes(7), 300) if s.relation is not None]
    texts, owners, wrong = clip.training_texts(scenes, rng)
    assert len(texts) == len(scenes) and len(owners) == len(wrong)
    assert 0.7 < len(owners) / len(scenes) < 0.9
    assert all(texts[row] != text for row, text in zip(owners, wrong, strict=True))
    singles = clip.single_objects(DEV_SEED, 20)
    assert clip.training_texts(singles, rng)[1] == []


def test_training_texts_are_true_and_mix_prompts_with_captions():
    rng = np.random.default_rng(0)
    scenes = clip.single_objects(DEV_SEED, 300)
    prompts = 0
    for scene in scenes:
        text = clip.training_text(scene, rng)
        group = scene.groups[0]
        words = set(text.rstrip(".").split())
        assert not words & (set(clip.SHAPES) - {group.shape})
        assert not words & (set(clip.COLOURS) - {group.colour})
        prompts += text.startswith("a photo of a ")
    assert 90 < prompts < 210


def test_figures_are_samples_by_label_and_repeatable(run):
    figures = clip.evaluate_clip(run, DEV_SEED, 50)
    assert set(figures) == {*clip.LABELS, "relation"}
    assert {len(figures[name]) for name in clip.LABELS} == {50}
    assert len(figures["relation"]) > 100  # up to three wrong captions a scene
    assert all(set(values) <= {0, 1} for values in figures.values())
    again = clip.evaluate_clip(run, DEV_SEED, 50)
    assert all(np.array_equal(figures[name], again[name]) for name in figures)


def test_an_odd_picture_can_be_preprocessed(run):
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{run.weights / 'clip'}")
    assert preprocess(Image.new("L", (90, 70))).shape == (3, 64, 64)


def test_a_killed_training_resumes_to_the_same_weights(run, tmp_path, monkeypatch):
    killed = RecipeRun(tmp_path / "work", tmp_path / "weights", scale=SCALE, save_seconds=0)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "generator").symlink_to(run.weights / "generator")
    save = optimize._Checkpoint.save

    def save_then_die(checkpoint, *args):
        save(checkpoint, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimize._Checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            clip.train_clip(killed)
    assert not (killed.weights / "clip").exists()
    clip.train_clip(killed)
    name = "clip/open_clip_model.safetensors"
    ours, theirs = (load_file(r.weights / name) for r in (killed, run))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
