"""Which boxes serve as crops: the paper's filters, one box a phrase, heads of persons.

Berman & Peysakhovich, MUMU (2024), section 4: crops of less than 150×150 pixels of area or more
than 75 % of the image are dropped. Boxes are kept, never crops: whoever trains cuts its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hb_tta.detect.phrases import is_person, noun_phrases
from hb_tta.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.detect.detector import Corners, Detector, Found

LEAST_AREA = 150 * 150  # pixels (section 4)
MOST_SHARE = 0.75  # of the image (section 4)
SAME = 0.7  # intersection over union: two such boxes are one thing
HEAD = "head"  # what the detector is asked for in a person's box


@dataclass(frozen=True)
class Filters:
    """What decides which boxes are kept.

    Attributes:
        threshold, text_threshold: of the detector, in [0, 1].
        least_area: of a box, in pixels.
        most_share: of a box, of the image's area, in (0, 1].
        most: boxes of an image, the surest; ``None``: all. A training draws its own three.
    """

    threshold: float = 0.35
    text_threshold: float = 0.25
    least_area: float = LEAST_AREA
    most_share: float = MOST_SHARE
    most: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Box:
    """Where a word of a caption is.

    Attributes:
        word: the phrase; ``caption[start:end]``.
        box: x0, y0, x1, y1 in pixels.
        score: the detector's, in [0, 1].
        head: of a person, where it was found.
    """

    word: str
    start: int
    end: int
    box: Corners
    score: float
    head: Corners | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, pixels to a tenth."""
        head = {} if self.head is None else {"head": _rounded(self.head)}
        return {
            "word": self.word, "start": self.start, "end": self.end, "box": _rounded(self.box),
            "score": round(self.score, 4), **head,
        }  # fmt: skip

    @classmethod
    def from_json(cls, found: Any, caption: str, size: tuple[int, int]) -> Box:
        """What ``to_json`` gave.

        Args:
            caption: that the box is of.
            size: of its image, width and height.

        Raises:
            UserError: it is damaged, or is of another caption or image.
        """
        try:
            box, head = _corners(found["box"], size), found.get("head")
            start, end = int(found["start"]), int(found["end"])
            made = cls(
                str(found["word"]), start, end, box, float(found.get("score", 1.0)),
                None if head is None else _corners(head, size),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"a box of it is damaged ({error}): write it again by `hb-tta bootstrap`"
            ) from error
        if not 0 <= start < end or caption[start:end] != made.word:
            raise UserError(
                f"its box of {made.word!r} is of other words, {caption[start:end]!r}: write it "
                "again by `hb-tta bootstrap`"
            )
        return made


def boxes_in(
    detector: Detector,
    images: Sequence[Image],
    captions: Sequence[str],
    filters: Filters | None = None,
    *,
    heads: bool = True,
) -> list[list[Box]]:
    """The boxes of each caption's words in its image, in the caption's order.

    Args:
        images: RGB, of any sizes.
        captions: one an image.
        filters: of the boxes.
        heads: whether persons' heads are looked for.
    """
    filters = filters or Filters()
    phrases = [noun_phrases(caption) for caption in captions]
    texts = [[phrase.text for phrase in some] for some in phrases]
    found = detector.find(
        images, texts, threshold=filters.threshold, text_threshold=filters.text_threshold
    )
    kept = []
    for image, some, its in zip(images, phrases, found, strict=True):
        best = one_a_phrase([one for one in its if _fits(one, image, filters)])
        boxes = [Box(*some[one.phrase], one.box, one.score) for one in best[: filters.most]]
        kept.append(sorted(boxes, key=lambda box: box.start))
    return _with_heads(detector, images, kept, filters) if heads else kept


def one_a_phrase(found: Sequence[Found]) -> list[Found]:
    """The best box of each phrase; of boxes of one thing the best. Best first, as they come."""
    kept: list[Found] = []
    for one in found:
        taken = any(one.phrase == other.phrase for other in kept)
        if not taken and all(overlap(one.box, other.box) <= SAME for other in kept):
            kept.append(one)
    return kept


def overlap(a: Corners, b: Corners) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / (area(a) + area(b) - both) if both else 0.0


def area(box: Corners) -> float:
    """In pixels."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _fits(one: Found, image: Image, filters: Filters) -> bool:
    share = area(one.box) / (image.width * image.height)
    return area(one.box) >= filters.least_area and 0 < share <= filters.most_share


def _with_heads(
    detector: Detector, images: Sequence[Image], boxes: list[list[Box]], filters: Filters
) -> list[list[Box]]:
    """Persons' boxes with the head in them, found by the same detector in the person's crop."""
    persons = [
        (row, place)
        for row, its in enumerate(boxes)
        for place, box in enumerate(its)
        if is_person(box.word)
    ]
    crops = [images[row].crop(_whole(boxes[row][place].box)) for row, place in persons]
    found = detector.find(
        crops, [[HEAD]] * len(crops), threshold=filters.threshold,
        text_threshold=filters.text_threshold,
    )  # fmt: skip
    done = [list(its) for its in boxes]
    for (row, place), its in zip(persons, found, strict=True):
        if its:
            person = boxes[row][place]
            x, y = int(person.box[0]), int(person.box[1])
            a, b, c, d = its[0].box
            head = (a + x, b + y, c + x, d + y)
            done[row][place] = Box(**{**vars(person), "head": head})
    return done


def _whole(box: Corners) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = map(int, box)
    return x0, y0, x1, y1


def _rounded(box: Corners) -> list[float]:
    return [round(corner, 1) for corner in box]


def _corners(value: Any, size: tuple[int, int]) -> Corners:
    x0, y0, x1, y1 = (float(corner) for corner in value)
    width, height = size
    if not (0 <= x0 < x1 <= width + 0.5 and 0 <= y0 < y1 <= height + 0.5):
        raise ValueError(f"{value} lies outside of the {width}×{height} image")
    return (x0, y0, x1, y1)
