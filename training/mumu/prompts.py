"""From a captioned image to a prompt: which crops, how they are worn, what their words still say.

Berman & Peysakhovich, sections 4 and 5: crops before their words, at most three; heads in the place
of 70 % of persons; 20 % of the crops augmented; a picture of the whole image in 30 % of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from hb_tta.detect import Box
from hb_tta.detect.phrases import is_person
from hb_tta.detect.whole import Kind
from hb_tta.generators.mumu.prompt import Prompt, crop
from hb_tta.training.mumu.data import Captioned
from hb_tta.training.mumu.recipes import MumuSettings

NOISE = 0.06  # deviation of the augmentation's noise, of the range from black to white
CUT = 0.85  # least side of what the augmentation's random crop keeps


@dataclass(frozen=True)
class Piece:
    """A piece of a prompt.

    Attributes:
        part: words or an RGB image.
        start, end: of these words in the caption; of an image, the words that it stands for, which
            the prompt leaves out (none where ``start == end``).
    """

    part: str | Image.Image
    start: int
    end: int


@dataclass(frozen=True)
class Drawn:
    """A prompt, and how it says what its caption says."""

    caption: str
    pieces: tuple[Piece, ...]

    @property
    def prompt(self) -> Prompt:
        """As the encoder takes it."""
        return Prompt(tuple(piece.part for piece in self.pieces))


def draw_prompt(
    row: Captioned,
    settings: MumuSettings,
    kinds: Mapping[str, Kind],
    rng: np.random.Generator,
) -> Drawn:
    """A prompt of a captioned image.

    Args:
        row: with its pixels.
        kinds: of pictures of the whole image, as far as they can be made.
        rng: all draws are its own.
    """
    chosen = _chosen(row.boxes, settings, rng)
    crops = [(box, _crop(row.image, box, settings, rng)) for box in chosen]
    bare = [bool(rng.random() < settings.bare_share) for _ in chosen]
    shown = [(box, its, alone) for (box, its), alone in zip(crops, bare, strict=True)]
    drawn = assemble(row.caption, shown)
    if kinds and rng.random() < settings.whole_share:
        kind = kinds[str(rng.choice(sorted(kinds)))]
        end = len(row.caption)
        more = (
            Piece(",", end, end),
            Piece(kind.make(row.image), end, end),
            Piece(kind.word, end, end),
        )
        drawn = replace(drawn, pieces=(*drawn.pieces, *more))
    return drawn


def assemble(caption: str, shown: Sequence[tuple[Box, Image.Image, bool]]) -> Drawn:
    """A caption with images before its words.

    Args:
        shown: box, image, and whether the image stands for all words of the box but the noun.
    """
    pieces: list[Piece] = []
    place = 0
    for box, image, alone in sorted(shown, key=lambda one: one[0].start):
        noun = box.end - len(box.word.split()[-1])
        resumes = noun if alone else box.start
        pieces += [*_words(caption, place, box.start), Piece(image, box.start, resumes)]
        place = resumes
    return Drawn(caption, (*pieces, *_words(caption, place, len(caption))))


def _words(caption: str, start: int, end: int) -> list[Piece]:
    """A part of the caption without blanks at its ends; nothing where there are no words."""
    text = caption[start:end]
    stripped = text.strip()
    first = start + len(text) - len(text.lstrip())
    return [Piece(stripped, first, first + len(stripped))] if stripped else []


def _chosen(boxes: Sequence[Box], settings: MumuSettings, rng: np.random.Generator) -> list[Box]:
    able = [box for box in boxes if is_person(box.word)] if settings.persons_only else list(boxes)
    order = rng.permutation(len(able))[: settings.most_crops]
    return [able[i] for i in order if rng.random() < settings.crop_share]


def _crop(
    image: Image.Image, box: Box, settings: MumuSettings, rng: np.random.Generator
) -> Image.Image:
    as_head = rng.random() < settings.head_share
    cut = crop(image, box.head if box.head is not None and as_head else box.box)
    return augmented(cut, rng) if rng.random() < settings.augmented_share else cut


def augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut, mirrored, noisy, grey: each with a chance of one half."""
    cut, mirrored, noisy, grey = rng.random(4) < 0.5
    if cut:
        width, height = (max(1, round(side * rng.uniform(CUT, 1))) for side in image.size)
        left, top = rng.integers(0, (image.width - width + 1, image.height - height + 1))
        image = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    if mirrored:
        image = ImageOps.mirror(image)
    if noisy:
        pixels = np.asarray(image, np.float32)
        noise = 255 * NOISE * rng.standard_normal(pixels.shape)
        image = Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))
    return image.convert("L").convert("RGB") if grey else image
