"""Figures of the finished MLLM, by the ordinary path: processor, chat template, greedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image

from hb_tta.context import DescribedContext
from hb_tta.describe import DescriberSpec, load_mllm
from hb_tta.pocket.captions import caption
from hb_tta.pocket.reading import Told, read_description
from hb_tta.pocket.tasks import PARTS, Sample, pocket_mme, question_pairs
from hb_tta.pocket.world import INVERSE, SIZE, Scene
from hb_tta.training.pocket_family.mllm_lessons import (
    CATEGORIES,
    EDITION,
    MME_SUFFIX,
    SINGLE_WORD,
)
from hb_tta.training.pocket_family.run import RecipeRun
from hb_tta.weights import Weights

BATCH = 50
_BLIND_SEED = 7  # a stream of questions of its own: neither a training nor an evaluation seed


def evaluate_mllm(
    run: RecipeRun, split: str, limit: int = 500, *, role: str = "mllm"
) -> dict[str, dict[str, np.ndarray]]:
    """Ask a model all of ``pocket_mme`` and have it describe.

    Args:
        split: "dev" or "sealed".
        limit: images a category.
        role: the folder of the model in ``run.weights``.

    Returns:
        category → figure → 0/1 a question, shape (2·limit,); two questions in a row share an
        image (resample images, not questions, for an interval). Figures:
        ``accuracy``: MME's own words, and the same by part, ``accuracy, worn``;
        ``single_word``: lmms-eval's default prompt;
        ``blind``: another scene's image in place of the right one; ``blank``: a grey image;
        ``description``: what the question asks about is in the context description and right by
        the scene's record (``keeps``), and the same by part; ``text alone``: the right description
        in place of the image.
    """
    folder = str(run.weights / role)
    answerer = Answerer(folder, run.device)
    describer = DescriberSpec(Weights(folder)).load(run.device)
    blank = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    figures = {}
    for category in CATEGORIES:
        samples = list(pocket_mme(split, category=category, limit=limit, edition=EDITION))
        images, answers = [sample.image for sample in samples], [s.answer for s in samples]
        questions = [sample.question for sample in samples]
        single_word = [q.replace(MME_SUFFIX, "") + SINGLE_WORD for q in questions]
        others = images[2:] + images[:2]
        contexts = [
            DescribedContext(image, None, question)
            for image, question in zip(images, questions, strict=True)
        ]
        texts = [t for some in _batches(contexts) for t in describer.describe(some)]
        right = {
            "accuracy": answerer.answer(images, questions),
            "single_word": answerer.answer(images, single_word),
            "blind": answerer.answer(others, questions),
            "blank": answerer.answer([blank] * len(images), questions),
        }
        figures[category] = {
            name: np.array([a == b for a, b in zip(given, answers, strict=True)], np.int64)
            for name, given in right.items()
        }
        kept = [keeps(text, sample) for text, sample in zip(texts, samples, strict=True)]
        figures[category]["description"] = np.array(kept, np.int64)
        for name in ("accuracy", "description"):
            for part in PARTS:
                rows = [row for row, sample in enumerate(samples) if sample.part == part]
                figures[category][f"{name}, {part}"] = figures[category][name][rows]
        if category != "style":  # no description tells a filling
            told = [f"{caption(s.scene).capitalize()}.\n{s.question}" for s in samples]
            given = answerer.answer([None] * len(told), told)
            right_words = [a == b for a, b in zip(given, answers, strict=True)]
            figures[category]["text alone"] = np.array(right_words, np.int64)
    return figures


def best_blind_accuracy(category: str, pairs: int = 2000, learnt: int = 10_000) -> float:
    """What the best model that sees no image could reach: it gives each question's usual answer.

    Args:
        pairs: question pairs that it is asked.
        learnt: other pairs, from which it has learnt what is usual.
    """
    stream = question_pairs(category, _BLIND_SEED, edition=EDITION)
    lean: Counter[str] = Counter()  # how much oftener the answer was yes
    for pair in islice(stream, learnt):
        lean.update({pair.yes: 1, pair.no: -1})
    right = 0.0
    for pair in islice(stream, pairs):
        right += _half_step(lean[pair.yes]) + _half_step(-lean[pair.no])
    return right / (2 * pairs)


def _half_step(x: int) -> float:
    return 0.5 * (1 + int(np.sign(x)))


class Answerer:
    """A chat MLLM that gives short answers, by its processor's chat template."""

    def __init__(self, folder: str, device: str = "cpu"):
        self.device = device
        self.model, self.processor = load_mllm(folder, device=device, dtype="float32")

    def answer(
        self,
        images: Sequence[Image.Image | None],
        questions: Sequence[str],
        *,
        max_new_tokens: int = 4,
    ) -> list[str]:
        """Greedy answers, one an image; all of them or none are None, where words are all."""
        pairs = list(zip(images, questions, strict=True))
        return [answer for some in _batches(pairs) for answer in self._answer(some, max_new_tokens)]

    def _answer(
        self, asked: Sequence[tuple[Image.Image | None, str]], max_new_tokens: int
    ) -> list[str]:
        conversations = [
            [
                {
                    "role": "user",
                    "content": [
                        *([{"type": "image", "image": image}] if image else []),
                        {"type": "text", "text": question},
                    ],
                }
            ]
            for image, question in asked
        ]
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        ).to(self.device)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(new, skip_special_tokens=True)


def _batches(items: Sequence) -> Iterator[Sequence]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def keeps(description: str, sample: Sample) -> bool:
    """Whether what a question asks about is in the description, and right by the scene's record.

    Existence: the shapes named are the scene's, no more and no fewer. Count and color: the group
    asked about is named once, with its number or its colour. Position: both groups are named, in
    a relation that holds. Scene: its background is named, and no other. Reasoning: both groups are
    named with their numbers. Style: the shapes, as for existence: a filling is never named.
    """
    told, scene = read_description(description), sample.scene
    asked = scene.groups[0]
    about = [group for group in told.groups if group[2] == asked.shape]
    if sample.category in ("existence", "style"):
        shapes = sorted(shape for _, _, shape in told.groups)
        return shapes == sorted(group.shape for group in scene.groups)
    if sample.category == "count":
        return len(about) == 1 and about[0][0] == asked.count
    if sample.category == "color":
        return len(about) == 1 and about[0][1] == asked.colour
    if sample.category == "scene":
        return told.backgrounds == [scene.background]
    if sample.category == "reasoning":
        counts = {shape: count for count, _, shape in told.groups}
        return len(told.groups) == 2 and all(
            counts.get(group.shape) == group.count for group in scene.groups
        )
    return _tells_relation(told, scene)


def _tells_relation(told: Told, scene: Scene) -> bool:
    if len(told.groups) != 2 or len(told.relations) != 1:
        return False
    shapes = [shape for _, _, shape in told.groups]
    right = [group.shape for group in scene.groups]
    if shapes == right:
        return told.relations == [scene.relation]
    return shapes == right[::-1] and told.relations == [INVERSE[str(scene.relation)]]
