"""Prompts of CLIPs whose tokenizers and weights are not as the usual ones."""

from __future__ import annotations

import string
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from hb_tta.cli import main
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.tpt import FewShotTuner, PromptTuner
from hb_tta.tpt.encoders import DualEncoder
from hb_tta.tpt.evaluate import TptSettings
from hb_tta.tpt.models import _check_activation, load_clip
from hb_tta.tpt.prompt_learners import PromptLayout

WORDS = ["a", "photo", "of", "cat", "dog", "bird", "x", "z", ".", "very", "</s>", "[UNK]"]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}


def siglips_tokenizer(keeps_punctuation: bool = False) -> PreTrainedTokenizerFast:
    """Lower case, no punctuation, end and padding one token: as SigLIP's canonicalize leaves it."""
    made = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, "[UNK]"))
    steps: list[Any] = [normalizers.Lowercase()]
    if not keeps_punctuation:
        steps += [normalizers.Replace(mark, "") for mark in string.punctuation]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", WORDS.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="</s>", unk_token="[UNK]"
    )


def siglip(**tokenizer) -> DualEncoder:
    torch.manual_seed(0)
    text = SMALL | {"vocab_size": 20, "max_position_embeddings": 16, "projection_size": 32}
    vision = SMALL | {"image_size": 32, "patch_size": 16, "num_attention_heads": 2}
    text["num_attention_heads"] = 2
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    return DualEncoder(model, siglips_tokenizer(**tokenizer))


@pytest.mark.parametrize("keeps_punctuation", [False, True])
@pytest.mark.parametrize("prompt", ["a photo of a", "a photo", "A PHOTO, of a!"])
def test_a_learned_vector_stands_for_one_token_whatever_becomes_of_the_full_stop(
    prompt, keeps_punctuation
):
    encoder = siglip(keeps_punctuation=keeps_punctuation)
    layout = PromptLayout.of_vectors(encoder, prompt, 2)
    assert layout.learned == 1
    ids = encoder.tokenize([f"{prompt} x."])[0].tolist()
    assert ids[layout.end] == WORDS.index("x")


def test_few_shot_prompts_of_such_a_model_differ_in_their_vectors_alone():
    encoder = siglip()
    tuner = FewShotTuner(encoder, steps=2)
    assert tuner._vectors_CMW.shape[1] == 1
    features = torch.nn.functional.normalize(torch.randn(1, 4, 32), dim=-1)
    tuning = tuner.tune(features, torch.tensor([[0, 1, 0, 1]]), features[:, None])
    assert torch.isfinite(tuning.logits_BQC).all()


def test_open_clips_own_canonicalizing_tokenizer(tmp_path):
    siglips_tokenizer(keeps_punctuation=True).save_pretrained(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(
        str(tmp_path), context_length=16, clean="canonicalize"
    )
    text = {"context_length": 16, "vocab_size": 20, "width": 32, "heads": 2, "layers": 1}
    text |= {"no_causal_mask": True, "pool_type": "last"}
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    encoder = DualEncoder(CustomTextCLIP(32, vision, text), tokenizer)
    assert PromptLayout.of_vectors(encoder, "a photo of a", 2).learned == 1


def test_a_tokenizer_of_letters_has_no_place_for_a_vector():
    """One that does not know the placeholder's words makes them the same."""
    torch.manual_seed(0)
    encoder = siglip()
    encoder._tokenizer = lambda texts: torch.tensor(
        [([1] * len(text.split()) + [10] * 16)[:16] for text in texts]
    )
    with pytest.raises(UserError, match="tokens of the word 'X'"):
        PromptLayout.of_vectors(encoder, "a photo of a", 2)


# ── Names that are too long, prompts with braces ─────────────────────────────────────────────────


def long_name(words: int) -> str:
    return "very " * words + "cat"


@pytest.mark.parametrize(
    ("name", "is_cut"), [(long_name(9), False), (long_name(10), False), (long_name(11), True)]
)
def test_names_over_the_window_are_told(name, is_cut):
    """16 tokens: 4 of the prompt, the name's, and the end."""
    encoder = siglip()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PromptLayout.of_names(encoder, "a photo of a", ["dog", name])
    told = [str(one.message) for one in caught if one.category is HbTtaWarning]
    assert any("1 class names do not fit the text encoder's 16 tokens" in one for one in told) == (
        is_cut
    )


@pytest.mark.parametrize("tokenizer", [open_clip.get_tokenizer("ViT-B-32")])
def test_clips_own_tokenizer_tells_too(tokenizer):
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    encoder = DualEncoder(open_clip.CLIP(32, vision, text), tokenizer)
    fits, cut = "word " * 74 + ".", "word " * 75 + "."
    assert encoder.too_long([fits, cut, "short"]) == [cut]


@pytest.mark.parametrize("prompt", ["a photo of a {}", "a {} in a photo", "{label}", "a }"])
def test_a_prompt_with_braces_is_refused(prompt, capsys):
    with pytest.raises(UserError, match="with its braces"):
        PromptTuner(siglip(), None, ["cat", "dog"], prompt=prompt)
    with pytest.raises(UserError, match="with its braces"):
        TptSettings(prompt=prompt)
    line = ["tpt", "--task", "pocket_objects", "--family", "pocket", "--prompt", prompt]
    assert main(line) == 1 and "with its braces" in capsys.readouterr().err


# ── Activations ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["ViT-B-16:openai", "RN50:openai", "ViT-H-14-378:dfn5b", "ViT-L-14:metaclip_400m"]
)
def test_weights_of_quickgelu_are_not_run_with_gelu(name):
    architecture, tag = name.split(":")
    with pytest.raises(UserError, match=f"take {architecture}-quickgelu:{tag}"):
        load_clip(name)
    _check_activation(f"{architecture}-quickgelu", tag)


def test_every_model_of_open_clip_runs_as_trained_or_is_refused_with_one_that_does():
    refused = 0
    for architecture, tag in open_clip.list_pretrained():
        try:
            _check_activation(architecture, tag)
        except UserError as error:
            advice = str(error).split("take ")[1]
            assert tuple(advice.split(":")) in open_clip.list_pretrained()
            refused += 1
    assert 20 < refused < 60


# ── Settings of the tuner ────────────────────────────────────────────────────────────────────────

WRONG = [
    ("--lr", "inf"), ("--lr", "nan"), ("--lr", "0"), ("--lr", "-1"), ("--lr", "1e30"),
    ("--selection", "nan"), ("--selection", "inf"), ("--selection", "0"), ("--selection", "1.01"),
    ("--generated-selection", "nan"), ("--crops", "-1"), ("--crops", "1.5"), ("--steps", "0"),
    ("--batch-size", "-3"), ("--limit", "nan"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value"), WRONG)
def test_wrong_numbers_end_at_the_command_line(flag, value, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["tpt", "--task", "pocket_objects", "--family", "pocket", f"{flag}={value}"])
    assert ended.value.code == 2 and flag in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value"), WRONG[:-2])
def test_wrong_numbers_end_in_clip_benchmark_too(flag, value, capsys):
    pytest.importorskip("clip_benchmark")
    line = [
        "clip-benchmark",
        "eval",
        "--dataset",
        "cifar10",
        "--model",
        "pocket",
        f"{flag}={value}",
    ]
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 2 and flag in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [{"lr": float("inf")}, {"lr": float("nan")}, {"selection": float("nan")}, {"steps": 0},
     {"generated_selection": 0.0}, {"filter": "nothing"}, {"prompt": " "}],
)  # fmt: skip
def test_wrong_settings_in_python(settings):
    with pytest.raises(UserError, match="out of range|tune nothing|not known|prompt is empty"):
        TptSettings(**settings)


def test_no_checkout_names_a_model_without_its_activation():
    root = Path(__file__).parents[2]
    texts = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "hb_tta").rglob("*.py")]
    for path in texts:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "ViT-B-16 " not in line and "ViT-B-16:openai" not in line, path
