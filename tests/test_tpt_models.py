"""Prompts reach every kind of CLIP: both backends, each checked against plain texts."""

import copy

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from transformers import (
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)

from hb_tta.datasets import load_tasks
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.images import load_image
from hb_tta.tpt import FewShotTuner, PromptTuner
from hb_tta.tpt.encoders import DualEncoder
from hb_tta.tpt.models import load_clip
from hb_tta.tpt.prompt_learners import (
    PackedTextEncoder,
    PromptLayout,
    UniversalTextEncoder,
    initial_context,
    make_text_encoder,
)

NAMES = ["cat", "large grey dog", "fire_engine", "pin", "very long name of some thing"]
VISION = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def words(texts, context_length=24, start=True):
    """A tokenizer without files: a word or a full stop is a token, the end has the highest id."""
    rows = []
    for text in texts:
        ids = [1 + sum(word.encode()) % 90 for word in text.replace(".", " .").split()]
        ids = [97, *ids, 98] if start else [*ids, 98]
        rows.append((ids + [0] * context_length)[:context_length])
    return torch.tensor(rows)


def open_clip_clip():
    text = TEXT | {"vocab_size": 99}
    return open_clip.CLIP(32, VISION, text), words


def open_clip_custom():
    return CustomTextCLIP(32, VISION, TEXT | {"vocab_size": 99}), words


def open_clip_siglip():
    text = TEXT | {
        "vocab_size": 99,
        "no_causal_mask": True,
        "pool_type": "last",
        "proj_bias": True,
    }
    model = CustomTextCLIP(32, VISION, text, init_logit_bias=-10)
    return model, lambda texts: words(texts, start=False)


def transformers_config():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    text = small | {"vocab_size": 99, "max_position_embeddings": 24, "projection_size": 32}
    return {"text_config": text, "vision_config": small | {"image_size": 32, "patch_size": 16}}


def transformers_clip():
    config = transformers_config()
    config["text_config"] |= {"bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 0}
    return CLIPModel(CLIPConfig(**config, projection_dim=16)), words


def transformers_siglip():
    return SiglipModel(SiglipConfig(**transformers_config())), lambda t: words(t, start=False)


CAUSAL = [open_clip_clip, open_clip_custom, transformers_clip]
ALL = [*CAUSAL, open_clip_siglip, transformers_siglip]


@pytest.mark.parametrize("make", ALL)
def test_an_untuned_prompt_gives_the_features_of_its_text(make):
    torch.manual_seed(0)
    encoder = DualEncoder(*make())
    layout = PromptLayout.of_names(encoder, "a photo of a", NAMES)
    assert layout.context == 4
    assert layout.start == (0 if "siglip" in make.__name__ else 1)
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    plain = encoder.encode_text(encoder.tokenize(texts))
    ours = make_text_encoder(encoder, layout)
    assert ours.name == ("packed" if make in CAUSAL else "universal")
    features = ours(initial_context(encoder, layout)[None])[0]
    torch.testing.assert_close(features, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", CAUSAL)
@pytest.mark.parametrize("sequence", [1, 8, 96])
def test_the_packed_backend_equals_the_universal_one(make, sequence, monkeypatch):
    monkeypatch.setattr("hb_tta.tpt.prompt_learners._SEQUENCE", sequence)
    torch.manual_seed(0)
    encoder = DualEncoder(*make())
    layout = PromptLayout.of_names(encoder, "a photo of a", NAMES)
    context = initial_context(encoder, layout)
    contexts = (context + 0.5 * context.std() * torch.randn(3, *context.shape)).requires_grad_()
    packed = PackedTextEncoder(encoder.tower, encoder.token_embedding, layout)
    universal = UniversalTextEncoder(encoder, layout)
    target = torch.randn(3, len(NAMES), 16 if make is transformers_clip else 32)
    found = []
    for backend in (packed, universal):
        features = backend(contexts)
        (gradient,) = torch.autograd.grad((features * target).sum(), contexts)
        found.append((features.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", CAUSAL)
def test_class_vectors_take_the_place_of_a_name(make):
    torch.manual_seed(0)
    encoder = DualEncoder(*make())
    layout = PromptLayout.of_vectors(encoder, "a photo of a", 2)
    assert layout.learned == 1
    ids = encoder.tokenize(["cat", "dog"])[:, 1:2]
    vectors = encoder.token_embedding(ids)[None]
    context = initial_context(encoder, layout)[None]
    plain = encoder.encode_text(encoder.tokenize(["a photo of a cat.", "a photo of a dog."]))
    for backend in ("packed", "universal"):
        features = make_text_encoder(encoder, layout, backend)(context, vectors)
        torch.testing.assert_close(features[0], plain, atol=1e-5, rtol=0)


def test_a_tower_that_packing_does_not_fit_falls_back(monkeypatch):
    torch.manual_seed(0)
    encoder = DualEncoder(*open_clip_clip())
    layout = PromptLayout.of_names(encoder, "a photo of a", NAMES)
    with torch.no_grad():  # attention that sees the whole window
        encoder.model.attn_mask.zero_()
    with pytest.warns(UserWarning, match="slower way"):
        assert make_text_encoder(encoder, layout).name == "universal"
    with pytest.raises(UserError, match="packed prompts do not fit"):
        make_text_encoder(encoder, layout, "packed")


@pytest.mark.parametrize("make", [transformers_clip, open_clip_siglip, transformers_siglip])
def test_every_model_tunes_in_a_batch_as_alone(make):
    torch.manual_seed(0)
    ours = PromptTuner(*make(), NAMES, selection=0.5, steps=2)
    images = torch.randn(3, 6, 3, 32, 32)
    together = ours(images)
    alone = torch.cat([ours(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)
    features = ours.encoder.encode_images(images[:, :1])
    assert not torch.allclose(together, ours.zero_shot(features)[:, 0], atol=1e-4)


def test_the_bundled_clip_packs_its_prompts():
    where = f"local-dir:{get_family('pocket').weights('clip').location}"
    model = open_clip.create_model(where)
    ours = PromptTuner(
        model, open_clip.get_tokenizer(where), ["red circle", "blue square", "cross"]
    )
    assert ours.backend == "packed"
    assert torch.isfinite(ours(torch.randn(2, 3, 3, 64, 64))).all()


def test_a_model_is_frozen_but_not_changed():
    model, tokenizer = open_clip_clip()
    before = copy.deepcopy(model.state_dict())
    PromptTuner(model, tokenizer, NAMES)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_64_steps_on_a_trained_clip_do_not_depend_on_batch_or_backend():
    clip = load_clip(get_family("pocket").weights("clip"))
    tasks = load_tasks("pocket_hoi", limit=4)[0].tasks

    def features(images):
        pixels = torch.stack([clip.preprocess(load_image(image.image)) for image in images])
        return clip.encoder.encode_images(pixels)

    supports = torch.stack([features(task.supports) for task in tasks])
    queries = torch.stack([features(task.queries) for task in tasks])[:, :, None]
    labels = torch.tensor([[image.label for image in task.supports] for task in tasks])
    ours = FewShotTuner(clip.encoder)
    together = ours.tune(supports, labels, queries)
    assert together.losses_BT[:, -1].mean() < 0.2 * together.losses_BT[:, 0].mean()
    last = slice(3, 4)
    alone = ours.tune(supports[last], labels[last], queries[last])
    torch.testing.assert_close(alone.logits_BQC, together.logits_BQC[last], atol=1e-3, rtol=0)
    universal = FewShotTuner(clip.encoder, backend="universal", batch_size=3)
    other = universal.tune(supports, labels, queries)
    torch.testing.assert_close(other.logits_BQC, together.logits_BQC, atol=1e-3, rtol=0)
