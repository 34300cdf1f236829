"""Where the reference shows the words of its description. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hb_tta.context import SeenWord
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class FinderSpec:
    """All that decides which words are found, and where.

    Attributes:
        detector: its weights.
        box_threshold, text_threshold: least score of a box, and of a word for a box.
        most: words of a text, the best ones; 0: nobody looks.
        least_area: of a box, pixels.
        most_share: of the image that a box may have.
        dtype: numbers that the detector computes with.
    """

    detector: Weights
    box_threshold: float
    text_threshold: float
    most: int
    least_area: int
    most_share: float
    dtype: str = "float32"

    def to_json(self) -> dict[str, Any]:
        """The finder's part of a key: weights by content, and every setting."""
        return {
            "detector": self.detector.fingerprint(),
            "box_threshold": float(self.box_threshold),
            "text_threshold": float(self.text_threshold),
            "most": self.most,
            "least_area": self.least_area,
            "most_share": float(self.most_share),
            "dtype": self.dtype,
        }

    def load(self, device: str) -> Finder:
        """The detector with its weights on a device.

        Raises:
            UserError: they are missing or damaged.
        """
        return Finder(self, device)


class Finder:
    """Finds words of texts in images."""

    def __init__(self, spec: FinderSpec, device: str) -> None:
        from hb_tta.detect import Detector

        self.spec = spec
        self._detector = Detector.from_pretrained(spec.detector, device=device, dtype=spec.dtype)

    def find(self, images: Sequence[Image], texts: Sequence[str]) -> list[list[SeenWord]]:
        """The words of each text that its image shows, in the order of the text."""
        from hb_tta.detect import Filters, boxes_in

        filters = Filters(
            threshold=self.spec.box_threshold,
            text_threshold=self.spec.text_threshold,
            least_area=self.spec.least_area,
            most_share=self.spec.most_share,
            most=self.spec.most,
        )
        found = boxes_in(self._detector, images, texts, filters, heads=False)
        return [
            [SeenWord(one.word, one.start, one.end, tuple(one.box), one.score) for one in its]
            for its in found
        ]
