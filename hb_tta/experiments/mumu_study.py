"""What MUMU's figures are made of: the same scenes asked in several ways, drawn and read.

Every arm draws one picture of each of the same scenes (paired), the family's reader judges it.
Pictures are kept in the store, figures in the study's folder: the same again does what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hb_tta.context import DescribedContext
from hb_tta.experiments.mumu_arms import (
    ARMS,
    Asked,
    conflict,
    crops,
    other_scene,
    unsaid_ground,
    won,
)
from hb_tta.experiments.plan import kept
from hb_tta.families import Family
from hb_tta.metrics import diversity
from hb_tta.pocket.edition import BUNDLED, Edition
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import Reading, fillings_kept, judge
from hb_tta.pocket.tasks import SPLITS
from hb_tta.pocket.world import BACKGROUNDS, SIZE, Scene, render, sample_scenes
from hb_tta.store import content_key

JUDGED = ("colour", "bound", "position")
NAMES = (*JUDGED, "filling")
SEEDS = 4  # pictures of a prompt, of whose spread the diversity is the mean
STRIDE = 4  # pixels between the windows that a crop is looked for in
BY_CLIP = ("leak", "diversity")  # runs that CLIP's features measure, too
NEAR = 40.0  # of a ground's colour, in RGB
Figures = dict[str, list[float]]
Draw = Callable[[Sequence[Asked]], list[Image.Image]]


@dataclass
class Study:
    """The scenes, the models and the judge, each loaded when it is first needed.

    Attributes:
        family: with the roles generator, mumu, reader and clip.
        folder: of the kept figures.
        scenes: of an arm.
        split: of ``SPLITS``.
        edition: the world that they are drawn from.
        seed: of every first picture.
        store: of pictures; None: the usual one.
        settings: of MUMU and of the text encoders' pictures: steps, guidance.
        device: where the models run.
        batch_size: pictures at once; they do not depend on it.
        quiet: no progress.
    """

    family: Family
    folder: Path
    scenes: int
    split: str = "dev"
    edition: Edition = BUNDLED
    seed: int = 0
    store: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    device: str | None = None
    batch_size: int = 32
    quiet: bool = False

    def __post_init__(self) -> None:
        self._drawers: dict[Any, Any] = {}
        self._reader: Reader | None = None
        self._judge: Any = None

    def kept(self, name: str, do: Callable[[], Figures]) -> Figures:
        """A result, kept under everything that decides it."""
        decided_by: dict[str, Any] = {
            "entry": "mumu", "format": 1, "run": name, "scenes": self.scenes, "split": self.split,
            "edition": repr(self.edition), "seed": self.seed, "mumu": self._mumu().spec.to_json(),
            "reader": self.family.weights("reader").fingerprint(),
        }  # fmt: skip
        if name.startswith(BY_CLIP):
            decided_by["clip"] = self.family.weights("clip").fingerprint()
        path = self.folder / f"{name.replace(' ', '_')}-{content_key(decided_by)[:12]}.json"
        return kept(path, decided_by, do)

    def told_scenes(self, *, held_out: bool = False) -> list[Scene]:
        """The same of every arm."""
        seed = SPLITS[self.split]
        return list(
            islice(sample_scenes(seed, held_out=held_out, edition=self.edition), self.scenes)
        )

    def asked(self, arm: Any, scenes: Sequence[Scene]) -> list[Asked | None]:
        """Each scene's prompt; the draws of a scene are its own."""
        return [arm(scene, np.random.default_rng([row, 7])) for row, scene in enumerate(scenes)]

    # ── What is measured ────────────────────────────────────────────────────────────────────────

    def judged(self, arm: Any, draw: Draw, *, held_out: bool = False) -> Figures:
        """0/1 a scene and attribute; −1 where the arm cannot ask the scene."""
        scenes = self.told_scenes(held_out=held_out)
        asked = self.asked(arm, scenes)
        there = [one for one in asked if one is not None]
        verdicts = iter(self.verdicts(there, draw(there)))
        found: Figures = {name: [] for name in NAMES}
        for one in asked:
            verdict = {} if one is None else next(verdicts)
            for name, values in found.items():
                values.append(float(verdict.get(name, -1)))
        return found

    def verdicts(
        self, asked: Sequence[Asked], pictures: Sequence[Image.Image]
    ) -> list[dict[str, float]]:
        """What is right in a picture a prompt."""
        pairs = zip(asked, self.read(pictures), strict=True)
        return [_verdict(reading, one) for one, reading in pairs]

    def conflict(self) -> Figures:
        """Which wins, a group a number: 1 the crop, 0 the word, −1 neither."""
        scenes = self.told_scenes()
        asked = [conflict(scene, np.random.default_rng([i, 7])) for i, scene in enumerate(scenes)]
        values = {"crop": 1.0, "word": 0.0, "neither": -1.0}
        found = []
        for scene, one, reading in zip(scenes, asked, self.read(self.drawn(asked)), strict=True):
            seen = lambda shape, colour, its=reading: its.count(shape=shape, colour=colour) > 0  # noqa: E731
            found += [values[name] for name in won(scene.groups, one.scene, seen)]
        return {"crop wins": found}

    def leak(self, draw: Draw) -> Figures:
        """Of crops from another ground: its pixels in the picture; crops found again in it."""
        asked = [one for one in self.asked(other_scene, self.told_scenes()) if one is not None]
        pictures = draw(asked)
        pairs = list(zip(pictures, asked, strict=True))
        return {
            "foreign ground": [foreign(picture, str(one.ground)) for picture, one in pairs],
            "CLIP score": [self.found_again(picture, one.crops) for picture, one in pairs],
            "bound": [its["bound"] for its in self.verdicts(asked, pictures)],
        }

    def ground_taken(self) -> Figures:
        """Of prompts that name no ground: whether it is that of the crops' scene (chance: 25 %)."""
        asked = self.asked(unsaid_ground, self.told_scenes())
        there = [one for one in asked if one is not None]
        pairs = zip(self.read(self.drawn(there)), there, strict=True)
        return {"as in the crops": [float(r.background == one.ground) for r, one in pairs]}

    def diversity(self) -> Figures:
        """The spread of a prompt's pictures in CLIP's features, by crops and by words."""
        scenes = self.told_scenes()[: max(8, self.scenes // 10)]
        found = {}
        for name in ("words", "crops of the scene"):
            asked = [one for one in self.asked(ARMS[name], scenes) if one is not None]
            pictures = self.drawn(asked, seeds=SEEDS)
            features = self.features(pictures).view(len(asked), SEEDS, -1).double().numpy()
            found[name] = diversity(features).tolist()
        return found

    # ── Drawing and reading ─────────────────────────────────────────────────────────────────────

    def drawn(
        self, asked: Sequence[Asked], *, tokens: int | None = None, seeds: int = 1
    ) -> list[Image.Image]:
        """Pictures of prompts by MUMU, ``seeds`` of each in a row."""
        made = self._mumu(tokens).iter_draw(
            [one.prompt for one in asked], seeds, self.seed, progress=False if self.quiet else None
        )
        return [picture for its in made for picture in its.views]

    def by_text(self, asked: Sequence[Asked]) -> list[Image.Image]:
        """The words alone by the generator's own text encoders."""
        if "words" not in self._drawers:
            from hb_tta.augment import Augmenter

            self._drawers["words"] = Augmenter.from_pretrained(
                "i2t2i", family=self.family, store=self.store, device=self.device,
                batch_size=self.batch_size, **self.settings,
            )  # fmt: skip
        # It does not look at the picture; but one that is none of the world's is warned of.
        contexts = [DescribedContext(render(a.scene), a.prompt.written("")) for a in asked]
        told = False if self.quiet else None
        made = self._drawers["words"].iter_augment(contexts, 1, self.seed, progress=told)
        return [its.views[0] for its in made]

    def _mumu(self, tokens: int | None = None) -> Any:
        if tokens not in self._drawers:
            from hb_tta.mumu import Mumu

            self._drawers[tokens] = Mumu.from_pretrained(
                self.family, store=self.store, device=self.device, batch_size=self.batch_size,
                tokens=tokens, **self.settings,
            )  # fmt: skip
        return self._drawers[tokens]

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        """By the family's reader."""
        if self._reader is None:
            self._reader = Reader.from_pretrained(self.family.weights("reader"))
        return self._reader.read(list(pictures))

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """CLIP's, of unit length."""
        from hb_tta.rewards import load_rewards
        from hb_tta.rewards.pixels import pixels_of

        if self._judge is None:
            (self._judge,) = load_rewards(["clip_image"], self.family)
        rows = [
            self._judge.features(pixels_of(pictures[first : first + 64], SIZE))
            for first in range(0, len(pictures), 64)
        ]
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=1)

    def found_again(self, picture: Image.Image, cut: Sequence[Image.Image]) -> float:
        """The multimodal CLIP score: of each crop the likest window of its size, their mean."""
        scores = []
        for image in cut:
            width, height = image.size
            corners = [
                (x, y)
                for x in range(0, SIZE - width + 1, STRIDE)
                for y in range(0, SIZE - height + 1, STRIDE)
            ]
            windows = [picture.crop((x, y, x + width, y + height)) for x, y in corners]
            seen = self.features([image, *windows])
            scores.append(float((seen[1:] @ seen[0]).max()))
        return float(np.mean(scores))


RUNS: dict[str, Callable[[Study], Figures]] = {
    "words, text encoders": lambda study: study.judged(ARMS["words"], study.by_text),
    **{
        name: lambda study, arm=arm: study.judged(arm, study.drawn)  # type: ignore[misc]
        for name, arm in ARMS.items()
    },
    "crops, held-out looks": lambda study: study.judged(crops, study.drawn, held_out=True),
    "words, held-out looks": lambda study: study.judged(
        ARMS["words"], study.by_text, held_out=True
    ),
    "conflict": Study.conflict,
    "leak": lambda study: study.leak(study.drawn),
    "leak, pasted": lambda study: study.leak(paste),
    "ground unsaid": Study.ground_taken,
    "diversity": Study.diversity,
}
"""What is measured, by name."""


def by_tokens(tokens: int) -> Callable[[Study], Figures]:
    """Crops of the scene in so many tokens each."""
    return lambda study: study.judged(crops, lambda its: study.drawn(its, tokens=tokens))


def run_on(study: Study, name: str) -> Figures:
    """One of ``RUNS``, or "tokens N", kept."""
    number = name.removeprefix("tokens ")
    do = RUNS[name] if name in RUNS else by_tokens(int(number))
    return study.kept(name, lambda: do(study))


def _verdict(reading: Reading, asked: Asked) -> dict[str, float]:
    found = {n: float(right) for n, right in judge(reading, asked.scene, asked.mention).items()}
    if all(reading.count(shape=group.shape) for group in asked.scene.groups):
        found["filling"] = float(fillings_kept(reading, asked.scene))
    return found


def paste(asked: Sequence[Asked]) -> list[Image.Image]:
    """The baseline that composes nothing: the crops side by side on the ground asked for."""
    made = []
    for one in asked:
        picture = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[one.scene.background])
        for place, image in enumerate(one.crops):
            x = (2 * place + 1) * SIZE // (2 * len(one.crops)) - image.width // 2
            picture.paste(image, (max(0, x), (SIZE - image.height) // 2))
        made.append(picture)
    return made


def foreign(picture: Image.Image, ground: str) -> float:
    """The share of pixels that have the colour of another scene's ground."""
    pixels = np.asarray(picture.convert("RGB"), np.float32).reshape(-1, 3)
    return float((np.linalg.norm(pixels - BACKGROUNDS[ground], axis=1) < NEAR).mean())
