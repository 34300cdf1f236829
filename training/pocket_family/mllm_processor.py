"""The pocket MLLM's processor: a small byte-level BPE, LLaVA's chat template, 64 image tokens."""

from __future__ import annotations

import itertools

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from hb_tta.pocket.tasks import make_pair
from hb_tta.pocket.world import SIZE, sample_scenes
from hb_tta.training.pocket_family.mllm_lessons import (
    CATEGORIES,
    EDITION,
    Lesson,
    compound_lesson,
    description_lesson,
    open_lesson,
    tell,
    worded_lesson,
    yes_no_lessons,
)
from hb_tta.training.pocket_family.run import TRAIN_SEED, RecipeRun
from hb_tta.training.pocket_family.towers import image_processor

PATCH = 8
IMAGE_TOKENS = (SIZE // PATCH) ** 2
VOCABULARY = 1024
PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
# An answer begins on a line of its own, so its first token is "Yes" and not " Yes".
BEFORE, AFTER = f"USER: {IMAGE}\n", "\nASSISTANT:\n"
# As llava-hf's: images first, then text; a plain string, as harnesses give it, is text with its
# own "<image>\n". The tokenizer adds the BOS.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else message['role'] | upper + ':\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:\n' }}{% endif %}"
)


def make_processor(tokenizer: PreTrainedTokenizerFast | None = None) -> LlavaProcessor:
    """The processor, by default with a fresh tokenizer."""
    return LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer or make_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def kept_tokenizer(
    run: RecipeRun, stage: str, boundary: str | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer that a run made for a stage: made once, for the lessons may change after it.

    A training that goes on with another one would read every word as some other.
    """
    folder = run.work / f"{stage}_tokenizer"
    if not folder.exists():
        aside = folder.with_suffix(".aside")
        make_tokenizer(boundary).save_pretrained(aside)
        aside.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def make_tokenizer(boundary: str | None = None) -> PreTrainedTokenizerFast:
    """The byte-level BPE of the lessons and the templates, the same each time.

    Any text tokenises: what is not in the lessons falls back to bytes.

    Args:
        boundary: a token that stands around images, for processors that want one.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, IMAGE, *([boundary] if boundary else [])],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    # BOS alone: with an EOS after the prompt the model would have nothing left to say.
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left",
        extra_special_tokens={"image_token": IMAGE}
        | ({"image_boundary_token": boundary} if boundary else {}),
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _corpus(scenes: int = 400) -> list[str]:
    rng = np.random.default_rng(TRAIN_SEED)
    return [
        BEFORE.replace(IMAGE, "") + lesson.text + AFTER + lesson.answer
        for scene in itertools.islice(sample_scenes(TRAIN_SEED, edition=EDITION), scenes)
        for lesson in _lessons_of_each_kind(scene, rng)
    ]


def _lessons_of_each_kind(scene, rng: np.random.Generator) -> list[Lesson]:
    lessons = [description_lesson(scene, rng), compound_lesson(scene, rng)]
    for category in CATEGORIES:
        told = tell(scene, category, rng)
        if told is not None:
            pair = make_pair(told, category, rng, edition=EDITION)
            lessons += yes_no_lessons(pair, rng)
            lessons.append(open_lesson(told, category, rng))
            lessons += filter(None, [worded_lesson(pair, rng)])
    return lessons
