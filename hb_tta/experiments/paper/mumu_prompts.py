"""What MUMU's figures ask for: scenes of the pocket world in several ways, or a file of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError
from hb_tta.experiments.reproduction import Options

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.experiments.mumu_arms import Asked
    from hb_tta.generators.mumu.prompt import Prompt
    from hb_tta.pocket.world import Scene

WORLD = "pocket_prompts"
"""The benchmark whose prompts are drawn from scenes, and whose pictures a reader can judge."""
_LOOKED_THROUGH = 400  # scenes for a few that an arm can ask
MARK = "[{}]"


@dataclass(frozen=True)
class Pictured:
    """A prompt of a figure.

    Attributes:
        prompt: words and pictures.
        told: the same in words alone.
        asked: what a right picture shows, where that is known.
    """

    prompt: Prompt
    told: str
    asked: Asked | None = None

    @property
    def written(self) -> str:
        """With the pictures' numbers in their places."""
        return numbered(self.prompt)

    @property
    def reference(self) -> Image:
        """What stands for the image of a method that is told words alone."""
        from hb_tta.pocket.world import render

        return crops_beside(self.prompt) if self.asked is None else render(self.asked.scene)


def numbered(prompt: Prompt) -> str:
    """``a [1] circle left of a [2] square``."""
    number, words = 0, []
    for part in prompt.parts:
        if isinstance(part, str):
            words.append(part)
            continue
        number += 1
        words.append(MARK.format(number))
    return " ".join(words)


def judges(options: Options) -> bool:
    """Whether there is a reader, and prompts of which it is known what they ask for."""
    return options.benchmark("prompts") == WORLD and "reader" in options.family.roles


def prompts_of(options: Options, arm: str, count: int) -> list[Pictured]:
    """The first prompts of an arm of the world, or those of a file.

    Args:
        arm: of ``mumu_arms.ARMS``, or "subjects".

    Raises:
        UserError: the file is not named, or a prompt of it cannot be read.
    """
    if options.benchmark("prompts") == WORLD:
        return _of_scenes(options, arm, count)
    return _of_file(options, count)


def _of_scenes(options: Options, arm: str, count: int) -> list[Pictured]:
    import numpy as np

    from hb_tta.experiments.mumu_arms import ARMS, other_scene
    from hb_tta.pocket.captions import caption
    from hb_tta.pocket.tasks import SPLITS
    from hb_tta.pocket.world import sample_scenes

    scenes: Sequence[Scene] = list(islice(sample_scenes(SPLITS[options.split]), _LOOKED_THROUGH))
    if arm == "subjects":
        scenes = _subjects(scenes)
    ask = other_scene if arm == "subjects" else ARMS[arm]
    # Two things are more of a prompt than one.
    both = [scene for scene in scenes if len(scene.groups) == 2]
    found: list[Pictured] = []
    for row, scene in enumerate(both):
        asked = ask(scene, np.random.default_rng([row, 7]))
        if asked is not None:
            found.append(Pictured(asked.prompt, caption(asked.scene, asked.mention), asked))
        if len(found) == count:
            break
    return found


def _subjects(scenes: Sequence[Scene]) -> list[Scene]:
    """One scene with other things in the place of its first one, all else the same."""
    from hb_tta.pocket.world import COLOURS, DIRECTIONS, SHAPES

    first = next(one for one in scenes if one.relation in DIRECTIONS)
    subject, other = first.groups
    shapes = [shape for shape in SHAPES if shape != other.shape]
    colours = [colour for colour in COLOURS if colour != other.colour]
    return [
        replace(first, groups=(replace(subject, shape=shape, colour=colour), other))
        for shape, colour in zip(shapes, colours, strict=False)
    ]


def _of_file(options: Options, count: int) -> list[Pictured]:
    from hb_tta.datasets.own import open_rows
    from hb_tta.datasets.rows import parsed
    from hb_tta.generators.mumu.prompt import parse

    named = options.data.get("prompts")
    rows = None if named is None else open_rows(named)
    if rows is None:
        raise UserError(
            'there are no prompts: write a line {"prompt": "a <img:man.png> man"} each into a '
            "file, and give it with --data prompts=FILE.jsonl"
        )
    found = []
    for row in islice(rows, count):
        columns: dict[str, Any] = dict(parsed(row.content))
        if not isinstance(columns.get("prompt"), str):
            raise UserError(f'{row.called} of {named} has no "prompt": write one in every line')
        prompt = parse(columns["prompt"], rows.root, columns.get("images"))
        found.append(Pictured(prompt, prompt.written("")))
    if not found:
        raise UserError(f"{named} has no prompt: write one a line")
    return found


def crops_beside(prompt: Prompt) -> Image:
    """The pictures of a prompt, as a page shows them."""
    from hb_tta.generators.mumu.pictures import beside

    return beside(prompt.images)
