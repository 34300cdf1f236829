"""The pocket world's other training examples: relations of an agent, and single coloured shapes.

Fresh scenes of what trainings may see, drawn by row as ``hb_tta.datasets.pocket`` draws its
questions. The description is made from the scene's record: what a describer that is told the
answer should write.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.datasets.pocket import TRAINING_SEED
from hb_tta.datasets.samples import Example, example
from hb_tta.errors import UserError
from hb_tta.pocket.captions import Mention, caption
from hb_tta.pocket.hoi import AGENT, hoi_tasks
from hb_tta.pocket.world import Scene, render, sample_scenes

SIZE = 100_000
"""As many rows as anyone may want: more could be drawn."""


class DrawnExamples:
    """Examples of an endless stream of scenes.

    Args:
        name: of the layout.
        path: None: nothing is read.
        scenes: the stream.

    Raises:
        UserError: a file or folder is given, which would not be read.
    """

    def __init__(self, name: str, path: Path | None, scenes: Iterator[Scene]) -> None:
        if path is not None:
            raise UserError(
                f"{str(path)!r} would not be read: the layout {name!r} draws its own scenes; name "
                "the folder's layout with --set data_format=\u2026"
            )
        self.name = name
        self._stream, self._drawn = scenes, list[Scene]()

    def fingerprint(self) -> Any:
        """A picture of the world's rules: what the first scenes are called."""
        first = [self.example(row) for row in range(10)]
        return {self.name: [(one.context.guidance, one.description) for one in first]}

    def size(self) -> int:
        """See ``SIZE``."""
        return SIZE

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        return ((f"row {row}", row) for row in range(start, stop))

    def example(self, row: int) -> Example:
        """See ``Examples``."""
        self._drawn.extend(islice(self._stream, max(0, row + 1 - len(self._drawn))))
        return self.told(self._drawn[row])

    def told(self, scene: Scene) -> Example:
        """A scene with what is asked of it."""
        raise NotImplementedError


class PocketHoiExamples(DrawnExamples):
    """Positive images of few-shot tasks: "cross | circle", answered by their relation."""

    def __init__(self, path: Path | None = None, seed: int = TRAINING_SEED) -> None:
        tasks = hoi_tasks(seed, unseen_action=False, unseen_object=False)
        scenes = (sample.scene for task in tasks for sample in task.supports if not sample.label)
        super().__init__("pocket-hoi", path, scenes)

    def told(self, scene: Scene) -> Example:
        """The relation is the ground truth; the description names it and both things."""
        thing = scene.groups[1].shape
        described = caption(scene, Mention(background=False))
        guidance = f"{AGENT} | {thing}"
        return example(render(scene), guidance, "hoi", scene.relation, described)


class PocketObjectExamples(DrawnExamples):
    """Single things, as ``pocket_objects`` shows them: the class is colour and shape."""

    def __init__(self, path: Path | None = None, seed: int = TRAINING_SEED) -> None:
        scenes = (scene for scene in sample_scenes(seed) if len(scene.things) == 1)
        super().__init__("pocket-object", path, scenes)

    def told(self, scene: Scene) -> Example:
        """The class is the ground truth; the description names number, colour, shape, ground."""
        group = scene.groups[0]
        truth = f"{group.colour} {group.shape}"
        return example(render(scene), "", "object", truth, caption(scene))
