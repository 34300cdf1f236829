"""Figures of whole augmentations: whether a view keeps the answer, and what it leaves free.

Kept answers are measured on views as a user gets them, from ``Augmenter``. What a caption leaves
unsaid should vary between seeds as it varies in the world; it is measured on pictures drawn from
the caption alone, for a reference's embedding is there to hold things fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from hb_tta.augment import Augmenter
from hb_tta.context import DescribedContext
from hb_tta.pocket.captions import Mention, caption
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import Reading, answer
from hb_tta.pocket.tasks import SPLITS, QuestionPair, question_pairs
from hb_tta.pocket.world import Scene, render, render_batch, sample_scenes
from hb_tta.training.pocket_family.evaluate import Figures, draw, family_of, load_reader
from hb_tta.training.pocket_family.mllm_lessons import CATEGORIES, EDITION
from hb_tta.training.pocket_family.run import RecipeRun
from hb_tta.training.pocket_family.strict_reader import read_strictly

# ── Kept answers ────────────────────────────────────────────────────────────────────────────────


def evaluate_views(
    run: RecipeRun, split: str, number: int, guidance: float, *, described: bool
) -> dict[str, Figures]:
    """Whether the reader's answer about a view equals its answer about the reference.

    Args:
        split: "dev" or "sealed": the questions are the first of ``pocket_mme``'s.
        number: references a category; each is asked two questions, and each question, as for a
            user, has its own description and its own view.
        described: the MLLM writes the description; else it is made from the scene's record.

    Returns:
        category → ``kept``, 0/1 a question, two in a row of one reference; ``chance``: the same,
        of another reference's view. A question that cannot be answered of a view is not kept.
    """
    reader = load_reader(run)
    augmenter = Augmenter.from_pretrained(
        "hummingbird", family=family_of(run, "generator", "mllm"), lora=None,
        describer=None if not described else family_of(run, "mllm").weights("mllm"),
        guidance_scale=guidance, device=run.device, dtype="float32", store=False,
    )  # fmt: skip
    return {
        category: _kept(reader, augmenter, _pairs(category, split, number), described)
        for category in CATEGORIES
    }


def _pairs(category: str, split: str, number: int) -> list[QuestionPair]:
    return list(islice(question_pairs(category, SPLITS[split], edition=EDITION), number))


def _kept(
    reader: Reader, augmenter: Augmenter, pairs: Sequence[QuestionPair], described: bool
) -> Figures:
    asked = [(pair, question) for pair in pairs for question in (pair.yes, pair.no)]
    contexts = [
        DescribedContext(render(pair.told), None if described else pair.description, question)
        for pair, question in asked
    ]
    made = augmenter.augment(contexts, n=1, seed=0, progress=False)
    questions = [question for _, question in asked]
    views = reader.read([augmentation.views[0] for augmentation in made])
    references = reader.read([context.image for context in contexts])
    others = views[2:] + views[:2]  # of the next reference, asked for by the same kind of question
    return {
        "kept": _same_answers(questions, references, views),
        "chance": _same_answers(questions, references, others),
    }


def _same_answers(
    questions: Sequence[str], references: Sequence[Reading], views: Sequence[Reading]
) -> np.ndarray:
    same = []
    for question, reference, view in zip(questions, references, views, strict=True):
        given = answer(view, question)
        same.append(given is not None and given == answer(reference, question))
    return np.array(same, np.float64)


# ── Diversity ───────────────────────────────────────────────────────────────────────────────────

SEEDS = 16
UNASKED = ("scene", "places", "sizes")
_LOOSE = Mention(background=False)


def evaluate_diversity(run: RecipeRun, seed: int, number: int, guidance: float) -> Figures:
    """How far the seeds of one caption spread, beside pictures of the world with that caption.

    The captions tell of one or two equal things and no background.

    Args:
        number: captions; each is drawn from ``SEEDS`` seeds.

    Returns:
        By caption: ``scene``, ``places``, ``sizes`` of the generated pictures, see ``spread``;
        the same of as many scenes of the world under ``world_…``.
    """
    scenes = list(islice(_simple_scenes(seed, (1, 2)), number))
    contexts = [
        DescribedContext(render(s), caption(s, _LOOSE)) for s in scenes for _ in range(SEEDS)
    ]
    pictures = draw(run, "i2t2i", guidance, contexts, seeds=np.tile(np.arange(SEEDS), number))
    reader = load_reader(run)
    drawn = [spread(reader, some) for some in np.split(pictures, number)]
    world = [spread(reader, render_batch(_alike(s, seed, i))) for i, s in enumerate(scenes)]
    return {name: np.array([s[name] for s in drawn]) for name in UNASKED} | {
        f"world_{name}": np.array([s[name] for s in world]) for name in UNASKED
    }


def _simple_scenes(seed: int, counts: Sequence[int]) -> Iterator[Scene]:
    for scene in sample_scenes(seed, edition=EDITION):
        if len(scene.groups) == 1 and scene.groups[0].count in counts:
            yield scene


def _alike(scene: Scene, seed: int, index: int) -> list[Scene]:
    """Scenes of the world with as many things: places and sizes do not depend on the looks."""
    stream = _simple_scenes(1000 * (1 + seed) + index, (scene.groups[0].count,))
    return list(islice(stream, SEEDS))


def spread(reader: Reader, pictures: np.ndarray) -> dict[str, float]:
    """How far pictures differ in what was not asked of them.

    ``scene``: the chance that two of them have different backgrounds, by the reader. ``places``:
    the standard deviation of the things' mean place, in pixels. ``sizes``: that of their mean
    radius; both by the strict reader, which measures, and NaN where it finds less than two.
    """
    backgrounds = [reading.background for reading in reader.read(pictures)]
    pairs = [a != b for i, a in enumerate(backgrounds) for b in backgrounds[:i]]
    means = np.array(
        [
            np.mean([p for group in r.places for p in group], 0)
            for r in read_strictly(pictures)
            if r.groups
        ]
    ).reshape(-1, 3)
    deviations = means.std(0, ddof=1) if len(means) > 1 else np.full(3, np.nan)
    return {
        "scene": float(np.mean(pairs)),
        "places": float(np.hypot(deviations[0], deviations[1])),
        "sizes": float(deviations[2]),
    }
