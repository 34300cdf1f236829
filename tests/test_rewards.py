"""The Multimodal Context Evaluator against the stock model, and the other rewards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import make_tokenizer
from tokenizers import processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerBase,
)

from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.rewards import (
    MultimodalContextEvaluator,
    Reward,
    get_reward,
    list_rewards,
    load_rewards,
)
from hb_tta.rewards.aesthetic import Aesthetic
from hb_tta.rewards.clip import CLIPReward
from hb_tta.rewards.defaults import default_weights
from hb_tta.rewards.pickscore import PickScore
from hb_tta.rewards.pixels import pixels_of, resized
from hb_tta.weights import Weights

TEXTS = ["two blue squares above one yellow cross", "a red circle", "yes"]


def make_bert() -> PreTrainedTokenizerBase:
    """[CLS] and [SEP] around every text, under other names."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "<s>", "sep_token": "</s>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("<s>", "</s>")],
    )
    return tokenizer


def save_evaluator(folder: Path, *, image_token_index: int | None = None) -> Path:
    """A tiny random BLIP-2 for retrieval: 32×32 pixels, 4 queries, in the hub's layout."""
    tokenizer = make_bert()
    config = Blip2Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
        },
        qformer_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "encoder_hidden_size": 32,
            "cross_attention_frequency": 1, "max_position_embeddings": 64,
            "use_qformer_text_input": True, "hidden_dropout_prob": 0.1,
        },
        num_query_tokens=4,
        image_text_hidden_size=16,
        image_token_index=image_token_index,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Blip2ForImageTextRetrieval(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    pictures = CLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, image_mean=[0.4, 0.5, 0.6]
    )
    Blip2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_evaluator(tmp_path_factory.mktemp("evaluator"))


@pytest.fixture(scope="module")
def evaluator(folder) -> MultimodalContextEvaluator:
    return MultimodalContextEvaluator.from_pretrained(Weights(str(folder)))


def some_pixels(side: int = 32, rows: int = len(TEXTS)) -> torch.Tensor:
    return torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(0))


def stock(evaluator, pixels, texts) -> tuple[torch.Tensor, torch.Tensor]:
    """Both scores by two calls of the stock model, one pair at a time: no padding."""
    model = evaluator.model
    cosines, logits = [], []
    for row, text in zip(pixels, texts, strict=True):
        ids = evaluator.tokenizer(text, return_attention_mask=True, return_tensors="pt")
        given = {
            "pixel_values": evaluator.normalize(row[None]),
            "input_ids": ids["input_ids"],
            "attention_mask": ids["attention_mask"],
        }
        cosines.append(model(**given).logits_per_image[0, 0])
        logits.append(model(**given, use_image_text_matching_head=True).logits_per_image[0, 1])
    return torch.stack(cosines), torch.stack(logits)


def test_both_rewards_equal_two_stock_calls(evaluator):
    pixels = some_pixels()
    with torch.no_grad():
        given = evaluator(pixels, evaluator.targets([], TEXTS))
        cosines, logits = stock(evaluator, pixels, TEXTS)
    torch.testing.assert_close(given["global"], cosines, rtol=0, atol=1e-5)
    torch.testing.assert_close(given["fine_grained"], logits, rtol=0, atol=1e-5)
    assert given["global"].std() > 1e-3 and given["fine_grained"].std() > 1e-3


def test_their_gradients_equal_the_stock_calls(evaluator):
    ours, theirs = (some_pixels().requires_grad_(True) for _ in range(2))
    given = evaluator(ours, evaluator.targets([], TEXTS))
    (given["global"] + 0.5 * given["fine_grained"]).sum().backward()
    cosines, logits = stock(evaluator, theirs, TEXTS)
    (cosines + 0.5 * logits).sum().backward()
    assert theirs.grad.norm() > 0
    assert (ours.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


def test_the_match_probability_is_the_softmax_of_both_logits(evaluator):
    pixels = some_pixels()
    with torch.no_grad():
        given = evaluator(pixels, evaluator.targets([], TEXTS))
        ids = evaluator.tokenizer(TEXTS[0], return_tensors="pt")
        pair = evaluator.model(
            evaluator.normalize(pixels[:1]), **ids, use_image_text_matching_head=True
        ).logits_per_image
    torch.testing.assert_close(given["match_probability"][0], pair.softmax(-1)[0, 1])
    torch.testing.assert_close(given["match_log_probability"][0], pair.log_softmax(-1)[0, 1])


def test_ids_are_whole_whatever_the_configuration_says(folder, evaluator, tmp_path):
    """The stock call drops the first ids where the configuration names an image token."""
    other = MultimodalContextEvaluator.from_pretrained(
        Weights(str(save_evaluator(tmp_path, image_token_index=7)))
    )
    pixels = some_pixels()
    with torch.no_grad():
        a = evaluator(pixels, evaluator.targets([], TEXTS))
        b = other(pixels, other.targets([], TEXTS))
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_the_vision_tower_runs_once(evaluator, monkeypatch):
    calls = []
    tower = evaluator.model.vision_model
    hook = tower.register_forward_hook(lambda *given: calls.append(1))
    with torch.no_grad():
        evaluator(some_pixels(), evaluator.targets([], TEXTS))
    hook.remove()
    assert calls == [1]


def test_a_pair_does_not_depend_on_its_batch(evaluator):
    pixels, targets = some_pixels(), evaluator.targets([], TEXTS)
    with torch.no_grad():
        together = evaluator(pixels, targets)
        alone = evaluator(pixels[1:2], {name: part[1:2] for name, part in targets.items()})
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=0, atol=1e-5)


def test_larger_images_are_resized_as_the_processor_does(evaluator):
    image = Image.effect_noise((96, 96), 80).convert("RGB")
    expected = CLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, do_normalize=False
    )(image, return_tensors="pt")["pixel_values"]
    given = resized(pixels_of([image], 96), 32).clamp(0, 1)
    assert (given - expected).abs().max() < 0.02


def test_a_text_that_is_too_long_is_told(evaluator):
    with pytest.warns(UserWarning, match="longer than the evaluator's 64 tokens"):
        targets = evaluator.targets([], ["dog " * 200])
    assert targets["evaluator_mask_BT"].sum() == 64


def test_bfloat16_leaves_the_qformer_in_float32(folder):
    evaluator = MultimodalContextEvaluator.from_pretrained(
        Weights(str(folder)), dtype=torch.bfloat16
    )
    assert evaluator.model.vision_model.dtype == torch.bfloat16
    assert evaluator.model.qformer.dtype == torch.float32
    with torch.no_grad():
        given = evaluator(some_pixels(), evaluator.targets([], TEXTS))
    assert given["global"].dtype == torch.float32


@pytest.mark.parametrize("kind", ["another architecture", "missing weights", "no model"])
def test_a_wrong_evaluator_is_one_sentence(kind, folder, tmp_path):
    if kind == "another architecture":
        config = Blip2Config.from_pretrained(folder)
        config.architectures = [Blip2ForConditionalGeneration.__name__]
        config.save_pretrained(tmp_path)
    elif kind == "missing weights":
        for file in folder.iterdir():
            if file.suffix != ".safetensors":
                (tmp_path / file.name).write_bytes(file.read_bytes())
        state = Blip2ForImageTextRetrieval.from_pretrained(folder).state_dict()
        kept = {name: tensor for name, tensor in state.items() if not name.startswith("itm_head")}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="evaluator") as raised:
        MultimodalContextEvaluator.from_pretrained(Weights(str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_the_bundled_evaluator_prefers_right_descriptions():
    """It says more of a picture's own description than of another's."""
    from itertools import islice

    from hb_tta.pocket.tasks import question_pairs
    from hb_tta.pocket.world import render

    pairs = list(islice(question_pairs("color", 77), 16))
    (evaluator,) = load_rewards(["fine_grained", "global"], get_family("pocket"))
    pixels = pixels_of([render(pair.told) for pair in pairs], 64)
    texts = [pair.description for pair in pairs]
    with torch.no_grad():
        right = evaluator(pixels, evaluator.targets([], texts))
        wrong = evaluator(pixels, evaluator.targets([], texts[1:] + texts[:1]))
    for name in ("global", "fine_grained"):
        assert right[name].mean() > wrong[name].mean() + 0.05


# ── Others ──────────────────────────────────────────────────────────────────────────────────────


def test_clip_rewards_of_the_bundled_clip():
    clip = CLIPReward.from_pretrained(get_family("pocket").weights("clip"))
    assert isinstance(clip, Reward)
    from itertools import islice

    from hb_tta.pocket.tasks import question_pairs
    from hb_tta.pocket.world import render

    images = [render(pair.told) for pair in islice(question_pairs("scene", 5), 3)]
    targets = clip.targets(images, TEXTS)
    pixels = pixels_of(images, 64).requires_grad_(True)
    given = clip(pixels, targets)
    torch.testing.assert_close(given["clip_image"], torch.ones(3), atol=1e-4, rtol=0)
    assert given["clip_text"].shape == (3,)
    given["clip_text"].sum().backward()
    assert pixels.grad.norm() > 0


def save_pickscore(folder: Path) -> Path:
    tokenizer = make_bert()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text = {
        **sizes, "vocab_size": len(tokenizer), "num_attention_heads": 4, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    vision = {**sizes, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    ).save_pretrained(folder)
    CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
    ).save_pretrained(folder)
    return folder


def test_pickscore_is_the_stock_cosine(tmp_path):
    reward = PickScore.from_pretrained(Weights(str(save_pickscore(tmp_path))))
    pixels = some_pixels()
    with torch.no_grad():
        given = reward(pixels, reward.targets([], TEXTS))["pickscore"]
        batch = reward.tokenizer(TEXTS, padding=True, return_tensors="pt")
        logits = reward.model(pixel_values=reward.normalize(pixels), **batch).logits_per_image
    expected = logits.diagonal() / reward.model.logit_scale.exp()
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


def test_an_aesthetic_predictor_is_its_tower_and_its_head(tmp_path):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        image_size=32, patch_size=8, projection_dim=16,
    )  # fmt: skip
    CLIPVisionModelWithProjection(vision).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size=32, crop_size=32).save_pretrained(tmp_path / "clip")
    head = {
        "layers.0.weight": torch.randn(4, 16), "layers.0.bias": torch.zeros(4),
        "layers.2.weight": torch.randn(1, 4), "layers.2.bias": torch.ones(1),
    }  # fmt: skip
    save_file(head, tmp_path / "head.safetensors")
    reward = Aesthetic.from_pretrained(Weights(str(tmp_path)))
    pixels = some_pixels().requires_grad_(True)
    given = reward(pixels, reward.targets([], TEXTS))["aesthetic"]
    seen = reward.features(pixels)
    expected = seen @ head["layers.0.weight"].T @ head["layers.2.weight"].T + 1
    torch.testing.assert_close(given, expected[:, 0])
    given.sum().backward()
    assert pixels.grad.norm() > 0


def test_an_aesthetic_predictor_has_no_default():
    with pytest.raises(UserError, match="reward_weights.aesthetic"):
        load_rewards(["aesthetic"], get_family("pocket"))


def test_names_of_one_judge_load_it_once():
    loaded = load_rewards(["global", "match_probability", "fine_grained"], get_family("pocket"))
    assert [type(reward) for reward in loaded] == [MultimodalContextEvaluator]


def test_rewards_of_one_class_with_different_weights_are_all_there(tmp_path):
    """CLIP's text cosine by one model, its image cosine by another: neither is dropped."""
    bundled = get_family("pocket").weights("clip")
    other = tmp_path / "clip"
    shutil.copytree(bundled.local_folder(), other)
    (file,) = other.glob("*.safetensors")
    tensors = {name: tensor.flip(0) for name, tensor in load_file(file).items()}
    save_file({name: t.contiguous() for name, t in tensors.items()}, file)
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    pixels, texts = pixels_of(images, 64) * 0.5, TEXTS[:2]

    def scores(**weights: Weights) -> dict[str, torch.Tensor]:
        judges = load_rewards(["clip_text", "clip_image"], get_family("pocket"), weights=weights)
        targets = {n: t for judge in judges for n, t in judge.targets(images, texts).items()}
        with torch.no_grad():
            return {n: s for judge in judges for n, s in judge(pixels, targets).items()}

    plain, changed = scores(), Weights(str(other))
    both = scores(clip_text=changed, clip_image=changed)
    mixed = scores(clip_image=changed)
    assert not torch.allclose(plain["clip_image"], both["clip_image"])
    assert torch.equal(mixed["clip_text"], plain["clip_text"])
    assert torch.equal(mixed["clip_image"], both["clip_image"])


def test_an_unknown_reward_lists_the_known_ones():
    with pytest.raises(UserError, match="global, fine_grained"):
        get_reward("beauty")


def test_the_default_weights_are_known_without_the_classes():
    family = get_family("pocket")
    for name in list_rewards():
        if name != "aesthetic":
            assert default_weights(name, family) == get_reward(name).default_weights(family)
    code = "import sys, hb_tta.rewards.defaults, hb_tta.rewards.registry, hb_tta.views.judges"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


def test_other_packages_add_rewards(monkeypatch):
    entry = metadata.EntryPoint("mirror", "test_rewards:Mirror", "hb_tta.rewards")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    assert get_reward("mirror") is Mirror
    assert list_rewards()[-1] == "mirror"
    wrong = metadata.EntryPoint("odd", "test_rewards:Mirror", "hb_tta.rewards")
    missing = metadata.EntryPoint("gone", "test_rewards:Gone", "hb_tta.rewards")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [wrong, missing])
    with pytest.raises(UserError, match="is no Reward"):
        get_reward("odd")
    with pytest.raises(UserError, match="does not import"):
        get_reward("gone")
    thief = metadata.EntryPoint("global", "test_rewards:Mirror", "hb_tta.rewards")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [thief])
    with pytest.raises(UserError, match="names its reward 'global' as a built-in one"):
        list_rewards()


class Mirror:
    names = ("mirror",)


def test_a_processor_of_the_hub_with_query_tokens_changes_nothing(folder, evaluator, tmp_path):
    """``num_query_tokens`` in the processor makes its own calls cut texts to nothing."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_query_tokens": 4}))
    other = MultimodalContextEvaluator.from_pretrained(Weights(str(tmp_path)))
    a, b = (judge.targets([], TEXTS)["evaluator_ids_BT"] for judge in (evaluator, other))
    assert torch.equal(a, b)
