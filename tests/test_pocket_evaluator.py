"""The pocket evaluator: its captions, its two scores, its weights on disk."""

from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Blip2ForImageTextRetrieval, Blip2Processor, CLIPVisionModelWithProjection

from hb_tta.pocket.captions import ATTRIBUTES
from hb_tta.pocket.world import DIRECTIONS, SHAPES, sample_scenes
from hb_tta.training.pocket_family import evaluator, optimize
from hb_tta.training.pocket_family.blemish import blemished
from hb_tta.training.pocket_family.edits import SWAPS, draw_choice, wrong_words
from hb_tta.training.pocket_family.matching import (
    itc_loss,
    itc_scores,
    itm_loss,
    itm_match,
    query_states,
)
from hb_tta.training.pocket_family.places import place_labels
from hb_tta.training.pocket_family.run import DEV_SEED, RecipeRun, dev_scenes
from hb_tta.training.pocket_family.towers import train_image_encoder

SCALE = 0.006


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RecipeRun:
    """A miniature run with its image encoder and its evaluator."""
    folder = tmp_path_factory.mktemp("evaluator")
    made = RecipeRun(folder / "work", folder / "weights", scale=SCALE)
    train_image_encoder(made)
    evaluator.train_evaluator(made)
    return made


@pytest.fixture(scope="module")
def loaded(run):
    return evaluator.load_evaluator(run.weights / "evaluator")


def test_a_choice_is_wrong_by_one_edit():
    rng = np.random.default_rng(0)
    scenes = sample_scenes(5)
    seen = dict.fromkeys(ATTRIBUTES, 0)
    for scene, _ in zip(scenes, range(200), strict=False):
        choice = draw_choice(scene, rng)
        for attribute, text in choice.wrong.items():
            seen[attribute] += 1
            marked = [
                w
                for w, bad in zip(text.split(), wrong_words(choice.right, text), strict=True)
                if bad
            ]
            assert marked
            if attribute in ("scene", "colour", "shape"):
                assert len(marked) == 1
            assert sorted(choice.right.split()) != sorted(text.split()) or attribute == "relation"
    assert min(seen.values()) > 40


def test_wrong_words_of_an_edit_that_changes_the_length():
    right, wrong = "a red circle left of two shapes", "a red circle above two shapes"
    assert wrong_words(right, wrong) == [False, False, False, True, False, False]
    assert wrong_words(wrong, right) == [False, False, False, True, True, False, False]


def test_every_word_of_a_caption_is_one_token_and_any_text_can_be_read():
    tokenizer = evaluator.build_processor().tokenizer
    rng = np.random.default_rng(0)
    for scene, _ in zip(sample_scenes(5), range(200), strict=False):
        text = draw_choice(scene, rng).right
        assert len(tokenizer(text).input_ids) == len(text.split()) + 2
    assert tokenizer.unk_token_id not in tokenizer("Zebra-crossing, 12% (new)!").input_ids


def test_caption_batch_labels_every_caption(run):
    records = dev_scenes(run).records[:12]
    batch = evaluator.CaptionBatch(records, np.random.default_rng(1))
    assert batch.fits.sum() == len(records)
    assert torch.equal(batch.image.unique(), torch.arange(len(records)))
    assert torch.equal(batch.fits, batch.fault == 0)
    labels = batch.word_labels(20)
    edited = (batch.fault > 0) & (batch.fault < evaluator.FAULTS.index("other"))
    assert (labels[edited] == 1).any(1).all()
    assert not (labels[~edited] == 1).any()


def test_a_twin_of_a_right_caption_is_not_used_against_it():
    record = next(sample_scenes(5))
    for seed in range(20):
        batch = evaluator.CaptionBatch([record, record], np.random.default_rng(seed))
        right = [text for text, fits in zip(batch.texts, batch.fits, strict=True) if fits]
        if right[0] == right[1]:
            assert not batch.trusted.any()
            return
    pytest.fail("no twins were drawn")


def test_places_tell_the_directions():
    for scene, _ in zip(sample_scenes(5), range(200), strict=False):
        if scene.relation not in DIRECTIONS:
            continue
        labels = {name: values[0] for name, values in place_labels([scene]).items()}
        axis = "x" if scene.relation in ("left of", "right of") else "y"
        first, second = (labels[f"{axis}_{group.shape}"] for group in scene.groups)
        assert (first < second) == (scene.relation in ("left of", "above"))
        absent = {shape for shape in SHAPES if scene.group_of(shape) is None}
        assert {name.split("_")[1] for name, value in labels.items() if value == 0} == absent


def test_losses_are_low_for_the_right_scores_and_high_for_the_wrong_ones():
    fits = torch.tensor([True, False, True, False])
    image = torch.tensor([0, 0, 1, 1])
    good = torch.where(fits[:, None], torch.tensor([-5.0, 5.0]), torch.tensor([5.0, -5.0]))
    assert itm_loss(good, fits, image) < 0.01 < 5 < itm_loss(-good, fits, image)
    cosines = torch.tensor([[0.9, -0.9, -0.9, 0.0], [-0.9, 0.0, 0.9, -0.9]])
    trusted = fits.clone()
    assert itc_loss(cosines, fits, image, trusted, 0.1) < 0.01
    assert itc_loss(-cosines, fits, image, trusted, 0.1) > 5


def test_a_caption_that_may_be_true_of_another_picture_does_not_count_against_it():
    fits, image = torch.tensor([True, True]), torch.tensor([0, 1])
    both_fit = torch.tensor([[0.9, 0.9], [0.9, 0.9]])
    trusting = itc_loss(both_fit, fits, image, torch.tensor([True, True]), 0.1)
    wary = itc_loss(both_fit, fits, image, torch.tensor([False, False]), 0.1)
    assert trusting > 0.6
    assert wary == 0


def test_worn_pictures_stay_close_and_some_stay_clean(run):
    pixels = dev_scenes(run).pixels(slice(0, 32))
    changed = blemished(pixels, optimize.Draws(0, "test", 0)) - pixels
    deviation = changed.std((1, 2, 3))
    assert (deviation < 0.3).all()
    assert (deviation == 0).any()
    assert (deviation > 0.02).any()


def test_the_tower_starts_close_to_the_image_encoder(run):
    model = evaluator.build_model(100)
    evaluator.start_tower(model.vision_model, run)
    source = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    ).vision_model
    pixels = dev_scenes(run).pixels(slice(0, 16))
    with torch.no_grad():
        theirs = source(pixels).last_hidden_state
        tower = model.vision_model
        ours = tower.encoder(tower.embeddings(pixels)).last_hidden_state
    assert (ours - theirs).norm() / theirs.norm() < 0.4


def test_both_scores_are_those_of_the_stock_forward(run, loaded):
    model, processor = loaded
    texts = ["two red circles on grass", "one blue square", "shapes on sea"]
    batch = processor(
        images=list(dev_scenes(run).pictures[:3]), text=texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        itm = model(**batch, use_image_text_matching_head=True).logits_per_image
        itc = model(**batch, use_image_text_matching_head=False).logits_per_image
        tokens = model.vision_model(batch["pixel_values"]).last_hidden_state
        ids, mask = evaluator.tokenize(processor, texts)
        assert torch.equal(ids, batch["input_ids"])
        ours = itm_match(model, tokens, ids, mask).logits
        cosines = itc_scores(model, query_states(model, tokens), ids, mask)
    torch.testing.assert_close(ours, itm, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cosines, itc, atol=1e-5, rtol=1e-5)
    assert itm.std() > 0


def test_the_processor_gives_the_pictures_of_training(run, loaded):
    scenes = dev_scenes(run)
    pixels = loaded[1](images=list(scenes.pictures[:2]), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, scenes.pixels(slice(0, 2)), atol=1e-5, rtol=0)


def test_the_gradient_of_the_reward_reaches_the_pixels(run, loaded):
    model, processor = loaded
    pixels = dev_scenes(run).pixels(slice(0, 2)).requires_grad_()
    ids, mask = evaluator.tokenize(processor, ["two red circles", "one square"])
    tokens = model.vision_model(pixels).last_hidden_state
    itm_match(model, tokens, ids, mask).logits[:, 1].sum().backward()
    assert pixels.grad is not None
    assert torch.isfinite(pixels.grad).all()
    assert (pixels.grad.flatten(1).norm(dim=1) > 0).all()


def test_what_is_saved_is_what_was_trained(run, tmp_path):
    folder = run.weights / "evaluator"
    files = list(folder.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 5_000_000
    tensors = load_file(files[0])
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    trained = load_file(run.work / "evaluator.safetensors")
    for name, value in tensors.items():
        assert torch.equal(value, trained[f"module.model.{name}"].half()), name
    model = Blip2ForImageTextRetrieval.from_pretrained(folder)
    assert model.config.image_token_index is None
    model.save_pretrained(tmp_path)
    again = load_file(tmp_path / files[0].name)
    assert all(torch.equal(again[name].half(), value) for name, value in tensors.items())
    processor = Blip2Processor.from_pretrained(folder)
    text = "three black crosses touching."
    assert processor.tokenizer(text) == evaluator.build_processor().tokenizer(text)


def test_figures_are_samples_by_attribute_and_repeatable(run):
    figures = evaluator.evaluate_evaluator(run, DEV_SEED, 40)
    judged = (*ATTRIBUTES, *SWAPS)
    assert set(figures) == {f"{kind}{a}" for kind in ("", "itc_") for a in judged}
    for attribute in judged:
        assert set(figures[attribute]) <= {0, 1}
        assert len(figures[attribute]) == len(figures[f"itc_{attribute}"]) >= 8
    again = evaluator.evaluate_evaluator(run, DEV_SEED, 40)
    assert all(np.array_equal(figures[name], again[name]) for name in figures)


@pytest.mark.parametrize("saves", [1, 5])
def test_a_killed_training_resumes_to_the_same_weights(run, tmp_path, monkeypatch, saves):
    killed = RecipeRun(tmp_path / "work", tmp_path / "weights", scale=SCALE, save_seconds=0)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "generator").symlink_to(run.weights / "generator")
    save, count = optimize._Checkpoint.save, []

    def save_then_die(checkpoint, *args):
        save(checkpoint, *args)
        count.append(checkpoint.path)
        if len(count) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimize._Checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            evaluator.train_evaluator(killed)
    assert not (killed.weights / "evaluator").exists()
    evaluator.train_evaluator(killed)
    ours, theirs = (load_file(r.weights / "evaluator" / "model.safetensors") for r in (killed, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_swap_changes_no_word_and_is_false():
    rng = np.random.default_rng(3)
    seen = dict.fromkeys(SWAPS, 0)
    for scene in islice(sample_scenes(6), 300):
        choice = draw_choice(scene, rng, partial=0.0, attributes=SWAPS)
        for what, text in choice.wrong.items():
            seen[what] += 1
            if scene.groups[0].count == scene.groups[1].count or what == "colours":
                assert sorted(text.split()) == sorted(choice.right.split())
            assert text != choice.right and any(wrong_words(choice.right, text))
            assert scene.relation is not None
        assert ("groups" in choice.wrong) == (scene.relation in DIRECTIONS)
        assert ("colours" in choice.wrong) == (len(scene.groups) == 2)
    assert min(seen.values()) > 60


def test_half_of_the_wrong_captions_of_two_groups_are_swaps():
    rng = np.random.default_rng(4)
    scenes = [s for s in islice(sample_scenes(6), 300) if s.relation in DIRECTIONS]
    batch = evaluator.CaptionBatch(scenes, rng)
    faults = [evaluator.FAULTS[fault] for fault in batch.fault.tolist() if fault]
    share = np.mean([fault in (*SWAPS, "relation") for fault in faults])
    assert 0.4 < share < 0.6
