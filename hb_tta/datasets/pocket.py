"""The pocket world's data: tasks to score, and questions about fresh scenes to train on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.datasets.samples import (
    Classification,
    Example,
    FewShot,
    HoiImage,
    HoiTask,
    LabelledImage,
    example,
)
from hb_tta.errors import UserError
from hb_tta.pocket import hoi, objects
from hb_tta.pocket.tasks import CATEGORIES, QuestionPair, question_pairs
from hb_tta.pocket.world import render

OBJECT_TASKS = tuple(objects.VARIANTS)
HOI_VARIANTS = tuple(hoi.VARIANTS)
OBJECTS, HOI_TASKS = 500, 200  # samples of a whole task
TRAINING_SEED = 40_001
"""Scenes of the pocket world that neither its models' training nor its benchmark's splits see."""


def pocket_objects(name: str, split: str, limit: int | None) -> Classification:
    """One of ``OBJECT_TASKS``, of its "dev" or "sealed" scenes."""
    samples = objects.pocket_objects(name, split, OBJECTS if limit is None else limit)
    images = [LabelledImage(sample.image, sample.label) for sample in samples]
    total = max(OBJECTS, len(images))
    return Classification(f"{name} ({split})", objects.CLASSES, images, total)


def pocket_hoi(variant: str, split: str, limit: int | None) -> FewShot:
    """One of ``HOI_VARIANTS``, of its "dev" or "sealed" scenes."""
    made = hoi.pocket_hoi(variant, split, HOI_TASKS if limit is None else limit)
    tasks = [_task(one) for one in made]
    return FewShot(f"pocket_hoi {variant} ({split})", tasks, max(HOI_TASKS, len(tasks)))


def pocket_hoi_training(limit: int) -> list[HoiTask]:
    """Tasks to train on: of scenes that no benchmark has, of what a training may see."""
    tasks = hoi.hoi_tasks(TRAINING_SEED, unseen_action=False, unseen_object=False)
    return [_task(one) for one in islice(tasks, limit)]


def _task(task: hoi.PocketHoiTask) -> HoiTask:
    def image(sample: hoi.HoiSample) -> HoiImage:
        return HoiImage(sample.image, sample.label, hoi.AGENT, sample.action, task.object)

    return HoiTask(tuple(map(image, task.supports)), tuple(map(image, task.queries)))


class PocketExamples:
    """Questions about fresh scenes, the five categories in turn.

    Every image has one question, whose answer is yes and no by turns. The description is made
    from the scene's record: it is what a describer that is told the answer should write.

    Raises:
        UserError: a file or folder is given, which would not be read.
    """

    def __init__(self, path: Path | None = None, seed: int = TRAINING_SEED) -> None:
        if path is not None:
            raise UserError(
                f"{str(path)!r} would not be read: the layout 'pocket' draws its own scenes; write "
                "the samples as a .jsonl file, or name the folder's layout with --set data_format=…"
            )
        self.seed = seed
        self._streams = {name: question_pairs(name, seed) for name in CATEGORIES}
        self._pairs: dict[str, list[QuestionPair]] = {name: [] for name in CATEGORIES}

    def fingerprint(self) -> Any:
        """The seed, and a picture of the world's rules: its first questions."""
        first = [(pair.yes, pair.description) for pair in (self._pair(row) for row in range(10))]
        return {"pocket": self.seed, "first": first}

    def size(self) -> int:
        """As many as anyone may want: more could be drawn."""
        return 100_000

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        return ((f"row {row}", row) for row in range(start, stop))

    def example(self, row: int) -> Example:
        """See ``Examples``."""
        pair = self._pair(row)
        is_yes = row // len(CATEGORIES) % 2 == 0
        question, truth = (pair.yes, "yes") if is_yes else (pair.no, "no")
        return example(render(pair.told), question, "vqa", truth, pair.description)

    def _pair(self, row: int) -> QuestionPair:
        category, number = CATEGORIES[row % len(CATEGORIES)], row // len(CATEGORIES)
        known = self._pairs[category]
        known.extend(islice(self._streams[category], max(0, number + 1 - len(known))))
        return known[number]
