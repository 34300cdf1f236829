"""MUMU's table: what crops say beside words, what is copied that nobody asked for, by tokens.

    python -m hb_tta.experiments.mumu --mumu FOLDER --out DIR [--scenes 600] [--split dev|sealed]

Every arm draws one picture of each of the same scenes (paired), the family's reader judges: every
named colour there, each on its shape, the relation right. Beside them the filling, which only a
crop can say; which of word and crop wins where they differ; held-out looks; the ground of the
crops' scene in pictures that were asked for another; a baseline that pastes the crops. Everything
is kept in DIR; the same command again does what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.families import Family, get_family
from hb_tta.generators import build_spec
from hb_tta.metrics import bootstrap_interval, diversity, paired_test
from hb_tta.pocket.edition import BUNDLED, SECOND, THIRD, Edition
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import Reading, fillings_kept, judge
from hb_tta.pocket.tasks import SPLITS
from hb_tta.pocket.world import BACKGROUNDS, SIZE, Scene, sample_scenes
from hb_tta.report.cells import Cell, Comparison, Table
from hb_tta.weights import Weights

EDITIONS = {"bundled": BUNDLED, "second": SECOND, "third": THIRD}
JUDGED = ("colour", "bound", "position")
SEEDS = 4  # pictures of a prompt, of whose spread the diversity is the mean
STRIDE = 4  # pixels between the windows that a crop is looked for in
NEAR = 40.0  # of a ground's colour, in RGB
Figures = dict[str, list[float]]
Draw = Callable[[Sequence[Asked]], list[Image.Image]]


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing, and prints the tables."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    text = ""
    for results in carry_out(plan(options)):
        text = write_tables(options.out / f"mumu.{options.split}.md", tables(results))
    print(text)


# ── What is run ─────────────────────────────────────────────────────────────────────────────────


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run an arm, then the others."""
    study = Study(options)
    yield study.planned(_FIRST, partial(study.judged, ARMS["words"], study.by_text))
    for name, arm in ARMS.items():
        yield study.planned(f"{name}", partial(study.judged, arm, study.drawn))
    held_out = partial(study.judged, crops, study.drawn, held_out=True)
    yield study.planned("crops, held-out looks", held_out)
    by_text = partial(study.judged, ARMS["words"], study.by_text, held_out=True)
    yield study.planned(_HELD_OUT, by_text)
    yield study.planned("conflict", study.conflict)
    yield study.planned("leak", partial(study.leak, study.drawn))
    yield study.planned("leak, pasted", partial(study.leak, paste))
    yield study.planned("ground unsaid", study.ground_taken)
    yield study.planned("diversity", study.diversity)
    for tokens in options.tokens:
        draw = partial(study.drawn, tokens=tokens)
        yield study.planned(f"tokens {tokens}", partial(study.judged, crops, draw))


@dataclass
class Study:
    """The scenes, the models and the judge, each loaded when it is first needed."""

    options: argparse.Namespace

    def __post_init__(self) -> None:
        named = {"generator": self.options.generator, "mumu": str(self.options.mumu)}
        family = get_family(self.options.family)
        self.family: Family = family.with_roles(**{k: v for k, v in named.items() if v})
        self._generators: dict[int | None, Any] = {}
        self._reader: Reader | None = None
        self._judge: Any = None

    def planned(self, name: str, do: Callable[[], Any]) -> PlannedRun:
        """A run whose result is kept under everything that decides it."""
        options = self.options
        decided_by = {
            "mumu": Weights(str(options.mumu)).fingerprint(),
            "generator": self.family.weights("generator").fingerprint(),
            "scenes": options.scenes, "steps": options.steps, "guidance": options.guidance,
            "edition": options.edition, "split": options.split,
        }  # fmt: skip
        path = options.out / f"{name.replace(' ', '_')}.{options.split}.json"
        return PlannedRun(name, lambda: kept(path, decided_by, do))

    def scenes(self, *, held_out: bool = False) -> list[Scene]:
        """The same of every arm."""
        edition: Edition = EDITIONS[self.options.edition]
        stream = sample_scenes(SPLITS[self.options.split], held_out=held_out, edition=edition)
        return list(islice(stream, self.options.scenes))

    def asked(self, arm: Any, scenes: Sequence[Scene]) -> list[Asked | None]:
        """Each scene's prompt; the draws of a scene are its own."""
        return [arm(scene, np.random.default_rng([row, 7])) for row, scene in enumerate(scenes)]

    def judged(self, arm: Any, draw: Draw, *, held_out: bool = False) -> Figures:
        """0/1 a scene and attribute; −1 where the arm cannot ask the scene."""
        scenes = self.scenes(held_out=held_out)
        asked = self.asked(arm, scenes)
        there = [one for one in asked if one is not None]
        readings = iter(self.read(draw(there)))
        found: Figures = {name: [] for name in (*JUDGED, "filling")}
        for scene, one in zip(scenes, asked, strict=True):
            verdict = {} if one is None else _verdict(next(readings), one, scene)
            for name, values in found.items():
                values.append(float(verdict.get(name, -1)))
        return found

    def conflict(self) -> Figures:
        """Which wins, a group a number: 1 the crop, 0 the word, −1 neither."""
        scenes = self.scenes()
        asked = [conflict(scene, np.random.default_rng([i, 7])) for i, scene in enumerate(scenes)]
        values = {"crop": 1.0, "word": 0.0, "neither": -1.0}
        found = []
        for scene, one, reading in zip(scenes, asked, self.read(self.drawn(asked)), strict=True):
            seen = lambda shape, colour, its=reading: its.count(shape=shape, colour=colour) > 0  # noqa: E731
            found += [values[name] for name in won(scene.groups, one.scene, seen)]
        return {"crop wins": found}

    def leak(self, draw: Draw) -> Figures:
        """Of crops from another ground: its pixels in the picture; crops found again in it."""
        scenes = [scene for scene in self.scenes() if scene.lean < 0.2]
        asked = [other_scene(s, np.random.default_rng([i, 7])) for i, s in enumerate(scenes)]
        pictures = draw(asked)
        leaks = [foreign(p, str(one.ground)) for p, one in zip(pictures, asked, strict=True)]
        cosines = [self.found_again(p, one.crops) for p, one in zip(pictures, asked, strict=True)]
        right = [
            float(judge(reading, one.scene, one.mention)["bound"])
            for reading, one in zip(self.read(pictures), asked, strict=True)
        ]
        return {"foreign ground": leaks, "CLIP score": cosines, "bound": right}

    def ground_taken(self) -> Figures:
        """Of prompts that name no ground: whether it is that of the crops' scene (chance: 25 %)."""
        asked = self.asked(unsaid_ground, self.scenes())
        there = [one for one in asked if one is not None]
        readings = self.read(self.drawn(there))
        pairs = zip(readings, there, strict=True)
        return {"as in the crops": [float(r.background == one.ground) for r, one in pairs]}

    def diversity(self) -> Figures:
        """The spread of a prompt's pictures in CLIP's features, by crops and by words."""
        scenes = self.scenes()[: max(8, self.options.scenes // 10)]
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
        from hb_tta.generators.mumu.spec import PromptSpec

        if tokens not in self._generators:
            spec = PromptSpec(
                base=self.family.weights("generator"), mumu=self.family.weights("mumu"),
                tokens=tokens, height=SIZE, width=SIZE, dtype="float32",
                num_inference_steps=self.options.steps, guidance_scale=self.options.guidance,
            )  # fmt: skip
            self._generators[tokens] = spec.load(batch_size=self.options.batch_size)
        rows = [list(range(seeds)) for _ in asked]
        made = self._generators[tokens].generate([one.prompt for one in asked], rows)
        return [picture for its in made for picture in its]

    def by_text(self, asked: Sequence[Asked]) -> list[Image.Image]:
        """The words alone by the generator's own text encoders."""
        own = {"num_inference_steps": self.options.steps, "guidance_scale": self.options.guidance}
        spec = build_spec("i2t2i", self.family, own, dtype="float32")
        generator = spec.load(batch_size=self.options.batch_size)
        grey = Image.new("RGB", (SIZE, SIZE))
        contexts = [DescribedContext(grey, one.prompt.written("")) for one in asked]
        return [its[0] for its in generator.generate(contexts, [[0]] * len(contexts))]

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


def _verdict(reading: Reading, asked: Asked, scene: Scene) -> dict[str, float]:
    judged = judge(reading, asked.scene, asked.mention)
    found = {name: float(right) for name, right in judged.items()}
    shapes = all(reading.count(shape=group.shape) for group in scene.groups)
    return found | ({"filling": float(fillings_kept(reading, scene))} if shapes else {})


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


# ── Tables ──────────────────────────────────────────────────────────────────────────────────────


def tables(results: dict[str, Figures]) -> list[Table]:
    """What is there so far."""
    judged = {name: its for name, its in results.items() if "bound" in its and "colour" in its}
    names = (*JUDGED, "filling")
    rows: list[list[Cell | str]] = [
        [arm, *(_cell(its, name, judged.get(_compared(arm))) for name in names)]
        for arm, its in judged.items()
    ]
    columns = ["prompt", *names]
    made = [Table(columns, rows, title="What the picture shows of what was asked", notes=_NOTES)]
    others = {name: its for name, its in results.items() if name not in judged}
    if others:
        told: list[list[Cell | str]] = [
            [name, figure, Cell.of(bootstrap_interval(values), kind=_kind(figure))]
            for name, its in others.items()
            for figure, values in _said(its).items()
            if values
        ]
        made.append(Table(["measure", "figure", "value"], told, title="Beside it", heads=2))
    return made


_NOTES = (
    "Of scenes: every named colour is in the picture; each on its shape; the relation holds. The "
    "filling is that of the crops' scene, where the shapes are there; of three, chance is 33.",
    "Behind a value: its paired difference from the words of the same scenes by the text encoders.",
)
_FIRST, _HELD_OUT = "words, text encoders", "words, held-out looks"


def _compared(arm: str) -> str:
    """The row that asks the same scenes in words."""
    return _HELD_OUT if "held-out" in arm else _FIRST


def _cell(its: Figures, name: str, base: Figures | None) -> Cell | str:
    values = np.array(its[name])
    there = values >= 0
    if not there.any():
        return ""
    interval = bootstrap_interval(values[there])
    if base is None or its is base or name == "filling" or len(base[name]) != len(values):
        return Cell.of(interval)
    both = there & (np.array(base[name]) >= 0)
    if not both.any():
        return Cell.of(interval)
    test = paired_test(values[both], np.array(base[name])[both])
    return Cell.of(interval, Comparison.of(test, "words by the text encoders"))


def _said(its: Figures) -> Figures:
    if "crop wins" not in its:
        return its
    groups = np.array(its["crop wins"])
    return {
        "crop wins": (groups == 1).astype(float).tolist(),
        "word wins": (groups == 0).astype(float).tolist(),
    }


def _kind(figure: str) -> str:
    return "fine" if figure in ("CLIP score", "words", "crops of the scene") else "percent"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of all results")
    parser.add_argument("--mumu", type=Path, required=True, help="what a training wrote")
    parser.add_argument("--family", default="pocket")
    parser.add_argument("--generator", help="another base, in the family's place (finding 4)")
    parser.add_argument("--edition", choices=EDITIONS, default="bundled")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
